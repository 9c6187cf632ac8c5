//! A population of weighted candidates: weights as logarithms, and resampling.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::noise::Noise;

/// How descendants are drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resampling {
    /// Each by itself.
    #[default]
    Multinomial,
    /// By one draw and an even comb, which adds the least chance (Douc, Cappe and Moulines,
    /// "Comparison of resampling schemes for particle filtering", 2005).
    Systematic,
}

/// The log weights of a population.
#[derive(Clone, Debug, PartialEq)]
pub struct Particles {
    logs: Vec<f64>,
}

impl Particles {
    /// Candidates of equal weight.
    pub fn new(count: usize) -> Self {
        Self { logs: vec![0.0; count] }
    }

    /// Multiplies the weights by the exponentials of these.
    ///
    /// # Errors
    ///
    /// [`Error::NotFinite`] where all weights are lost.
    pub fn weigh(&mut self, logs: &[f64]) -> Result<()> {
        for (sum, log) in self.logs.iter_mut().zip(logs) {
            *sum += log;
        }
        let most = self.logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if !most.is_finite() {
            return Err(Error::NotFinite { what: format!("the largest log weight ({most})") });
        }
        // The common factor does not count, and would grow without bound.
        self.logs.iter_mut().for_each(|log| *log -= most);
        Ok(())
    }

    /// The weights, which sum to one.
    pub fn weights(&self) -> Vec<f64> {
        let most = self.logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let each: Vec<f64> = self.logs.iter().map(|log| (log - most).exp()).collect();
        let sum: f64 = each.iter().sum();
        each.into_iter().map(|w| w / sum).collect()
    }

    /// The effective sample size, `1 / sum w^2`.
    pub fn effective(&self) -> f64 {
        1.0 / self.weights().iter().map(|w| w * w).sum::<f64>()
    }

    /// Draws as many descendants as there are candidates, whose weights are equal again: the
    /// ancestor of each, in rising order. `noise` is of one row.
    ///
    /// # Errors
    ///
    /// What the source of noise says.
    pub fn resample(&mut self, how: Resampling, noise: &mut dyn Noise) -> Result<Vec<usize>> {
        let weights = self.weights();
        let count = weights.len();
        let mut points = match how {
            Resampling::Multinomial => noise.uniform(1, count)?.concat(),
            Resampling::Systematic => {
                let shift = noise.uniform(1, 1)?[0][0];
                (0..count).map(|i| (i as f64 + shift) / count as f64).collect()
            }
        };
        points.sort_by(f64::total_cmp);
        self.logs = vec![0.0; count];
        Ok(points.into_iter().map(|u| of(&weights, u)).collect())
    }

    /// Draws one candidate by its weight. `noise` is of one row.
    ///
    /// # Errors
    ///
    /// What the source of noise says.
    pub fn draw(&self, noise: &mut dyn Noise) -> Result<usize> {
        let u = noise.uniform(1, 1)?[0][0];
        Ok(of(&self.weights(), u))
    }
}

/// The candidate whose share of the unit interval holds `u`.
fn of(weights: &[f64], u: f64) -> usize {
    let mut sum = 0.0;
    let reached = |w: &f64| {
        sum += w;
        u < sum
    };
    let last = weights.iter().rposition(|w| *w > 0.0).unwrap_or(0);
    weights.iter().position(reached).unwrap_or(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::Seeded;

    #[test]
    fn descendants_follow_the_weights() {
        let wanted = [0.5, 0.125, 0.0, 0.375];
        for how in [Resampling::Multinomial, Resampling::Systematic] {
            let mut counts = [0.0; 4];
            let rounds = 4000;
            for seed in 0..rounds {
                let mut particles = Particles::new(4);
                // Large logarithms overflow unless they are taken together.
                particles.weigh(&wanted.map(|w: f64| w.ln() + 900.0)).unwrap();
                let effective = particles.effective();
                assert!((effective - 1.0 / 0.40625).abs() < 1e-12);
                let rows = particles.resample(how, &mut Seeded::new(seed, 1)).unwrap();
                assert!((particles.effective() - 4.0).abs() < 1e-12, "equal again");
                for row in &rows {
                    counts[*row] += 1.0;
                }
                if how == Resampling::Systematic {
                    assert_eq!(rows.iter().filter(|r| **r == 0).count(), 2, "two of four");
                }
            }
            for (count, wanted) in counts.iter().zip(wanted) {
                let share = count / (4 * rounds) as f64;
                let error = (wanted * (1.0 - wanted) / (4 * rounds) as f64).sqrt();
                assert!((share - wanted).abs() <= 4.0 * error, "{how:?}: {share}, wanted {wanted}");
            }
        }
    }

    #[test]
    fn a_population_without_weight_is_an_error() {
        assert!(Particles::new(2).weigh(&[f64::NEG_INFINITY; 2]).is_err());
        assert!(Particles::new(2).weigh(&[f64::NAN, f64::NAN]).is_err());
    }
}
