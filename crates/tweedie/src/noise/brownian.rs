//! Noise along one Brownian path a row, in `sigma_edm`: runs of one seed see the same path however
//! many steps they take.
//!
//! The noise of a step is what the path does over it, in units of its expected size:
//!
//! ```text
//! z = (W(from) - W(to)) / sqrt(from - to)
//! ```
//!
//! `W` is made where it is asked, by Levy's construction: at the middle of an interval it is the mean
//! of the ends and a normal number of standard deviation `sqrt(width) / 2`, whose key is the middle's
//! place in the tree of halvings. So it is a function of the seed alone. Below a millionth of the
//! place asked the path is straight. SDE samplers of k-diffusion draw from such a tree (torchsde's,
//! whose numbers are its own). With it a picture of 20 steps of an SDE sampler is close to that of 40.

use crate::error::Result;
use crate::noise::{Noise, Seeded, from_rows};
use crate::random::Key;
use crate::state::State;

/// The end of the path: a step that begins above it begins there.
const TOP: f64 = 32_768.0;

/// What a row's path is drawn from, apart from its other noise.
const PATH: u64 = 0x6272_6f77;

/// Noise along one Brownian path a row.
#[derive(Clone, Debug)]
pub struct Brownian {
    /// The initial noise, and all that is not of a step.
    plain: Seeded,
    /// Where the path was asked last, and what it was there.
    last: Option<(f64, Vec<Vec<f64>>)>,
}

impl Brownian {
    /// One seed a row; initial noise is that of [`Seeded`].
    pub fn of_seeds(seeds: impl IntoIterator<Item = u64>) -> Self {
        Self { plain: Seeded::of_seeds(seeds), last: None }
    }

    /// The path of every row at `at`.
    fn path(&self, at: f64, width: usize) -> Vec<Vec<f64>> {
        let one = |(seed, stream): &(u64, u64)| {
            let stream = Key::new(*seed, *stream, 0).derive(PATH);
            let draw = |node: u64| {
                let mut numbers = vec![0.0; width];
                Key::new(*seed, stream, node).generator().fill_normal(&mut numbers);
                numbers
            };
            walk(at, &draw, width)
        };
        self.plain.rows.iter().map(one).collect()
    }
}

/// The path at `at`, from 0 at 0.
fn walk(at: f64, draw: &dyn Fn(u64) -> Vec<f64>, width: usize) -> Vec<f64> {
    let (mut low, mut high) = (0.0, TOP);
    let mut start = vec![0.0; width];
    let mut end: Vec<f64> = draw(0).iter().map(|z| z * TOP.sqrt()).collect();
    let mut node = 1_u64;
    while high - low > 1e-6 * at && node < 1 << 62 {
        if at <= low {
            return start;
        }
        if at >= high {
            return end;
        }
        let middle = 0.5 * (low + high);
        let spread = 0.5 * (high - low).sqrt();
        let value: Vec<f64> = draw(node)
            .iter()
            .zip(start.iter().zip(&end))
            .map(|(z, (a, b))| 0.5 * (a + b) + spread * z)
            .collect();
        if at < middle {
            (high, end, node) = (middle, value, 2 * node);
        } else {
            (low, start, node) = (middle, value, 2 * node + 1);
        }
    }
    let share = if high > low { (at - low) / (high - low) } else { 0.0 };
    start.iter().zip(&end).map(|(a, b)| a + share * (b - a)).collect()
}

impl Noise for Brownian {
    fn draw(&mut self, like: &State) -> Result<State> {
        self.plain.draw(like)
    }

