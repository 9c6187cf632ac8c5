//! A small residual classifier of pictures: the judge of generated samples, and the network whose
//! features they are compared in.
//!
//! ```text
//! conv 3x3 -> for each stage: `blocks` residual blocks, then (but for the last) half the size
//!          -> norm -> mean over the picture = features -> linear = logits
//! ```
//! A residual block is norm, SiLU, conv, norm, SiLU, conv, beside the identity (He et al., "Identity
//! Mappings in Deep Residual Networks", 2016, with group norms for batch norms, so that a picture's
//! logits do not depend on its batch).

use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};
use tweedie_kernels::Epilogue;

use super::config::Config;
use super::ops;
use crate::derivative::AutodiffContext;
use crate::error::{Error, Result};
use crate::level::{Level, Levels};
use crate::parameters;
use crate::reward::Classifies;
use crate::state::State;
use crate::weight::{Initial, Weight};

/// The settings of a [`Classifier`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClassifierConfig {
    /// Channels of a picture.
    pub in_channels: usize,
    /// Side of a picture in pixels.
    pub sample_size: usize,
    /// How many classes there are.
    pub classes: usize,
    /// Channels of each stage.
    pub channels: Vec<usize>,
    /// Residual blocks of each stage.
    pub blocks: usize,
    /// Groups of the norms.
    pub groups: usize,
    /// Whether it reads noisy pictures: a further channel tells it the level.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub levels: bool,
}

impl Default for ClassifierConfig {
    fn default() -> Self {
        Self {
            in_channels: 1,
            sample_size: 28,
            classes: 10,
            channels: vec![32, 64, 128],
            blocks: 1,
            groups: 8,
            levels: false,
        }
    }
}

impl Config for ClassifierConfig {
    const CLASS: &'static str = "TweedieClassifier";

    fn validate(&self) -> Result<()> {
        let bad = |key: &str, why: String| Err(Error::setting(format!("classifier:{key}"), why));
        if self.channels.is_empty() || self.channels.len() > 8 {
            return bad("channels", format!("{} stages, wanted 1 to 8", self.channels.len()));
        }
        for (key, value, most) in [
            ("in_channels", self.in_channels, 64),
            ("classes", self.classes, 100_000),
            ("blocks", self.blocks, 64),
            ("groups", self.groups, 1024),
            ("sample_size", self.sample_size, 4096),
        ] {
            if value == 0 || value > most {
                return bad(key, format!("{value} is not in 1..={most}"));
            }
        }
        if let Some(odd) =
            self.channels.iter().find(|c| **c == 0 || **c > 4096 || **c % self.groups != 0)
        {
            return bad("channels", format!("{odd} is not a multiple of {} groups", self.groups));
        }
        Ok(())
    }
}

impl ClassifierConfig {
    /// Features of a picture.
    pub fn features(&self) -> usize {
        self.channels.last().copied().unwrap_or(0)
    }
}

/// What a classifier says of pictures.
#[derive(Clone, Debug)]
pub struct Classified {
    /// The features before the last layer, `[batch, features]`.
    pub features: Tensor<2>,
    /// The logits, `[batch, classes]`.
    pub logits: Tensor<2>,
}

/// A small residual classifier.
#[derive(Clone, Debug)]
pub struct Classifier {
    config: ClassifierConfig,
    conv_in: Conv,
    stages: Vec<Stage>,
    norm: Norm,
    head: Head,
}
parameters!(Classifier { conv_in, stages, norm, head });

#[derive(Clone, Debug)]
struct Conv {
    weight: Weight,
    bias: Weight,
    stride: usize,
}
parameters!(Conv { weight, bias });

#[derive(Clone, Debug)]
struct Norm {
    weight: Weight,
    bias: Weight,
    groups: usize,
}
parameters!(Norm { weight, bias });

#[derive(Clone, Debug)]
struct Head {
    weight: Weight,
    bias: Weight,
}
parameters!(Head { weight, bias });

