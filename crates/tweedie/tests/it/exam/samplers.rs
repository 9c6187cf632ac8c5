//! What awkward samplers ask: history, a twin that makes the walk exactly reversible, a network
//! that is told where to go.

use tweedie::Result;
use tweedie::denoiser::{Cond, Denoiser, Pass};
use tweedie::level::{Level, Levels};
use tweedie::noise::{Noise, Silent};
use tweedie::run::{Run, Unwatched};
use tweedie::sampler::{Claims, Eval, Invert, Sampler, Step};
use tweedie::state::State;

use super::world::{Cosine, Gauss, Plain, distance, finish, parts, state, uniform_lambda};

/// Adams and Bashforth's second-order extrapolation of the noise estimate over the levels.
#[derive(Clone, Debug, Default)]
struct History {
    last: Option<State>,
}

impl Sampler for History {
    fn claims(&self) -> Claims {
        Claims { order: 1, nfe: 1, first: 0, stochastic: false }
    }

    fn reset(&mut self) {
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
        let x0 = eval.at(&x, from)?;
        let eps = (x.clone() - x0 * from.alpha) * (1.0 / from.sigma);
        let used = match self.last.replace(eps.clone()) {
            Some(last) => eps * 1.5 - last * 0.5,
            None => eps,
        };
        let stretch = to.alpha / from.alpha;
        Ok(x * stretch + used * (to.sigma - stretch * from.sigma))
    }

    fn fork(&self) -> Box<dyn Sampler> {
        Box::new(self.clone())
    }

    fn select(&mut self, rows: &[usize]) {
        self.last = self.last.as_ref().map(|s| s.select(rows));
    }
}

const WORLD: Gauss = Gauss { mean: 0.7, std: 0.4 };

fn start() -> State {
    state(&[vec![1.3, -0.4], vec![0.1, 0.9]])
}

fn exact(levels: &[Level]) -> Vec<Vec<f64>> {
    let (a, b) = (levels[0], levels[levels.len() - 1]);
    let carry = |x: &f64| {
        b.alpha * WORLD.mean + WORLD.std_at(b) / WORLD.std_at(a) * (x - a.alpha * WORLD.mean)
    };
    start().to_rows().iter().map(|row| row.iter().map(carry).collect()).collect()
}

#[test]
fn history_across_steps() {
    let levels = uniform_lambda(&Cosine, 0.9, 0.1, 40);
    let error = |sampler: Box<dyn Fn() -> Run<'static>>| {
        distance(&finish(sampler()), &exact(&uniform_lambda(&Cosine, 0.9, 0.1, 40)))
    };
    let with = {
        let levels = levels.clone();
        error(Box::new(move || {
            Run::new(parts(&WORLD, &Cosine, levels.clone(), History::default(), 2), start())
                .unwrap()
        }))
    };
    let without = {
        let levels = levels.clone();
        error(Box::new(move || {
            Run::new(parts(&WORLD, &Cosine, levels.clone(), Plain::default(), 2), start()).unwrap()
        }))
    };
    assert!(with < 0.2 * without, "history {with}, none {without}");

    // A fork carries the history; a new run forgets it.
    let mut run =
        Run::new(parts(&WORLD, &Cosine, levels.clone(), History::default(), 2), start()).unwrap();
    for _ in 0..7 {
        run.advance(&mut Unwatched).unwrap();
    }
    let fork = run.fork(1, Vec::new());
    assert_eq!(finish(fork), finish(run));
    let mut used = History { last: Some(start() * 9.0) };
    used.reset();
    let fresh = Run::new(parts(&WORLD, &Cosine, levels.clone(), History::default(), 2), start());
    let again = Run::new(parts(&WORLD, &Cosine, levels, used, 2), start());
    assert_eq!(finish(again.unwrap()), finish(fresh.unwrap()));
}

/// Two coupled states that are mixed after each step: EDICT's construction (Wallace et al. 2022).
#[derive(Clone, Debug)]
struct Twin {
    mix: f64,
    twin: Option<State>,
}

fn affine(from: Level, to: Level) -> (f64, f64) {
    let stretch = to.alpha / from.alpha;
    (stretch, to.sigma - stretch * from.sigma)
}

fn eps(eval: &mut dyn Eval, x: &State, at: Level) -> Result<State> {
    let x0 = eval.at(x, at)?;
    Ok((x.clone() - x0 * at.alpha) * (1.0 / at.sigma))
}

impl Sampler for Twin {
    fn claims(&self) -> Claims {
        Claims { order: 1, nfe: 2, first: 0, stochastic: false }
    }

    fn reset(&mut self) {
        self.twin = None;
    }

