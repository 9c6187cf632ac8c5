//! DPM-Solver of order 2 or 3 whose steps follow its own error.
//!
//! Lu et al., "DPM-Solver: A Fast ODE Solver for Diffusion Probabilistic Model Sampling in Around 10
//! Steps", 2022, [arXiv:2206.00927](https://arxiv.org/abs/2206.00927), appendix C, with the controller
//! of k-diffusion's `sample_dpm_adaptive` (Crowson 2022).
//!
//! In `y = x / alpha`, `s = sigma / alpha` and `lambda`, from `l` to `l + h`, with the noises `e` at
//! `l`, `e1` at `l + r1 h` and `e2` at `l + r2 h`:
//!
//! ```text
//! order 1:  y_1 = y - s_t (e^h - 1) e
//! order 2:  y_2 = y_1 - s_t (e^h - 1) / (2 r1) (e1 - e)
//! order 3:  y_3 = y_1 - s_t / r2 ((e^h - 1) / h - 1) (e2 - e)              r1 = 1/3, r2 = 2/3
//! error  =  root mean square of (low - high) / max(atol, rtol max(|low|, |last low|))
//! factor =  1 + atan(q - 1), q = error^-b1 error_1^-b2 error_2^-b3          taken where >= safety
//! b1 = (p + i + d) / order, b2 = -(p + 2 d) / order, b3 = d / order          h = h factor
//! ```
//!
//! A step of the grid is walked in as many of these as it needs, and each sample has steps of its own
//! length, so that none depends on its batch; samples that are done wait for the others. A grid of two
//! steps, `[noisiest, cleanest, 0]`, is k-diffusion's run. A step to clean data is the estimate, and
//! one from pure noise is DDIM's.

use serde::{Deserialize, Serialize};

use crate::catalog::{Card, Seam, defaults_of};
use crate::error::{Error, Result};
use crate::level::{Level, Levels};
use crate::noise::Noise;
use crate::prediction::{Prediction, eps_of};
use crate::process::Process;
use crate::sampler::{Claims, Entry, Eval, Sampler, Step, at_least_zero};
use crate::state::State;

pub(crate) const CARD: Card = Card {
    id: "dpm-adaptive",
    seam: Seam::Sampler,
    title: "DPM-Solver: A Fast ODE Solver for Diffusion Probabilistic Model Sampling in Around 10 Steps",
    source: "2206.00927",
    year: 2022,
    what: "solver of order 2 or 3 whose steps follow its own error",
    aliases: &["DPM adaptive", "dpm_adaptive", "k_dpm_ad"],
    ledger: "",
    parts: &[&crate::sampler::dpm_solver::CARD],
    file: file!(),
};

pub(crate) const ENTRY: Entry = Entry {
    card: &CARD,
    make: |s| Ok(Box::new(DpmAdaptive::new(s.read()?)?)),
    defaults: defaults_of::<Settings>,
    known_failures: &[("evaluations", "how many evaluations a step takes follows its error")],
};

/// The settings of the adaptive solver; the defaults are k-diffusion's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The order, 2 or 3, and evaluations a step. The default is 3.
    pub order: usize,
    /// The tolerance relative to the state. The default is 0.05.
    pub rtol: f64,
    /// The absolute tolerance. The default is 0.0078.
    pub atol: f64,
    /// The first step in log-SNR. The default is 0.05.
    pub h_init: f64,
    /// The controller's proportional coefficient, `p`. The default is 0.
    pub pcoeff: f64,
    /// The controller's integral coefficient, `i`. The default is 1.
    pub icoeff: f64,
    /// The controller's derivative coefficient, `d`. The default is 0.
    pub dcoeff: f64,
    /// The smallest factor with which a step is taken. The default is 0.81.
    pub accept_safety: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            order: 3,
            rtol: 0.05,
            atol: 0.0078,
            h_init: 0.05,
            pcoeff: 0.0,
            icoeff: 1.0,
            dcoeff: 0.0,
            accept_safety: 0.81,
        }
    }
}

