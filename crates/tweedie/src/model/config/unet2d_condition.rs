//! Settings of `UNet2DConditionModel`.

use serde::{Deserialize, Serialize};

use super::unet2d::time;
use super::{
    Activation, Config, Depths, DownBlock, MAX_CHANNELS, MAX_LAYERS, PerBlock, Side, TimeEmbedding,
    TimeScaleShift, UpBlock, above_zero, blocks, divides, dropout, norms, only, side, within,
};
use crate::{Error, Result};

/// The middle of a conditional U-Net.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CrossMidBlock {
    /// Residual block, transformer with cross-attention, residual block.
    UNetMidBlock2DCrossAttn,
    /// One residual block.
    UNetMidBlock2D,
}

/// What is embedded beside the time and the class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdditionEmbedding {
    /// The sequence, pooled by attention.
    Text,
    /// A pooled text embedding and sizes (SDXL's).
    TextTime,
}

/// Settings of `UNet2DConditionModel`: a U-Net over latents whose transformers attend to a
/// sequence of embeddings. The defaults are the class's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "the fields of the published class")]
pub struct UNet2DConditionConfig {
    /// Side of the latents in pixels.
    pub sample_size: Option<Side>,
    /// Channels of the input.
    pub in_channels: usize,
    /// Channels of the output.
    pub out_channels: usize,
    /// Maps inputs from [0, 1] to [-1, 1].
    pub center_input_sample: bool,
    /// The time embedding holds the cosines first.
    pub flip_sin_to_cos: bool,
    /// The frequencies of the time embedding fall over `half - freq_shift` steps.
    pub freq_shift: usize,
    /// Blocks on the way down, finest first: with cross-attention, with self-attention, with
    /// neither, or with neither and the size halved inside.
    pub down_block_types: Vec<DownBlock>,
    /// The middle; `None` leaves it out.
    pub mid_block_type: Option<CrossMidBlock>,
    /// Blocks on the way up, coarsest first, of the same kinds.
    pub up_block_types: Vec<UpBlock>,
    /// The first attention of a transformer block looks at the sequence too.
    pub only_cross_attention: PerBlock<bool>,
    /// Channels of each block, finest first.
    pub block_out_channels: Vec<usize>,
    /// Residual blocks in each block on the way down; on the way up there is one more.
    pub layers_per_block: PerBlock<usize>,
    /// Padding of the convolutions that halve the size: 1, or 0 for one pixel at the right and
    /// the bottom.
    pub downsample_padding: usize,
    /// What the outputs of the middle's residual blocks are divided by.
    pub mid_block_scale_factor: f64,
    /// Dropout, while training.
    pub dropout: f64,
    /// The activation.
    pub act_fn: Activation,
    /// Groups of the norms; `None` (no norm at the end) is not supported.
    pub norm_num_groups: Option<usize>,
    /// Epsilon of the norms.
    pub norm_eps: f64,
    /// Features of the sequence that is attended to.
    pub cross_attention_dim: PerBlock<usize>,
    /// Transformer layers at each attention; a list for each block only with the next setting.
    pub transformer_layers_per_block: Depths,
    /// The same for the way up, coarsest first, where it differs.
    pub reverse_transformer_layers_per_block: Option<Vec<PerBlock<usize>>>,
    /// Features of the sequence where it is projected to those that are attended to.
    pub encoder_hid_dim: Option<usize>,
    /// Kind of that projection; only `text_proj`, a linear layer, is supported.
    pub encoder_hid_dim_type: Option<String>,
    /// The **number** of attention heads, in spite of its name (the published class swapped the
    /// two and kept it so for the files' sake); in blocks with self-attention alone the channels of
    /// a head.
    pub attention_head_dim: PerBlock<usize>,
    /// Must be `None`, as the published class demands.
    pub num_attention_heads: Option<PerBlock<usize>>,
    /// Two cross-attentions; only `false` is supported.
    pub dual_cross_attention: bool,
    /// The transformers' projections are linear layers rather than 1x1 convolutions.
    pub use_linear_projection: bool,
    /// The kind of class embedding: `None` (a table), `timestep`, `identity`, `projection` or
    /// `simple_projection`.
    pub class_embed_type: Option<String>,
    /// More conditions beside the time.
    pub addition_embed_type: Option<AdditionEmbedding>,
    /// Features of each embedded size; means nothing without them.
    pub addition_time_embed_dim: Option<usize>,
    /// Rows of the class table; `None` for a network without classes.
    pub num_class_embeds: Option<usize>,
    /// Attention in 32 bits where the network runs in 16; here it always does.
    pub upcast_attention: bool,
    /// How the time enters a residual block.
    pub resnet_time_scale_shift: TimeScaleShift,
    /// Blocks that halve or double the size inside take the embedded time as it is.
    pub resnet_skip_time_act: bool,
    /// What residual blocks of such blocks divide their outputs by.
    pub resnet_out_scale_factor: f64,
    /// How the time is embedded: positional, or by drawn frequencies (`fourier`).
    pub time_embedding_type: TimeEmbedding,
    /// Features of the time embedding; by default four times the channels of the first block (two
    /// times with drawn frequencies).
    pub time_embedding_dim: Option<usize>,
    /// An activation of all embeddings together.
    pub time_embedding_act_fn: Option<Activation>,
    /// An activation of the embedded time.
    pub timestep_post_act: Option<Activation>,
    /// Width of the guidance weight's embedding, for guidance-distilled models.
    pub time_cond_proj_dim: Option<usize>,
    /// Kernel of the first convolution: an odd number.
    pub conv_in_kernel: usize,
    /// Kernel of the last convolution: an odd number.
    pub conv_out_kernel: usize,
    /// Width of projected class embeddings; means nothing without them.
    pub projection_class_embeddings_input_dim: Option<usize>,
    /// The kind of attention; only `default` is supported.
    pub attention_type: String,
    /// Class embeddings stand behind those of the time rather than being added.
    pub class_embeddings_concat: bool,
    /// Means nothing to the middle that is supported.
    pub mid_block_only_cross_attention: Option<bool>,
    /// Means nothing to the blocks that are supported.
    pub cross_attention_norm: Option<String>,
    /// Heads of the attention that pools a text; means nothing without one.
    pub addition_embed_type_num_heads: usize,
}

