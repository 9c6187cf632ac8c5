//! Predictions: there and back, up to the ends of the path.

use burn::tensor::Device;
use tweedie::level::{Level, Levels};
use tweedie::prediction::{Prediction, eps_of};
use tweedie::state::State;

fn state(data: &[f64]) -> State {
    State::from_f64(data.to_vec(), &[2, 3], &Device::flex()).unwrap()
}

fn apart(a: &State, b: &State) -> f64 {
    let (a, b) = (a.to_rows().concat(), b.to_rows().concat());
    a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

fn levels() -> Vec<Level> {
    let vp = |t, s: f64| Level::new(t, (1.0 - s * s).sqrt(), s);
    vec![
        vp(0.5, 0.6),
        vp(0.01, 1e-3),
        vp(0.99, 1.0 - 1e-9),
        Level::new(0.5, 1.0, 3.0),
        Level::new(1.0, 1.0, 80.0),
        Level::new(0.3, 0.7, 0.3),
        Level::new(0.9, 1e-4, 1.0 - 1e-4),
    ]
}

#[test]
fn every_prediction_and_back() {
    let x0 = state(&[0.3, -1.2, 2.0, 0.0, 0.7, -0.5]);
    let eps = state(&[-0.4, 0.9, 1.5, -2.0, 0.1, 0.6]);
    for level in levels() {
        let at = Levels::One(level);
        let x = x0.clone() * level.alpha + eps.clone() * level.sigma;
        for p in Prediction::ALL {
            let output = p.target(&x0, &eps, &at);
            // What rounding in x costs, seen through the smaller coefficient.
            let slack = 1e-14 * (1.0 + level.sigma / level.alpha) * 10.0;
            let back = p.x0(&output, &x, &at).unwrap();
            assert!(apart(&back, &x0) < slack, "{p:?} at {level:?}: {}", apart(&back, &x0));
            let again = p.from_x0(&x0, &x, &at).unwrap();
            let scale = 1.0 + output.to_rows().concat().iter().fold(0.0_f64, |m, v| m.max(v.abs()));
            let slack = 1e-13 * scale * (1.0 + level.alpha / level.sigma);
            assert!(apart(&again, &output) < slack, "{p:?} at {level:?}");
        }
        let slack = 1e-14 * (1.0 + level.alpha / level.sigma) * 10.0;
        assert!(apart(&eps_of(&x, &x0, level), &eps) < slack, "{level:?}");
    }
}

#[test]
fn rows_at_their_own_levels() {
    let x0 = state(&[0.3, -1.2, 2.0, 0.0, 0.7, -0.5]);
    let eps = state(&[-0.4, 0.9, 1.5, -2.0, 0.1, 0.6]);
    let pair = [levels()[0], levels()[3]];
    let at = Levels::rows(pair);
    for p in Prediction::ALL {
        let both = p.target(&x0, &eps, &at);
        for (i, level) in pair.into_iter().enumerate() {
            let one = p.target(&x0.select(&[i]), &eps.select(&[i]), &Levels::One(level));
            assert_eq!(both.select(&[i]).to_rows(), one.to_rows(), "{p:?}");
        }
    }
}

#[test]
fn the_ends_are_limits_or_refusals() {
    let x0 = state(&[0.3, -1.2, 2.0, 0.0, 0.7, -0.5]);
    let eps = state(&[-0.4, 0.9, 1.5, -2.0, 0.1, 0.6]);
    let dark = Levels::One(Level::new(1.0, 0.0, 1.0));
    let clean = Levels::One(Level::CLEAN);
    for p in Prediction::ALL {
        let at_dark = p.x0(&p.target(&x0, &eps, &dark), &eps, &dark);
        match p {
            Prediction::Eps | Prediction::Score => assert!(at_dark.is_err(), "{p:?}"),
            _ => assert!(apart(&at_dark.unwrap(), &x0) < 1e-15, "{p:?}"),
        }
        let from_clean = p.from_x0(&x0, &x0, &clean);
        assert_eq!(from_clean.is_ok(), p == Prediction::X0, "{p:?}");
        if p != Prediction::Score {
            let back = p.x0(&p.target(&x0, &eps, &clean), &x0, &clean).unwrap();
            assert!(apart(&back, &x0) < 1e-15, "{p:?}");
        }
    }
}