/// One sample's controller.
#[derive(Clone, Copy, Debug)]
struct Control {
    h: f64,
    /// Inverse errors, the newest first.
    errors: Option<[f64; 3]>,
}

impl Control {
    /// Whether the step with this error is taken; the next has another length.
    fn takes(&mut self, error: f64, s: &Settings) -> bool {
        let order = s.order as f64;
        let inverse = 1.0 / (error + 1e-8);
        let mut errors = self.errors.unwrap_or([inverse; 3]);
        errors[0] = inverse;
        let exponents = [
            (s.pcoeff + s.icoeff + s.dcoeff) / order,
            -(s.pcoeff + 2.0 * s.dcoeff) / order,
            s.dcoeff / order,
        ];
        let q: f64 = errors.iter().zip(exponents).map(|(e, b)| e.powf(b)).product();
        let factor = 1.0 + (q - 1.0).atan();
        let taken = factor >= s.accept_safety;
        if taken {
            errors = [errors[0], errors[0], errors[1]];
        }
        self.errors = Some(errors);
        self.h *= factor;
        taken
    }
}

/// The adaptive solver.
#[derive(Clone, Debug)]
pub struct DpmAdaptive {
    settings: Settings,
    controls: Vec<Control>,
    /// The lower-order solution of the last step that was taken, in `y`.
    last: Option<State>,
}

/// More steps than this within one of the grid are a sign that no step will do.
const MOST: usize = 10_000;

impl DpmAdaptive {
    /// A solver.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`].
    pub fn new(settings: Settings) -> Result<Self> {
        let s = &settings;
        if !(2..=3).contains(&s.order) {
            let why = format!("{}, wanted 2 or 3", s.order);
            return Err(Error::setting("dpm-adaptive:order", why));
        }
        for (key, value) in [("rtol", s.rtol), ("atol", s.atol), ("h_init", s.h_init)] {
            if !(value > 0.0 && value.is_finite()) {
                let why = format!("{value}, wanted more than 0, finite");
                return Err(Error::setting(format!("dpm-adaptive:{key}"), why));
            }
        }
        for (key, value) in [("pcoeff", s.pcoeff), ("icoeff", s.icoeff), ("dcoeff", s.dcoeff)] {
            at_least_zero(&format!("dpm-adaptive:{key}"), value)?;
        }
        // The factor is below 1 + pi / 2.
        if !(s.accept_safety > 0.0 && s.accept_safety <= 1.0) {
            let why = format!("{}, wanted more than 0 and at most 1", s.accept_safety);
            return Err(Error::setting("dpm-adaptive:accept_safety", why));
        }
        Ok(Self { settings, controls: Vec::new(), last: None })
    }
}

/// The noises of states `y`, each row at its own `lambda`.
fn noises(eval: &mut dyn Eval, process: &dyn Process, y: &State, lambdas: &[f64]) -> Result<State> {
    let levels: Vec<Level> = lambdas.iter().map(|l| process.at_lambda(*l)).collect();
    let x = y.scaled_rows(&levels.iter().map(|l| l.alpha).collect::<Vec<_>>());
    let at = Levels::rows(levels);
    let x0 = eval.x0(&x, &at)?;
    Prediction::Eps.from_x0(&x0, &x, &at)
}

/// `y` with some states added, each row with a weight of its own that follows from its step.
fn added(y: &State, parts: &[(&State, &dyn Fn(f64, f64) -> f64)], steps: &[(f64, f64)]) -> State {
    parts.iter().fold(y.clone(), |sum, (state, weight)| {
        let weights: Vec<f64> =
            steps.iter().map(|(l, h)| if *h == 0.0 { 0.0 } else { weight(*l, *h) }).collect();
        sum + state.scaled_rows(&weights)
    })
}

