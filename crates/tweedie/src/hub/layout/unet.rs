//! The U-Net of latent diffusion, and the ControlNet that is half of one.
//!
//! Structure read off the keys: `input_blocks` 1, 2 ... are residual blocks, each with a transformer
//! behind it where the level has attention, until an `op` (a strided convolution) ends the level;
//! `output_blocks` mirror them with one residual block more per level. Channels, the width of the
//! context, the projections' kind and the depth of the transformers are in the shapes.
//!
//! Not in the shapes: the number of heads. Published models with convolutions as projections (1.x)
//! have 8 heads everywhere, those with linear ones (2.x, XL) have heads of 64 channels. The groups of
//! the norms are 32 in all of them.

use serde_json::{Map, Value, json};

use super::super::json::one_line;
use super::super::tensor_set::TensorSet;
use super::{Names, count, dim};
use crate::{Error, Result};

/// Inside a residual block.
const RESNET: &[(&str, &str)] = &[
    ("in_layers.0", "norm1"),
    ("in_layers.2", "conv1"),
    ("emb_layers.1", "time_emb_proj"),
    ("out_layers.0", "norm2"),
    ("out_layers.3", "conv2"),
    ("skip_connection", "conv_shortcut"),
];
/// Outside of the blocks.
const TOP: &[(&str, &str)] = &[
    ("time_embed.0", "time_embedding.linear_1"),
    ("time_embed.2", "time_embedding.linear_2"),
    ("time_embed.cond_proj", "time_embedding.cond_proj"),
    ("input_blocks.0.0", "conv_in"),
    ("out.0", "conv_norm_out"),
    ("out.2", "conv_out"),
];
/// The end of a ControlNet.
const CONTROL: &[(&str, &str)] = &[("middle_block_out.0", "controlnet_mid_block")];

/// A level: blocks at one size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Level {
    channels: usize,
    resnets: usize,
    /// Layers of the transformers behind the residual blocks; 0 for none.
    depth: usize,
}

/// What enters beside the time.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Label {
    None,
    /// A vector of this width: SDXL's text and sizes, or a picture's embedding.
    Vector(usize),
    /// One of this many classes.
    Table(usize),
}

/// The structure of a U-Net or ControlNet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UNet {
    control: bool,
    pub(crate) in_channels: usize,
    out_channels: usize,
    levels: Vec<Level>,
    mid_depth: usize,
    linear: bool,
    pub(crate) context: usize,
    label: Label,
    guidance: Option<usize>,
    /// Channels of the layers that bring the control picture to the size of the latents.
    hint: Vec<usize>,
    groups: usize,
}

