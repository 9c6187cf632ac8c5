//! What linear multistep methods have in common: the estimates of the steps before, and the weights
//! that they enter a step with.
//!
//! A method of this kind takes an estimate `f` (the noise, the clean sample) for a polynomial of a
//! coordinate `u`, through its values at this step and some before, and integrates it over the step:
//!
//! ```text
//! integral from a to b of e^(k (u - b)) f(u) du  =  sum_i w_i f_i
//! ```
//!
//! With `u = sigma / alpha` and `k = 0` this is Adams's method on uneven steps. With `u = lambda`,
//! `k = 1` for the clean sample and `k = -1` for the noise it is the exponential integrator, and
//! `k = 1 + tau^2` that of an SDE.

use crate::level::Level;
use crate::state::State;

/// Estimates of the steps before and of this one, the newest last.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    past: Vec<(Level, State)>,
}

impl History {
    pub(crate) fn push(&mut self, at: Level, estimate: State, most: usize) {
        self.past.push((at, estimate));
        let late = self.past.len().saturating_sub(most);
        self.past.drain(..late);
    }

    pub(crate) fn clear(&mut self) {
        self.past.clear();
    }

    pub(crate) fn len(&self) -> usize {
        self.past.len()
    }

    /// Levels and estimates, the newest first.
    pub(crate) fn newest(&self) -> impl Iterator<Item = (Level, &State)> {
        self.past.iter().rev().map(|(at, estimate)| (*at, estimate))
    }

    /// `coordinate` of the newest `most` levels, the newest first, up to the first that is infinite.
    pub(crate) fn nodes(&self, most: usize, coordinate: fn(Level) -> f64) -> Vec<f64> {
        let nodes = self.newest().take(most).map(|(at, _)| coordinate(at));
        nodes.take_while(|u| u.is_finite()).collect()
    }

    /// `x + sum_i weights_i estimate_i`, the newest estimate first.
    pub(crate) fn added(&self, x: State, weights: &[f64]) -> State {
        let parts = self.newest().zip(weights);
        parts.fold(x, |sum, ((_, estimate), w)| sum + estimate.clone() * *w)
    }

    pub(crate) fn select(&mut self, rows: &[usize]) {
        for (_, estimate) in &mut self.past {
            *estimate = estimate.select(rows);
        }
    }
}

/// What a backward difference of order `j` enters Adams and Bashforth's formula with, on even steps:
/// the integral of `u (u + 1) ... (u + j - 1) / j!` over the step.
pub(crate) const ADAMS: [f64; 5] = [1.0, 0.5, 5.0 / 12.0, 3.0 / 8.0, 251.0 / 720.0];

/// Weights of values from weights of their backward differences, the newest first.
pub(crate) fn of_differences(differences: &[f64]) -> Vec<f64> {
    let mut weights = vec![0.0; differences.len()];
    for (j, d) in differences.iter().enumerate() {
        // Binomial coefficients with alternating signs.
        let mut term = *d;
        for (i, weight) in weights.iter_mut().take(j + 1).enumerate() {
            *weight += term;
            term *= -((j - i) as f64) / (i + 1) as f64;
        }
    }
    weights
}

/// Adams and Bashforth's weights of even steps, of sum 1, the newest first; of order 1 to 5.
pub(crate) fn adams(order: usize) -> Vec<f64> {
    of_differences(&ADAMS[..order.min(ADAMS.len())])
}

/// The weights `w_i` of the integral above for a polynomial through `nodes`.
pub(crate) fn weights(nodes: &[f64], (a, b): (f64, f64), k: f64) -> Vec<f64> {
    weights_of(nodes, (a, b), &moments(nodes.len(), k * (b - a)))
}

