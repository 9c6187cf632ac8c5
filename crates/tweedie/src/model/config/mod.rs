//! The settings of the networks, with the fields, values and defaults of the published classes
//! (diffusers 0.42, transformers 5).
//!
//! A network is built from one of these structs and a folder's `config.json` is read into it, so
//! that a folder which says nothing else means the same in Python. Each struct holds every field
//! of its class. A field that a network here does not act on is an error where its value would
//! change the result ([`Config::validate`]), never silently dropped; fields that only matter in
//! training or in 16 bits (`dropout`, `upcast_attention` …) are carried along.

mod autoencoder_kl;
mod autoencoder_tiny;
mod clip_text;
mod controlnet;
mod dit;
mod pixart;
mod transformer2d;
mod unet2d;
mod unet2d_condition;

use std::fmt::Debug;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use autoencoder_kl::{AutoencoderKlConfig, DecoderBlock, EncoderBlock};
pub use autoencoder_tiny::AutoencoderTinyConfig;
pub use clip_text::{ClipTextConfig, HiddenActivation};
pub use controlnet::{ChannelOrder, ControlNetConfig};
pub use dit::{DitConfig, FeedForward};
pub use pixart::PixArtConfig;
pub use transformer2d::Transformer2DConfig;
pub use unet2d::{MidBlock, ResampleKind, UNet2DConfig};
pub use unet2d_condition::{AdditionEmbedding, CrossMidBlock, UNet2DConditionConfig};

use crate::{Error, Result};

/// The most channels (or features) that a layer may have.
pub const MAX_CHANNELS: usize = 1 << 15;
/// The most blocks, layers or heads that a network may have.
pub const MAX_LAYERS: usize = 1 << 10;
/// The largest side of an image or a latent, in pixels.
pub const MAX_SIDE: usize = 1 << 15;

/// The settings of a network.
pub trait Config: Clone + Debug + Default + PartialEq + Serialize + DeserializeOwned {
    /// The published class that the settings are those of.
    const CLASS: &'static str;
    /// Other classes with the same settings.
    const OTHERS: &'static [&'static str] = &[];
    /// Keys that files of this class may hold and that mean nothing to the network.
    const IGNORED: &'static [&'static str] = &[];

    /// Checks that the values are within bounds, agree with each other and ask for nothing that
    /// the network here cannot do.
    ///
    /// # Errors
    /// [`Error::Setting`] names the first field that is wrong, what it is and what is wanted.
    fn validate(&self) -> Result<()>;
}

/// One value for all blocks, or one for each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "wanted a number or a list of numbers")]
pub enum PerBlock<T> {
    /// The same for every block.
    One(T),
    /// One for each block, in order.
    Each(Vec<T>),
}

impl<T: Copy> PerBlock<T> {
    /// The value of block `i`; `None` for a list that does not reach that far.
    pub fn get(&self, i: usize) -> Option<T> {
        match self {
            Self::One(v) => Some(*v),
            Self::Each(v) => v.get(i).copied(),
        }
    }

    /// The values of `blocks` blocks.
    ///
    /// # Errors
    /// The list is of another length; `key` names the field.
    pub fn spread(&self, key: &str, blocks: usize) -> Result<Vec<T>> {
        match self {
            Self::One(v) => Ok(vec![*v; blocks]),
            Self::Each(v) if v.len() == blocks => Ok(v.clone()),
            Self::Each(v) => {
                Err(Error::setting(key, format!("wanted {blocks} values, found {}", v.len())))
            }
        }
    }
}

/// How many transformer layers stand at each attention: one number for all blocks, or one for each
/// block, or one for each attention of each block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "wanted a number or a list of numbers or of lists of numbers")]
pub enum Depths {
    /// The same everywhere.
    One(usize),
    /// For each block.
    Each(Vec<PerBlock<usize>>),
}

impl Depths {
    /// For each of the blocks, in order.
    ///
    /// # Errors
    /// The list is of another length; `key` names the field.
    pub fn spread(&self, key: &str, blocks: usize) -> Result<Vec<PerBlock<usize>>> {
        match self {
            Self::One(n) => Ok(vec![PerBlock::One(*n); blocks]),
            Self::Each(each) if each.len() == blocks => Ok(each.clone()),
            Self::Each(each) => {
                Err(Error::setting(key, format!("wanted {blocks} values, found {}", each.len())))
            }
        }
    }

    /// Whether some block has a list of its own.
    pub fn is_nested(&self) -> bool {
        match self {
            Self::One(_) => false,
            Self::Each(each) => each.iter().any(|b| matches!(b, PerBlock::Each(_))),
        }
    }
}

/// Height and width in pixels: one number for both, or two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "wanted a size in pixels, or a list of height and width")]
pub enum Side {
    /// A square.
    Square(usize),
    /// Height and width.
    Both([usize; 2]),
}

impl Side {
    /// Height and width.
    pub fn height_width(self) -> [usize; 2] {
        match self {
            Self::Square(n) => [n; 2],
            Self::Both(both) => both,
        }
    }
}