impl UNet {
    /// Reads the structure off a set in the original layout, its prefix taken away.
    ///
    /// # Errors
    /// It is none, or one that differs from the published ones; the error says where.
    pub(crate) fn original(set: &TensorSet) -> Result<Self> {
        let fail = |key: &str, why: &str| Error::format(set.name(), one_line(key), why);
        let control = set.contains("zero_convs.0.0.weight");
        let mut levels: Vec<Level> = Vec::new();
        let mut open: Option<Level> = None;
        for i in 1..count(set, "input_blocks.") {
            let at = format!("input_blocks.{i}");
            if set.contains(&format!("{at}.0.op.weight")) {
                levels.push(open.take().ok_or_else(|| fail(&at, "a level without blocks"))?);
                continue;
            }
            let key = format!("{at}.0.in_layers.2.weight");
            let channels = dim(set, &key, 0);
            let channels = channels.ok_or_else(|| fail(&key, "wanted a residual block"))?;
            let depth = count(set, &format!("{at}.1.transformer_blocks."));
            if depth == 0
                && set
                    .names_from(&format!("{at}.1."))
                    .next()
                    .is_some_and(|n| n.starts_with(&format!("{at}.1.")))
            {
                return Err(fail(&format!("{at}.1"), "wanted a transformer"));
            }
            let level = open.get_or_insert(Level { channels, resnets: 0, depth });
            if (level.channels, level.depth) != (channels, depth) {
                return Err(fail(&at, "the blocks of one level differ"));
            }
            level.resnets += 1;
        }
        levels.extend(open);
        let depth = |at: &str| count(set, &format!("{at}.transformer_blocks."));
        let probe = |last: &str| {
            set.names().find(|n| n.ends_with(last)).and_then(|n| Some((n, set.shape_of(n)?)))
        };
        let proj = probe(".proj_in.weight").map(|(_, s)| s.len());
        let context = probe(".attn2.to_k.weight").and_then(|(_, s)| s.get(1).copied());
        let mut hint = Vec::new();
        for i in 0..100 {
            hint.extend(dim(set, &format!("input_hint_block.{}.weight", 2 * i), 0));
        }
        let conv_in = set.shape_of("input_blocks.0.0.weight").unwrap_or_default();
        let [first, in_channels, ..] = *conv_in else {
            return Err(fail("input_blocks.0.0.weight", "wanted a convolution"));
        };
        let net = Self {
            control,
            in_channels,
            out_channels: dim(set, "out.2.weight", 0).unwrap_or(in_channels),
            mid_depth: depth("middle_block.1"),
            linear: proj == Some(2),
            context: context.unwrap_or(0),
            label: match (dim(set, "label_emb.0.0.weight", 1), dim(set, "label_emb.weight", 0)) {
                (Some(width), _) => Label::Vector(width),
                (None, Some(count)) => Label::Table(count),
                (None, None) => Label::None,
            },
            guidance: dim(set, "time_embed.cond_proj.weight", 1),
            hint,
            groups: groups(levels.iter().map(|l| l.channels)),
            levels,
        };
        net.checked(set, first)
    }

    /// Reads the structure off a set in the layout of diffusers.
    ///
    /// # Errors
    /// As for [`original`](Self::original).
    pub(crate) fn usual(set: &TensorSet) -> Result<Self> {
        let fail = |key: &str, why: &str| Error::format(set.name(), one_line(key), why);
        let mut levels = Vec::new();
        for i in 0..count(set, "down_blocks.") {
            let at = format!("down_blocks.{i}");
            let key = format!("{at}.resnets.0.conv1.weight");
            let channels = dim(set, &key, 0);
            levels.push(Level {
                channels: channels.ok_or_else(|| fail(&key, "wanted a residual block"))?,
                resnets: count(set, &format!("{at}.resnets.")),
                depth: count(set, &format!("{at}.attentions.0.transformer_blocks.")),
            });
        }
        let find =
            |last: &str| set.names().find(|n| n.ends_with(last)).and_then(|n| set.shape_of(n));
        let label = ["add_embedding.linear_1.weight", "class_embedding.linear_1.weight"];
        let label = label.iter().find_map(|n| dim(set, n, 1));
        let part = "controlnet_cond_embedding";
        let mut hint: Vec<usize> =
            dim(set, &format!("{part}.conv_in.weight"), 0).into_iter().collect();
        for i in 0..count(set, &format!("{part}.blocks.")) {
            hint.extend(dim(set, &format!("{part}.blocks.{i}.weight"), 0));
        }
        hint.extend(dim(set, &format!("{part}.conv_out.weight"), 0));
        let conv_in = set.shape_of("conv_in.weight").unwrap_or_default();
        let [first, in_channels, ..] = *conv_in else {
            return Err(fail("conv_in.weight", "wanted a convolution"));
        };
        let net = Self {
            control: !hint.is_empty(),
            in_channels,
            out_channels: dim(set, "conv_out.weight", 0).unwrap_or(in_channels),
            mid_depth: count(set, "mid_block.attentions.0.transformer_blocks."),
            linear: find(".proj_in.weight").is_some_and(|s| s.len() == 2),
            context: find(".attn2.to_k.weight").and_then(|s| s.get(1).copied()).unwrap_or(0),
            label: match (label, dim(set, "class_embedding.weight", 0)) {
                (Some(width), _) => Label::Vector(width),
                (None, Some(count)) => Label::Table(count),
                (None, None) => Label::None,
            },
            guidance: dim(set, "time_embedding.cond_proj.weight", 1),
            hint,
            groups: groups(levels.iter().map(|l| l.channels)),
            levels,
        };
        net.checked(set, first)
    }