impl Default for UNet2DConditionConfig {
    fn default() -> Self {
        use DownBlock::{CrossAttnDownBlock2D, DownBlock2D};
        use UpBlock::{CrossAttnUpBlock2D, UpBlock2D};
        Self {
            sample_size: None,
            in_channels: 4,
            out_channels: 4,
            center_input_sample: false,
            flip_sin_to_cos: true,
            freq_shift: 0,
            down_block_types: vec![
                CrossAttnDownBlock2D,
                CrossAttnDownBlock2D,
                CrossAttnDownBlock2D,
                DownBlock2D,
            ],
            mid_block_type: Some(CrossMidBlock::UNetMidBlock2DCrossAttn),
            up_block_types: vec![
                UpBlock2D,
                CrossAttnUpBlock2D,
                CrossAttnUpBlock2D,
                CrossAttnUpBlock2D,
            ],
            only_cross_attention: PerBlock::One(false),
            block_out_channels: vec![320, 640, 1280, 1280],
            layers_per_block: PerBlock::One(2),
            downsample_padding: 1,
            mid_block_scale_factor: 1.0,
            dropout: 0.0,
            act_fn: Activation::Silu,
            norm_num_groups: Some(32),
            norm_eps: 1e-5,
            cross_attention_dim: PerBlock::One(1280),
            transformer_layers_per_block: Depths::One(1),
            reverse_transformer_layers_per_block: None,
            encoder_hid_dim: None,
            encoder_hid_dim_type: None,
            attention_head_dim: PerBlock::One(8),
            num_attention_heads: None,
            dual_cross_attention: false,
            use_linear_projection: false,
            class_embed_type: None,
            addition_embed_type: None,
            addition_time_embed_dim: None,
            num_class_embeds: None,
            upcast_attention: false,
            resnet_time_scale_shift: TimeScaleShift::Default,
            resnet_skip_time_act: false,
            resnet_out_scale_factor: 1.0,
            time_embedding_type: TimeEmbedding::Positional,
            time_embedding_dim: None,
            time_embedding_act_fn: None,
            timestep_post_act: None,
            time_cond_proj_dim: None,
            conv_in_kernel: 3,
            conv_out_kernel: 3,
            projection_class_embeddings_input_dim: None,
            attention_type: "default".to_owned(),
            class_embeddings_concat: false,
            mid_block_only_cross_attention: None,
            cross_attention_norm: None,
            addition_embed_type_num_heads: 64,
        }
    }
}

impl UNet2DConditionConfig {
    /// Features of the time embedding.
    pub fn time_embed_dim(&self) -> usize {
        let first = self.block_out_channels.first().copied().unwrap_or(0);
        let times = if self.time_embedding_type == TimeEmbedding::Fourier { 2 } else { 4 };
        self.time_embedding_dim.unwrap_or(first * times)
    }

    /// Features of the embedded time as residual blocks are given it.
    pub fn block_time_width(&self) -> usize {
        self.time_embed_dim() * if self.class_embeddings_concat { 2 } else { 1 }
    }

    /// Groups of the norms.
    pub fn groups(&self) -> usize {
        self.norm_num_groups.unwrap_or(32)
    }