    fn step(
        &mut self,
        eval: &mut dyn Eval,
        x: State,
        step: &Step<'_>,
        _noise: &mut dyn Noise,
    ) -> Result<State> {
        let y = self.twin.take().unwrap_or_else(|| x.clone());
        let (a, b) = affine(step.from, step.to);
        let x = x * a + eps(eval, &y, step.from)? * b;
        let y = y * a + eps(eval, &x, step.from)? * b;
        let x = x * self.mix + y.clone() * (1.0 - self.mix);
        self.twin = Some(y * self.mix + x.clone() * (1.0 - self.mix));
        Ok(x)
    }

    fn fork(&self) -> Box<dyn Sampler> {
        Box::new(self.clone())
    }

    fn invertible(&mut self) -> Option<&mut dyn Invert> {
        Some(self)
    }
}

impl Invert for Twin {
    fn unstep(&mut self, eval: &mut dyn Eval, x: State, step: &Step<'_>) -> Result<State> {
        let y = self.twin.take().unwrap_or_else(|| x.clone());
        let (a, b) = affine(step.from, step.to);
        let y = (y - x.clone() * (1.0 - self.mix)) * (1.0 / self.mix);
        let x = (x - y.clone() * (1.0 - self.mix)) * (1.0 / self.mix);
        let y = (y - eps(eval, &x, step.from)? * b) * (1.0 / a);
        let x = (x - eps(eval, &y, step.from)? * b) * (1.0 / a);
        self.twin = Some(y);
        Ok(x)
    }
}

/// The world as a bare evaluation, for walking by hand.
struct Bare;

impl Eval for Bare {
    fn x0(&mut self, x: &State, at: &Levels) -> Result<State> {
        WORLD.x0(x, at, &Cond::default(), &mut Pass::single(x.batch(), at.row(0)))
    }
}

#[test]
fn two_coupled_states_and_exact_inversion() {
    let levels = uniform_lambda(&Cosine, 0.9, 0.1, 12);
    let mut sampler = Twin { mix: 0.93, twin: None };
    let mut x = start();
    let step = |index: usize| Step {
        from: levels[index],
        to: levels[index + 1],
        index,
        count: 12,
        process: &Cosine,
    };
    for index in 0..12 {
        x = sampler.step(&mut Bare, x, &step(index), &mut Silent).unwrap();
    }
    assert!(distance(&x.to_rows(), &start().to_rows()) > 0.1);
    let back = sampler.invertible().unwrap();
    for index in (0..12).rev() {
        x = back.unstep(&mut Bare, x, &step(index)).unwrap();
    }
    assert!(distance(&x.to_rows(), &start().to_rows()) < 1e-10);
    assert!(Plain::default().invertible().is_none());
}

/// A network that is told where to go: the exact probability-flow map of the Gaussian.
#[derive(Debug)]
struct Told;

impl Denoiser for Told {
    fn x0(&self, x: &State, at: &Levels, cond: &Cond, pass: &mut Pass) -> Result<State> {
        WORLD.x0(x, at, cond, pass)
    }

    fn jump(
        &self,
        x: &State,
        from: Level,
        to: Level,
        _cond: &Cond,
        pass: &mut Pass,
    ) -> Result<Option<State>> {
        pass.count_forward();
        let ratio = WORLD.std_at(to) / WORLD.std_at(from);
        let shift = WORLD.mean * (to.alpha - ratio * from.alpha);
        Ok(Some(x.map(|x| x * ratio + shift)))
    }
}

/// Jumps where the network can be told, and walks where it cannot.
#[derive(Clone, Debug)]
struct Jumper;

impl Sampler for Jumper {
    fn claims(&self) -> Claims {
        Claims { order: 1, nfe: 1, first: 0, stochastic: false }
    }

    fn step(
        &mut self,
        eval: &mut dyn Eval,
        x: State,
        step: &Step<'_>,
        noise: &mut dyn Noise,
    ) -> Result<State> {
        match eval.jump(&x, step.from, step.to)? {
            Some(there) => Ok(there),
            None => Plain::default().step(eval, x, step, noise),
        }
    }

    fn fork(&self) -> Box<dyn Sampler> {
        Box::new(self.clone())
    }
}

#[test]
fn a_network_that_is_told_where_to_go() {
    let levels = uniform_lambda(&Cosine, 0.9, 0.1, 1);
    let told = Run::new(parts(&Told, &Cosine, levels.clone(), Jumper, 2), start()).unwrap();
    let (x, cost) = told.finish(&mut Unwatched).unwrap();
    assert!(distance(&x.to_rows(), &exact(&levels)) < 1e-12);
    assert_eq!(cost.forward, 2);
    let untold = Run::new(parts(&WORLD, &Cosine, levels.clone(), Jumper, 2), start()).unwrap();
    assert!(distance(&finish(untold), &exact(&levels)) > 1e-2);
}