    fn checked(self, set: &TensorSet, first: usize) -> Result<Self> {
        let fail = |why: &str| Err(Error::format(set.name(), "", why));
        let Some(last) = self.levels.last() else {
            return fail("wanted a U-Net, found no blocks in it");
        };
        if self.levels[0].channels != first {
            return fail("the first convolution has not the channels of the first level");
        }
        if self.levels.iter().any(|l| l.resnets != self.levels[0].resnets) {
            return fail("levels with different numbers of blocks are not supported");
        }
        if self.mid_depth == 0 || (last.depth != 0 && last.depth != self.mid_depth) {
            return fail(
                "a middle whose transformer is not that of the last level is not supported",
            );
        }
        Ok(self)
    }

    /// Whether sizes and a second text embedding enter, as in SDXL.
    pub(crate) fn takes_sizes(&self) -> bool {
        matches!(self.label, Label::Vector(_)) && self.linear
    }

    /// Whether the projections are linear layers.
    pub(crate) fn is_linear(&self) -> bool {
        self.linear
    }

    /// The names of its modules: original to diffusers'.
    pub(crate) fn names(&self) -> Names {
        let mut names = Names::default();
        names.table("", "", TOP);
        let added = if self.takes_sizes() { "add_embedding" } else { "class_embedding" };
        names.add("label_emb.0.0", format!("{added}.linear_1"));
        names.add("label_emb.0.2", format!("{added}.linear_2"));
        names.add("label_emb", "class_embedding");
        let mut at = 1;
        for (b, level) in self.levels.iter().enumerate() {
            for r in 0..level.resnets {
                let to = format!("down_blocks.{b}.resnets.{r}");
                names.table(&format!("input_blocks.{at}.0"), &to, RESNET);
                if level.depth > 0 {
                    let to = format!("down_blocks.{b}.attentions.{r}");
                    names.add(format!("input_blocks.{at}.1"), to);
                }
                at += 1;
            }
            if b + 1 < self.levels.len() {
                let to = format!("down_blocks.{b}.downsamplers.0.conv");
                names.add(format!("input_blocks.{at}.0.op"), to);
                at += 1;
            }
        }
        let blocks = at;
        names.table("middle_block.0", "mid_block.resnets.0", RESNET);
        names.add("middle_block.1", "mid_block.attentions.0");
        names.table("middle_block.2", "mid_block.resnets.1", RESNET);
        if self.control {
            names.table("", "", CONTROL);
            for i in 0..blocks {
                names.add(format!("zero_convs.{i}.0"), format!("controlnet_down_blocks.{i}"));
            }
            let part = "controlnet_cond_embedding";
            names.add("input_hint_block.0", format!("{part}.conv_in"));
            for i in 1..self.hint.len() {
                let to = if i + 1 == self.hint.len() {
                    format!("{part}.conv_out")
                } else {
                    format!("{part}.blocks.{}", i - 1)
                };
                names.add(format!("input_hint_block.{}", 2 * i), to);
            }
            return names;
        }
        let mut at = 0;
        for (b, level) in self.levels.iter().rev().enumerate() {
            for r in 0..=level.resnets {
                let from = format!("output_blocks.{at}");
                names.table(&format!("{from}.0"), &format!("up_blocks.{b}.resnets.{r}"), RESNET);
                if level.depth > 0 {
                    names.add(format!("{from}.1"), format!("up_blocks.{b}.attentions.{r}"));
                }
                if r == level.resnets && b + 1 < self.levels.len() {
                    // Behind the transformer where there is one.
                    let place = if level.depth > 0 { 2 } else { 1 };
                    let to = format!("up_blocks.{b}.upsamplers.0.conv");
                    names.add(format!("{from}.{place}.conv"), to);
                }
                at += 1;
            }
        }
        names
    }

