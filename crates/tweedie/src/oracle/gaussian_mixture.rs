//! A mixture of Gaussians, with classes: a world with modes, whose denoiser is not linear.
//!
//! With components `k` of weight `p_k` (see [`crate::oracle::gaussian`] for each):
//!
//! ```text
//! r_k(x)     = p_k N(x; alpha m_k, alpha^2 S_k + sigma^2 I) / sum_j ...
//! E[x0 | x]  = sum_k r_k(x) E_k[x0 | x]
//! ```
//!
//! A class is a set of components; without a condition all of them count.

use burn::tensor::Tensor;
use burn::tensor::activation::softmax;

use crate::denoiser::{Cond, Denoiser, Pass};
use crate::error::{Error, Result};
use crate::level::{Level, Levels};
use crate::oracle::{Gaussian, coefficient, constant, like, rows};
use crate::random::Generator;
use crate::state::State;

/// Far below every log weight, and still a number in f32.
const OUT: f64 = -1e30;

/// A mixture of Gaussians of small dimension.
#[derive(Clone, Debug, PartialEq)]
pub struct GaussianMixture {
    weights: Vec<f64>,
    parts: Vec<Gaussian>,
    classes: Vec<Vec<usize>>,
}

impl GaussianMixture {
    /// Components with their weights, which are normalised. Every component is a class of its own.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] where there is none, or a weight is not positive; [`Error::Shape`] where
    /// the dimensions differ.
    pub fn new(parts: Vec<(f64, Gaussian)>) -> Result<Self> {
        let total: f64 = parts.iter().map(|(w, _)| w).sum();
        if parts.is_empty() || parts.iter().any(|(w, _)| w.is_nan() || *w <= 0.0) {
            return Err(Error::setting("mixture", "wanted components of positive weight"));
        }
        let dim = parts[0].1.dim();
        if let Some((_, odd)) = parts.iter().find(|(_, g)| g.dim() != dim) {
            return Err(Error::Shape {
                what: "components of a mixture".into(),
                wanted: vec![dim],
                found: vec![odd.dim()],
            });
        }
        let classes = (0..parts.len()).map(|k| vec![k]).collect();
        let (weights, parts) = parts.into_iter().map(|(w, g)| (w / total, g)).unzip();
        Ok(Self { weights, parts, classes })
    }

    /// Says which components each class has.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] for a class without components or a component that does not exist.
    pub fn with_classes(mut self, classes: Vec<Vec<usize>>) -> Result<Self> {
        let known =
            |class: &Vec<usize>| !class.is_empty() && class.iter().all(|&k| k < self.parts.len());
        if classes.is_empty() || !classes.iter().all(known) {
            return Err(Error::setting("classes", "wanted non-empty sets of components"));
        }
        self.classes = classes;
        Ok(self)
    }

    /// The dimension.
    pub fn dim(&self) -> usize {
        self.parts[0].dim()
    }

    /// The components with their weights, of a class or of all.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] for a class that does not exist.
    pub fn components(&self, class: Option<i64>) -> Result<Vec<(f64, &Gaussian)>> {
        let of: Vec<usize> = match class {
            None => (0..self.parts.len()).collect(),
            Some(class) => self.class(class)?.to_vec(),
        };
        let total: f64 = of.iter().map(|&k| self.weights[k]).sum();
        Ok(of.into_iter().map(|k| (self.weights[k] / total, &self.parts[k])).collect())
    }

    fn class(&self, class: i64) -> Result<&[usize]> {
        let found = usize::try_from(class).ok().and_then(|c| self.classes.get(c));
        found.map(Vec::as_slice).ok_or_else(|| {
            let why = format!("{class}, the world has {}", self.classes.len());
            Error::setting("class", why)
        })
    }

    /// The log density of the noisy state at a level.
    ///
    /// # Errors
    ///
    /// As [`GaussianMixture::components`].
    pub fn log_density(&self, x: &[f64], at: Level, class: Option<i64>) -> Result<f64> {
        let logs = self.log_terms(x, at, class)?;
        let most = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        Ok(most + logs.iter().map(|l| (l - most).exp()).sum::<f64>().ln())
    }

