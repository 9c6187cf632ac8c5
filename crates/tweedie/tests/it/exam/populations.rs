//! What searches ask: runs that are held, forked and advanced, and populations that are resampled.

use tweedie::noise::Seeded;
use tweedie::run::{Run, Unwatched};

use super::world::{Cosine, Gauss, Plain, distance, moments, parts, state, uniform_lambda};

const WORLD: Gauss = Gauss { mean: 0.0, std: 1.0 };

#[test]
fn a_run_is_held_forked_and_advanced() {
    let levels = uniform_lambda(&Cosine, 0.95, 0.05, 10);
    let like = state(&[vec![0.0, 0.0]]);
    let ancestral = || parts(&WORLD, &Cosine, levels.clone(), Plain { eta: 1.0 }, 1);
    let mut run = Run::from_prior(ancestral(), &like).unwrap();
    for _ in 0..5 {
        run.advance(&mut Unwatched).unwrap();
    }
    let held = run.x().to_rows();
    let (mut a, mut b) = (run.fork(1, Vec::new()), run.fork(2, Vec::new()));
    assert_eq!(a.x().to_rows(), held);
    while a.advance(&mut Unwatched).unwrap() {}
    while b.advance(&mut Unwatched).unwrap() {}
    assert!(distance(&a.x().to_rows(), &b.x().to_rows()) > 1e-6, "forks go their own ways");
    assert_eq!(run.x().to_rows(), held, "the run itself stands where it stood");
    assert_eq!((run.done(), a.done(), a.count()), (5, 10, 10));
    // The same fork repeats bit for bit.
    let mut again = run.fork(1, Vec::new());
    while again.advance(&mut Unwatched).unwrap() {}
    assert_eq!(again.x().to_rows(), a.x().to_rows());
}

#[test]
fn a_population_is_resampled_towards_a_reward() {
    // Reward r(x0) = k x0 tilts N(0, 1) to N(k, 1). Particles are weighted by the change of the
    // reward of their estimate and resampled at a few steps (Feynman-Kac steering in small); the
    // estimate's posterior variance is what the potential must integrate over: for a Gaussian,
    // E[exp(k x0) | x] = exp(k m + k^2 v / 2), so the weights are exact.
    let (k, batch, steps) = (1.0, 4000, 240);
    let levels = uniform_lambda(&Cosine, 0.98, 0.02, steps);
    let like = state(&vec![vec![0.0]; batch]);
    let mut run =
        Run::from_prior(parts(&WORLD, &Cosine, levels.clone(), Plain { eta: 1.0 }, batch), &like)
            .unwrap();
    let potential = |run: &Run<'_>| -> Vec<f64> {
        let l = run.at();
        // Unit-variance data: gain = alpha / (alpha^2 + sigma^2), posterior variance sigma^2.
        run.x()
            .to_rows()
            .iter()
            .map(|r| k * l.alpha * r[0] + 0.5 * k * k * l.sigma * l.sigma)
            .collect()
    };
    let mut last = vec![0.0; batch];
    let mut choice = Seeded::new(99, 1);
    while run.advance(&mut Unwatched).unwrap() {
        if run.done() % 12 != 0 {
            continue;
        }
        let now = potential(&run);
        let weights: Vec<f64> = now.iter().zip(&last).map(|(a, b)| (a - b).exp()).collect();
        let total: f64 = weights.iter().sum();
        // Systematic resampling with one uniform number.
        let first = tweedie::noise::Noise::uniform(&mut choice, 1, 1).unwrap()[0][0];
        let (mut rows, mut sum, mut j) = (Vec::with_capacity(batch), weights[0] / total, 0);
        for i in 0..batch {
            let point = (i as f64 + first) / batch as f64;
            while sum < point && j + 1 < batch {
                j += 1;
                sum += weights[j] / total;
            }
            rows.push(j);
        }
        last = rows.iter().map(|&r| now[r]).collect();
        run.select(&rows);
    }
    let (mean, variance) = moments(&run.x().to_rows(), 0);
    assert!((mean - k).abs() < 0.12, "mean {mean}");
    assert!((variance - 1.0).abs() < 0.15, "variance {variance}");
}
