//! Gaussian data: the world in which every sampler is an affine map.
//!
//! With data `N(m, S)`, `S = U diag(w) U^T`, and `x = alpha x0 + sigma eps`:
//!
//! ```text
//! x            ~ N(alpha m, alpha^2 S + sigma^2 I)
//! E[x0 | x]    = m + U diag(alpha w / (alpha^2 w + sigma^2)) U^T (x - alpha m)
//! Cov[x0 | x]  = U diag(sigma^2 w / (alpha^2 w + sigma^2)) U^T
//! ```

use burn::tensor::Tensor;
use nalgebra::{DMatrix, SymmetricEigen};

use crate::denoiser::{Cond, Denoiser, Pass};
use crate::error::{Error, Result};
use crate::level::{Level, Levels};
use crate::oracle::{coefficient, constant, like, rows};
use crate::random::Generator;
use crate::state::State;

/// Gaussian data of small dimension.
#[derive(Clone, Debug, PartialEq)]
pub struct Gaussian {
    mean: Vec<f64>,
    /// `basis[i][j]`: coordinate `i` of the `j`-th eigenvector of the covariance.
    basis: Vec<Vec<f64>>,
    variances: Vec<f64>,
}

impl Gaussian {
    /// Data with this mean and covariance.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where they do not fit; [`Error::Setting`] where the covariance is not
    /// symmetric and positive definite.
    pub fn new(mean: Vec<f64>, covariance: &[Vec<f64>]) -> Result<Self> {
        let dim = mean.len();
        if dim == 0 || covariance.len() != dim || covariance.iter().any(|row| row.len() != dim) {
            return Err(Error::Shape {
                what: "covariance".into(),
                wanted: vec![dim, dim],
                found: vec![covariance.len(), covariance.first().map_or(0, Vec::len)],
            });
        }
        let matrix = DMatrix::from_fn(dim, dim, |i, j| covariance[i][j]);
        if (&matrix - matrix.transpose()).amax() > 1e-12 * matrix.amax() {
            return Err(Error::setting("covariance", "it is not symmetric"));
        }
        let eigen = SymmetricEigen::new(matrix);
        let variances: Vec<f64> = eigen.eigenvalues.iter().copied().collect();
        if variances.iter().any(|w| !w.is_finite() || *w <= 0.0) {
            let why = format!("eigenvalues {variances:?}, wanted positive ones");
            return Err(Error::setting("covariance", why));
        }
        let basis =
            (0..dim).map(|i| (0..dim).map(|j| eigen.eigenvectors[(i, j)]).collect()).collect();
        Ok(Self { mean, basis, variances })
    }

    /// The dimension.
    pub fn dim(&self) -> usize {
        self.mean.len()
    }

    /// The mean of the data.
    pub fn mean(&self) -> &[f64] {
        &self.mean
    }

    /// The eigenvectors, `[coordinate][vector]`, and the eigenvalues of the covariance.
    pub fn eigen(&self) -> (&[Vec<f64>], &[f64]) {
        (&self.basis, &self.variances)
    }

    /// Mean and covariance of the noisy state at a level.
    pub fn marginal(&self, at: Level) -> (Vec<f64>, Vec<Vec<f64>>) {
        let mean = self.mean.iter().map(|m| at.alpha * m).collect();
        (mean, self.spectral(|w| at.alpha * at.alpha * w + at.sigma * at.sigma))
    }

    /// Mean and covariance of the clean sample given the noisy state.
    pub fn posterior(&self, x: &[f64], at: Level) -> (Vec<f64>, Vec<Vec<f64>>) {
        let total = |w: f64| at.alpha * at.alpha * w + at.sigma * at.sigma;
        let y = self.rotated(x, at);
        let moved: Vec<f64> =
            y.iter().zip(&self.variances).map(|(y, &w)| at.alpha * w / total(w) * y).collect();
        let back = self.basis.iter().map(|row| row.iter().zip(&moved).map(|(u, z)| u * z).sum());
        let mean = self.mean.iter().zip(back).map(|(m, b): (&f64, f64)| m + b).collect();
        (mean, self.spectral(|w| at.sigma * at.sigma * w / total(w)))
    }

