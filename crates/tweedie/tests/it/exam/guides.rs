//! What awkward guides ask: a gradient through the network, the step that was taken, a network
//! perturbed for one branch.

use std::sync::{Arc, Mutex};

use tweedie::Result;
use tweedie::denoiser::{Branch, Cond, Denoiser, Pass, Row};
use tweedie::derivative::{gradient, jvp, vjp};
use tweedie::guide::Guide;
use tweedie::level::{Level, Levels};
use tweedie::process::Process;
use tweedie::run::Run;
use tweedie::state::State;
use tweedie::tap::{Features, SharedTap, Site, SiteKind, Tap};

use super::network::Tiny;
use super::world::{Cosine, Gauss, Plain, distance, finish, parts, state, uniform_lambda};

const WORLD: Gauss = Gauss { mean: 0.7, std: 0.4 };

/// Diffusion posterior sampling in small: pulls the estimate towards a measurement of the first
/// coordinate, by the gradient through the network.
#[derive(Clone, Debug)]
struct Measured {
    y: f64,
    weight: f64,
}

impl Guide for Measured {
    fn x0(
        &mut self,
        model: &dyn Denoiser,
        x: &State,
        at: &Levels,
        cond: &Cond,
        pass: &mut Pass,
    ) -> Result<State> {
        let y = self.y;
        let (x0, gradient) = gradient(model, x, at, cond, pass, |x0| {
            let first = x0.rows_tensor()?.narrow(1, 0, 1);
            Ok((first - y).powi_scalar(2))
        })?;
        Ok(x0 - gradient * self.weight)
    }

    fn fork(&self) -> Box<dyn Guide> {
        Box::new(self.clone())
    }
}

#[test]
fn a_gradient_through_the_network() {
    let x = state(&[vec![1.3, -0.4], vec![0.1, 0.9]]);
    let level = Cosine.at(0.4);
    let at = Levels::One(level);
    let mut pass = Pass::single(2, level);
    let objective = |x0: &State| Ok((x0.rows_tensor()?.narrow(1, 0, 1) - 2.0).powi_scalar(2));
    let (x0, grad) = gradient(&WORLD, &x, &at, &Cond::default(), &mut pass, objective).unwrap();
    let gain = level.alpha * 0.16 / WORLD.std_at(level).powi(2);
    let closed = |row: &Vec<f64>| vec![2.0 * (row[0] - 2.0) * gain, 0.0];
    let expected: Vec<Vec<f64>> = x0.to_rows().iter().map(closed).collect();
    assert!(distance(&grad.to_rows(), &expected) < 1e-12);
    assert_eq!((pass.cost.forward, pass.cost.backward), (2, 2));

    // Both products agree with the closed Jacobian, which is `gain` times the identity.
    let v = state(&[vec![0.3, 1.0], vec![-2.0, 0.5]]);
    let expected = (v.clone() * gain).to_rows();
    let (_, back) = vjp(&WORLD, &x, &at, &Cond::default(), &mut pass, &v).unwrap();
    assert!(distance(&back.to_rows(), &expected) < 1e-12);
    let forth = jvp(&WORLD, &x, &at, &Cond::default(), &mut pass, &v, 1e-4).unwrap();
    assert!(distance(&forth.to_rows(), &expected) < 1e-9);

    // And as a guide it moves the samples to the measurement.
    let levels = uniform_lambda(&Cosine, 0.95, 0.05, 30);
    let with = |weight: f64| {
        let mut parts = parts(&WORLD, &Cosine, levels.clone(), Plain::default(), 2);
        parts.guides.push(Box::new(Measured { y: 2.0, weight }));
        finish(Run::new(parts, x.clone()).unwrap())
    };
    let (off, on) = (with(0.0), with(0.3));
    assert!((on[0][0] - 2.0).abs() < (off[0][0] - 2.0).abs());
    assert!((on[0][1] - off[0][1]).abs() < 1e-12, "the other coordinate is left alone");
}

/// Carries a log density along the realised path: for a deterministic step the change is minus the
/// log of the step's Jacobian, here of the Gaussian's own linear step.
#[derive(Clone, Debug, Default)]
struct Density {
    log: Vec<f64>,
    seen: Vec<(f64, f64)>,
}

#[derive(Clone, Debug)]
struct Keeper(Arc<Mutex<Density>>);