    /// The settings of the published class for this structure; `side` is that of the latents that it
    /// was trained on, and `times` how many sizes enter (6, or 5 for SDXL's refiner).
    pub(crate) fn config(&self, side: usize, times: usize) -> Map<String, Value> {
        let attends = |l: &Level| l.depth > 0;
        let blocks = |plain: &str, cross: &str, reversed: bool| -> Vec<String> {
            let name = |l: &Level| if attends(l) { cross } else { plain }.to_owned();
            if reversed {
                self.levels.iter().rev().map(name).collect()
            } else {
                self.levels.iter().map(name).collect()
            }
        };
        let channels: Vec<usize> = self.levels.iter().map(|l| l.channels).collect();
        let heads: Vec<usize> = channels
            .iter()
            .map(|c| if self.linear { (c / 64).max(1) } else { 8.min(*c) })
            .collect();
        let last = self.levels.len() - 1;
        // Where a level has no transformer the number means nothing, but that of the last level is the
        // middle's. The published settings have one number where all transformers are as deep.
        let same = self.levels.iter().all(|l| l.depth == 0 || l.depth == self.mid_depth);
        let depth = |(i, l): (usize, &Level)| {
            if same || i == last { self.mid_depth } else { l.depth.max(1) }
        };
        let depths: Vec<usize> = self.levels.iter().enumerate().map(depth).collect();
        let one = |list: &[usize]| {
            let same = list.iter().all(|n| *n == list[0]);
            if same { json!(list[0]) } else { json!(list) }
        };
        let mut map = json!({
            "in_channels": self.in_channels,
            "down_block_types": blocks("DownBlock2D", "CrossAttnDownBlock2D", false),
            "block_out_channels": channels,
            "layers_per_block": self.levels[0].resnets,
            "cross_attention_dim": self.context,
            "attention_head_dim": one(&heads),
            "transformer_layers_per_block": one(&depths),
            "use_linear_projection": self.linear,
            "norm_num_groups": self.groups,
        });
        let mut more = json!({});
        if self.control {
            map["_class_name"] = json!("ControlNetModel");
            let channels = self.hint.chunks(2).map(|c| c[0]).collect::<Vec<_>>();
            // Two layers at each size, of which the second leads to the next; the last is the output.
            let sizes = self.hint.len() / 2;
            map["conditioning_embedding_out_channels"] =
                json!(channels[..sizes.min(channels.len())]);
        } else {
            map["_class_name"] = json!("UNet2DConditionModel");
            map["sample_size"] = json!(side);
            map["out_channels"] = json!(self.out_channels);
            map["up_block_types"] = json!(blocks("UpBlock2D", "CrossAttnUpBlock2D", true));
            more = json!({ "time_cond_proj_dim": self.guidance });
        }
        match self.label {
            Label::None => {}
            Label::Table(count) => map["num_class_embeds"] = json!(count),
            Label::Vector(width) if self.linear => {
                map["addition_embed_type"] = json!("text_time");
                map["addition_time_embed_dim"] = json!(time_width(width, times));
                map["projection_class_embeddings_input_dim"] = json!(width);
            }
            Label::Vector(width) => {
                map["class_embed_type"] = json!("projection");
                map["projection_class_embeddings_input_dim"] = json!(width);
            }
        }
        let mut map = map.as_object().cloned().unwrap_or_default();
        map.extend(more.as_object().cloned().unwrap_or_default());
        map
    }
}

/// The width that each of SDXL's sizes is embedded in: 256 in the published models, whose vector is
/// 1280 of text and the sizes. A narrower vector (of a model in miniature) gets the widest power of two
/// that leaves something for the text.
fn time_width(vector: usize, times: usize) -> usize {
    let mut width = 256;
    while width > 2 && width * times >= vector {
        width /= 2;
    }
    width
}

/// 32 groups, or as many as divide all channels.
pub(super) fn groups(channels: impl IntoIterator<Item = usize>) -> usize {
    let mut groups: usize = 32;
    for c in channels {
        while groups > 1 && !c.is_multiple_of(groups) {
            groups /= 2;
        }
    }
    groups
}
