//! The kernel distance between two sets of features.
//!
//! The squared maximum mean discrepancy with a polynomial kernel, without bias (Gretton et al.
//! 2012; as a measure of generators Binkowski et al. 2018, arXiv:1801.01401). Unlike the Frechet
//! distance it does not grow when there are fewer samples; for equal distributions it scatters
//! around 0 and may be negative.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Features, STREAM, linalg};
use crate::random::Key;
use crate::{Error, Result};

/// How the kernel distance is estimated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelOptions {
    /// Into how many disjoint blocks the samples are dealt, at least 2; 10. The estimate is the
    /// mean over the blocks and their scatter gives its standard error.
    pub blocks: usize,
    /// What the dealing depends on; 0.
    pub seed: u64,
}

impl Default for KernelOptions {
    fn default() -> Self {
        Self { blocks: 10, seed: 0 }
    }
}

/// A kernel distance.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Kernel {
    /// The mean over the blocks of the unbiased squared discrepancy.
    pub distance: f64,
    /// The standard error of that mean.
    pub standard_error: f64,
    /// How many blocks there were.
    pub blocks: usize,
    /// Samples of each set in a block; what is left over is not used.
    pub block_size: usize,
}

/// The kernel distance with `k(x, y) = (x . y / d + 1)^3`, `d` the width of the features.
///
/// # Errors
/// [`Error::Shape`] if the features differ in width; [`Error::Setting`] for fewer than 2 blocks or
/// fewer than 2 samples a block.
pub fn kernel(a: &Features, b: &Features, options: &KernelOptions) -> Result<Kernel> {
    let KernelOptions { blocks, seed } = *options;
    if blocks < 2 {
        return Err(Error::setting("blocks", format!("{blocks} where at least 2 are needed")));
    }
    a.comparable(b, blocks.saturating_mul(2))?;
    let size = a.len().min(b.len()) / blocks;
    let width = a.width();
    // Sets come sorted by class more often than not; blocks must not.
    let deal = |set: &Features, index| {
        let order = Key::new(seed, STREAM, index).generator().permutation(set.len());
        set.select(&order[..blocks * size]).map(|s| s.widened())
    };
    let (a, b) = (deal(a, 0)?, deal(b, 1)?);
    let stride = size * width;
    let values: Vec<f64> = a
        .par_chunks_exact(stride)
        .zip(b.par_chunks_exact(stride))
        .map(|(a, b)| discrepancy(a, b, width))
        .collect();
    let mean = values.iter().sum::<f64>() / blocks as f64;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (blocks as f64 - 1.0);
    Ok(Kernel {
        distance: mean,
        standard_error: (variance / blocks as f64).sqrt(),
        blocks,
        block_size: size,
    })
}

/// The unbiased squared discrepancy of two blocks of equal size: a sample is not compared with
/// itself.
fn discrepancy(a: &[f64], b: &[f64], width: usize) -> f64 {
    let n = (a.len() / width) as f64;
    let k = |x: &[f64], y: &[f64]| (linalg::dot(x, y) / width as f64 + 1.0).powi(3);
    let within = |set: &[f64]| {
        let mut sum = 0.0;
        for (i, x) in set.chunks_exact(width).enumerate() {
            sum += set.chunks_exact(width).skip(i + 1).map(|y| k(x, y)).sum::<f64>();
        }
        2.0 * sum / (n * (n - 1.0))
    };
    let mut across = 0.0;
    for x in a.chunks_exact(width) {
        across += b.chunks_exact(width).map(|y| k(x, y)).sum::<f64>();
    }
    within(a) + within(b) - 2.0 * across / (n * n)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normals(n: usize, d: usize, seed: u64, shift: f64) -> Features {
        let mut out = vec![0.0; n * d];
        Key::new(seed, 0, 0).generator().fill_normal(&mut out);
        Features::new(n, d, out.iter().map(|v| (v + shift) as f32).collect()).unwrap()
    }

    #[test]
    fn the_estimate_is_the_definition_on_three_points() {
        let k = |x: f64, y: f64| (x * y + 1.0).powi(3);
        let (a, b) = ([1.0, 2.0, -1.0], [0.5, 0.0, 3.0]);
        let mut wanted = 0.0;
        for i in 0..3 {
            for j in 0..3 {
                if i != j {
                    wanted += (k(a[i], a[j]) + k(b[i], b[j])) / 6.0;
                }
                wanted -= 2.0 * k(a[i], b[j]) / 9.0;
            }
        }
        assert!((discrepancy(&a, &b, 1) - wanted).abs() < 1e-12);
    }

    #[test]
    fn equal_distributions_are_within_the_standard_error_of_zero() {
        let d =
            kernel(&normals(4000, 8, 1, 0.0), &normals(4000, 8, 2, 0.0), &KernelOptions::default());
        let d = d.unwrap();
        assert_eq!((d.blocks, d.block_size), (10, 400));
        assert!(d.distance.abs() < 3.5 * d.standard_error, "{d:?}");
        assert!(d.standard_error < 0.02, "{d:?}");
    }

    #[test]
    fn a_shift_in_one_dimension_has_a_closed_form() {
        // The kernel (xy + 1)^3 compares 3 (E x)^2 + 3 (E x^2)^2 + (E x^3)^2. A standard normal
        // has 0, 1, 0; shifted by 1 it has 1, 2, 4: 3 + 3 + 16.
        let d = kernel(
            &normals(60_000, 1, 1, 0.0),
            &normals(60_000, 1, 2, 1.0),
            &KernelOptions { blocks: 100, seed: 0 },
        );
        let d = d.unwrap();
        assert!((d.distance - 22.0).abs() < 4.0 * d.standard_error, "{d:?}");
        assert!(d.standard_error < 0.5, "{d:?}");
    }

    #[test]
    fn sorted_samples_are_dealt() {
        // Two well separated halves in order: blocks cut from the sorted list would scatter far.
        let both = |seed| {
            let mut data = normals(1000, 2, seed, 5.0).data().to_vec();
            data.extend_from_slice(normals(1000, 2, seed + 9, -5.0).data());
            Features::new(2000, 2, data).unwrap()
        };
        let d = kernel(&both(1), &both(2), &KernelOptions::default()).unwrap();
        assert!(d.distance.abs() < 4.0 * d.standard_error, "{d:?}");
        let shuffled = kernel(&both(1), &both(2), &KernelOptions { seed: 5, blocks: 10 }).unwrap();
        assert_ne!(d.distance.to_bits(), shuffled.distance.to_bits());
    }

    #[test]
    fn too_few_samples_are_refused() {
        let f = normals(19, 2, 1, 0.0);
        assert!(kernel(&f, &f, &KernelOptions::default()).is_err());
        assert!(kernel(&f, &f, &KernelOptions { blocks: 1, seed: 0 }).is_err());
    }
}
