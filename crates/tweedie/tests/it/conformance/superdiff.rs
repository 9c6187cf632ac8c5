//! Superposition on a mixture with classes, where every density is known.

use tweedie::denoiser::{Cond, Pass};
use tweedie::guide::superdiff::{Mode, Settings};
use tweedie::guide::{Compose, Guide, Superdiff, compose};
use tweedie::level::{Level, Levels};
use tweedie::noise::{Noise, Seeded};
use tweedie::oracle::GaussianMixture;
use tweedie::process::Process;
use tweedie::random::Key;
use tweedie::sampler::{self, Sampler};
use tweedie::state::State;

use super::world::{mixture, path, state};

const ROWS: usize = 400;

/// The guided world as a sampler sees it.
struct Asked<'a> {
    world: &'a GaussianMixture,
    guide: &'a mut dyn Guide,
}

impl sampler::Eval for Asked<'_> {
    fn x0(&mut self, x: &State, at: &Levels) -> tweedie::Result<State> {
        let mut pass = Pass::single(x.batch(), at.row(0));
        let cond = Cond::of_class(vec![0; x.batch()]);
        self.guide.x0(self.world, x, at, &cond, &mut pass)
    }
}

fn levels(steps: usize) -> Vec<Level> {
    let at = |i: usize| path().at_lambda(-3.0 + 5.0 * i as f64 / steps as f64);
    (0..=steps).map(at).collect()
}

/// The start and the end of a run of DDIM with all of the reverse SDE's noise.
fn run(guide: &mut dyn Guide, steps: usize) -> (State, State) {
    let (world, levels) = (mixture(), levels(steps));
    let mut rng = Key::new(3, 5, 0).generator();
    let start: Vec<Vec<f64>> = (0..ROWS)
        .map(|_| {
            let clean = world.sample(None, &mut rng).unwrap();
            clean.iter().map(|v| levels[0].alpha * v + levels[0].sigma * rng.normal()).collect()
        })
        .collect();
    let start = state(&start);
    let mut noise = Seeded::new(40, ROWS);
    let mut ddim = sampler::Ddim { eta: 1.0, even: false };
    let mut x = start.clone();
    for (index, pair) in levels.windows(2).enumerate() {
        let (from, to) = (pair[0], pair[1]);
        let step = sampler::Step { from, to, index, count: steps, process: &path() };
        let mut asked = Asked { world: &world, guide };
        let next = ddim.step(&mut asked, x.clone(), &step, &mut noise as &mut dyn Noise).unwrap();
        guide.stepped(from, to, &x, &next).unwrap();
        x = next;
    }
    (start, x)
}

/// `log p(x | class 0) - log p(x | class 1)` of each row.
fn gaps(x: &State, at: Level) -> Vec<f64> {
    let world = mixture();
    let log = |x: &Vec<f64>, class| world.log_density(x, at, Some(class)).unwrap();
    x.to_rows().iter().map(|x| log(x, 0) - log(x, 1)).collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn superdiff(mode: Mode) -> Superdiff {
    let settings = Settings { mode, weight: 1.0, classes: vec![1], ..Settings::default() };
    Superdiff::new(settings).unwrap()
}

#[test]
fn densities_are_followed_along_the_way() {
    let error = |steps: usize| {
        let mut guide = superdiff(Mode::Or);
        let (start, end) = run(&mut guide, steps);
        let levels = levels(steps);
        let (before, after) = (gaps(&start, levels[0]), gaps(&end, levels[steps]));
        let off = |i: usize| {
            let logs = &guide.log_densities()[i];
            ((logs[0] - logs[1]) - (after[i] - before[i])).abs()
        };
        (0..ROWS).map(off).sum::<f64>() / ROWS as f64
    };
    let errors = [100, 400, 1600].map(error);
    println!("mean error of the difference of log densities: {errors:?}");
    assert!(errors[2] < 0.1 && errors[2] < 0.5 * errors[0], "{errors:?}");
}

#[test]
fn both_conditions_become_equally_likely() {
    let end = *levels(1000).last().unwrap();
    let width = |guide: &mut dyn Guide| {
        let (_, x) = run(guide, 1000);
        median(gaps(&x, end).into_iter().map(f64::abs).collect())
    };
    let both = width(&mut superdiff(Mode::And));
    let part = |class, weight| compose::Part { weight, cond: compose::Which::Class(class) };
    let mean = width(&mut Compose::with(0.5, vec![part(1, 0.5)]).unwrap());
    println!("median difference of log densities: {both}, of the mean of both {mean}");
    assert!(both < 0.2 * mean, "{both} {mean}");
}

#[test]
fn either_condition_is_a_draw_from_the_mixture() {
    let at = *levels(1).last().unwrap();
    let (_, x) = run(&mut superdiff(Mode::Or), 1000);
    let mut counts = [0.0; 2];
    for gap in gaps(&x, at) {
        // The expected share of class 0, were the mixture the law.
        counts[0] += 1.0 / (1.0 + (-gap).exp()) / ROWS as f64;
    }
    counts[1] = 1.0 - counts[0];
    println!("shares of the conditions: {counts:?}");
    assert!((counts[0] - 0.5).abs() < 0.05, "{counts:?}");
}
