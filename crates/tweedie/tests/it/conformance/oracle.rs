//! The exact worlds themselves: closed forms against differences, sums and draws.

use burn::tensor::{DType, Device, Tensor, TensorData};
use tweedie::denoiser::{Cond, Denoiser, Pass};
use tweedie::derivative::{jvp, vjp};
use tweedie::level::{Level, Levels};
use tweedie::oracle::Empirical;
use tweedie::random::Key;
use tweedie::state::State;

use super::world::{apart, ask, gaussian, mixture, state};

const LEVELS: [Level; 5] = [
    Level::new(0.5, 0.8, 0.6),
    Level::new(1.0, 0.0, 1.0),
    Level::new(0.01, 1.0, 1e-3),
    Level::new(1.0, 1.0, 80.0),
    Level::CLEAN,
];

fn points() -> State {
    state(&[vec![0.9, -1.4], vec![-0.2, 0.6], vec![1.7, 0.3]])
}

#[test]
fn denoisers_are_the_posterior_mean() {
    let (one, many) = (gaussian(), mixture());
    for at in LEVELS {
        let (a, b) = (ask(&one, &points(), at).to_rows(), ask(&many, &points(), at).to_rows());
        for (i, x) in points().to_rows().iter().enumerate() {
            let wanted = [one.posterior(x, at).0, many.posterior(x, at, None).unwrap().0];
            for (found, wanted) in [&a[i], &b[i]].into_iter().zip(&wanted) {
                let off = (0..2).map(|k| (found[k] - wanted[k]).abs()).fold(0.0, f64::max);
                assert!(off < 1e-12, "{at:?}: {found:?} {wanted:?}");
            }
        }
    }
}

#[test]
fn the_posterior_is_tweedies_formula() {
    // E[x0 | x] = (x + sigma^2 score) / alpha, and its covariance is the second derivative's.
    let world = mixture();
    let at = LEVELS[0];
    let h = 1e-4;
    for x in points().to_rows() {
        let log =
            |dx: [f64; 2]| world.log_density(&[x[0] + dx[0], x[1] + dx[1]], at, None).unwrap();
        let (mean, cov) = world.posterior(&x, at, None).unwrap();
        for i in 0..2 {
            let mut step = [0.0; 2];
            step[i] = h;
            let score = (log(step) - log(step.map(|v| -v))) / (2.0 * h);
            let tweedie = (x[i] + at.sigma * at.sigma * score) / at.alpha;
            assert!((tweedie - mean[i]).abs() < 1e-6, "{tweedie} {}", mean[i]);
            let bend = (log(step) - 2.0 * log([0.0; 2]) + log(step.map(|v| -v))) / (h * h);
            let spread = at.sigma.powi(2) / at.alpha.powi(2) * (1.0 + at.sigma.powi(2) * bend);
            assert!((spread - cov[i][i]).abs() < 1e-5, "{spread} {}", cov[i][i]);
        }
    }
    let one = gaussian();
    let x = [0.3, -0.8];
    for i in 0..2 {
        let mut ahead = x;
        let mut behind = x;
        ahead[i] += h;
        behind[i] -= h;
        let by = (one.log_density(&ahead, at) - one.log_density(&behind, at)) / (2.0 * h);
        assert!((by - one.score(&x, at)[i]).abs() < 1e-7);
    }
}

#[test]
fn derivatives_agree_with_differences() {
    let world = mixture();
    let (x, at) = (points(), Levels::One(LEVELS[0]));
    let v = state(&[vec![0.3, 1.0], vec![-0.5, 0.2], vec![1.0, 1.0]]);
    let u = state(&[vec![1.0, -0.4], vec![0.7, 0.1], vec![0.2, -2.0]]);
    let cond = Cond::default();
    let pass = || Pass::single(3, LEVELS[0]);
    let (x0, back) = vjp(&world, &x, &at, &cond, &mut pass(), &u).unwrap();
    assert!(apart(&x0, &ask(&world, &x, LEVELS[0])) < 1e-15);
    let forward = jvp(&world, &x, &at, &cond, &mut pass(), &v, 1e-5).unwrap();
    for (a, b) in u.dots(&forward).iter().zip(back.dots(&v)) {
        assert!((a - b).abs() < 1e-8, "u J v is {a} one way and {b} the other");
    }
}

#[test]
fn single_precision_is_the_same_world() {
    let world = mixture();
    let rows: Vec<f32> = points().to_rows().concat().iter().map(|v| *v as f32).collect();
    let device = Device::flex();
    let x = Tensor::<2>::from_data(TensorData::new(rows, [3, 2]), (&device, DType::F32));
    for at in LEVELS {
        let half = ask(&world, &State::new(x.clone()), at);
        assert_eq!(half.dtype(), DType::F32);
        let off = apart(&half, &ask(&world, &points(), at));
        assert!(off < 1e-5, "{at:?}: off by {off}");
    }
}

