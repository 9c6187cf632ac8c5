//! The Frechet distance between two sets of features.
//!
//! Dowson and Landau 1982; as a measure of generators Heusel et al. 2017 (arXiv:1706.08500), who
//! take the features of an Inception network. Here the features are the caller's, so that figures
//! compare only with figures of the same features and the same number of samples.

use serde::{Deserialize, Serialize};

use super::{Features, linalg};
use crate::{Error, Result};

/// Mean and covariance of a set of features, which is all that the distance needs of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Moments {
    samples: usize,
    mean: Vec<f64>,
    trace: f64,
    factor: linalg::Factor,
}

impl Moments {
    /// The moments of a set; the covariance is divided by `n - 1`.
    ///
    /// # Errors
    /// [`Error::Setting`] for fewer than two samples.
    pub fn of(features: &Features) -> Result<Self> {
        if features.len() < 2 {
            let why = format!("{} where at least 2 are needed", features.len());
            return Err(Error::setting("samples", why));
        }
        let (mean, covariance) = linalg::moments(features);
        Ok(Self::from_parts(features.len(), mean, &covariance))
    }

    fn from_parts(samples: usize, mean: Vec<f64>, covariance: &[f64]) -> Self {
        let d = mean.len();
        let trace = (0..d).map(|i| covariance[i * d + i]).sum();
        Self { samples, trace, factor: linalg::factor(covariance, d), mean }
    }

    /// The numerical rank of the covariance. Below the width of the features there are
    /// directions in which the set does not vary, or too few samples to see it.
    pub fn rank(&self) -> usize {
        self.factor.rank
    }
}

/// A Frechet distance and what it is made of.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Frechet {
    /// `|m1 - m2|^2 + tr(S1 + S2 - 2 (S1^1/2 S2 S1^1/2)^1/2)`.
    pub distance: f64,
    /// The share of the means.
    pub mean: f64,
    /// The share of the covariances.
    pub covariance: f64,
    /// Samples in each set. The estimate is biased upwards, the more the fewer there are.
    pub samples: [usize; 2],
    /// The numerical rank of each covariance.
    pub ranks: [usize; 2],
}

/// The distance between the Gaussians with these moments.
///
/// # Errors
/// [`Error::Shape`] if the features differ in width.
pub fn between(a: &Moments, b: &Moments) -> Result<Frechet> {
    if a.mean.len() != b.mean.len() {
        return Err(Error::Shape {
            what: "width of feature vectors".into(),
            wanted: vec![a.mean.len()],
            found: vec![b.mean.len()],
        });
    }
    let mean = linalg::squared_distance(&a.mean, &b.mean);
    // Never negative but for rounding.
    let covariance =
        (a.trace + b.trace - 2.0 * linalg::nuclear_norm_of_product(&a.factor, &b.factor)).max(0.0);
    Ok(Frechet {
        distance: mean + covariance,
        mean,
        covariance,
        samples: [a.samples, b.samples],
        ranks: [a.rank(), b.rank()],
    })
}

/// The distance between the Gaussians fitted to two sets of features.
///
/// # Errors
/// Those of [`Moments::of`] and [`between`].
pub fn frechet(a: &Features, b: &Features) -> Result<Frechet> {
    between(&Moments::of(a)?, &Moments::of(b)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Key;

    fn diagonal(mean: &[f64], variances: &[f64]) -> Moments {
        let d = mean.len();
        let covariance: Vec<f64> =
            (0..d * d).map(|k| if k / d == k % d { variances[k / d] } else { 0.0 }).collect();
        Moments::from_parts(2, mean.to_vec(), &covariance)
    }

    fn normals(n: usize, d: usize, seed: u64, scale: f64) -> Features {
        let mut out = vec![0.0; n * d];
        Key::new(seed, 0, 0).generator().fill_normal(&mut out);
        Features::new(n, d, out.iter().map(|v| (scale * v) as f32).collect()).unwrap()
    }

    #[test]
    fn commuting_covariances_have_a_closed_form() {
        // |m1 - m2|^2 + sum (s1 - s2)^2, also where a variance is 0 or tiny.
        let a = diagonal(&[1.0, 2.0, 3.0, 0.0], &[4.0, 1.0, 0.0, 1e-20]);
        let b = diagonal(&[0.0, 2.0, 5.0, 0.0], &[1.0, 9.0, 0.0, 1.0]);
        let f = between(&a, &b).unwrap();
        assert!((f.mean - 5.0).abs() < 1e-14);
        assert!((f.covariance - (1.0 + 4.0 + 0.0 + 1.0)).abs() < 1e-9, "{f:?}");
        assert_eq!(f.ranks, [2, 3], "what is below the rounding of the largest is cut off");
    }

    #[test]
    fn covariances_that_do_not_commute_have_one_in_two_dimensions() {
        // tr (A B)^1/2 = (tr AB + 2 (det A det B)^1/2)^1/2 for 2x2.
        let (a, b) = ([2.0, 0.7, 0.7, 1.0], [1.5, -0.9, -0.9, 3.0]);
        let det = |m: &[f64; 4]| m[0] * m[3] - m[1] * m[2];
        let tr_ab = a[0] * b[0] + a[1] * b[2] + a[2] * b[1] + a[3] * b[3];
        let root = (tr_ab + 2.0 * (det(&a) * det(&b)).sqrt()).sqrt();
        let wanted = 3.0 + 4.5 - 2.0 * root;
        let m = |s: &[f64]| Moments::from_parts(2, vec![0.0; 2], s);
        let found = between(&m(&a), &m(&b)).unwrap().distance;
        assert!((found - wanted).abs() < 1e-12, "{found} {wanted}");
        let turned = between(&m(&b), &m(&a)).unwrap().distance;
        assert!((turned - wanted).abs() < 1e-12);
    }

    #[test]
    fn a_set_is_at_no_distance_from_itself_even_with_few_samples() {
        // 20 samples of 64 features: the covariance has rank 19.
        let f = normals(20, 64, 3, 1.0);
        let d = frechet(&f, &f).unwrap();
        assert_eq!(d.ranks, [19, 19]);
        assert!(d.distance < 1e-11, "{d:?}");
    }

    #[test]
    fn samples_of_known_gaussians_come_near_the_closed_form() {
        // Unit against twice unit in 8 dimensions: 8 (2 - 1)^2.
        let d = frechet(&normals(20_000, 8, 1, 1.0), &normals(20_000, 8, 2, 2.0)).unwrap();
        assert!((d.distance - 8.0).abs() < 0.15, "{d:?}");
        let same = frechet(&normals(20_000, 8, 1, 1.0), &normals(20_000, 8, 2, 1.0)).unwrap();
        assert!(same.distance < 0.01, "{same:?}");
        // The bias at few samples, which is why figures come with a noise floor.
        let few = frechet(&normals(200, 8, 1, 1.0), &normals(200, 8, 2, 1.0)).unwrap();
        assert!(few.distance > 5.0 * same.distance);
    }

    #[test]
    fn the_answer_does_not_depend_on_the_number_of_threads() {
        let (a, b) = (normals(500, 33, 1, 1.0), normals(400, 33, 2, 1.1));
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| frechet(&a, &b).unwrap().distance.to_bits())
        };
        assert_eq!(with(1), with(2));
        assert_eq!(with(1), with(5));
    }

    #[test]
    fn what_cannot_be_compared_is_refused() {
        assert!(frechet(&normals(1, 2, 0, 1.0), &normals(9, 2, 0, 1.0)).is_err());
        assert!(frechet(&normals(9, 3, 0, 1.0), &normals(9, 2, 0, 1.0)).is_err());
    }
}
