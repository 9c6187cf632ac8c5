//! `UNet2DModel`: a U-Net over images that is told the time and, if it has classes, a class.

use burn::tensor::{DType, Device, Tensor, TensorData};

use super::attention::PixelPlan;
use super::config::{
    Activation, Config, DownBlock, ResampleKind, TimeEmbedding, TimeScaleShift, UNet2DConfig,
    UpBlock,
};
use super::edge::{image, row_times};
use super::embed::{ClassEmbedding, ClassPlan, Fourier, Sinusoid, TimeMlp, TimeSource};
use super::layers::{Conv2d, Embedding, GroupNorm};
use super::resnet::{Resampling, ResnetPlan};
use super::site::{Given, Maker, Sited};
use super::unet::{Body, BodyPlan, LevelPlan, MidPlan, MixerPlan};
use crate::denoiser::{Asks, Cond, Network, Pass, Times};
use crate::error::Result;
use crate::parameters;
use crate::state::State;
use crate::tap::Site;

/// The deviation of drawn frequencies, which the published class fixes.
const FOURIER_SCALE: f64 = 16.0;

/// A U-Net with self-attention (Ho et al., "Denoising diffusion probabilistic models", 2020, in the
/// form of diffusers' `UNet2DModel`).
///
/// Where it has a table of classes and the condition names none, the last class is used: train it
/// as the class for 'none'.
#[derive(Clone, Debug)]
pub struct UNet2D {
    config: UNet2DConfig,
    time_proj: TimeSource,
    conv_in: Conv2d,
    time_embedding: TimeMlp,
    class_embedding: Option<ClassEmbedding>,
    body: Body,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}
parameters!(UNet2D {
    conv_in,
    time_proj,
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
        let time_proj = match config.time_embedding_type {
            TimeEmbedding::Positional => TimeSource::Sinusoid(Sinusoid {
                width: first,
                cos_first: config.flip_sin_to_cos,
                shift: config.freq_shift as f64,
            }),
            TimeEmbedding::Fourier => {
                TimeSource::Fourier(Fourier::new(first, FOURIER_SCALE, true, false, device))
            }
            TimeEmbedding::Learned => {
                let rows = config.num_train_timesteps.unwrap_or(0);
                TimeSource::Table(Embedding::new(rows, first, 1.0, device))
            }
        };
        let class = ClassPlan {
            kind: config.class_embed_type.as_deref(),
            classes: config.num_class_embeds,
            projected: None,
            time: time_proj.width(),
            activation: Activation::Silu,
            width,
        };
        let mut maker = Maker::new("unet", device);
        maker.zero_ends = true;
        let body = Body::new(&mut maker, &body(&config));
        let norm = GroupNorm::new(config.norm_num_groups, first, config.norm_eps, device);
        Ok(Self {
            conv_in: Conv2d::new(config.in_channels, first, 3, device),
            time_embedding: TimeMlp::new(time_proj.width(), width, device),
            time_proj,
            class_embedding: ClassEmbedding::new(&class, device)?,
            body,
            conv_norm_out: norm.at(&mut maker, "conv_norm_out"),
            conv_out: Conv2d::new(first, config.out_channels, 3, device).at_end(&maker),
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
    let (groups, eps) = (config.norm_num_groups, config.norm_eps);
    let resnet = ResnetPlan {
        time: Some(config.time_embed_dim()),
        groups,
        eps,
        shift: config.resnet_time_scale_shift,
        activation: config.act_fn,
        activates_time: true,
        scale: 1.0,
    };
    let pixels = |channels: usize, groups: Option<usize>, scale: f64| {
        MixerPlan::Pixels(PixelPlan {
            head: config.attention_head_dim.unwrap_or(channels),
            norm: groups.map(|groups| (groups, eps)),
            scale,
        })
    };
    let level = |i: usize| {
        let (channels, layers) = (config.block_out_channels[i], config.layers_per_block);
        let (down, up) = (config.down_block_types[i], config.up_block_types[count - 1 - i]);
        let mixers = |there: bool, layers: usize| {
            vec![pixels(channels, Some(groups), 1.0); if there { layers } else { 0 }]
        };
        let resampling = |kind: ResampleKind| match kind {
            ResampleKind::Conv => Resampling::Convolution,
            ResampleKind::Resnet => Resampling::Residual,
        };
        LevelPlan {
            channels,
            layers,
            down: mixers(down == DownBlock::AttnDownBlock2D, layers),
            up: mixers(up == UpBlock::AttnUpBlock2D, layers + 1),
            down_resnet: resnet,
            up_resnet: resnet,
            // As published, the setting is that of blocks with attention alone.
            halves: match down {
                DownBlock::AttnDownBlock2D => resampling(config.downsample_type),
                DownBlock::ResnetDownsampleBlock2D => Resampling::Residual,
                _ => Resampling::Convolution,
            },
            doubles: match up {
                UpBlock::AttnUpBlock2D => resampling(config.upsample_type),
                UpBlock::ResnetUpsampleBlock2D => Resampling::Residual,
                _ => Resampling::Convolution,
            },
        }
    };
    // The published class leaves the norm of the middle's attention out in one case.
    let default = config.resnet_time_scale_shift == TimeScaleShift::Default;
    let mid_groups = config.attn_norm_num_groups.or(default.then_some(groups));
    let scale = config.mid_block_scale_factor;
    let mid = config.mid_block_type.map(|_| MidPlan {
        second: true,
        mixer: config
            .add_attention
            .then(|| pixels(config.block_out_channels[count - 1], mid_groups, scale)),
        scale,
    });
    BodyPlan {
        levels: (0..count).map(level).collect(),
        mid,
        downsample_padding: config.downsample_padding,
        resnet,
    }
}

impl Network for UNet2D {
    fn copied(&self) -> Option<Box<dyn Network>> {
        Some(Box::new(self.clone()))
    }

    fn forward(&self, x: &State, time: &Times, cond: &Cond, pass: &mut Pass) -> Result<State> {
        let config = &self.config;
        let image = image(x, config.in_channels, cond, self.conv_in.weight(), config.dropout)?;
        let [batch, _, height, width] = image.x.dims();
        self.body.fits([height, width])?;
        let times = row_times(time, batch, "unet")?;
        let class = match &self.class_embedding {
            Some(class) => Some(class.forward(cond, batch, &self.time_proj, &image.x)?),
            None => None,
        };
        let embedded = pass.embedded(self, times, |times| {
            let time = self.time_embedding.forward(self.time_proj.of(times, &image.x)?, None);
            Ok(match &class {
                Some(class) => time + class.clone().repeat(&[times.len() / batch, 1]),
                None => time,
            })
        })?;
        let given = Given { time: Some(embedded), ..Given::default() };
        let x: Tensor<4> =
            if config.center_input_sample { image.x.clone() * 2.0 - 1.0 } else { image.x.clone() };
        let hidden = self.body.forward(self.conv_in.forward(x), &given, pass)?;
        let hidden = self.conv_norm_out.run(hidden, Some(Activation::Silu), pass)?;
        let y = self.conv_out.forward(hidden);
        Ok(image.state(match config.time_embedding_type {
            // Such networks are trained on noise levels, and say the noise in units of them.
            TimeEmbedding::Fourier => {
                let times = TensorData::new(times.to_vec(), [batch, 1, 1, 1]);
                y / Tensor::<4>::from_data(times, (&image.x.device(), DType::F32))
            }
            _ => y,
        }))
    }

    fn sites(&self) -> Vec<Site> {
        let mut list = Vec::new();
        self.body.sites(&mut list);
        list.extend(self.conv_norm_out.site().cloned());
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
