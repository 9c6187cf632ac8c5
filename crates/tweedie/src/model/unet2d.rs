//! `UNet2DModel`: a U-Net over images that is told the time and, if it has classes, a class.

use burn::tensor::{Device, Tensor};

use super::config::{Config, DownBlock, TimeScaleShift, UNet2DConfig, UpBlock};
use super::edge::{image, row_times};
use super::embed::{ClassEmbedding, ClassPlan, Sinusoid, TimeMlp};
use super::layers::{Conv2d, GroupNorm};
use super::resnet::ResnetPlan;
use super::site::{Given, Maker, Sited};
use super::unet::{Body, BodyPlan, LevelPlan, MixerPlan};
use crate::denoiser::{Asks, Cond, Network, Pass, Times};
use crate::error::Result;
use crate::parameters;
use crate::state::State;
use crate::tap::Site;

/// A U-Net with self-attention (Ho et al., "Denoising diffusion probabilistic models", 2020, in the
/// form of diffusers' `UNet2DModel`).
///
/// Where it has a table of classes and the condition names none, the last class is used: train it
/// as the class for 'none'.
#[derive(Clone, Debug)]
pub struct UNet2D {
    config: UNet2DConfig,
    sinusoid: Sinusoid,
    conv_in: Conv2d,
    time_embedding: TimeMlp,
    class_embedding: Option<ClassEmbedding>,
    body: Body,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}
parameters!(UNet2D {
    conv_in,
    time_embedding,
    class_embedding,
    "" => body,
    conv_norm_out,
    conv_out,
});

impl UNet2D {
    /// A network without numbers yet: draw or load them.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Setting`] where the settings are not valid.
    pub fn new(config: UNet2DConfig, device: &Device) -> Result<Self> {
        config.validate()?;
        let first = config.block_out_channels[0];
        let width = config.time_embed_dim();
        let sinusoid = Sinusoid {
            width: first,
            cos_first: config.flip_sin_to_cos,
            shift: config.freq_shift as f64,
        };
        let class = ClassPlan {
            kind: config.class_embed_type.as_deref(),
            classes: config.num_class_embeds,
            projected: None,
            time: sinusoid,
            width,
        };
        let mut maker = Maker::new("unet", device);
        maker.zero_ends = true;
        Ok(Self {
            conv_in: Conv2d::new(config.in_channels, first, 3, device),
            time_embedding: TimeMlp::new(first, width, device),
            class_embedding: ClassEmbedding::new(&class, device)?,
            body: Body::new(&mut maker, &body(&config)),
            conv_norm_out: GroupNorm::new(config.norm_num_groups, first, config.norm_eps, device),
            conv_out: Conv2d::new(first, config.out_channels, 3, device).at_end(&maker),
            sinusoid,
            config,
        })
    }

    /// Its settings.
    pub fn config(&self) -> &UNet2DConfig {
        &self.config
    }
}

/// The plan of the levels.
fn body(config: &UNet2DConfig) -> BodyPlan {
    let count = config.block_out_channels.len();
    let pixels = |channels: usize, norm: bool| MixerPlan::Pixels {
        head: config.attention_head_dim.unwrap_or(channels),
        norm,
    };
    let level = |i: usize| {
        let channels = config.block_out_channels[i];
        let down = config.down_block_types[i] == DownBlock::AttnDownBlock2D;
        let up = config.up_block_types[count - 1 - i] == UpBlock::AttnUpBlock2D;
        LevelPlan {
            channels,
            layers: config.layers_per_block,
            down: down.then(|| pixels(channels, true)),
            up: up.then(|| pixels(channels, true)),
        }
    };
    // The published class leaves the norm of the middle's attention out in this case.
    let norm = config.resnet_time_scale_shift == TimeScaleShift::Default;
    BodyPlan {
        levels: (0..count).map(level).collect(),
        mid: config.mid_block_type.is_some(),
        mid_mixer: config.add_attention.then(|| pixels(config.block_out_channels[count - 1], norm)),
        downsample_padding: config.downsample_padding,
        resnet: ResnetPlan {
            time: Some(config.time_embed_dim()),
            groups: config.norm_num_groups,
            eps: config.norm_eps,
            shift: config.resnet_time_scale_shift,
        },
    }
}

impl Network for UNet2D {
    fn forward(&self, x: &State, time: &Times, cond: &Cond, pass: &mut Pass) -> Result<State> {
        let config = &self.config;
        let image = image(x, config.in_channels, cond, self.conv_in.weight(), config.dropout)?;
        let [batch, _, height, width] = image.x.dims();
        self.body.fits([height, width])?;
        let times = row_times(time, batch, "unet")?;
        let mut embedded = self.time_embedding.forward(self.sinusoid.of(times, &image.x), None);
        if let Some(class) = &self.class_embedding {
            embedded = embedded + class.forward(cond, batch, &image.x)?;
        }
        let given = Given { time: Some(embedded), ..Given::default() };
        let x: Tensor<4> =
            if config.center_input_sample { image.x.clone() * 2.0 - 1.0 } else { image.x.clone() };
        let hidden = self.body.forward(self.conv_in.forward(x), &given, pass)?;
        Ok(image.state(self.conv_out.forward(self.conv_norm_out.silu(hidden))))
    }

    fn sites(&self) -> Vec<Site> {
        let mut list = Vec::new();
        self.body.sites(&mut list);
        list
    }

    fn asks(&self) -> Asks {
        Asks {
            channels: Some(self.config.in_channels),
            class: self.class_embedding.as_ref().map(ClassEmbedding::asks).unwrap_or_default(),
            ..Asks::default()
        }
    }

    fn sample_shape(&self) -> Option<Vec<usize>> {
        let [height, width] = self.config.sample_size?.height_width();
        Some(vec![self.config.in_channels, height, width])
    }
}