    /// The log density of the noisy state at a level.
    pub fn log_density(&self, x: &[f64], at: Level) -> f64 {
        let term = |(y, w): (&f64, &f64)| {
            let total = at.alpha * at.alpha * w + at.sigma * at.sigma;
            y * y / total + total.ln() + std::f64::consts::TAU.ln()
        };
        -0.5 * self.rotated(x, at).iter().zip(&self.variances).map(term).sum::<f64>()
    }

    /// The gradient of [`Gaussian::log_density`].
    pub fn score(&self, x: &[f64], at: Level) -> Vec<f64> {
        let pull = |(y, w): (&f64, &f64)| -y / (at.alpha * at.alpha * w + at.sigma * at.sigma);
        let y: Vec<f64> = self.rotated(x, at).iter().zip(&self.variances).map(pull).collect();
        self.basis.iter().map(|row| row.iter().zip(&y).map(|(u, z)| u * z).sum()).collect()
    }

    /// One exact draw of clean data.
    pub fn sample(&self, rng: &mut Generator) -> Vec<f64> {
        let z: Vec<f64> = self.variances.iter().map(|w| w.sqrt() * rng.normal()).collect();
        let add =
            |(m, row): (&f64, &Vec<f64>)| m + row.iter().zip(&z).map(|(u, z)| u * z).sum::<f64>();
        self.mean.iter().zip(&self.basis).map(add).collect()
    }

    /// `U^T (x - alpha m)`.
    fn rotated(&self, x: &[f64], at: Level) -> Vec<f64> {
        let off: Vec<f64> = x.iter().zip(&self.mean).map(|(x, m)| x - at.alpha * m).collect();
        let along = |j: usize| off.iter().zip(&self.basis).map(|(o, row)| o * row[j]).sum();
        (0..self.dim()).map(along).collect()
    }

    /// `U diag(f(w)) U^T`.
    fn spectral(&self, f: impl Fn(f64) -> f64) -> Vec<Vec<f64>> {
        let gains: Vec<f64> = self.variances.iter().map(|w| f(*w)).collect();
        let entry = |a: &[f64], b: &[f64]| {
            a.iter().zip(b).zip(&gains).map(|((a, b), g)| a * b * g).sum::<f64>()
        };
        self.basis.iter().map(|a| self.basis.iter().map(|b| entry(a, b)).collect()).collect()
    }
}

impl Denoiser for Gaussian {
    fn x0(&self, x: &State, at: &Levels, cond: &Cond, pass: &mut Pass) -> Result<State> {
        let dim = self.dim();
        let flat = rows(x, at, cond, dim)?;
        pass.count_forward();
        let batch = flat.dims()[0];
        let alpha = coefficient(at, &flat, |l| l.alpha);
        let gains = self.variances.iter().flat_map(|&w| {
            (0..batch).map(move |row| {
                let l = at.row(row);
                l.alpha * w / (l.alpha * l.alpha * w + l.sigma * l.sigma)
            })
        });
        // Laid out vector by vector, then turned to [batch, 1, vectors].
        let gains = constant(gains.collect(), [dim, batch], &flat).transpose();
        let mean: Tensor<3> = constant(self.mean.clone(), [1, dim, 1], &flat);
        let basis: Tensor<3> = constant(self.basis.concat(), [1, dim, dim], &flat);
        let off = flat.reshape([batch, dim, 1]) - mean.clone() * alpha;
        // Sums by broadcasting: a matrix product may take another path for another batch.
        let along: Tensor<3> = (off * basis.clone()).sum_dim(1);
        let moved = along * gains.reshape([batch, 1, dim]);
        let x0 = (moved * basis).sum_dim(2) + mean;
        Ok(like(x, &x0.reshape([batch, dim])))
    }
}
