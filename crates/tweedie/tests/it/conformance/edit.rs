//! What every inversion promises: the picture comes back under its own condition, another condition
//! changes it, rows do not know each other, and the cost is what was said before.

use tweedie::catalog::Seam;
use tweedie::denoiser::{Cond, Denoiser};
use tweedie::edit::{self, Inversion, Scene, Side, Under};
use tweedie::guide::{Cfg, Guide};
use tweedie::level::Level;
use tweedie::noise::Seeded;
use tweedie::oracle::{Gaussian, GaussianMixture};
use tweedie::prediction::Prediction;
use tweedie::process::Process;
use tweedie::run::Unwatched;
use tweedie::spec::PartSpec;
use tweedie::state::State;

use super::tiny::{Tiny, start};
use super::world::{apart, mixture, path, state};
use super::{Found, cases, ensure, hold};

const VARIANTS: &[&str] = &[
    "edict:mix=1",
    "cyclediffusion:eta=1",
    "edit-friendly:eta=0.5",
    "infedit:eta=0",
    "infedit:eta=0.5",
    "direct-inversion:held=both",
];

fn made(part: &PartSpec) -> Box<dyn Inversion> {
    part.make(edit::entries(), Seam::Edit).unwrap()
}

fn over(check: impl Fn(&PartSpec) -> Found, name: &str) {
    hold(edit::entries(), Seam::Edit, &cases(edit::entries(), VARIANTS), name, check);
}

/// From some noise to clean data.
fn levels(steps: usize) -> Vec<Level> {
    let at = |i: usize| path().at_lambda(-2.0 + 5.0 * i as f64 / steps as f64);
    (0..steps).map(at).chain([Level::CLEAN]).collect()
}

fn side(class: i64, rows: usize, weight: f64) -> Side {
    let guides: Vec<Box<dyn Guide>> =
        if weight == 1.0 { Vec::new() } else { vec![Box::new(Cfg { weight })] };
    Side { cond: Cond::of_class(vec![class; rows]), guides }
}

fn scene<'m>(
    model: &'m dyn Denoiser,
    process: &'m dyn Process,
    x0: &State,
    [source, target]: [Side; 2],
) -> Scene<'m> {
    let rows = x0.batch();
    Scene {
        model,
        process,
        levels: levels(20),
        first: 4,
        x0: x0.clone(),
        source,
        target,
        words: None,
        noise: Box::new(Seeded::new(6, rows)),
        taps: Box::new(|| Ok(Vec::new())),
        requests: (0..rows as u64).collect(),
    }
}

/// The walk under a condition, and the evaluations of both ways.
fn walked(
    part: &PartSpec,
    model: &dyn Denoiser,
    x0: &State,
    sides: [Side; 2],
    under: Under,
) -> (State, usize) {
    let process = path();
    let inverted = made(part).invert(scene(model, &process, x0, sides), &mut Unwatched).unwrap();
    let (x, cost) = inverted.walk(under, None, &mut Unwatched).unwrap();
    (x, cost.forward + inverted.cost().forward)
}

fn picture() -> State {
    state(&[vec![0.9, 0.1], vec![-0.7, 0.6], vec![-0.2, -0.8]])
}

#[test]
fn pictures_come_back() {
    let world = mixture();
    over(
        |part| {
            let sides = || [side(0, 3, 1.5), side(1, 3, 1.5)];
            let (x, _) = walked(part, &world, &picture(), sides(), Under::Source);
            let error = apart(&x, &picture());
            println!("{part}: {error:.2e}");
            ensure(error < 1e-9, || format!("comes back to {error}"))
        },
        "reconstruction",
    );
}

#[test]
fn another_condition_changes_them() {
    let world = mixture();
    over(
        |part| {
            let sides = [side(0, 3, 1.0), side(1, 3, 2.0)];
            let (x, _) = walked(part, &world, &picture(), sides, Under::Target);
            let moved = apart(&x, &picture());
            ensure(moved > 0.1 && moved < 10.0, || format!("moved by {moved}"))
        },
        "edit",
    );
}

#[test]
fn rows_do_not_know_each_other_and_the_cost_is_known() {
    let model = Tiny::new(1, Prediction::V).attending();
    over(
        |part| {
            let x0 = start(3);
            let ends = |x0: &State, from: usize| {
                let rows = x0.batch();
                let process = path();
                let sides = [side(0, rows, 1.0), side(2, rows, 2.0)];
                let mut scene = scene(&model, &process, x0, sides);
                scene.noise = Box::new(Seeded::new(6 + from as u64, rows));
                let inverted = made(part).invert(scene, &mut Unwatched).unwrap();
                let (x, cost) = inverted.walk(Under::Target, None, &mut Unwatched).unwrap();
                (x, inverted.cost().forward, cost.forward)
            };
            let (all, invert, walk) = ends(&x0, 0);
            let said = made(part).evaluations(16, 1, 2);
            if (invert, walk) != (3 * said.invert, 3 * said.walk) {
                return Err(format!("cost {invert} and {walk} for three, said {said:?} for one"));
            }
            let alone = ends(&x0.select(&[1]), 1).0;
            let error = apart(&alone, &all.select(&[1]));
            ensure(error == 0.0, || format!("alone it is {error} apart"))
        },
        "batch",
    );
}

