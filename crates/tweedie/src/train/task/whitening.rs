//! Latents of unit covariance.
//!
//! ```text
//! z' = W (z - mu),  W = C^(-1/2),  mu and C the mean and covariance over positions and pictures
//! ```
//! An autoencoder leaves its channels as it likes: what a picture is may stand in directions of a
//! fiftieth of the variance of others, which a diffusion's loss then hardly sees and which it learns
//! last. The symmetric root stays as near to the old channels as whitening can (ZCA; Kessy et al.,
//! "Optimal Whitening and Decorrelation", 2018, [arXiv:1512.00809](https://arxiv.org/abs/1512.00809)).
//! The turn goes into the 1x1 convolutions at the autoencoder's waist, so that whoever opens it has
//! nothing more to do.

use nalgebra::{DMatrix, DVector, SymmetricEigen};

use crate::error::{Error, Result};
use crate::model::AutoencoderKl;
use crate::weight::{Parameters, Weight};

/// The least variance of a direction, as a share of the mean: what is smaller is no signal.
const FLOOR: f64 = 1e-3;

/// The least log-variance that the class has.
const NO_NOISE: f64 = -30.0;

/// A turn of latents, and the way back.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Whitening {
    mean: DVector<f64>,
    forward: DMatrix<f64>,
    back: DMatrix<f64>,
}

impl Whitening {
    /// Of latents `[n, channels, plane]`.
    pub(super) fn of(values: &[f32], channels: usize, plane: usize) -> Self {
        let stride = (channels * plane).max(1);
        let count = (values.len() / channels.max(1)).max(1) as f64;
        let mut mean = DVector::zeros(channels);
        for row in values.chunks_exact(stride) {
            for (c, channel) in row.chunks_exact(plane).enumerate() {
                mean[c] += channel.iter().map(|v| f64::from(*v)).sum::<f64>();
            }
        }
        mean /= count;
        let mut covariance = DMatrix::zeros(channels, channels);
        for row in values.chunks_exact(stride) {
            for i in 0..channels {
                for j in 0..=i {
                    let (a, b) = (&row[i * plane..][..plane], &row[j * plane..][..plane]);
                    let products = a
                        .iter()
                        .zip(b)
                        .map(|(a, b)| (f64::from(*a) - mean[i]) * (f64::from(*b) - mean[j]));
                    covariance[(i, j)] += products.sum::<f64>();
                }
            }
        }
        covariance /= count;
        covariance.fill_upper_triangle_with_lower_triangle();
        let SymmetricEigen { eigenvectors, eigenvalues } = covariance.symmetric_eigen();
        let floor = (FLOOR * eigenvalues.mean()).max(f64::MIN_POSITIVE);
        let size = |f: fn(f64) -> f64| {
            let diagonal = DMatrix::from_diagonal(&eigenvalues.map(|v| f(v.max(floor).sqrt())));
            &eigenvectors * diagonal * eigenvectors.transpose()
        };
        Self { mean, forward: size(f64::recip), back: size(|s| s) }
    }

    /// Turns latents `[n, channels, plane]`.
    pub(super) fn apply(&self, values: &mut [f32], plane: usize) {
        let channels = self.mean.len();
        let mut position = DVector::zeros(channels);
        for row in values.chunks_exact_mut((channels * plane).max(1)) {
            for p in 0..plane {
                for c in 0..channels {
                    position[c] = f64::from(row[c * plane + p]) - self.mean[c];
                }
                for c in 0..channels {
                    let turned: f64 =
                        (0..channels).map(|j| self.forward[(c, j)] * position[j]).sum();
                    row[c * plane + p] = turned as f32;
                }
            }
        }
    }

    /// Takes the turn into the autoencoder: it encodes to turned latents and decodes them.
    ///
    /// Its posterior becomes its mean. Turned noise is not independent over channels, and a diagonal
    /// that stood for it would be as large in the directions of the largest variance as in those of the
    /// least: pictures started from would come back covered with blots. What is trained over it sees
    /// means alone.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] where there are no such convolutions.
    pub(super) fn fold(&self, network: &mut AutoencoderKl) -> Result<()> {
        let config = network.config();
        if !(config.use_quant_conv && config.use_post_quant_conv) {
            let why = "the autoencoder has no `quant_conv` and `post_quant_conv` to take it";
            return Err(Error::setting("autoencoder.whiten", why));
        }
        let n = self.mean.len();
        let mut into = DMatrix::zeros(2 * n, 2 * n);
        let mut shift = DVector::zeros(2 * n);
        for i in 0..n {
            for j in 0..n {
                into[(i, j)] = self.forward[(i, j)];
            }
            shift[i] = -self.forward.row(i).transpose().dot(&self.mean);
            shift[n + i] = NO_NOISE;
        }
        edit(network, "quant_conv", |weight, bias| (&into * weight, &into * bias + &shift))?;
        edit(network, "post_quant_conv", |weight, bias| {
            (weight * &self.back, bias + weight * &self.mean)
        })
    }
}