/// The same with other moments than the exponential's: one for each node.
pub(crate) fn weights_of(nodes: &[f64], (a, b): (f64, f64), moments: &[f64]) -> Vec<f64> {
    let h = b - a;
    let nodes: Vec<f64> = nodes.iter().map(|u| (u - a) / h).collect();
    let of = |i: usize| {
        // The coefficients of the polynomial that is 1 at node `i` and 0 at the others.
        let mut basis = vec![1.0];
        for (j, node) in nodes.iter().enumerate().filter(|(j, _)| *j != i) {
            let scale = 1.0 / (nodes[i] - nodes[j]);
            let mut next = vec![0.0; basis.len() + 1];
            for (p, c) in basis.iter().enumerate() {
                next[p] -= c * node * scale;
                next[p + 1] += c * scale;
            }
            basis = next;
        }
        h * basis.iter().zip(moments).map(|(c, m)| c * m).sum::<f64>()
    };
    (0..nodes.len()).map(of).collect()
}

/// `m_p`, the integral from 0 to 1 of `e^(-z (1 - u)) u^p du`, for `p` below `count`: `p!` times the
/// function `phi_(p+1)(-z)` of exponential integrators.
pub(crate) fn moments(count: usize, z: f64) -> Vec<f64> {
    if z.abs() < 1.0 {
        // m_p is the sum over j of (-z)^j p! / (p + j + 1)!, free of cancellation.
        let series = |p: usize| {
            let mut term = 1.0 / (p + 1) as f64;
            let mut sum = term;
            for j in 1..25 {
                term *= -z / (p + j + 1) as f64;
                sum += term;
            }
            sum
        };
        return (0..count).map(series).collect();
    }
    let mut moments = Vec::with_capacity(count);
    let mut last = -(-z).exp_m1() / z;
    for p in 0..count {
        moments.push(last);
        last = (1.0 - (p + 1) as f64 * last) / z;
    }
    moments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn even_steps_give_the_weights_of_adams_and_bashforth() {
        let wanted = [55.0, -59.0, 37.0, -9.0].map(|w| w / 24.0);
        let nodes = [0.0, -1.0, -2.0, -3.0];
        for found in [adams(4), weights(&nodes, (0.0, 1.0), 0.0)] {
            for (found, wanted) in found.iter().zip(wanted) {
                assert!((found - wanted).abs() < 1e-12, "{found} {wanted}");
            }
        }
        let wanted = [1901.0, -2774.0, 2616.0, -1274.0, 251.0].map(|w| w / 720.0);
        assert!(adams(5).iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-12));
    }

    #[test]
    fn polynomials_are_integrated_exactly() {
        // By the midpoint rule, for decays on both sides of where the series ends.
        let nodes = [0.3, -0.2, -0.9, -1.1];
        let f = |u: f64| 1.0 - 2.0 * u + 0.5 * u * u + 0.7 * u * u * u;
        for (a, b) in [(0.3, 0.8), (0.3, 2.9), (0.3, -0.1)] {
            for k in [0.0, 1.0, 1.7, -1.0] {
                let found: f64 =
                    weights(&nodes, (a, b), k).iter().zip(nodes).map(|(w, u)| w * f(u)).sum();
                let n = 20_000;
                let slice = |i: i32| {
                    let u = a + (b - a) * (f64::from(i) + 0.5) / f64::from(n);
                    (k * (u - b)).exp() * f(u) * (b - a) / f64::from(n)
                };
                let wanted: f64 = (0..n).map(slice).sum();
                assert!((found - wanted).abs() < 1e-7, "{a} to {b}, {k}: {found} {wanted}");
            }
        }
    }

    #[test]
    fn the_two_ways_to_moments_meet() {
        let (low, high) = (moments(4, 1.0 - 1e-12), moments(4, 1.0 + 1e-12));
        assert!(low.iter().zip(&high).all(|(a, b)| (a - b).abs() < 1e-11), "{low:?} {high:?}");
        assert!(moments(3, 0.0).iter().zip([1.0, 0.5, 1.0 / 3.0]).all(|(a, b)| a == &b));
    }

    #[test]
    fn differences_become_values() {
        // 2 f_0 + 3 (f_0 - f_1) + 5 (f_0 - 2 f_1 + f_2)
        assert_eq!(of_differences(&[2.0, 3.0, 5.0]), [10.0, -13.0, 5.0]);
    }
}