#[test]
fn rows_have_their_own_levels_and_classes() {
    let world = mixture();
    let at = Levels::rows([LEVELS[0], LEVELS[1], LEVELS[2]]);
    let cond = Cond::of_class(vec![0, 1, 0]);
    let mut pass = Pass::single(3, LEVELS[0]);
    let all = world.x0(&points(), &at, &cond, &mut pass).unwrap().to_rows();
    assert_eq!(pass.cost.forward, 3);
    for (i, x) in points().to_rows().iter().enumerate() {
        let class = [0, 1, 0][i];
        let wanted = world.posterior(x, LEVELS[i], Some(class)).unwrap().0;
        assert!((all[i][0] - wanted[0]).abs() + (all[i][1] - wanted[1]).abs() < 1e-12);
        let mut pass = Pass::single(1, LEVELS[i]);
        let (x, cond) = (points().select(&[i]), Cond::of_class(vec![class]));
        let alone = world.x0(&x, &Levels::One(LEVELS[i]), &cond, &mut pass).unwrap();
        assert_eq!(alone.to_rows()[0], all[i], "bit for bit");
    }
    for class in [-1, 2, i64::MAX] {
        let cond = Cond::of_class(vec![class; 3]);
        assert!(world.x0(&points(), &at, &cond, &mut pass).is_err(), "class {class}");
    }
    let narrow = state(&[vec![1.0, 2.0, 3.0]]);
    let mut pass = Pass::single(1, LEVELS[0]);
    assert!(world.x0(&narrow, &Levels::One(LEVELS[0]), &Cond::default(), &mut pass).is_err());
}

#[test]
fn draws_have_the_moments_of_the_world() {
    let world = mixture();
    let mut rng = Key::new(1, 0, 0).generator();
    let n = 40_000;
    for class in [None, Some(0), Some(1)] {
        let mut sum = [0.0; 5];
        for _ in 0..n {
            let x = world.sample(class, &mut rng).unwrap();
            let parts = [x[0], x[1], x[0] * x[0], x[0] * x[1], x[1] * x[1]];
            sum.iter_mut().zip(parts).for_each(|(s, v)| *s += v / f64::from(n));
        }
        // At pure noise the posterior is the data.
        let (mean, cov) = world.posterior(&[0.3, 0.2], LEVELS[1], class).unwrap();
        let wanted = [
            mean[0],
            mean[1],
            cov[0][0] + mean[0] * mean[0],
            cov[0][1] + mean[0] * mean[1],
            cov[1][1] + mean[1] * mean[1],
        ];
        for (found, wanted) in sum.iter().zip(wanted) {
            assert!((found - wanted).abs() < 0.03, "{class:?}: {sum:?} {wanted:?}");
        }
    }
}

#[test]
fn the_empirical_world_is_a_weighted_mean_of_its_points() {
    let data = [vec![0.0, 1.0], vec![2.0, -1.0], vec![-1.0, 0.5]];
    let world = Empirical::new(&data).unwrap();
    let at = LEVELS[0];
    let found = ask(&world, &points(), at).to_rows();
    for (x, found) in points().to_rows().iter().zip(found) {
        let weight = |p: &Vec<f64>| {
            let off = [x[0] - at.alpha * p[0], x[1] - at.alpha * p[1]];
            (-(off[0] * off[0] + off[1] * off[1]) / (2.0 * at.sigma * at.sigma)).exp()
        };
        let total: f64 = data.iter().map(weight).sum();
        for i in 0..2 {
            let wanted: f64 = data.iter().map(|p| weight(p) * p[i] / total).sum();
            assert!((wanted - found[i]).abs() < 1e-12);
        }
    }
    // Without noise the nearest point, without signal the mean of all.
    let near = ask(&world, &state(&[vec![1.8, -0.9]]), Level::CLEAN).to_rows();
    assert_eq!(near[0], data[1]);
    let dark = ask(&world, &state(&[vec![1.8, -0.9]]), LEVELS[1]).to_rows();
    assert!((dark[0][0] - 1.0 / 3.0).abs() < 1e-15 && (dark[0][1] - 0.5 / 3.0).abs() < 1e-15);
    assert!(Empirical::new(&[]).is_err());
    assert!(Empirical::new(&[vec![1.0], vec![1.0, 2.0]]).is_err());
}