    /// Mean and covariance of the clean sample given the noisy state.
    ///
    /// # Errors
    ///
    /// As [`GaussianMixture::components`].
    pub fn posterior(
        &self,
        x: &[f64],
        at: Level,
        class: Option<i64>,
    ) -> Result<(Vec<f64>, Vec<Vec<f64>>)> {
        let log = self.log_density(x, at, class)?;
        let shares: Vec<f64> =
            self.log_terms(x, at, class)?.iter().map(|l| (l - log).exp()).collect();
        let parts: Vec<_> =
            self.components(class)?.iter().map(|(_, g)| g.posterior(x, at)).collect();
        let dim = self.dim();
        let mut mean = vec![0.0; dim];
        for (r, (m, _)) in shares.iter().zip(&parts) {
            mean.iter_mut().zip(m).for_each(|(a, b)| *a += r * b);
        }
        let mut covariance = vec![vec![0.0; dim]; dim];
        for (r, (m, c)) in shares.iter().zip(&parts) {
            for i in 0..dim {
                for j in 0..dim {
                    covariance[i][j] += r * (c[i][j] + (m[i] - mean[i]) * (m[j] - mean[j]));
                }
            }
        }
        Ok((mean, covariance))
    }

    /// One exact draw of clean data.
    ///
    /// # Errors
    ///
    /// As [`GaussianMixture::components`].
    pub fn sample(&self, class: Option<i64>, rng: &mut Generator) -> Result<Vec<f64>> {
        let components = self.components(class)?;
        let mut left = rng.uniform();
        for (weight, part) in &components {
            left -= weight;
            if left < 0.0 {
                return Ok(part.sample(rng));
            }
        }
        Ok(components[components.len() - 1].1.sample(rng))
    }

    fn log_terms(&self, x: &[f64], at: Level, class: Option<i64>) -> Result<Vec<f64>> {
        let term = |(w, g): (f64, &Gaussian)| w.ln() + g.log_density(x, at);
        Ok(self.components(class)?.into_iter().map(term).collect())
    }

    /// The log weights of the components for each row, `[batch, components]`.
    fn log_weights(&self, batch: usize, cond: &Cond) -> Result<Vec<f64>> {
        let logs: Vec<f64> = self.weights.iter().map(|w| w.ln()).collect();
        let Some(classes) = &cond.class else { return Ok(logs.repeat(batch)) };
        if classes.len() != batch {
            return Err(Error::Shape {
                what: "classes, one a row".into(),
                wanted: vec![batch],
                found: vec![classes.len()],
            });
        }
        let mut all = Vec::with_capacity(batch * logs.len());
        for class in classes.iter() {
            let of = self.class(*class)?;
            all.extend((0..logs.len()).map(|k| if of.contains(&k) { logs[k] } else { OUT }));
        }
        Ok(all)
    }
}

impl Denoiser for GaussianMixture {
    fn x0(&self, x: &State, at: &Levels, cond: &Cond, pass: &mut Pass) -> Result<State> {
        let (dim, count) = (self.dim(), self.parts.len());
        let flat = rows(x, at, cond, dim)?;
        pass.count_forward();
        let batch = flat.dims()[0];
        let log_weights = constant(self.log_weights(batch, cond)?, [batch, count, 1], &flat);
        let all = |f: &dyn Fn(&Gaussian) -> Vec<f64>| self.parts.iter().flat_map(f).collect();
        let means: Tensor<3> = constant(all(&|g| g.mean().to_vec()), [1, count, dim], &flat);
        let bases: Tensor<4> =
            constant(all(&|g| g.eigen().0.concat()), [1, count, dim, dim], &flat);
        let wide: Tensor<3> = constant(all(&|g| g.eigen().1.to_vec()), [1, count, dim], &flat);
        let alpha = coefficient(at, &flat, |l| l.alpha);
        let square = |f: fn(Level) -> f64| coefficient(at, &flat, move |l| f(l) * f(l));
        let total = wide.clone() * square(|l| l.alpha) + square(|l| l.sigma);
        let off = flat.reshape([batch, 1, dim]) - means.clone() * alpha.clone();
        let along = (off.reshape([batch, count, dim, 1]) * bases.clone())
            .sum_dim(2)
            .reshape([batch, count, dim]);
        let fit = (along.clone() * along.clone() / total.clone() + total.clone().log()).sum_dim(2);
        let shares = softmax(log_weights - fit * 0.5, 1);
        let moved = along * (wide * alpha / total);
        let back = (moved.reshape([batch, count, 1, dim]) * bases).sum_dim(3);
        let each = back.reshape([batch, count, dim]) + means;
        let x0 = (each * shares).sum_dim(1);
        Ok(like(x, &x0.reshape([batch, dim])))
    }
}
