//! Between pictures and what the network works on.

use burn::tensor::{Tensor, TensorData};

use crate::data::Images;
use crate::engine::open::Model;
use crate::engine::watch::Watch;
use crate::error::{Error, Result};
use crate::media;
use crate::noise::Noise;
use crate::spec::Spec;
use crate::state::State;

/// What a picture is to the network: one point, or a Gaussian that a point is drawn from.
#[derive(Clone, Debug)]
pub(super) struct Encoded {
    /// The mean, as the autoencoder gives it, `[1, channels, height, width]`.
    mean: Tensor<4>,
    /// The standard deviation, for autoencoders that give one.
    deviation: Option<Tensor<4>>,
}

impl Encoded {
    /// Pictures in -1..1, `[1, channels, height, width]`, encoded; by tiles where the spec wants it.
    ///
    /// # Errors
    ///
    /// What the encoder says.
    pub(super) fn of(model: &Model, spec: &Spec, pixels: &Tensor<4>) -> Result<Self> {
        match &model.decoder {
            None => Ok(Self { mean: pixels.clone(), deviation: None }),
            Some(autoencoder) => {
                let [_, _, height, width] = pixels.dims();
                let (mean, logvar) = match spec.tile([height, width]) {
                    None => autoencoder.encode(pixels)?,
                    Some(tile) => autoencoder.encode_tiled(pixels, tile, &mut || false)?,
                };
                Ok(Self { mean, deviation: logvar.map(|logvar| (logvar * 0.5).exp()) })
            }
        }
    }

    /// `rows` draws, scaled as diffusion sees them; a source of noise is asked only where there is
    /// something to draw, as in diffusers.
    ///
    /// # Errors
    ///
    /// What the source says.
    pub(super) fn draw(
        &self,
        model: &Model,
        rows: usize,
        noise: &mut dyn Noise,
    ) -> Result<Tensor<4>> {
        let mean = self.mean.clone().repeat_dim(0, rows);
        let z = match &self.deviation {
            None => mean,
            Some(deviation) => {
                let eps: Tensor<4> = noise.draw(&State::new(mean.clone()))?.view()?;
                mean + deviation.clone() * eps
            }
        };
        Ok(match &model.decoder {
            None => z,
            Some(autoencoder) => autoencoder.to_unit(z),
        })
    }

    /// The most likely point, scaled as diffusion sees it, `rows` times.
    pub(super) fn point(&self, model: &Model, rows: usize) -> Tensor<4> {
        let mode = self.mode(rows);
        match &model.decoder {
            None => mode,
            Some(autoencoder) => autoencoder.to_unit(mode),
        }
    }

    /// Whether a draw asks for noise.
    pub(super) fn is_drawn(&self) -> bool {
        self.deviation.is_some()
    }

    /// The most likely point, not scaled, `rows` times.
    pub(super) fn mode(&self, rows: usize) -> Tensor<4> {
        self.mean.clone().repeat_dim(0, rows)
    }
}

/// Pictures in -1..1 from what the sampler ends with; by tiles where the spec wants it, and then the
/// watcher is asked before each.
///
/// # Errors
///
/// What the decoder says.
pub(super) fn decoded(
    model: &Model,
    spec: &Spec,
    x: Tensor<4>,
    watch: &mut dyn Watch,
) -> Result<Tensor<4>> {
    let Some(decoder) = &model.decoder else { return Ok(x) };
    let [_, _, height, width] = x.dims();
    let z = decoder.of_unit(x);
    match spec.tile([height, width].map(|side| side * model.scale())) {
        None => decoder.decode(&z),
        Some(tile) => decoder.decode_tiled(&z, tile, &mut || watch.evaluate().is_break()),
    }
}

/// One picture as the model sees it, -1..1, brought to a size and to its own channels.
///
/// # Errors
///
/// As [`media::resized`].
pub(super) fn pixels(
    model: &Model,
    images: &Images,
    [height, width]: [usize; 2],
) -> Result<Tensor<4>> {
    let channels = match &model.decoder {
        Some(autoencoder) => autoencoder.image_channels(),
        None => model.shape[0],
    };
    let images = media::with_channels(&media::resized(images, height, width)?, channels)?;
    let values = images.gather_f32(&[0])?;
    let data = TensorData::new(values, [1, channels, height, width]);
    Ok(Tensor::from_data(data, model.device()))
}

/// A picture as control networks see it, 0..1 in colour, `[1, 3, height, width]`.
///
/// # Errors
///
/// As [`media::resized`].
pub(super) fn hint(
    model: &Model,
    images: &Images,
    [height, width]: [usize; 2],
) -> Result<Tensor<4>> {
    let images = media::with_channels(&media::resized(images, height, width)?, 3)?;
    let values = images.gather_f32(&[0])?;
    let data = TensorData::new(values, [1, 3, height, width]);
    Ok(Tensor::<4>::from_data(data, model.device()) * 0.5 + 0.5)
}

/// A mask of zeros and ones, `[1, 1, height, width]`: 1 from the middle of the grey scale on.
///
/// # Errors
///
/// As [`media::resized`].
pub(super) fn mask(
    model: &Model,
    images: &Images,
    [height, width]: [usize; 2],
) -> Result<Tensor<4>> {
    let grey = media::resized(&media::with_channels(images, 1)?, height, width)?;
    let Some(first) = grey.get(0) else {
        return Err(Error::setting("mask", "there is no picture"));
    };
    let values: Vec<f32> = first.iter().map(|v| if *v >= 128 { 1.0 } else { 0.0 }).collect();
    Ok(Tensor::from_data(TensorData::new(values, [1, 1, height, width]), model.device()))
}

/// Every `factor`-th pixel of every `factor`-th row: how diffusers brings a mask to latents.
pub(super) fn thinned(x: Tensor<4>, factor: usize) -> Tensor<4> {
    let [batch, channels, height, width] = x.dims();
    let (h, w) = (height / factor, width / factor);
    let rows = x.narrow(2, 0, h * factor).reshape([batch, channels, h, factor * width]);
    let rows = rows.narrow(3, 0, w * factor);
    rows.reshape([batch, channels, h * w, factor]).narrow(3, 0, 1).reshape([batch, channels, h, w])
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn a_mask_is_thinned_and_not_smoothed() {
        let values: Vec<f32> = (0..48).map(|v| v as f32).collect();
        let x = Tensor::<4>::from_data(TensorData::new(values, [1, 1, 6, 8]), &Device::flex());
        let thin = thinned(x.clone(), 2);
        assert_eq!(thin.dims(), [1, 1, 3, 4]);
        let found: Vec<f32> = thin.into_data_as::<f32>().iter::<f32>().collect();
        assert_eq!(found, [0., 2., 4., 6., 16., 18., 20., 22., 32., 34., 36., 38.]);
        assert_eq!(thinned(x, 1).dims(), [1, 1, 6, 8]);
    }
}