impl DpmAdaptive {
    /// The solutions of lower and higher order after steps of `(lambda, h)`.
    fn solutions(
        &self,
        eval: &mut dyn Eval,
        process: &dyn Process,
        y: &State,
        steps: &[(f64, f64)],
    ) -> Result<(State, State)> {
        let at = |share: f64| steps.iter().map(|(l, h)| l + share * h).collect::<Vec<_>>();
        // sigma_edm after a share of the step.
        let sigma = |l: f64, h: f64| (-(l + h)).exp();
        let e = noises(eval, process, y, &at(0.0))?;
        let r1 = if self.settings.order == 3 { 1.0 / 3.0 } else { 0.5 };
        let half = |l: f64, h: f64| -sigma(l, r1 * h) * (r1 * h).exp_m1();
        let u1 = added(y, &[(&e, &half)], steps);
        let d1 = noises(eval, process, &u1, &at(r1))? - e.clone();
        let whole = |l: f64, h: f64| -sigma(l, h) * h.exp_m1();
        let second = |l: f64, h: f64| whole(l, h) / (2.0 * r1);
        let order_2 = added(y, &[(&e, &whole), (&d1, &second)], steps);
        if self.settings.order == 2 {
            return Ok((added(y, &[(&e, &whole)], steps), order_2));
        }
        let r2 = 2.0 / 3.0;
        let most = |l: f64, h: f64| -sigma(l, r2 * h) * (r2 * h).exp_m1();
        let bend =
            |l: f64, h: f64| -sigma(l, r2 * h) * (r2 / r1) * ((r2 * h).exp_m1() / (r2 * h) - 1.0);
        let u2 = added(y, &[(&e, &most), (&d1, &bend)], steps);
        let d2 = noises(eval, process, &u2, &at(r2))? - e.clone();
        let third = |l: f64, h: f64| -sigma(l, h) / r2 * (h.exp_m1() / h - 1.0);
        Ok((order_2, added(y, &[(&e, &whole), (&d2, &third)], steps)))
    }

    /// The error of each row.
    fn errors(&self, low: &State, high: &State, last: &State) -> Vec<f64> {
        let Settings { rtol, atol, .. } = self.settings;
        let (low, high, last) = (low.to_rows(), high.to_rows(), last.to_rows());
        let row = |i: usize| {
            let number = |j: usize| {
                let size = low[i][j].abs().max(last[i][j].abs());
                let off = (low[i][j] - high[i][j]) / atol.max(rtol * size);
                off * off
            };
            let sum: f64 = (0..low[i].len()).map(number).sum();
            (sum / low[i].len().max(1) as f64).sqrt()
        };
        (0..low.len()).map(row).collect()
    }
}

impl Sampler for DpmAdaptive {
    fn claims(&self) -> Claims {
        let order = self.settings.order as u8;
        Claims { order, nfe: order, first: 0, stochastic: false }
    }

    fn reset(&mut self) {
        self.controls.clear();
        self.last = None;
    }