/// The blocks of a U-Net on its way down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DownBlock {
    /// Residual blocks.
    #[serde(alias = "UNetResDownBlock2D")]
    DownBlock2D,
    /// Residual blocks, the last of which halves the size.
    #[serde(alias = "UNetResResnetDownsampleBlock2D")]
    ResnetDownsampleBlock2D,
    /// Residual blocks, each followed by self-attention.
    #[serde(alias = "UNetResAttnDownBlock2D")]
    AttnDownBlock2D,
    /// Residual blocks, each followed by a transformer with cross-attention.
    #[serde(alias = "UNetResCrossAttnDownBlock2D")]
    CrossAttnDownBlock2D,
}

/// The blocks of a U-Net on its way up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpBlock {
    /// Residual blocks.
    #[serde(alias = "UNetResUpBlock2D")]
    UpBlock2D,
    /// Residual blocks, the last of which doubles the size.
    #[serde(alias = "UNetResResnetUpsampleBlock2D")]
    ResnetUpsampleBlock2D,
    /// Residual blocks, each followed by self-attention.
    #[serde(alias = "UNetResAttnUpBlock2D")]
    AttnUpBlock2D,
    /// Residual blocks, each followed by a transformer with cross-attention.
    #[serde(alias = "UNetResCrossAttnUpBlock2D")]
    CrossAttnUpBlock2D,
}

/// The activation inside convolutional blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// `x sigmoid(x)`, which files also call `swish`.
    #[default]
    #[serde(alias = "swish")]
    Silu,
    /// `x tanh(ln(1 + exp(x)))`.
    Mish,
    /// `x Phi(x)`, with the normal distribution function.
    Gelu,
    /// Its tanh approximation, which no settings of these classes name.
    #[serde(skip)]
    GeluTanh,
    /// `max(x, 0)`.
    Relu,
}

/// How the time enters a residual block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeScaleShift {
    /// Added after the first convolution.
    #[default]
    Default,
    /// As scale and shift of the second norm.
    ScaleShift,
}

/// How the time is embedded before its two linear layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TimeEmbedding {
    /// Sines and cosines.
    #[default]
    Positional,
    /// Random Fourier features.
    Fourier,
    /// A table.
    Learned,
}

/// A count or size from 1 to `most`.
fn within(key: &str, value: usize, most: usize) -> Result<()> {
    if (1..=most).contains(&value) {
        return Ok(());
    }
    Err(Error::setting(key, format!("wanted 1 to {most}, found {value}")))
}

/// A side from 1 to [`MAX_SIDE`].
fn side(key: &str, value: Option<Side>) -> Result<()> {
    let sides = value.map_or([1; 2], Side::height_width);
    sides.into_iter().try_for_each(|n| within(key, n, MAX_SIDE))
}

/// A finite number above 0.
fn above_zero(key: &str, value: f64) -> Result<()> {
    if value.is_finite() && value > 0.0 {
        return Ok(());
    }
    Err(Error::setting(key, format!("wanted a finite number above 0, found {value}")))
}

/// A probability below 1.
fn dropout(key: &str, value: f64) -> Result<()> {
    if (0.0..1.0).contains(&value) {
        return Ok(());
    }
    Err(Error::setting(key, format!("wanted 0 to below 1, found {value}")))
}

/// `value` divides by `by` without rest.
fn divides(key: &str, value: usize, by_key: &str, by: usize) -> Result<()> {
    if by > 0 && value.is_multiple_of(by) {
        return Ok(());
    }
    Err(Error::setting(key, format!("{value} does not divide by the {by} of `{by_key}`")))
}

/// A field on which the network here acts in one way only.
fn only<T: PartialEq + Debug>(key: &str, found: &T, supported: &T) -> Result<()> {
    if found == supported {
        return Ok(());
    }
    let [found, supported] = [found, supported].map(|v| format!("{v:?}"));
    Err(Error::setting(key, format!("{found} is not supported, only {supported} is")))
}

/// The lists of blocks of a U-Net or an autoencoder have one length, from 1 to 16.
fn blocks(channels: &[usize], down: usize, up: usize) -> Result<()> {
    within("block_out_channels (their number)", channels.len(), 16)?;
    for (key, found) in [("down_block_types", down), ("up_block_types", up)] {
        if found != channels.len() {
            let wanted = channels.len();
            let why = format!("wanted {wanted} as `block_out_channels` has, found {found}");
            return Err(Error::setting(key, why));
        }
    }
    channels.iter().try_for_each(|n| within("block_out_channels", *n, MAX_CHANNELS))
}

/// The norms of a U-Net or an autoencoder: the groups divide the channels of each block.
fn norms(channels: &[usize], groups: usize, eps: f64) -> Result<()> {
    within("norm_num_groups", groups, MAX_CHANNELS)?;
    above_zero("norm_eps", eps)?;
    channels.iter().try_for_each(|n| divides("block_out_channels", *n, "norm_num_groups", groups))
}

#[cfg(test)]
mod tests;
