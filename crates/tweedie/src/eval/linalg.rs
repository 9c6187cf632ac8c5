//! Moments and factors of covariances, summed in a fixed order.

use nalgebra::{DMatrix, DMatrixViewMut, SVD};
use rayon::prelude::*;

use super::Features;

/// How many samples go into a covariance at a time: few enough that they stay in cache.
const BLOCK: usize = 512;

/// How many columns of a covariance one task works on.
const PANEL: usize = 64;

/// Adds up `f(i)` over both slices in eight lanes that are joined at the end. The lanes let the
/// compiler use vector instructions and fix the order of the sum on every machine.
fn lanes(a: &[f64], b: &[f64], f: impl Fn(f64, f64) -> f64) -> f64 {
    let mut sums = [0.0; 8];
    let (mut left, mut right) = (a.chunks_exact(8), b.chunks_exact(8));
    for (x, y) in left.by_ref().zip(right.by_ref()) {
        for i in 0..8 {
            sums[i] += f(x[i], y[i]);
        }
    }
    for (i, (x, y)) in left.remainder().iter().zip(right.remainder()).enumerate() {
        sums[i] += f(*x, *y);
    }
    ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]))
}

/// The inner product.
pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    lanes(a, b, |x, y| x * y)
}

/// The squared Euclidean distance, from differences: 0 for equal vectors, and the same both ways.
pub(super) fn squared_distance(a: &[f64], b: &[f64]) -> f64 {
    lanes(a, b, |x, y| (x - y) * (x - y))
}

/// Mean, `[d]`, and covariance, `[d, d]`, of feature vectors; the covariance is divided by `n - 1`.
/// For fewer than two samples the covariance is 0.
pub(super) fn moments(features: &Features) -> (Vec<f64>, Vec<f64>) {
    let (n, d) = (features.len(), features.width());
    let mut mean = vec![0.0; d];
    for row in features.data().chunks_exact(d) {
        mean.iter_mut().zip(row).for_each(|(m, v)| *m += f64::from(*v));
    }
    for m in &mut mean {
        *m /= n.max(1) as f64;
    }

    // The matrix is symmetric, so that rows and columns may be taken for each other. Of every panel
    // of columns what lies below its first row is computed; panels do not depend on each other.
    let mut covariance = vec![0.0; d * d];
    for block in features.data().chunks(BLOCK * d) {
        let rows = block.len() / d;
        let centred = DMatrix::from_fn(d, rows, |i, r| f64::from(block[r * d + i]) - mean[i]);
        let turned = centred.transpose();
        covariance.par_chunks_mut(PANEL * d).enumerate().for_each(|(panel, out)| {
            let (first, columns) = (panel * PANEL, out.len() / d);
            DMatrixViewMut::from_slice(out, d, columns).rows_mut(first, d - first).gemm(
                1.0,
                &centred.rows(first, d - first),
                &turned.columns(first, columns),
                1.0,
            );
        });
    }
    let scale = n.saturating_sub(1).max(1) as f64;
    for i in 0..d {
        for j in 0..=i {
            let value = covariance[j * d + i] / scale;
            covariance[i * d + j] = value;
            covariance[j * d + i] = value;
        }
    }
    (mean, covariance)
}

/// A factor `L`, `[d, rank]`, of a positive semi-definite matrix `S = L L^T`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Factor {
    /// Rows.
    pub(super) d: usize,
    /// Columns.
    pub(super) rank: usize,
    /// The numbers, row by row.
    pub(super) data: Vec<f64>,
}

impl Factor {
    /// Row `i`, `[rank]`.
    pub(super) fn row(&self, i: usize) -> &[f64] {
        &self.data[i * self.rank..(i + 1) * self.rank]
    }
}

/// The Cholesky factor with pivots, which stops at the numerical rank.
///
/// Covariances of features are singular where a feature is constant (the border of padded
/// pictures) or where there are fewer samples than features. A plain Cholesky factor does not
/// exist there; with the largest remaining diagonal entry as the next pivot it does, and what is
/// left at the end, at most `d` times the rounding unit of the largest variance, is the rounding
/// of the covariance itself (Higham, "Accuracy and Stability of Numerical Algorithms", 10.3).
pub(super) fn factor(matrix: &[f64], d: usize) -> Factor {
    let mut left: Vec<f64> = (0..d).map(|i| matrix[i * d + i]).collect();
    let most = left.iter().copied().fold(0.0, f64::max);
    let tolerance = d as f64 * f64::EPSILON * most;
    let mut done = vec![false; d];
    // Row by row at full width first; cut to the rank at the end.
    let mut rows = vec![0.0; d * d];
    let mut rank = 0;
    while rank < d {
        let open = (0..d).filter(|i| !done[*i]);
        let Some(pivot) = open.max_by(|a, b| left[*a].total_cmp(&left[*b]).then(b.cmp(a))) else {
            break;
        };
        if left[pivot] <= tolerance {
            break;
        }
        let root = left[pivot].sqrt();
        let above = rows[pivot * d..pivot * d + rank].to_vec();
        rows.par_chunks_mut(d).zip(&mut left).zip(&done).enumerate().for_each(
            |(i, ((row, left), done))| {
                if *done || i == pivot {
                    return;
                }
                let value = (matrix[i * d + pivot] - dot(&row[..rank], &above)) / root;
                row[rank] = value;
                *left -= value * value;
            },
        );
        rows[pivot * d + rank] = root;
        done[pivot] = true;
        rank += 1;
    }
    let data = rows.chunks_exact(d.max(1)).flat_map(|row| row[..rank].iter().copied()).collect();
    Factor { d, rank, data }
}