    fn step(
        &mut self,
        eval: &mut dyn Eval,
        x: State,
        step: &Step<'_>,
        _noise: &mut dyn Noise,
    ) -> Result<State> {
        let (from, to) = (step.from, step.to);
        if step.h().is_infinite() {
            let x0 = eval.at(&x, from)?;
            let eps = eps_of(&x, &x0, from);
            return Ok(x0 * to.alpha + eps * to.sigma);
        }
        let end = to.lambda();
        let start = Control { h: self.settings.h_init, errors: None };
        self.controls.resize(x.batch(), start);
        let mut y = x * (1.0 / from.alpha);
        let mut last = self.last.take().unwrap_or_else(|| y.clone());
        let mut lambdas = vec![from.lambda(); y.batch()];
        for _ in 0..MOST {
            let walks = |l: f64| l < end - 1e-5;
            if !lambdas.iter().any(|l| walks(*l)) {
                self.last = Some(last);
                return Ok(y * to.alpha);
            }
            // A step that would leave next to nothing goes to the end.
            let length = |(l, c): (&f64, &Control)| {
                let long = if l + c.h > end - 1e-5 { end - l } else { c.h };
                (*l, if walks(*l) { long } else { 0.0 })
            };
            let steps: Vec<(f64, f64)> = lambdas.iter().zip(&self.controls).map(length).collect();
            let (low, high) = self.solutions(eval, step.process, &y, &steps)?;
            let errors = self.errors(&low, &high, &last);
            if errors.iter().any(|e| !e.is_finite()) {
                return Err(Error::unsupported("dpm-adaptive", "estimates that are finite"));
            }
            let mut taken = vec![0.0; errors.len()];
            for (i, error) in errors.iter().enumerate() {
                if steps[i].1 > 0.0 && self.controls[i].takes(*error, &self.settings) {
                    taken[i] = 1.0;
                    lambdas[i] += steps[i].1;
                }
            }
            let left: Vec<f64> = taken.iter().map(|t| 1.0 - t).collect();
            y = y.scaled_rows(&left) + high.scaled_rows(&taken);
            last = last.scaled_rows(&left) + low.scaled_rows(&taken);
        }
        let needs = format!("tolerances that steps can meet; {MOST} of them did not");
        Err(Error::unsupported("dpm-adaptive", needs))
    }

    fn fork(&self) -> Box<dyn Sampler> {
        Box::new(self.clone())
    }

    fn select(&mut self, rows: &[usize]) {
        if !self.controls.is_empty() {
            self.controls = rows.iter().map(|&r| self.controls[r]).collect();
        }
        self.last = self.last.take().map(|last| last.select(rows));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampler::testing::walk;

    fn formula(x: f64, s: f64) -> f64 {
        (0.9 * x / (1.0 + s * s).sqrt() + 0.3 * s.cos()).tanh()
    }

    fn end(settings: Settings) -> f64 {
        walk(&mut DpmAdaptive::new(settings).unwrap(), &[6.0, 0.1], 4.2, &formula)
    }

    #[test]
    fn the_ends_are_comfyuis() {
        // ComfyUI (October 2025), sample_dpm_adaptive from 6 to 0.1: as it is, of order 2, and with a
        // controller that looks back.
        let plain = Settings::default();
        let second = Settings { order: 2, rtol: 0.01, ..plain.clone() };
        let (pcoeff, icoeff, dcoeff) = (0.2, 0.6, 0.1);
        let back = Settings { pcoeff, icoeff, dcoeff, h_init: 1.5, ..plain.clone() };
        for (settings, wanted) in [plain, second, back].into_iter().zip(COMFYUI) {
            let found = end(settings);
            assert!((found - wanted).abs() < 1e-7, "{found} {wanted}");
        }
    }

    const COMFYUI: [f64; 3] = [0.815_427_447_784_592, 0.817_680_355_206_583, 0.816_476_160_428_751];

    #[test]
    fn the_error_falls_with_the_tolerance() {
        let of = |tol: f64| end(Settings { rtol: tol, atol: 0.1 * tol, ..Settings::default() });
        let exact = of(1e-9);
        let [coarse, fine] = [1e-2, 1e-5].map(|tol| (of(tol) - exact).abs());
        assert!(coarse < 1e-3 && fine < 0.1 * coarse, "{coarse:e} {fine:e}");
    }

    #[test]
    fn bad_settings_are_refused() {
        for bad in [
            Settings { order: 1, ..Settings::default() },
            Settings { rtol: 0.0, ..Settings::default() },
            Settings { accept_safety: 1.5, ..Settings::default() },
            Settings { icoeff: f64::NAN, ..Settings::default() },
        ] {
            assert!(DpmAdaptive::new(bad).is_err());
        }
    }
}