    /// Features of the sequence that is attended to, behind its projection if there is one.
    pub fn context_width(&self) -> usize {
        self.attended().next().or_else(|| self.cross_attention_dim.get(0)).unwrap_or(0)
    }

    /// Features of the sequence for each block that attends to it.
    fn attended(&self) -> impl Iterator<Item = usize> {
        let n = self.block_out_channels.len();
        let mid = self.mid_block_type == Some(CrossMidBlock::UNetMidBlock2DCrossAttn);
        (0..n).filter_map(move |i| {
            let down = self.down_block_types.get(i) == Some(&DownBlock::CrossAttnDownBlock2D);
            let up = self.up_block_types.iter().rev().nth(i) == Some(&UpBlock::CrossAttnUpBlock2D);
            (down || up || (mid && i + 1 == n)).then(|| self.cross_attention_dim.get(i)).flatten()
        })
    }

    /// Width of a pooled text embedding and embedded sizes together, and of one size.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] where one of them is not given.
    pub fn sizes(&self) -> Result<(usize, usize)> {
        let want = |key: &str, value: Option<usize>| {
            let why = "is wanted by `addition_embed_type` \"text_time\"";
            value.ok_or_else(|| Error::setting(key, why))
        };
        let total = want(
            "projection_class_embeddings_input_dim",
            self.projection_class_embeddings_input_dim,
        )?;
        Ok((total, want("addition_time_embed_dim", self.addition_time_embed_dim)?))
    }

    /// Transformer layers of each block, finest first: on the way down and on the way up.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] for lists of other lengths than the blocks have.
    pub fn depths(&self) -> Result<(Vec<PerBlock<usize>>, Vec<PerBlock<usize>>)> {
        let n = self.block_out_channels.len();
        let layers = self.layers_per_block.spread("layers_per_block", n)?;
        let key = "transformer_layers_per_block";
        let down = self.transformer_layers_per_block.spread(key, n)?;
        let reverse = "reverse_transformer_layers_per_block";
        let up = match &self.reverse_transformer_layers_per_block {
            None if self.transformer_layers_per_block.is_nested() => {
                return Err(Error::setting(reverse, "is wanted beside lists for each block"));
            }
            None => down.clone(),
            Some(up) => {
                let mut up = Depths::Each(up.clone()).spread(reverse, n)?;
                up.reverse();
                up
            }
        };
        for (i, layers) in layers.iter().enumerate() {
            let crossed = self.down_block_types.get(i) == Some(&DownBlock::CrossAttnDownBlock2D);
            if crossed {
                down[i].spread(key, *layers)?;
            }
            if self.up_block_types.iter().rev().nth(i) == Some(&UpBlock::CrossAttnUpBlock2D) {
                up[i].spread(reverse, layers + 1)?;
            }
        }
        for depths in down.iter().chain(&up) {
            let each = match depths {
                PerBlock::One(one) => std::slice::from_ref(one),
                PerBlock::Each(each) => each.as_slice(),
            };
            each.iter().try_for_each(|n| within(key, *n, MAX_LAYERS))?;
        }
        Ok((down, up))
    }

    /// The lists that go with the blocks: their lengths and bounds.
    fn per_block(&self) -> Result<()> {
        let n = self.block_out_channels.len();
        for (key, values, most) in [
            ("layers_per_block", &self.layers_per_block, MAX_LAYERS),
            ("cross_attention_dim", &self.cross_attention_dim, MAX_CHANNELS),
            ("attention_head_dim", &self.attention_head_dim, MAX_CHANNELS),
        ] {
            values.spread(key, n)?.into_iter().try_for_each(|v| within(key, v, most))?;
        }
        self.only_cross_attention.spread("only_cross_attention", n)?;
        self.depths()?;
        let heads = self.attention_head_dim.spread("attention_head_dim", n)?;
        let mid = self.mid_block_type == Some(CrossMidBlock::UNetMidBlock2DCrossAttn);
        for (i, &channels) in self.block_out_channels.iter().enumerate() {
            let down = match self.down_block_types[i] {
                DownBlock::DownBlock2D | DownBlock::ResnetDownsampleBlock2D => None,
                _ => Some(heads[i]),
            };
            let up = match self.up_block_types[n - 1 - i] {
                UpBlock::UpBlock2D | UpBlock::ResnetUpsampleBlock2D => None,
                UpBlock::CrossAttnUpBlock2D => Some(heads[i]),
                // As published, counted from the coarsest block on.
                UpBlock::AttnUpBlock2D => Some(heads[n - 1 - i]),
            };
            let mid = (mid && i + 1 == n).then_some(heads[i]);
            let all = [down, up, mid];
            all.into_iter()
                .flatten()
                .try_for_each(|h| within("attention_head_dim", h, channels))?;
        }
        let width = self.context_width();
        match self.attended().find(|other| *other != width) {
            None => Ok(()),
            Some(other) => {
                let why = format!("one sequence is attended to, found widths {width} and {other}");
                Err(Error::setting("cross_attention_dim", why))
            }
        }
    }