impl Guide for Keeper {
    fn x0(
        &mut self,
        model: &dyn Denoiser,
        x: &State,
        at: &Levels,
        cond: &Cond,
        pass: &mut Pass,
    ) -> Result<State> {
        model.x0(x, at, cond, pass)
    }

    fn stepped(&mut self, from: Level, to: Level, before: &State, after: &State) -> Result<()> {
        let mut density = self.0.lock().unwrap();
        density.seen.push((from.t, to.t));
        let mean = |l: Level| l.alpha * WORLD.mean;
        let rows = before.to_rows().into_iter().zip(after.to_rows());
        let changes: Vec<f64> = rows
            .map(|(a, b)| {
                let one = |(a, b): (&f64, &f64)| -((b - mean(to)) / (a - mean(from))).abs().ln();
                a.iter().zip(&b).map(one).sum()
            })
            .collect();
        density.log.resize(changes.len(), 0.0);
        density.log.iter_mut().zip(changes).for_each(|(sum, change)| *sum += change);
        Ok(())
    }

    fn fork(&self) -> Box<dyn Guide> {
        Box::new(self.clone())
    }
}

#[test]
fn a_guide_that_sees_the_realised_step() {
    let levels = uniform_lambda(&Cosine, 0.9, 0.1, 200);
    let keeper = Arc::new(Mutex::new(Density::default()));
    let x = state(&[vec![1.3, -0.4], vec![0.1, 0.9]]);
    let mut parts = parts(&WORLD, &Cosine, levels.clone(), Plain::default(), 2);
    parts.guides.push(Box::new(Keeper(keeper.clone())));
    finish(Run::new(parts, x).unwrap());
    let density = keeper.lock().unwrap();
    assert_eq!(density.seen.len(), 200);
    assert!(density.seen.windows(2).all(|w| w[0].1 == w[1].0), "steps join up");
    // The change of log density of a Gaussian path is -ln(std_to / std_from) a coordinate.
    let exact = -2.0 * (WORLD.std_at(levels[200]) / WORLD.std_at(levels[0])).ln();
    assert!(density.log.iter().all(|log| (log - exact).abs() < 0.03), "{:?} {exact}", density.log);
}

/// Turns attention off: what a perturbed-attention guide lends to its weak branch.
#[derive(Debug)]
struct NoAttention;

impl Tap for NoAttention {
    fn wants(&self, site: &Site) -> bool {
        site.kind == SiteKind::Attention
    }

    fn after(&mut self, _site: &Site, rows: &[Row], output: Features) -> Result<Features> {
        assert!(rows.iter().all(|r| r.branch == Branch::Weak), "only the weak branch is perturbed");
        let mut output = output;
        let hidden = output.get("hidden")?.map(|h| h * 0.0);
        output.set("hidden", hidden);
        Ok(output)
    }
}

#[derive(Clone, Debug)]
struct Perturbed {
    weight: f64,
}

impl Guide for Perturbed {
    fn x0(
        &mut self,
        model: &dyn Denoiser,
        x: &State,
        at: &Levels,
        cond: &Cond,
        pass: &mut Pass,
    ) -> Result<State> {
        let strong = model.x0(x, at, cond, pass)?;
        let weak = pass.lend(SharedTap::new(NoAttention), |pass| {
            pass.on_branch(Branch::Weak, at, |pass| model.x0(x, at, cond, pass))
        })?;
        Ok(strong.clone() + (strong - weak) * self.weight)
    }

    fn fork(&self) -> Box<dyn Guide> {
        Box::new(self.clone())
    }
}

#[test]
fn a_pass_lent_to_a_tap() {
    let net = Tiny::new(3);
    let x = state(&[vec![1.0, 2.0, 3.0, -1.0]]);
    let level = Cosine.at(0.5);
    let ask = |weight: f64| {
        let mut pass = Pass::single(1, level);
        let mut guide = Perturbed { weight };
        let x0 = guide.x0(&net, &x, &Levels::One(level), &Cond::default(), &mut pass).unwrap();
        assert!(pass.taps().is_empty(), "the loan is returned");
        x0.to_rows()
    };
    let plain = {
        let mut pass = Pass::single(1, level);
        net.x0(&x, &Levels::One(level), &Cond::default(), &mut pass).unwrap().to_rows()
    };
    assert_eq!(ask(0.0), plain);
    assert!(distance(&ask(1.0), &plain) > 1e-3);
}
