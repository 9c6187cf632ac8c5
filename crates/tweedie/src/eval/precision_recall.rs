//! Fidelity and diversity by nearest neighbours.
//!
//! Improved precision and recall: Kynkaanniemi et al. 2019, arXiv:1904.06991. Density and
//! coverage: Naeem et al. 2020, arXiv:2002.09797. Distances are exact, none is approximated.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Features, linalg};
use crate::{Error, Result};

/// How many rows are compared with a row of the other set while that is in cache.
const BLOCK: usize = 16;

/// Fidelity and diversity of generated samples, all in 0..=1 but density, which may exceed 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PrecisionRecall {
    /// The share of generated samples that lie in the ball of some real one: fidelity.
    pub precision: f64,
    /// The share of real samples that lie in the ball of some generated one: diversity.
    pub recall: f64,
    /// In how many real balls a generated sample lies on average, divided by `k`; less misled by
    /// real outliers than precision.
    pub density: f64,
    /// The share of real samples with a generated one in their ball; less misled by generated
    /// outliers than recall.
    pub coverage: f64,
    /// A ball reaches to the `k`-th nearest neighbour in the same set.
    pub k: usize,
    /// Real and generated samples.
    pub samples: [usize; 2],
}

/// The neighbours that define a ball, as published for precision and recall.
pub const K: usize = 3;

/// Precision, recall, density and coverage of `generated` against `real`, with balls that reach to
/// the `k`-th nearest neighbour ([`K`] is usual). Time grows with the square of the number of
/// samples, memory does not.
///
/// # Errors
/// [`Error::Shape`] if the features differ in width; [`Error::Setting`] for `k` = 0 or unless both
/// sets have more than `k` samples.
pub fn precision_recall(
    real: &Features,
    generated: &Features,
    k: usize,
) -> Result<PrecisionRecall> {
    if k == 0 {
        return Err(Error::setting("k", "0 where at least 1 is needed"));
    }
    real.comparable(generated, k.saturating_add(1))?;
    let samples = [real.len(), generated.len()];
    let width = real.width();
    let (real, generated) = (real.widened(), generated.widened());
    let radii_real = radii(&real, width, k);
    let radii_generated = radii(&generated, width, k);

    // For each generated sample: in how many real balls it lies.
    let inside: Vec<usize> = from_each(&generated, &real, width, |_, distances| {
        distances.iter().zip(&radii_real).filter(|(d, r)| d <= r).count()
    });
    // For each real sample: whether it lies in a generated ball, and whether a generated sample
    // lies in its ball.
    let reached: Vec<(bool, bool)> = from_each(&real, &generated, width, |i, distances| {
        let recalled = distances.iter().zip(&radii_generated).any(|(d, r)| d <= r);
        (recalled, distances.iter().any(|d| *d <= radii_real[i]))
    });
    let share = |hits: usize, of: usize| hits as f64 / of as f64;
    let [n, m] = samples;
    Ok(PrecisionRecall {
        precision: share(inside.iter().filter(|c| **c > 0).count(), m),
        recall: share(reached.iter().filter(|r| r.0).count(), n),
        density: share(inside.iter().sum(), m) / k as f64,
        coverage: share(reached.iter().filter(|r| r.1).count(), n),
        k,
        samples,
    })
}

/// The squared distance of each sample to its `k`-th nearest neighbour within the set.
fn radii(set: &[f64], width: usize, k: usize) -> Vec<f64> {
    from_each(set, set, width, |i, distances| {
        // The sample itself is not its neighbour; a twin of it is.
        distances[i] = f64::INFINITY;
        *distances.select_nth_unstable_by(k - 1, f64::total_cmp).1
    })
}

