//! `UNet2DConditionModel`: a U-Net over latents whose transformers attend to a sequence.

use burn::tensor::{Device, Tensor};

use super::attention::PixelPlan;
use super::conditioning::Conditioning;
use super::config::{Config, CrossMidBlock, DownBlock, PerBlock, UNet2DConditionConfig, UpBlock};
use super::edge::{image, row_times};
use super::layers::{Conv2d, GroupNorm};
use super::resnet::{Resampling, ResnetPlan};
use super::site::{Maker, Sited};
use super::transformer::TransformerPlan;
use super::unet::{Body, BodyPlan, LevelPlan, MidPlan, MixerPlan};
use crate::denoiser::{Asks, Cond, Network, Pass, Times};
use crate::error::Result;
use crate::parameters;
use crate::state::State;
use crate::tap::Site;

/// A U-Net with cross-attention (Rombach et al., "High-resolution image synthesis with latent
/// diffusion models", 2022, in the form of diffusers' `UNet2DConditionModel`).
///
/// Where it has a table of classes and the condition names none, the last class is used. Channels
/// beyond those of the state (a mask, the latents of an image) come with the condition, in
/// [`crate::denoiser::field::BESIDE`].
#[derive(Clone, Debug)]
pub struct UNet2DCondition {
    config: UNet2DConditionConfig,
    conditioning: Conditioning,
    conv_in: Conv2d,
    body: Body,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}
parameters!(UNet2DCondition {
    conv_in,
    "" => conditioning,
    "" => body,
    conv_norm_out,
    conv_out,
});

impl UNet2DCondition {
    /// A network without numbers yet: draw or load them.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Setting`] where the settings are not valid.
    pub fn new(config: UNet2DConditionConfig, device: &Device) -> Result<Self> {
        config.validate()?;
        let first = config.block_out_channels[0];
        let groups = config.groups();
        let mut maker = Maker::new("unet", device);
        maker.zero_ends = true;
        let conditioning = Conditioning::new(&mut maker, &config, config.act_fn, "unet")?;
        let body = Body::new(&mut maker, &body(&config)?);
        let norm = GroupNorm::new(groups, first, config.norm_eps, device);
        Ok(Self {
            conv_in: Conv2d::new(config.in_channels, first, config.conv_in_kernel, device),
            conditioning,
            body,
            conv_norm_out: norm.at(&mut maker, "conv_norm_out"),
            conv_out: Conv2d::new(first, config.out_channels, config.conv_out_kernel, device)
                .at_end(&maker),
            config,
        })
    }

    /// Its settings.
    pub fn config(&self) -> &UNet2DConditionConfig {
        &self.config
    }
}