    /// What is embedded beside the time.
    fn embeddings(&self) -> Result<()> {
        if let Some(classes) = self.num_class_embeds {
            within("num_class_embeds", classes, 1 << 24)?;
        }
        for (key, width) in [
            ("projection_class_embeddings_input_dim", self.projection_class_embeddings_input_dim),
            ("addition_time_embed_dim", self.addition_time_embed_dim),
            ("time_cond_proj_dim", self.time_cond_proj_dim),
            ("encoder_hid_dim", self.encoder_hid_dim),
        ] {
            width.map_or(Ok(()), |width| within(key, width, MAX_CHANNELS))?;
        }
        match (self.encoder_hid_dim, self.encoder_hid_dim_type.as_deref()) {
            (_, None) | (Some(_), Some("text_proj")) => {}
            (None, Some(_)) => {
                let why = "is wanted by `encoder_hid_dim_type`";
                return Err(Error::setting("encoder_hid_dim", why));
            }
            (Some(_), Some(other)) => {
                let why = format!("\"{other}\" is not supported, only \"text_proj\" is");
                return Err(Error::setting("encoder_hid_dim_type", why));
            }
        }
        match self.addition_embed_type {
            Some(AdditionEmbedding::Text) => {
                let heads = self.addition_embed_type_num_heads;
                let key = "addition_embed_type_num_heads";
                let width = self.encoder_hid_dim.unwrap_or(self.context_width());
                within(key, heads, MAX_LAYERS)?;
                divides("cross_attention_dim", width, key, heads)?;
            }
            Some(AdditionEmbedding::TextTime) => {
                let (total, each) = self.sizes()?;
                if self.freq_shift * 2 >= each {
                    let why = format!("wanted more than twice the `freq_shift`, found {each}");
                    return Err(Error::setting("addition_time_embed_dim", why));
                }
                within("projection_class_embeddings_input_dim", total, MAX_CHANNELS)?;
            }
            None => {}
        }
        let classes = self.class_embed_type.is_some() || self.num_class_embeds.is_some();
        if self.class_embeddings_concat && (!classes || self.addition_embed_type.is_some()) {
            let why = "wanted with class embeddings, and without `addition_embed_type`";
            return Err(Error::setting("class_embeddings_concat", why));
        }
        Ok(())
    }

    /// What the network here does in one way only.
    fn supported(&self) -> Result<()> {
        above_zero("mid_block_scale_factor", self.mid_block_scale_factor)?;
        above_zero("resnet_out_scale_factor", self.resnet_out_scale_factor)?;
        only("num_attention_heads", &self.num_attention_heads, &None)?;
        only("dual_cross_attention", &self.dual_cross_attention, &false)?;
        only("attention_type", &self.attention_type.as_str(), &"default")?;
        for (key, kernel) in
            [("conv_in_kernel", self.conv_in_kernel), ("conv_out_kernel", self.conv_out_kernel)]
        {
            within(key, kernel, 31)?;
            if kernel.is_multiple_of(2) {
                return Err(Error::setting(key, format!("wanted an odd number, found {kernel}")));
            }
        }
        match self.time_embedding_type {
            TimeEmbedding::Positional => Ok(()),
            TimeEmbedding::Fourier => {
                divides("time_embedding_dim", self.time_embed_dim(), "fourier frequencies", 2)
            }
            TimeEmbedding::Learned => {
                let why = "\"learned\" is not supported here, only in a `UNet2DModel`";
                Err(Error::setting("time_embedding_type", why))
            }
        }
    }
}

impl Config for UNet2DConditionConfig {
    const CLASS: &'static str = "UNet2DConditionModel";

    fn validate(&self) -> Result<()> {
        let channels = &self.block_out_channels;
        side("sample_size", self.sample_size)?;
        within("in_channels", self.in_channels, MAX_CHANNELS)?;
        within("out_channels", self.out_channels, MAX_CHANNELS)?;
        blocks(channels, self.down_block_types.len(), self.up_block_types.len())?;
        let Some(groups) = self.norm_num_groups else {
            return Err(Error::setting("norm_num_groups", "None is not supported"));
        };
        norms(channels, groups, self.norm_eps)?;
        time(channels, self.freq_shift, self.time_embed_dim())?;
        dropout("dropout", self.dropout)?;
        if self.downsample_padding > 1 {
            let why = format!("wanted 0 or 1, found {}", self.downsample_padding);
            return Err(Error::setting("downsample_padding", why));
        }
        self.per_block()?;
        self.embeddings()?;
        self.supported()
    }
}