    fn over(&mut self, like: &State, from: f64, to: f64) -> Result<State> {
        self.plain.check(like.batch())?;
        let (from, to) = (from.min(TOP), to.max(0.0));
        if from.is_nan() || to.is_nan() || from <= to {
            return self.plain.draw(like);
        }
        let width = like.real_features();
        let before = match self.last.take() {
            Some((at, values)) if at == from && values.iter().all(|v| v.len() == width) => values,
            _ => self.path(from, width),
        };
        let after = self.path(to, width);
        let scale = 1.0 / (from - to).sqrt();
        let rows: Vec<f64> = before
            .iter()
            .flatten()
            .zip(after.iter().flatten())
            .map(|(a, b)| (a - b) * scale)
            .collect();
        self.last = Some((to, after));
        from_rows(like, &rows, width)
    }

    fn uniform(&mut self, batch: usize, width: usize) -> Result<Vec<Vec<f64>>> {
        self.plain.uniform(batch, width)
    }

    fn fork(&self, branch: u64) -> Box<dyn Noise> {
        let mut plain = self.plain.clone();
        for (seed, stream) in &mut plain.rows {
            *stream = Key::new(*seed, *stream, self.plain.draws).derive(branch);
        }
        Box::new(Self { plain, last: None })
    }

    fn select(&mut self, rows: &[usize]) {
        self.plain.select(rows);
        self.last = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    fn blank(batch: usize, width: usize) -> State {
        State::from_f64(vec![0.0; batch * width], &[batch, width], &Device::flex()).unwrap()
    }

    #[test]
    fn a_step_is_the_sum_of_its_parts() {
        let like = blank(2, 3);
        let path = || Brownian::of_seeds([3, 4]);
        let whole = path().over(&like, 7.0, 0.5).unwrap() * 6.5_f64.sqrt();
        let mut parts = path();
        let first = parts.over(&like, 7.0, 2.2).unwrap() * 4.8_f64.sqrt();
        let second = parts.over(&like, 2.2, 0.5).unwrap() * 1.7_f64.sqrt();
        let sum = (first + second).to_rows().concat();
        for (a, b) in whole.to_rows().concat().iter().zip(sum) {
            assert!((a - b).abs() < 1e-9, "{a} {b}");
        }
    }

    #[test]
    fn numbers_are_normal_and_independent() {
        let like = blank(1, 20_000);
        let mut path = Brownian::of_seeds([9]);
        let steps = [(14.6, 3.0), (3.0, 0.7), (0.7, 0.69), (0.69, 0.0)];
        let draws: Vec<Vec<f64>> = steps
            .iter()
            .map(|(a, b)| path.over(&like, *a, *b).unwrap().to_rows().remove(0))
            .collect();
        let n = 20_000.0;
        for (i, a) in draws.iter().enumerate() {
            for (j, b) in draws.iter().enumerate() {
                let mean = a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>() / n;
                let wanted = if i == j { 1.0 } else { 0.0 };
                assert!((mean - wanted).abs() < 0.04, "{i} {j}: {mean}");
            }
        }
    }

    #[test]
    fn a_row_does_not_know_its_batch_and_forks_part() {
        let mut three = Brownian::of_seeds([6, 7, 8]);
        let mut one = Brownian::of_seeds([8]);
        for (a, b) in [(5.0, 2.0), (2.0, 0.1)] {
            let all = three.over(&blank(3, 4), a, b).unwrap().to_rows();
            assert_eq!(all[2], one.over(&blank(1, 4), a, b).unwrap().to_rows()[0]);
        }
        let mut fork = one.fork(1);
        let next = |n: &mut dyn Noise| n.over(&blank(1, 4), 0.1, 0.05).unwrap().to_rows();
        assert_ne!(next(fork.as_mut()), next(&mut one));
        assert!(one.over(&blank(2, 4), 0.05, 0.01).is_err());
    }

    #[test]
    fn steps_from_pure_noise_are_finite() {
        let mut path = Brownian::of_seeds([1]);
        let z = path.over(&blank(1, 4), f64::INFINITY, 0.8).unwrap().to_rows().concat();
        assert!(z.iter().all(|v| v.is_finite() && v.abs() < 6.0), "{z:?}");
    }
}