/// The sum of the singular values of `A^T B`.
///
/// For factors of two covariances this is the trace of the root of their product,
/// `tr (S1^1/2 S2 S1^1/2)^1/2`: the eigenvalues of `S1 S2` are the squares of those singular
/// values. Taking them from the factors, and not as roots of eigenvalues of the product, does not
/// turn a rounding of 1e-16 into one of 1e-8.
pub(super) fn nuclear_norm_of_product(a: &Factor, b: &Factor) -> f64 {
    if a.rank == 0 || b.rank == 0 {
        return 0.0;
    }
    let left = DMatrix::from_row_slice(a.d, a.rank, &a.data);
    let right = DMatrix::from_row_slice(b.d, b.rank, &b.data);
    let product = left.transpose() * right;
    let frobenius = product.norm_squared();
    // nalgebra works on tall matrices faster; the singular values are the same.
    let tall = if product.nrows() < product.ncols() { product.transpose() } else { product };
    let values =
        SVD::try_new(tall.clone(), false, false, f64::EPSILON, 0).map(|s| s.singular_values);
    // The squares of the singular values add up to the squared Frobenius norm. Where an iteration
    // went astray, the eigenvalues of the small product answer, a little less precisely.
    if let Some(values) = values
        && (values.norm_squared() - frobenius).abs() <= 1e-9 * frobenius
    {
        return values.iter().sum();
    }
    let gram = tall.transpose() * tall;
    gram.symmetric_eigenvalues().iter().map(|v| v.max(0.0).sqrt()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Key;

    fn normals(n: usize, seed: u64) -> Vec<f64> {
        let mut out = vec![0.0; n];
        Key::new(seed, 0, 0).generator().fill_normal(&mut out);
        out
    }

    #[test]
    fn moments_are_those_of_the_definition() {
        let (n, d) = (700, 131);
        let f = Features::new(n, d, normals(n * d, 1).iter().map(|v| *v as f32).collect()).unwrap();
        let (mean, covariance) = moments(&f);
        let x = f.widened();
        for i in 0..d {
            let m: f64 = (0..n).map(|r| x[r * d + i]).sum::<f64>() / n as f64;
            assert!((mean[i] - m).abs() < 1e-14);
            for j in 0..d {
                let c: f64 =
                    (0..n).map(|r| (x[r * d + i] - mean[i]) * (x[r * d + j] - mean[j])).sum();
                assert!((covariance[i * d + j] - c / (n - 1) as f64).abs() < 1e-12);
                assert_eq!(covariance[i * d + j], covariance[j * d + i]);
            }
        }
        let one = Features::new(1, 2, vec![3.0, 4.0]).unwrap();
        assert_eq!(moments(&one), (vec![3.0, 4.0], vec![0.0; 4]));
    }

    /// `L L^T` of a random matrix of a rank below its size, with an empty row.
    fn deficient(d: usize, rank: usize) -> Vec<f64> {
        let mut l = normals(d * rank, 7);
        l[3 * rank..4 * rank].fill(0.0);
        let at = |i: usize| &l[i * rank..(i + 1) * rank];
        (0..d * d).map(|k| dot(at(k / d), at(k % d))).collect()
    }

    #[test]
    fn a_singular_matrix_has_a_factor_of_its_rank() {
        let (d, rank) = (40, 13);
        let s = deficient(d, rank);
        let l = factor(&s, d);
        assert_eq!(l.rank, rank);
        for i in 0..d {
            for j in 0..d {
                assert!((dot(l.row(i), l.row(j)) - s[i * d + j]).abs() < 1e-12);
            }
        }
        assert_eq!(factor(&[0.0; 9], 3).rank, 0);
        assert_eq!(factor(&[], 0).rank, 0);
    }

    #[test]
    fn the_nuclear_norm_of_a_factor_with_itself_is_the_trace() {
        let (d, rank) = (40, 13);
        let s = deficient(d, rank);
        let l = factor(&s, d);
        let trace: f64 = (0..d).map(|i| s[i * d + i]).sum();
        assert!((nuclear_norm_of_product(&l, &l) - trace).abs() < 1e-12 * trace);
        let none = factor(&[0.0; 1600], d);
        assert_eq!(nuclear_norm_of_product(&l, &none), 0.0);
    }

    #[test]
    fn the_nuclear_norm_agrees_with_the_root_of_the_product() {
        // tr (S1^1/2 S2 S1^1/2)^1/2 with the symmetric root, for regular matrices of unlike scale.
        let d = 24;
        let square = |seed| {
            let l = normals(d * 2 * d, seed);
            let at = |i: usize| &l[i * 2 * d..(i + 1) * 2 * d];
            (0..d * d).map(|k| dot(at(k / d), at(k % d))).collect::<Vec<f64>>()
        };
        let (a, b) = (square(1), square(2));
        let s1 = DMatrix::from_row_slice(d, d, &a);
        let s2 = DMatrix::from_row_slice(d, d, &b);
        let e = s1.symmetric_eigen();
        let root = &e.eigenvectors
            * DMatrix::from_diagonal(&e.eigenvalues.map(f64::sqrt))
            * e.eigenvectors.transpose();
        let wanted: f64 =
            (&root * s2 * &root).symmetric_eigenvalues().iter().map(|v| v.sqrt()).sum();
        let found = nuclear_norm_of_product(&factor(&a, d), &factor(&b, d));
        assert!((found / wanted - 1.0).abs() < 1e-12, "{found} {wanted}");
    }
}