#[test]
fn what_a_mask_keeps_stays() {
    let world = mixture();
    over(
        |part| {
            let process = path();
            let sides = [side(0, 3, 1.0), side(1, 3, 2.0)];
            let scene = scene(&world, &process, &picture(), sides);
            let inverted = made(part).invert(scene, &mut Unwatched).unwrap();
            let mask = state(&[vec![1.0, 0.0], vec![1.0, 0.0], vec![0.0, 0.0]]);
            let (x, _) = inverted.walk(Under::Target, Some(&mask), &mut Unwatched).unwrap();
            let (x, before) = (x.to_rows(), picture().to_rows());
            let kept = (x[0][1] - before[0][1]).abs().max((x[2][0] - before[2][0]).abs());
            let moved = (x[0][0] - before[0][0]).abs();
            ensure(kept < 1e-12 && moved > 1e-3, || format!("kept {kept}, moved {moved}"))
        },
        "mask",
    );
}

/// The same condition and weight on both sides leave the picture as it is, whatever eta (the paper's
/// identity).
#[test]
fn virtual_inversion_is_the_identity_between_equal_conditions() {
    let world = mixture();
    for eta in [0.0, 0.3, 1.0] {
        let part = PartSpec::named("infedit").with("eta", eta);
        let sides = [side(0, 3, 2.0), side(0, 3, 2.0)];
        let (x, _) = walked(&part, &world, &picture(), sides, Under::Target);
        assert!(apart(&x, &picture()) < 1e-12, "{eta}: {}", apart(&x, &picture()));
    }
}

/// Wu and De la Torre's noises are those that a sampler draws; Huberman-Spiegelglas et al.'s are larger,
/// and opposed from step to step: with `mean = c_t x_t` on standard normal data,
/// `var z_t = ((1 - alpha_s^2) + c_t^2 (1 - alpha_t^2)) / std_t^2` and
/// `cov(z_t, z_s) = -c_s (1 - alpha_s^2) / (std_t std_s)`, where `s` follows `t`.
#[test]
fn independent_noises_have_the_closed_form() {
    const ROWS: usize = 20_000;
    let world: GaussianMixture =
        GaussianMixture::new(vec![(1.0, Gaussian::new(vec![0.0], &[vec![1.0]]).unwrap())]).unwrap();
    let process = path();
    let draws = |way| {
        let tape = tweedie::noise::Tape::new();
        let x0 = state(&vec![vec![0.3]; ROWS]);
        let (levels, mut noise) = (levels(20), Seeded::new(9, ROWS));
        let at = levels[4].into();
        let x = process.perturb(&x0, None, &at, &mut noise).unwrap().0;
        let ddim = Box::new(tweedie::sampler::Ddim { eta: 1.0, even: false });
        let parts = tweedie::run::Parts {
            model: &world,
            process: &process,
            levels,
            sampler: Box::new(tweedie::sampler::Encode::new(ddim, x0, way, &tape)),
            guides: Vec::new(),
            taps: Vec::new(),
            noise: Box::new(noise),
            cond: Cond::default(),
            requests: (0..ROWS as u64).collect(),
        };
        let run = tweedie::run::Run::starting_at(parts, x, 4).unwrap();
        run.finish(&mut Unwatched).unwrap();
        tape.draws().iter().map(|z| z.to_rows().concat()).collect::<Vec<_>>()
    };
    let covariance = |a: &[f64], b: &[f64]| {
        let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
        let (ma, mb) = (mean(a), mean(b));
        a.iter().zip(b).map(|(x, y)| (x - ma) * (y - mb)).sum::<f64>() / a.len() as f64
    };
    // DDPM's mean of standard normal data: c_t x_t, with c_t = alpha_t / alpha_s.
    let levels = levels(20);
    let c = |t: usize| levels[t].alpha / levels[t + 1].alpha;
    let std = |t: usize| {
        let ratio = (levels[t].lambda() - levels[t + 1].lambda()).exp();
        levels[t + 1].sigma * (1.0 - ratio * ratio).sqrt()
    };
    let own = draws(tweedie::sampler::encode::Path::Posterior);
    let friendly = draws(tweedie::sampler::encode::Path::Independent);
    for t in 5..17 {
        let (z, next) = (&friendly[t - 4], &friendly[t - 3]);
        let variance = levels[t + 1].sigma.powi(2) + (c(t) * levels[t].sigma).powi(2);
        let variance = variance / std(t).powi(2);
        let cov = -c(t + 1) * levels[t + 1].sigma.powi(2) / (std(t) * std(t + 1));
        let (found, found_cov) = (covariance(z, z), covariance(z, next));
        assert!((found / variance - 1.0).abs() < 0.03, "{t}: {found} {variance}");
        assert!((found_cov - cov).abs() < 0.03 * variance, "{t}: {found_cov} {cov}");
        // Given the picture a sampler's own are of less than unit variance together with the picture,
        // and not opposed as these are.
        let own_cov = covariance(&own[t - 4], &own[t - 3]);
        assert!(own_cov.abs() < 0.1 * cov.abs(), "{t}: {own_cov} {cov}");
    }
}

#[test]
fn a_start_without_signal_is_refused_where_it_cannot_be_undone() {
    let world = mixture();
    let process = path();
    let mut scene = scene(&world, &process, &picture(), [side(0, 3, 1.0), side(1, 3, 1.0)]);
    scene.levels[4] = Level::new(1.0, 0.0, 1.0);
    let error = made(&"edict".into()).invert(scene, &mut Unwatched).err().unwrap().to_string();
    assert!(error.contains("strength below 1"), "{error}");
}
