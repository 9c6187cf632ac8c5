//! What awkward processes ask: a second endpoint, a prior that is not Gaussian, a level for every
//! frame or token, a level for every field.

use tweedie::Result;
use tweedie::denoiser::{Cond, Denoiser, Pass};
use tweedie::level::{Level, Levels};
use tweedie::noise::{Noise, Seeded};
use tweedie::process::{Process, Rate};
use tweedie::run::Run;
use tweedie::state::State;

use super::world::{Cosine, Gauss, Plain, distance, finish, moments, parts, state};

/// The Brownian bridge from `x0` to `y`: `x_t = (1-t) x0 + t y + sqrt(t (1-t)) eps`.
#[derive(Debug)]
struct Bridge;

impl Process for Bridge {
    fn at(&self, t: f64) -> Level {
        Level { t, alpha: 1.0 - t, anchor: t, sigma: (t * (1.0 - t)).sqrt() }
    }

    fn rate(&self, t: f64) -> Rate {
        Rate { alpha: -1.0, anchor: 1.0, sigma: (0.5 - t) / (t * (1.0 - t)).sqrt() }
    }

    fn t_of_lambda(&self, lambda: f64) -> f64 {
        1.0 / (1.0 + (2.0 * lambda).exp())
    }
}

#[test]
fn a_second_endpoint() {
    // Data N(0.7, 0.4^2) given any y: the walk from y has to end there, and the sampler, which is
    // the plain one, is not told of y.
    let world = Gauss { mean: 0.7, std: 0.4 };
    let batch = 4000;
    let levels: Vec<Level> =
        (0..=400).map(|i| Bridge.at(0.995 * (1.0 - f64::from(i) / 400.0))).collect();
    let y = state(&vec![vec![5.0, -3.0]; batch]);
    let mut parts = parts(&world, &Bridge, levels, Plain { eta: 1.0 }, batch);
    parts.cond = Cond { endpoint: Some(y.clone()), ..Cond::default() };
    let run = Run::from_prior(parts, &y.zeros_like()).unwrap();
    let (first, _) = moments(&run.x().to_rows(), 0);
    assert!((first - 0.995 * 5.0).abs() < 0.01, "starts at the other endpoint: {first}");
    let rows = finish(run);
    for coordinate in 0..2 {
        let (mean, variance) = moments(&rows, coordinate);
        assert!((mean - 0.7).abs() < 0.03, "mean {mean}");
        assert!((variance - 0.16).abs() < 0.02, "variance {variance}");
    }
}

/// Poisson flow with an extra dimension `d` (Xu et al. 2023): the noise is not Gaussian, its radius
/// follows `R^2 / sigma^2 d ~ beta-prime(n/2, d/2)`; here `d = 2`, `n = 2` where the inverse
/// distribution function is `R = sigma sqrt(2 u / (1 - u))`.
#[derive(Debug)]
struct Poisson;

impl Poisson {
    fn heavy(x: &State, sigma: f64, noise: &mut dyn Noise) -> Result<State> {
        let direction = noise.draw(x)?;
        let uniform = noise.uniform(x.batch(), 1)?;
        let radius = uniform
            .iter()
            .zip(direction.square_norms())
            .map(|(u, n)| sigma * (2.0 * u[0] / (1.0 - u[0])).sqrt() / n.sqrt());
        Ok(direction.scaled_rows(&radius.collect::<Vec<_>>()))
    }
}

impl Process for Poisson {
    fn at(&self, t: f64) -> Level {
        Level::new(t, 1.0, 10.0 * t)
    }

    fn rate(&self, _t: f64) -> Rate {
        Rate { alpha: 0.0, anchor: 0.0, sigma: 10.0 }
    }

    fn t_of_lambda(&self, lambda: f64) -> f64 {
        ((-lambda).exp() / 10.0).min(1.0)
    }

    fn prior(
        &self,
        like: &State,
        _endpoint: Option<&State>,
        at: Level,
        noise: &mut dyn Noise,
    ) -> Result<State> {
        Self::heavy(like, at.sigma, noise)
    }