/// The plan of the levels.
pub(super) fn body(config: &UNet2DConditionConfig) -> Result<BodyPlan> {
    let count = config.block_out_channels.len();
    let groups = config.groups();
    let layers = config.layers_per_block.spread("layers_per_block", count)?;
    let heads = config.attention_head_dim.spread("attention_head_dim", count)?;
    let encoder = config.cross_attention_dim.spread("cross_attention_dim", count)?;
    let crossed = config.only_cross_attention.spread("only_cross_attention", count)?;
    let (down_depths, up_depths) = config.depths()?;
    let transformer = |i: usize, only_cross: bool, layers: usize| {
        MixerPlan::Transformer(TransformerPlan {
            heads: heads[i],
            layers,
            encoder: encoder[i],
            groups,
            linear: config.use_linear_projection,
            only_cross,
        })
    };
    // In blocks without cross-attention the same setting is the width of a head. On the way up the
    // published class counts these from the coarsest block on.
    let pixels = |i: usize| {
        MixerPlan::Pixels(PixelPlan {
            head: heads[i],
            norm: Some((groups, config.norm_eps)),
            scale: 1.0,
        })
    };
    let transformers = |i: usize, depths: &PerBlock<usize>, count: usize| -> Vec<MixerPlan> {
        (0..count).map(|j| transformer(i, crossed[i], depths.get(j).unwrap_or(1))).collect()
    };
    let resnet = ResnetPlan {
        time: Some(config.block_time_width()),
        groups,
        eps: config.norm_eps,
        shift: config.resnet_time_scale_shift,
        activation: config.act_fn,
        activates_time: true,
        scale: 1.0,
    };
    // These two settings are those of blocks that change the size inside alone.
    let residual = ResnetPlan {
        activates_time: !config.resnet_skip_time_act,
        scale: config.resnet_out_scale_factor,
        ..resnet
    };
    let level = |i: usize| {
        let (down, up) = (layers[i], layers[i] + 1);
        let (down_kind, up_kind) =
            (config.down_block_types[i], config.up_block_types[count - 1 - i]);
        let halves = down_kind == DownBlock::ResnetDownsampleBlock2D;
        let doubles = up_kind == UpBlock::ResnetUpsampleBlock2D;
        let kind = |inside: bool| match inside {
            true => (residual, Resampling::Residual),
            false => (resnet, Resampling::Convolution),
        };
        let ((down_resnet, halves), (up_resnet, doubles)) = (kind(halves), kind(doubles));
        LevelPlan {
            channels: config.block_out_channels[i],
            layers: down,
            down: match down_kind {
                DownBlock::DownBlock2D | DownBlock::ResnetDownsampleBlock2D => Vec::new(),
                DownBlock::AttnDownBlock2D => vec![pixels(i); down],
                DownBlock::CrossAttnDownBlock2D => transformers(i, &down_depths[i], down),
            },
            up: match up_kind {
                UpBlock::UpBlock2D | UpBlock::ResnetUpsampleBlock2D => Vec::new(),
                UpBlock::AttnUpBlock2D => vec![pixels(count - 1 - i); up],
                UpBlock::CrossAttnUpBlock2D => transformers(i, &up_depths[i], up),
            },
            down_resnet,
            up_resnet,
            halves,
            doubles,
        }
    };
    let deepest = count - 1;
    let mid = config.mid_block_type.map(|kind| match kind {
        CrossMidBlock::UNetMidBlock2DCrossAttn => MidPlan {
            second: true,
            mixer: Some(transformer(deepest, false, down_depths[deepest].get(0).unwrap_or(1))),
            scale: config.mid_block_scale_factor,
        },
        CrossMidBlock::UNetMidBlock2D => {
            MidPlan { second: false, mixer: None, scale: config.mid_block_scale_factor }
        }
    });
    Ok(BodyPlan {
        levels: (0..count).map(level).collect(),
        mid,
        downsample_padding: config.downsample_padding,
        resnet,
    })
}

impl Network for UNet2DCondition {
    fn copied(&self) -> Option<Box<dyn Network>> {
        Some(Box::new(self.clone()))
    }

    fn forward(&self, x: &State, time: &Times, cond: &Cond, pass: &mut Pass) -> Result<State> {
        let config = &self.config;
        let image = image(x, config.in_channels, cond, self.conv_in.weight(), config.dropout)?;
        let [batch, _, height, width] = image.x.dims();
        self.body.fits([height, width])?;
        let times = row_times(time, batch, "unet")?;
        let given = self.conditioning.given(times, cond, &image, pass)?;
        let x: Tensor<4> =
            if config.center_input_sample { image.x.clone() * 2.0 - 1.0 } else { image.x.clone() };
        let hidden = self.body.forward(self.conv_in.forward(x), &given, pass)?;
        let hidden = self.conv_norm_out.run(hidden, Some(config.act_fn), pass)?;
        Ok(image.state(self.conv_out.forward(hidden)))
    }

    fn sites(&self) -> Vec<Site> {
        let mut list = Vec::new();
        self.conditioning.sites(&mut list);
        self.body.sites(&mut list);
        list.extend(self.conv_norm_out.site().cloned());
        list
    }

    fn asks(&self) -> Asks {
        Asks { channels: Some(self.config.in_channels), ..self.conditioning.asks() }
    }

    fn sample_shape(&self) -> Option<Vec<usize>> {
        let [height, width] = self.config.sample_size?.height_width();
        Some(vec![self.config.in_channels, height, width])
    }
}
