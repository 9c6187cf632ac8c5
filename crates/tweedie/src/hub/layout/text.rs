//! Text encoders: CLIP in the names of transformers, and OpenCLIP's own.
//!
//! OpenCLIP holds the projections of query, key and value on top of each other in one matrix, and its
//! text projection is applied from the other side, so it lies transposed against transformers'. The
//! activation is not in the shapes: OpenAI's weights use the fast approximation of GELU, OpenCLIP's
//! the exact one; a file in the names of transformers says neither, and the encoders that are wider
//! than CLIP-L (768) are OpenCLIP's. Heads have 64 channels in all of them.

use serde_json::{Map, Value, json};

use super::super::names;
use super::super::tensor_set::{Edit, TensorSet};
use super::{Names, count, dim};
use crate::{Error, Result};

/// Outside of the layers: original to transformers'.
const TOP: &[(&str, &str)] = &[
    ("token_embedding", "text_model.embeddings.token_embedding"),
    ("positional_embedding", "text_model.embeddings.position_embedding.weight"),
    ("ln_final", "text_model.final_layer_norm"),
];
/// Inside a layer.
const LAYER: &[(&str, &str)] = &[
    ("ln_1", "layer_norm1"),
    ("ln_2", "layer_norm2"),
    ("attn.out_proj", "self_attn.out_proj"),
    ("mlp.c_fc", "mlp.fc1"),
    ("mlp.c_proj", "mlp.fc2"),
];
/// Query, key and value in the order in which they lie on top of each other.
const FUSED: [&str; 3] = ["q_proj", "k_proj", "v_proj"];
/// The layers of the text encoder of OpenCLIP ViT-H, of which Stable Diffusion 2 uses all but the last.
const WHOLE_H: usize = 24;

/// A text encoder as a network here takes it.
#[derive(Clone, Debug)]
pub(crate) struct TextEncoder {
    /// Its weights, in the names of transformers.
    pub(crate) tensors: TensorSet,
    /// Its settings.
    pub(crate) config: Map<String, Value>,
    /// Features of a token.
    pub(crate) width: usize,
    /// Width of its projection, where it has one.
    pub(crate) projection: Option<usize>,
    /// Tokens in its table.
    pub(crate) vocabulary: usize,
}

impl TextEncoder {
    /// From a set in OpenCLIP's names, its prefix taken away. `projected` keeps the projection;
    /// without it the last layer is left out as Stable Diffusion 2 does, where the file is a whole
    /// OpenCLIP (it has 24 layers, or carries the projection).
    ///
    /// # Errors
    /// It is no such encoder, or its shapes do not fit each other.
    pub(crate) fn open_clip(set: &TensorSet, projected: bool) -> Result<Self> {
        let found = count(set, "transformer.resblocks.");
        let whole = found == WHOLE_H || (set.contains("text_projection") && found < WHOLE_H - 1);
        let layers = if !projected && whole { found - 1 } else { found };
        let mut tensors = set.bare();
        let names = open_clip_names(layers);
        for name in set.names() {
            if let Some(to) = names.translate(name) {
                tensors.add(to, set, name, &Edit::Keep)?;
            }
        }
        for i in 0..layers {
            let at = format!("transformer.resblocks.{i}.attn.in_proj_");
            for (part, layer) in FUSED.iter().enumerate() {
                for leaf in ["weight", "bias"] {
                    let to = format!("text_model.encoder.layers.{i}.self_attn.{layer}.{leaf}");
                    tensors.add(to, set, &format!("{at}{leaf}"), &Edit::Part(part, 3))?;
                }
            }
        }
        if projected {
            for (name, edit) in
                [("text_projection", Edit::Turn), ("text_projection.weight", Edit::Keep)]
            {
                if set.contains(name) {
                    tensors.add("text_projection.weight".to_owned(), set, name, &edit)?;
                }
            }
        }
        Self::of(tensors, "gelu")
    }

    /// From a set in the names of transformers, its prefix taken away.
    ///
    /// # Errors
    /// It is no such encoder.
    pub(crate) fn clip(set: TensorSet, projected: bool) -> Result<Self> {
        let class = if projected { "CLIPTextModelWithProjection" } else { "CLIPTextModel" };
        let tensors = names::usual(class, set)?;
        let wide = dim(&tensors, "text_model.final_layer_norm.weight", 0).is_some_and(|w| w > 768);
        Self::of(tensors, if wide { "gelu" } else { "quick_gelu" })
    }

    fn of(tensors: TensorSet, activation: &str) -> Result<Self> {
        let need = |name: &str, d: usize| {
            let name = format!("text_model.{name}");
            dim(&tensors, &name, d)
                .ok_or_else(|| Error::format(tensors.name(), &name, "the text encoder lacks it"))
        };
        let vocabulary = need("embeddings.token_embedding.weight", 0)?;
        let width = need("embeddings.token_embedding.weight", 1)?;
        let projection = dim(&tensors, "text_projection.weight", 0);
        let class =
            if projection.is_some() { "CLIPTextModelWithProjection" } else { "CLIPTextModel" };
        let config = json!({
            "architectures": [class],
            "vocab_size": vocabulary,
            "hidden_size": width,
            "intermediate_size": need("encoder.layers.0.mlp.fc1.weight", 0)?,
            "projection_dim": projection.unwrap_or(width),
            "num_hidden_layers": count(&tensors, "text_model.encoder.layers."),
            "num_attention_heads": (width / 64).max(1),
            "max_position_embeddings": need("embeddings.position_embedding.weight", 0)?,
            "hidden_act": activation,
            "bos_token_id": vocabulary.saturating_sub(2),
            "eos_token_id": vocabulary.saturating_sub(1),
        });
        let config = config.as_object().cloned().unwrap_or_default();
        Ok(Self { tensors, config, width, projection, vocabulary })
    }

    /// The class of transformers that the encoder is one of.
    pub(crate) fn class(&self) -> &'static str {
        match self.projection {
            Some(_) => "CLIPTextModelWithProjection",
            None => "CLIPTextModel",
        }
    }
}

/// The names of an OpenCLIP text encoder's modules: its own to those of transformers.
fn open_clip_names(layers: usize) -> Names {
    let mut names = Names::default();
    names.table("", "", TOP);
    for i in 0..layers {
        let to = format!("text_model.encoder.layers.{i}");
        names.table(&format!("transformer.resblocks.{i}"), &to, LAYER);
    }
    names
}

/// The way back: a set in the names of transformers under those of OpenCLIP, fused and turned.
///
/// # Errors
/// A tensor is missing, or the shapes do not fit each other.
pub(crate) fn to_open_clip(set: &TensorSet) -> Result<TensorSet> {
    let layers = count(set, "text_model.encoder.layers.");
    let names = open_clip_names(layers).reversed();
    let mut out = set.bare();
    for name in set.names() {
        if let Some(to) = names.translate(name) {
            out.add(to, set, name, &Edit::Keep)?;
        }
    }
    for i in 0..layers {
        for leaf in ["weight", "bias"] {
            let at = |l: &str| format!("text_model.encoder.layers.{i}.self_attn.{l}.{leaf}");
            let to = format!("transformer.resblocks.{i}.attn.in_proj_{leaf}");
            out.add_joined(to, set, &FUSED.map(at))?;
        }
    }
    if set.contains("text_projection.weight") {
        out.add("text_projection".to_owned(), set, "text_projection.weight", &Edit::Turn)?;
    }
    Ok(out)
}