/// Calls `f` with each query and its squared distances to all of `set`, in blocks of queries and
/// on all threads; the answers come in the order of the queries.
fn from_each<T: Send>(
    queries: &[f64],
    set: &[f64],
    width: usize,
    f: impl Fn(usize, &mut [f64]) -> T + Sync,
) -> Vec<T> {
    let n = set.len() / width;
    let answers: Vec<Vec<T>> = queries
        .par_chunks(BLOCK * width)
        .enumerate()
        .map(|(block, queries)| {
            let mut distances = vec![0.0; queries.len() / width * n];
            for (j, other) in set.chunks_exact(width).enumerate() {
                for (q, query) in queries.chunks_exact(width).enumerate() {
                    distances[q * n + j] = linalg::squared_distance(query, other);
                }
            }
            let rows = distances.chunks_exact_mut(n).enumerate();
            rows.map(|(q, row)| f(block * BLOCK + q, row)).collect()
        })
        .collect();
    answers.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Key;

    fn uniform(n: usize, d: usize, seed: u64, shift: f64) -> Features {
        let mut g = Key::new(seed, 0, 0).generator();
        Features::new(n, d, (0..n * d).map(|_| (g.uniform() + shift) as f32).collect()).unwrap()
    }

    #[test]
    fn a_small_case_by_hand() {
        // Real: 0 1 3 with k = 1 has radii 1 1 2, balls [-1, 1] [0, 2] [1, 5].
        // Generated: 0.5 4 9 10 has radii 3.5 3.5 1 1, balls [-3, 4] [0.5, 7.5] [8, 10] [9, 11].
        let real = Features::new(3, 1, vec![0.0, 1.0, 3.0]).unwrap();
        let generated = Features::new(4, 1, vec![0.5, 4.0, 9.0, 10.0]).unwrap();
        let p = precision_recall(&real, &generated, 1).unwrap();
        assert_eq!(p.precision, 0.5);
        assert_eq!(p.recall, 1.0);
        assert_eq!(p.density, 3.0 / 4.0, "0.5 lies in two balls, 4 in one");
        assert_eq!(p.coverage, 1.0);
        let turned = precision_recall(&generated, &real, 1).unwrap();
        assert_eq!((turned.precision, turned.recall), (p.recall, p.precision));
        assert_eq!(turned.coverage, 0.5);
    }

    #[test]
    fn equal_sets_score_one_and_disjoint_sets_zero() {
        let a = uniform(150, 5, 1, 0.0);
        let p = precision_recall(&a, &a, K).unwrap();
        assert_eq!((p.precision, p.recall, p.coverage), (1.0, 1.0, 1.0));
        let p = precision_recall(&a, &uniform(150, 5, 2, 50.0), K).unwrap();
        assert_eq!((p.precision, p.recall, p.density, p.coverage), (0.0, 0.0, 0.0, 0.0));
    }

    #[test]
    fn blocks_change_nothing_of_the_definition() {
        // Written out without blocks, for sets of several of them.
        let (real, generated) = (uniform(53, 3, 1, 0.0), uniform(70, 3, 2, 0.2));
        let rows = |f: &Features| f.widened().chunks(3).map(<[f64]>::to_vec).collect::<Vec<_>>();
        let (r, g) = (rows(&real), rows(&generated));
        let apart =
            |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>();
        let radius = |set: &[Vec<f64>], i: usize| {
            let mut d: Vec<f64> =
                (0..set.len()).filter(|j| *j != i).map(|j| apart(&set[i], &set[j])).collect();
            d.sort_by(f64::total_cmp);
            d[K - 1]
        };
        let count = |set: &[Vec<f64>], hit: &dyn Fn(usize) -> bool| {
            (0..set.len()).filter(|i| hit(*i)).count() as f64 / set.len() as f64
        };
        let p = precision_recall(&real, &generated, K).unwrap();
        let in_real = |i: usize, j: usize| apart(&r[i], &g[j]) <= radius(&r, i);
        let in_generated = |i: usize, j: usize| apart(&r[i], &g[j]) <= radius(&g, j);
        assert_eq!(p.precision, count(&g, &|j| (0..53).any(|i| in_real(i, j))));
        assert_eq!(p.recall, count(&r, &|i| (0..70).any(|j| in_generated(i, j))));
        assert_eq!(p.coverage, count(&r, &|i| (0..70).any(|j| in_real(i, j))));
        assert!(p.precision > 0.2 && p.recall < 0.9, "{p:?}");
    }

    #[test]
    fn a_collapsed_generator_has_precision_without_recall() {
        let real = uniform(400, 4, 1, 0.0);
        // Copies of a few real samples.
        let few: Vec<usize> = (0..400).map(|i| i % 5).collect();
        let p = precision_recall(&real, &real.select(&few).unwrap(), K).unwrap();
        assert_eq!(p.precision, 1.0);
        assert!(p.recall < 0.05 && p.coverage < 0.1, "{p:?}");
        // Real samples among noise that covers them.
        let mut wide = uniform(200, 4, 2, 0.0).data().to_vec();
        wide.extend(uniform(200, 4, 3, 0.0).data().iter().map(|v| 20.0 * v));
        let p = precision_recall(&real, &Features::new(400, 4, wide).unwrap(), K).unwrap();
        assert!(p.precision < 0.6 && p.recall > 0.9, "{p:?}");
    }

    #[test]
    fn the_answer_does_not_depend_on_the_number_of_threads() {
        let (a, b) = (uniform(103, 9, 1, 0.0), uniform(77, 9, 2, 0.1));
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| precision_recall(&a, &b, K).unwrap())
        };
        assert_eq!(with(1), with(4));
    }

    #[test]
    fn too_few_samples_are_refused() {
        let f = uniform(3, 2, 1, 0.0);
        assert!(precision_recall(&f, &f, 3).is_err());
        assert!(precision_recall(&f, &f, 2).is_ok());
        assert!(precision_recall(&f, &f, 0).is_err());
    }
}
