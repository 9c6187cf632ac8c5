//! The autoencoder of latent diffusion.
//!
//! Its decoder counts levels from the finest where diffusers counts from the coarsest, and its middle
//! attends through 1x1 convolutions where diffusers has linear layers. Everything but the groups of
//! the norms (32) and the factor of the latents (the family's) is in the shapes.

use serde_json::{Map, Value, json};

use super::super::tensor_set::TensorSet;
use super::unet::groups;
use super::{Names, count, dim};
use crate::{Error, Result};

/// Inside encoder and decoder.
const EACH: &[(&str, &str)] = &[
    ("conv_in", "conv_in"),
    ("conv_out", "conv_out"),
    ("norm_out", "conv_norm_out"),
    ("mid.attn_1.norm", "mid_block.attentions.0.group_norm"),
    ("mid.attn_1.q", "mid_block.attentions.0.to_q"),
    ("mid.attn_1.k", "mid_block.attentions.0.to_k"),
    ("mid.attn_1.v", "mid_block.attentions.0.to_v"),
    ("mid.attn_1.proj_out", "mid_block.attentions.0.to_out.0"),
];
/// Inside a residual block.
const RESNET: &[(&str, &str)] = &[
    ("norm1", "norm1"),
    ("conv1", "conv1"),
    ("norm2", "norm2"),
    ("conv2", "conv2"),
    ("nin_shortcut", "conv_shortcut"),
];

/// The structure of an autoencoder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Vae {
    channels: Vec<usize>,
    layers: usize,
    images: [usize; 2],
    pub(crate) latents: usize,
    quant: [bool; 2],
    attends: bool,
}

impl Vae {
    /// Reads the structure off a set in the original layout, its prefix taken away.
    ///
    /// # Errors
    /// It is no such autoencoder.
    pub(crate) fn original(set: &TensorSet) -> Result<Self> {
        let channel = |i: usize| format!("encoder.down.{i}.block.0.conv1.weight");
        let attention = "decoder.mid.attn_1.q.weight";
        Self::read(set, count(set, "encoder.down."), channel, "encoder.down.0.block.", attention)
    }

    /// Reads the structure off a set in the layout of diffusers.
    ///
    /// # Errors
    /// It is no such autoencoder.
    pub(crate) fn usual(set: &TensorSet) -> Result<Self> {
        let channel = |i: usize| format!("encoder.down_blocks.{i}.resnets.0.conv1.weight");
        let levels = count(set, "encoder.down_blocks.");
        let attention = "decoder.mid_block.attentions.0.to_q.weight";
        Self::read(set, levels, channel, "encoder.down_blocks.0.resnets.", attention)
    }

    fn read(
        set: &TensorSet,
        levels: usize,
        channel: impl Fn(usize) -> String,
        blocks: &str,
        attention: &str,
    ) -> Result<Self> {
        let need = |name: &str, d: usize| {
            dim(set, name, d).ok_or_else(|| Error::format(set.name(), name, "wanted a convolution"))
        };
        let channels = (0..levels).map(|i| need(&channel(i), 0)).collect::<Result<Vec<_>>>()?;
        let layers = count(set, blocks);
        if channels.is_empty() || layers == 0 {
            let why = "wanted an autoencoder with encoder and decoder";
            return Err(Error::format(set.name(), "encoder", why));
        }
        Ok(Self {
            channels,
            layers,
            images: [need("encoder.conv_in.weight", 1)?, need("decoder.conv_out.weight", 0)?],
            latents: need("decoder.conv_in.weight", 1)?,
            quant: ["quant_conv.weight", "post_quant_conv.weight"].map(|n| set.contains(n)),
            attends: set.contains(attention),
        })
    }

    /// The names of its modules: original to diffusers'.
    pub(crate) fn names(&self) -> Names {
        let mut names = Names::default();
        names.add("quant_conv", "quant_conv");
        names.add("post_quant_conv", "post_quant_conv");
        for half in ["encoder", "decoder"] {
            names.table(half, half, EACH);
            for (from, to) in [("mid.block_1", "resnets.0"), ("mid.block_2", "resnets.1")] {
                names.table(&format!("{half}.{from}"), &format!("{half}.mid_block.{to}"), RESNET);
            }
        }
        let levels = self.channels.len();
        for i in 0..levels {
            let mirrored = levels - 1 - i;
            for j in 0..self.layers {
                let to = format!("encoder.down_blocks.{i}.resnets.{j}");
                names.table(&format!("encoder.down.{i}.block.{j}"), &to, RESNET);
            }
            for j in 0..=self.layers {
                let to = format!("decoder.up_blocks.{mirrored}.resnets.{j}");
                names.table(&format!("decoder.up.{i}.block.{j}"), &to, RESNET);
            }
            let to = format!("encoder.down_blocks.{i}.downsamplers.0.conv");
            names.add(format!("encoder.down.{i}.downsample.conv"), to);
            let to = format!("decoder.up_blocks.{mirrored}.upsamplers.0.conv");
            names.add(format!("decoder.up.{i}.upsample.conv"), to);
        }
        names
    }

    /// The settings of the published class for this structure: for pictures of `side` pixels, with the
    /// factor and the shift that diffusion runs on.
    pub(crate) fn config(
        &self,
        side: usize,
        factor: f64,
        shift: Option<f64>,
    ) -> Map<String, Value> {
        let levels = self.channels.len();
        let map = json!({
            "_class_name": "AutoencoderKL",
            "in_channels": self.images[0],
            "out_channels": self.images[1],
            "down_block_types": vec!["DownEncoderBlock2D"; levels],
            "up_block_types": vec!["UpDecoderBlock2D"; levels],
            "block_out_channels": self.channels,
            "layers_per_block": self.layers,
            "latent_channels": self.latents,
            "norm_num_groups": groups(self.channels.iter().copied()),
            "sample_size": side,
            "scaling_factor": factor,
            "shift_factor": shift,
            "use_quant_conv": self.quant[0],
            "use_post_quant_conv": self.quant[1],
            "mid_block_add_attention": self.attends,
        });
        map.as_object().cloned().unwrap_or_default()
    }
}