/// Replaces weight `[o, i, 1, 1]` and bias `[o]` of a convolution.
fn edit(
    network: &mut AutoencoderKl,
    name: &str,
    change: impl FnOnce(&DMatrix<f64>, &DVector<f64>) -> (DMatrix<f64>, DVector<f64>),
) -> Result<()> {
    let [weight, bias] = ["weight", "bias"].map(|part| format!("{name}.{part}"));
    let mut found = (Vec::new(), Vec::new());
    network.each("", &mut |path, w| match path {
        p if p == weight => found.0 = wide(w),
        p if p == bias => found.1 = wide(w),
        _ => {}
    });
    let (rows, columns) = (found.1.len(), found.0.len() / found.1.len().max(1));
    let old = (DMatrix::from_row_slice(rows, columns, &found.0), DVector::from_vec(found.1));
    let (new_weight, new_bias) = change(&old.0, &old.1);
    let mut result = Ok(());
    network.each_mut("", &mut |path, w| {
        let narrow = |numbers: &[f64]| numbers.iter().map(|v| *v as f32).collect();
        let set = match path {
            // Column-major storage of the transpose is the matrix row by row.
            p if p == weight => w.set_vec(narrow(new_weight.transpose().as_slice())),
            p if p == bias => w.set_vec(narrow(new_bias.as_slice())),
            _ => return,
        };
        if result.is_ok() {
            result = set;
        }
    });
    result
}

fn wide(weight: &Weight) -> Vec<f64> {
    weight.to_vec().into_iter().map(f64::from).collect()
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor, TensorData};

    use super::*;
    use crate::model::config::{AutoencoderKlConfig, DecoderBlock, EncoderBlock};
    use crate::random::Key;

    /// Three channels: two that go together, and one of a thirtieth of their size.
    fn latents(plane: usize, count: usize) -> Vec<f32> {
        let mut generator = Key::new(5, 0, 0).generator();
        let mut values = Vec::new();
        for _ in 0..count {
            let common: Vec<f64> = (0..plane).map(|_| generator.normal()).collect();
            let own: Vec<f64> = (0..2 * plane).map(|_| generator.normal()).collect();
            values.extend((0..plane).map(|p| (3.0 * common[p] + 1.0) as f32));
            values.extend((0..plane).map(|p| (2.0 * common[p] + own[p]) as f32));
            values.extend((0..plane).map(|p| (0.1 * own[plane + p] - 0.5) as f32));
        }
        values
    }

    #[test]
    fn what_is_turned_has_unit_covariance() {
        let mut values = latents(16, 200);
        let turn = Whitening::of(&values, 3, 16);
        turn.apply(&mut values, 16);
        let again = Whitening::of(&values, 3, 16);
        assert!(again.mean.amax() < 1e-5, "{}", again.mean);
        let rest = &again.back - DMatrix::identity(3, 3);
        assert!(rest.amax() < 1e-3, "{rest}");
        let round = &turn.forward * &turn.back - DMatrix::identity(3, 3);
        assert!(round.amax() < 1e-9, "{round}");
    }

    #[test]
    fn a_direction_without_signal_is_not_blown_up() {
        let mut values = latents(16, 20);
        for row in values.chunks_exact_mut(48) {
            row[32..].fill(0.25);
        }
        let turn = Whitening::of(&values, 3, 16);
        turn.apply(&mut values, 16);
        assert!(values.chunks_exact(48).all(|row| row[32..].iter().all(|v| v.abs() < 1e-4)));
    }

    /// The folded autoencoder's latents are the turned ones, and it decodes them to the same picture.
    #[test]
    fn the_autoencoder_takes_the_turn() {
        let config = AutoencoderKlConfig {
            latent_channels: 3,
            block_out_channels: vec![8, 8],
            down_block_types: vec![EncoderBlock::DownEncoderBlock2D; 2],
            up_block_types: vec![DecoderBlock::UpDecoderBlock2D; 2],
            norm_num_groups: 4,
            layers_per_block: 1,
            ..AutoencoderKlConfig::default()
        };
        let device = Device::flex();
        let mut network = AutoencoderKl::new(config.clone(), &device).unwrap();
        crate::weight::draw(&mut network, 4).unwrap();
        let numbers: Vec<f32> = latents(64, 2);
        let x = Tensor::<4>::from_data(TensorData::new(numbers, [2, 3, 8, 8]), &device);
        let flat = |t: &Tensor<4>| t.to_data().try_into_vec::<f32>().unwrap();
        let (mean, _) = network.encode(&x).unwrap();
        let (plain, picture) = (flat(&mean), flat(&network.decode(&mean).unwrap()));
        let turn = Whitening::of(&plain, 3, 16);
        turn.fold(&mut network).unwrap();
        let mut wanted = plain;
        turn.apply(&mut wanted, 16);
        let (mean, logvar) = network.encode(&x).unwrap();
        let near = |a: &[f32], b: &[f32], bound: f32| {
            a.iter().zip(b).all(|(a, b)| (a - b).abs() <= bound * b.abs().max(1.0))
        };
        assert!(near(&flat(&mean), &wanted, 1e-3));
        assert!(near(&flat(&network.decode(&mean).unwrap()), &picture, 1e-3));
        let logvar = flat(&logvar);
        assert!(logvar.len() == wanted.len() && logvar.iter().all(|v| *v == -30.0), "{logvar:?}");
        let without = AutoencoderKlConfig { use_quant_conv: false, ..config };
        let mut network = AutoencoderKl::new(without, &device).unwrap();
        assert!(turn.fold(&mut network).unwrap_err().to_string().contains("autoencoder.whiten"));
    }
}