#[derive(Clone, Debug)]
struct Block {
    norm1: Norm,
    conv1: Conv,
    norm2: Norm,
    conv2: Conv,
}
parameters!(Block { norm1, conv1, norm2, conv2 });

#[derive(Clone, Debug)]
struct Stage {
    blocks: Vec<Block>,
    down: Option<Conv>,
}
parameters!(Stage { blocks, down });

impl Conv {
    fn new([from, to]: [usize; 2], stride: usize, device: &Device) -> Self {
        let bound = Initial::Uniform(1.0 / ((9 * from) as f64).sqrt());
        Self {
            weight: Weight::new([to, from, 3, 3], bound, device),
            bias: Weight::new([to], bound, device),
            stride,
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        ops::conv2d(x, &self.weight, Some(&self.bias), self.stride, [1; 4])
    }
}

impl Norm {
    fn new(channels: usize, groups: usize, device: &Device) -> Self {
        Self {
            weight: Weight::new([channels], Initial::Ones, device),
            bias: Weight::new([channels], Initial::Zeros, device),
            groups,
        }
    }

    fn silu(&self, x: Tensor<4>) -> Tensor<4> {
        ops::group_norm(x, self.groups, [&self.weight, &self.bias], 1e-5, true)
    }
}

impl Block {
    fn new(channels: usize, groups: usize, device: &Device) -> Self {
        Self {
            norm1: Norm::new(channels, groups, device),
            conv1: Conv::new([channels; 2], 1, device),
            norm2: Norm::new(channels, groups, device),
            conv2: Conv::new([channels; 2], 1, device),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let y = self.conv1.forward(self.norm1.silu(x.clone()));
        x + self.conv2.forward(self.norm2.silu(y))
    }
}

impl Classifier {
    /// A network without numbers yet: draw or load them.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] where the settings are not valid.
    pub fn new(config: ClassifierConfig, device: &Device) -> Result<Self> {
        config.validate()?;
        let channels = &config.channels;
        let stage = |i: usize| Stage {
            blocks: (0..config.blocks)
                .map(|_| Block::new(channels[i], config.groups, device))
                .collect(),
            down: channels.get(i + 1).map(|next| Conv::new([channels[i], *next], 2, device)),
        };
        let features = config.features();
        let bound = Initial::Uniform(1.0 / (features as f64).sqrt());
        Ok(Self {
            conv_in: Conv::new(
                [config.in_channels + usize::from(config.levels), channels[0]],
                1,
                device,
            ),
            stages: (0..channels.len()).map(stage).collect(),
            norm: Norm::new(features, config.groups, device),
            head: Head {
                weight: Weight::new([config.classes, features], bound, device),
                bias: Weight::new([config.classes], bound, device),
            },
            config,
        })
    }

    /// Its settings.
    pub fn config(&self) -> &ClassifierConfig {
        &self.config
    }

    /// Features and logits of pictures in -1..=1.
    ///
    /// # Shapes
    ///
    /// - `x`: `[batch, in_channels, height, width]`
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where the pictures have other channels.
    pub fn forward(&self, x: Tensor<4>) -> Result<Classified> {
        self.forward_at(x, &Levels::One(Level::CLEAN))
    }

