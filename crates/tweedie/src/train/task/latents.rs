//! The latents of all scenes of a training: encoded once, kept in memory and, where that is asked for, in a file.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{Device, Tensor};

use super::pictures::tensor;
use super::scenes::{SceneSettings, pixels};
use super::whitening::Whitening;
use crate::data::shapes::Scene;
use crate::error::Result;
use crate::hub::{Dtype, Output, TensorFile, write_safetensors};
use crate::model::AutoencoderKl;
use crate::weight::Parameters;

/// The latents of all scenes, of unit size.
pub(super) struct Latents {
    pub(super) shape: [usize; 3],
    pub(super) values: Vec<f32>,
}

impl Latents {
    pub(super) fn encode(
        scenes: &SceneSettings,
        autoencoder: &AutoencoderKl,
        device: &Device,
    ) -> Result<Self> {
        let (mut shape, mut values) = ([0; 3], Vec::new());
        for start in (0..scenes.scenes).step_by(32) {
            let end = scenes.scenes.min(start + 32);
            let batch: Vec<Scene> = (start..end).map(|i| scenes.train(i)).collect();
            let mean = autoencoder.encode(&pixels(&batch, scenes.side, device)?)?.0;
            let [_, c, h, w] = mean.dims();
            shape = [c, h, w];
            values.extend(mean.into_data_as::<f32>().iter::<f32>());
        }
        Ok(Self { shape, values })
    }

    /// From a file that holds the latents of the same scenes and weights, else encoded and kept
    /// there.
    pub(super) fn cached(
        file: &Path,
        scenes: &SceneSettings,
        autoencoder: &AutoencoderKl,
        device: &Device,
    ) -> Result<Self> {
        let wanted = mark(scenes, autoencoder);
        if file.exists() {
            let tensors = TensorFile::open(file)?;
            if tensors.metadata().get("made_from") == Some(&wanted) {
                let shape = tensors.info("latents")?.shape;
                if let [n, c, h, w] = shape[..]
                    && n == scenes.scenes
                {
                    return Ok(Self { shape: [c, h, w], values: tensors.read_f32("latents")? });
                }
            }
        }
        let latents = Self::encode(scenes, autoencoder, device)?;
        let [c, h, w] = latents.shape;
        let shape = [scenes.scenes, c, h, w];
        let output = Output::f32("latents", &shape, &latents.values, Dtype::F32);
        write_safetensors(file, &[output], &BTreeMap::from([("made_from".into(), wanted)]))?;
        Ok(latents)
    }

    /// Turns to unit covariance, and the autoencoder with it.
    pub(super) fn whiten(&mut self, autoencoder: &mut AutoencoderKl) -> Result<()> {
        let [channels, h, w] = self.shape;
        let turn = Whitening::of(&self.values, channels, h * w);
        turn.fold(autoencoder)?;
        turn.apply(&mut self.values, h * w);
        Ok(())
    }

    /// Scales to unit size, and says by what.
    pub(super) fn to_unit(&mut self) -> f64 {
        let square: f64 = self.values.iter().map(|v| f64::from(*v) * f64::from(*v)).sum();
        let size = (square / self.values.len().max(1) as f64).sqrt();
        // A short decimal, so that the factor in the file is the one that was trained with.
        let factor = (1e4 / size.max(1e-6)).round() / 1e4;
        self.values.iter_mut().for_each(|v| *v *= factor as f32);
        factor
    }

    pub(super) fn batch(&self, examples: &[usize], device: &Device) -> Tensor<4> {
        let stride: usize = self.shape.iter().product();
        let row = |&i: &usize| &self.values[i * stride..(i + 1) * stride];
        let values: Vec<f32> = examples.iter().flat_map(row).copied().collect();
        tensor(values, examples.len(), self.shape, device)
    }
}

/// What latents were made from: the scenes and the autoencoder's weights.
fn mark(scenes: &SceneSettings, autoencoder: &AutoencoderKl) -> String {
    use sha2::{Digest, Sha256};
    let mut digest = Sha256::new();
    digest.update(format!("{} {}", scenes.seed, scenes.scenes));
    autoencoder.each("", &mut |path, weight| {
        digest.update(path);
        weight.to_vec().iter().for_each(|v| digest.update(v.to_le_bytes()));
    });
    digest.finalize().iter().take(12).map(|b| format!("{b:02x}")).collect()
}