    fn perturb(
        &self,
        x0: &State,
        _endpoint: Option<&State>,
        at: &Levels,
        noise: &mut dyn Noise,
    ) -> Result<(State, State)> {
        let at = at.single("poisson")?;
        let added = Self::heavy(x0, at.sigma, noise)?;
        Ok((x0.clone() + added.clone(), added))
    }
}

#[test]
fn a_prior_that_is_not_gaussian() {
    let batch = 4000;
    let like = state(&vec![vec![0.0, 0.0]; batch]);
    let world = Gauss { mean: 0.0, std: 0.1 };
    let levels = vec![Poisson.at(1.0), Poisson.at(0.5)];
    let of = |process: &'static dyn Process| {
        let parts = parts(&world, process, levels.clone(), Plain::default(), batch);
        let run = Run::from_prior(parts, &like).unwrap();
        // The share of rows farther than 5 sigma: 4e-6 for a Gaussian, 1/(1 + 12.5) here.
        run.x().square_norms().iter().filter(|n| n.sqrt() > 50.0).count() as f64 / batch as f64
    };
    let share = of(&Poisson);
    assert!((share - 1.0 / 13.5).abs() < 0.015, "heavy tail: {share}");
    let (x, added) = Poisson
        .perturb(&like, None, &Levels::One(Poisson.at(0.5)), &mut Seeded::new(3, batch))
        .unwrap();
    assert_eq!(x.to_rows(), added.to_rows());
    let tail = x.square_norms().iter().filter(|n| n.sqrt() > 25.0).count() as f64 / batch as f64;
    assert!((tail - 1.0 / 13.5).abs() < 0.015, "heavy tail of training noise: {tail}");
}

#[test]
fn rows_and_positions_at_their_own_levels() {
    let world = Gauss { mean: 0.3, std: 0.5 };
    let x = state(&[vec![1.0, 2.0, 3.0], vec![-1.0, 0.5, 0.25]]);
    let (a, b, c) = (Cosine.at(0.2), Cosine.at(0.5), Cosine.at(0.8));
    let ask = |x: &State, at: Levels| {
        let mut pass = Pass::single(x.batch(), at.row(0));
        world.x0(x, &at, &Cond::default(), &mut pass).unwrap().to_rows()
    };
    // Rows at different levels in one call are each as alone.
    let together = ask(&x, Levels::rows(vec![a, c]));
    assert_eq!(together[0], ask(&x.select(&[0]), Levels::One(a))[0]);
    assert_eq!(together[1], ask(&x.select(&[1]), Levels::One(c))[0]);
    // A level for every position (frame, token) likewise.
    let rows = [vec![a, b, c], vec![c, b, a]];
    let positions = ask(&x, Levels::positions(&rows, 1).unwrap());
    for (row, levels) in rows.iter().enumerate() {
        for (position, level) in levels.iter().enumerate() {
            let alone = ask(&x, Levels::One(*level));
            assert_eq!(positions[row][position], alone[row][position]);
        }
    }
    assert!(Levels::positions(&[vec![a], vec![a, b]], 1).is_err());
    assert!(Levels::rows(vec![a, b]).single("test").is_err());
}

#[test]
fn a_level_for_every_field() {
    let image = state(&[vec![1.0, 2.0]]).named("image");
    let action = state(&[vec![4.0]]).named("action");
    let both = State::joined([image.clone(), action.clone()]).unwrap();
    let (a, b) = (Cosine.at(0.2), Cosine.at(0.7));
    let at = Levels::fields([("image", Levels::One(a)), ("action", Levels::One(b))]).unwrap();
    let world = Gauss { mean: 0.3, std: 0.5 };
    let mut pass = Pass::single(1, a);
    let x0 = world.x0(&both, &at, &Cond::default(), &mut pass).unwrap();
    for (field, level) in [(image, a), (action, b)] {
        let name = field.segments()[0].name().to_owned();
        let alone = world.x0(&field, &Levels::One(level), &Cond::default(), &mut pass).unwrap();
        assert!(distance(&x0.field(&name).unwrap().to_rows(), &alone.to_rows()) < 1e-15);
    }
    // Noise for several fields is that of each row's seed, whatever the fields.
    let noise = Seeded::new(5, 1).draw(&both).unwrap();
    assert_eq!(noise.to_rows()[0].len(), 3);
    assert!(State::joined([both.clone(), both]).is_err());
}
