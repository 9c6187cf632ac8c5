//! Every process: monotone, invertible, with the rates of its own path.

use tweedie::catalog::Seam;
use tweedie::process::{self, Process};
use tweedie::spec::PartSpec;

use super::{Found, cases, ensure, hold};

const VARIANTS: &[&str] = &[
    "vp-table:betas=scaled-linear,beta_start=0.00085,beta_end=0.012",
    "vp-table:betas=squaredcos-cap-v2",
    "vp-table:steps=7",
    "vp-table:trained_betas=[0.1,0.2,0.4,0.7]",
    "vp-table:zero_terminal_snr=true",
    "zero-terminal-snr:steps=50",
    "flow:shift=3",
    "flow:shift=0.4",
    "vp-cosine:s=0.1",
    "edm:sigma_max=5",
];

fn over(name: &str, check: impl Fn(&dyn Process) -> Found) {
    let parts = cases(process::entries(), VARIANTS);
    hold(process::entries(), Seam::Process, &parts, name, |part: &PartSpec| {
        check(part.make(process::entries(), Seam::Process).unwrap().as_ref())
    });
}

/// Times between the ends, off the steps of any table.
fn times(process: &dyn Process) -> Vec<f64> {
    let (low, high) = process.ends();
    (0..97).map(|i| low + (high - low) * (f64::from(i) + 0.37) / 97.0).collect()
}

#[test]
fn lambda_falls_with_time_and_levels_are_finite() {
    over("lambda falls", |process| {
        let (low, high) = process.ends();
        let mut all = vec![low];
        all.extend(times(process));
        all.push(high);
        for pair in all.windows(2) {
            let (a, b) = (process.at(pair[0]), process.at(pair[1]));
            ensure(a.is_finite() && b.is_finite(), || format!("{a:?} {b:?}"))?;
            ensure(a.lambda() > b.lambda(), || format!("{} then {}", a.lambda(), b.lambda()))?;
            ensure(a.alpha >= b.alpha && a.sigma <= b.sigma, || format!("{a:?} then {b:?}"))?;
        }
        let beyond = [process.at(-1.0), process.at(2.0)];
        ensure(beyond[0] == process.at(0.0) && beyond[1] == process.at(1.0), || {
            "times outside are not clamped".into()
        })
    });
}

#[test]
fn the_time_of_lambda_inverts_the_path() {
    over("lambda inverts", |process| {
        for t in times(process) {
            let at = process.at(t);
            let back = process.t_of_lambda(at.lambda());
            ensure((back - t).abs() < 1e-9, || format!("t = {t}, back {back}"))?;
            let again = process.at_lambda(at.lambda());
            let off = (again.alpha - at.alpha).abs() + (again.sigma - at.sigma).abs();
            ensure(off < 1e-8 * (1.0 + at.sigma), || format!("{at:?} and {again:?}"))?;
        }
        for lambda in [f64::INFINITY, f64::NEG_INFINITY, 1e3, -1e3] {
            let t = process.t_of_lambda(lambda);
            ensure((0.0..=1.0).contains(&t), || format!("lambda {lambda} gives t = {t}"))?;
            ensure((t < 0.5) == (lambda > 0.0), || format!("lambda {lambda} gives t = {t}"))?;
        }
        Ok(())
    });
}

#[test]
fn rates_are_the_derivatives_of_the_path() {
    over("rates are derivatives", |process| {
        for t in times(process) {
            // Within one step of a table, whose rate jumps between steps.
            let room = process.table_steps().map_or(f64::INFINITY, |n| {
                let tau = t * n as f64;
                (tau - tau.floor()).min(tau.ceil() - tau) / n as f64
            });
            let h = (1e-6_f64).min(0.5 * room).min(0.1 * t);
            if h < 1e-7 {
                continue;
            }
            let (a, b, rate) = (process.at(t - h), process.at(t + h), process.rate(t));
            for (name, wanted, found) in [
                ("alpha", (b.alpha - a.alpha) / (2.0 * h), rate.alpha),
                ("sigma", (b.sigma - a.sigma) / (2.0 * h), rate.sigma),
                ("anchor", (b.anchor - a.anchor) / (2.0 * h), rate.anchor),
            ] {
                let off = (wanted - found).abs() / (1.0 + wanted.abs());
                ensure(off < 1e-4, || format!("{name} at {t}: {found}, by differences {wanted}"))?;
            }
        }
        Ok(())
    });
}

#[test]
fn variance_preserving_paths_preserve_it() {
    over("variance is preserved", |process| {
        let total = |t: f64| {
            let at = process.at(t);
            at.alpha * at.alpha + at.sigma * at.sigma
        };
        let claims = format!("{process:?}").to_lowercase();
        if claims.starts_with("vp") || claims.starts_with("zero") {
            for t in times(process) {
                ensure((total(t) - 1.0).abs() < 1e-14, || format!("{} at {t}", total(t)))?;
            }
        }
        Ok(())
    });
}
