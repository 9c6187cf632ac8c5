//! Which networks a file of weights holds, told by its keys.

use super::super::tensor_set::{Edit, TensorSet};
use crate::Result;

/// A kind of network, and whose names it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// A U-Net in the original names.
    UNet,
    /// A U-Net in the names of diffusers.
    UsualUNet,
    /// A ControlNet in the original names.
    ControlNet,
    /// A ControlNet in the names of diffusers.
    UsualControlNet,
    /// An autoencoder in the original names.
    Vae,
    /// An autoencoder in the names of diffusers.
    UsualVae,
    /// A text encoder in the names of transformers.
    Clip,
    /// A text encoder in OpenCLIP's names.
    OpenClip,
}

impl Kind {
    /// In words, for a report.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::UNet => "U-Net in the original names",
            Self::UsualUNet => "U-Net in the names of diffusers",
            Self::ControlNet => "ControlNet in the original names",
            Self::UsualControlNet => "ControlNet in the names of diffusers",
            Self::Vae => "autoencoder in the original names",
            Self::UsualVae => "autoencoder in the names of diffusers",
            Self::Clip => "text encoder in the names of transformers",
            Self::OpenClip => "text encoder in the names of OpenCLIP",
        }
    }
}

/// The keys that tell: kind, the prefixes that it stands under (none for a file of its own), and a
/// tensor that every one of the kind has and no other kind.
const KEYS: &[(Kind, &[&str], &str)] = &[
    (Kind::ControlNet, &["control_model.", ""], "zero_convs.0.0.weight"),
    (
        Kind::UNet,
        &["model.diffusion_model.", "diffusion_model.", ""],
        "output_blocks.0.0.in_layers.0.weight",
    ),
    (Kind::UsualControlNet, &[""], "controlnet_cond_embedding.conv_in.weight"),
    (Kind::UsualUNet, &["unet.", ""], "up_blocks.0.resnets.0.norm1.weight"),
    (Kind::Vae, &["first_stage_model.", "vae.", ""], "decoder.mid.block_1.norm1.weight"),
    (
        Kind::UsualVae,
        &["vae.", "first_stage_model.", ""],
        "decoder.mid_block.resnets.0.norm1.weight",
    ),
    (Kind::Clip, CLIP, "text_model.final_layer_norm.weight"),
    (Kind::Clip, CLIP, "final_layer_norm.weight"),
    (Kind::OpenClip, OPEN_CLIP, "ln_final.weight"),
];
/// Where a CLIP in the names of transformers stands.
const CLIP: &[&str] = &[
    "cond_stage_model.transformer.",
    "conditioner.embedders.0.transformer.",
    "text_encoders.clip_l.transformer.",
    "text_encoders.clip_g.transformer.",
    "",
];
/// Where an OpenCLIP stands.
const OPEN_CLIP: &[&str] = &[
    "cond_stage_model.model.",
    "conditioner.embedders.0.model.",
    "conditioner.embedders.1.model.",
    "",
];

/// A network in a file.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) kind: Kind,
    pub(crate) prefix: &'static str,
    /// Its tensors, the prefix taken away.
    pub(crate) tensors: TensorSet,
}

/// The networks in a file, in the order of the table above.
///
/// # Errors
/// Two tensors get one name.
pub(crate) fn find(set: &TensorSet) -> Result<Vec<Found>> {
    let mut found: Vec<Found> = Vec::new();
    for (kind, prefixes, probe) in KEYS {
        for prefix in *prefixes {
            // A ControlNet holds half a U-Net, under the same prefix or none.
            let taken = found
                .iter()
                .any(|f| f.prefix == *prefix && (!prefix.is_empty() || f.kind.clashes(*kind)));
            if taken || !set.contains(&format!("{prefix}{probe}")) {
                continue;
            }
            let mut tensors = set.bare();
            for name in set.names_from(prefix).take_while(|n| n.starts_with(prefix)) {
                tensors.add(name[prefix.len()..].to_owned(), set, name, &Edit::Keep)?;
            }
            found.push(Found { kind: *kind, prefix, tensors });
        }
    }
    Ok(found)
}

impl Kind {
    /// Whether two kinds cannot stand in one file without prefixes.
    fn clashes(self, other: Self) -> bool {
        let half = |k| matches!(k, Self::UNet | Self::ControlNet);
        let usual = |k| matches!(k, Self::UsualUNet | Self::UsualControlNet);
        self == other || (half(self) && half(other)) || (usual(self) && usual(other))
    }
}