    /// As [`Classifier::forward`], of noisy pictures at their levels, where it reads such.
    ///
    /// What it is told of a level is `atan(sigma / alpha) / (pi / 2)`, 0 at data and 1 at noise.
    ///
    /// # Errors
    ///
    /// As [`Classifier::forward`].
    pub fn forward_at(&self, x: Tensor<4>, at: &Levels) -> Result<Classified> {
        let [batch, found, height, width] = x.dims();
        if found != self.config.in_channels {
            return Err(Error::Shape {
                what: "pictures for a classifier".into(),
                wanted: vec![batch, self.config.in_channels, height, width],
                found: vec![batch, found, height, width],
            });
        }
        let x = if self.config.levels { beside_its_level(x, at) } else { x };
        let mut x = self.conv_in.forward(x);
        for stage in &self.stages {
            x = stage.blocks.iter().fold(x, |x, block| block.forward(x));
            if let Some(down) = &stage.down {
                x = down.forward(x);
            }
        }
        let x = self.norm.silu(x);
        let [batch, channels, height, width] = x.dims();
        let features = x.reshape([batch, channels, height * width]).mean_dim(2);
        let features = features.reshape([batch, 1, channels]);
        let logits = ops::linear(
            features.clone(),
            &self.head.weight,
            Some(&self.head.bias),
            Epilogue::Plain,
        );
        Ok(Classified {
            features: features.reshape([batch, channels]),
            logits: logits.reshape([batch, self.config.classes]),
        })
    }
}

/// Pictures with a channel that holds each one's level.
fn beside_its_level(x: Tensor<4>, at: &Levels) -> Tensor<4> {
    let [batch, _, height, width] = x.dims();
    let of = |row| {
        let level = at.row(row);
        level.sigma.atan2(level.alpha) * std::f64::consts::FRAC_2_PI
    };
    let told = TensorData::new((0..batch).map(of).collect::<Vec<f64>>(), [batch, 1, 1, 1]);
    let told = Tensor::<4>::from_data(told, (&x.device().without_autodiff(), x.dtype()));
    let told = told.repeat(&[1, 1, height, width]).with_autodiff_context_of(&x);
    Tensor::cat(vec![x, told], 1)
}

impl Classifies for Classifier {
    /// Of the middle of larger pictures; smaller ones get a border of black.
    fn logits(&self, x: &State, at: &Levels) -> Result<Tensor<2>> {
        let x = x.view::<4>()?;
        let [batch, channels, height, width] = x.dims();
        let side = self.config.sample_size;
        let cut = |x: Tensor<4>, axis: usize, length: usize| match length {
            l if l > side => x.narrow(axis, (l - side) / 2, side),
            l if l < side => {
                let mut shape = x.dims();
                let before = (side - l) / 2;
                let device = x.device().without_autodiff();
                let mut border = |length: usize| {
                    shape[axis] = length;
                    let black = Tensor::<4>::full(shape, -1.0, (&device, x.dtype()));
                    black.with_autodiff_context_of(&x)
                };
                let (before, after) = (border(before), border(side - l - before));
                Tensor::cat(vec![before, x, after], axis)
            }
            _ => x,
        };
        let x = cut(cut(x, 2, height), 3, width);
        debug_assert_eq!(x.dims(), [batch, channels, side, side]);
        Ok(self.forward_at(x, at)?.logits)
    }

    fn classes(&self) -> usize {
        self.config.classes
    }

    fn reads_noise(&self) -> bool {
        self.config.levels
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pictures_logits_do_not_depend_on_its_batch() {
        let config =
            ClassifierConfig { channels: vec![8, 16], groups: 4, ..ClassifierConfig::default() };
        let device = Device::flex();
        let mut network = Classifier::new(config, &device).unwrap();
        crate::weight::draw(&mut network, 1).unwrap();
        let pixels: Vec<f32> = (0..3 * 784).map(|i| (i as f32 * 0.37).sin()).collect();
        let x = Tensor::<4>::from_data(TensorData::new(pixels, [3, 1, 28, 28]), &device);
        let all = network.forward(x.clone()).unwrap();
        assert_eq!((all.features.dims(), all.logits.dims()), ([3, 16], [3, 10]));
        let alone = network.forward(x.narrow(0, 2, 1)).unwrap().logits;
        assert_eq!(
            alone.try_into_vec_as::<f32>().unwrap(),
            all.logits.narrow(0, 2, 1).try_into_vec_as::<f32>().unwrap()
        );
        let rgb = Tensor::<4>::zeros([1, 3, 28, 28], &device);
        assert!(network.forward(rgb).unwrap_err().to_string().contains("wanted shape [1, 1, 28"));
        let odd = ClassifierConfig { channels: vec![9], ..ClassifierConfig::default() };
        assert!(odd.validate().unwrap_err().to_string().contains("`classifier:channels`: 9"));
    }
}
