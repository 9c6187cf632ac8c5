//! A single file of weights as the components of a model.

use std::borrow::Cow;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::folder::{Component, Held};
use super::json::one_line;
use super::layout::{self, Family, Found, Kind, Names, TextEncoder, UNet, Vae};
use super::scheduler::PredictionType;
use super::tensor_set::{Edit, TensorSet};
use super::vocabulary::ClipVocabulary;
use crate::{Error, Result};

/// The entry of a file's header in which `tweedie convert` keeps the settings of its components.
pub(crate) const SETTINGS: &str = "tweedie.config";
/// The length of sequences of every published text encoder here.
const LENGTH: usize = 77;

/// What was found in a single file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Single {
    /// What the file is, in words.
    pub(crate) what: String,
    /// The pipeline's class; empty for a component alone.
    pub(crate) pipeline: String,
    /// The components, in the order of diffusers' index. One without a name is all there is.
    pub(crate) components: Vec<Component>,
    /// Arguments of the pipeline's constructor.
    pub(crate) arguments: Map<String, Value>,
    /// What was decided that the file does not say.
    pub(crate) notes: Vec<String>,
    /// Components of the family that are not in the file.
    pub(crate) missing: Vec<Wish>,
    /// The factor and the shift of the family's latents.
    pub(crate) factor: Option<(f64, Option<f64>)>,
}

/// A component that a model needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    /// Its name in the pipeline.
    pub(crate) name: &'static str,
    /// What fits.
    pub(crate) fit: Fit,
}

/// What fits a place in a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fit {
    /// An autoencoder with this many latent channels.
    Vae(usize),
    /// A text encoder: its width, or the widest that is allowed with 0, and whether with projection.
    Text {
        /// Features of a token; `None` for any.
        width: Option<usize>,
        /// Whether the pipeline uses its projection.
        projected: bool,
        /// Which of CLIP-L's and OpenCLIP's places it is.
        open: bool,
    },
    /// A tokenizer.
    Tokenizer,
}

impl Fit {
    /// In words.
    pub(crate) fn words(self) -> String {
        match self {
            Self::Vae(channels) => format!("an autoencoder with {channels} latent channels"),
            Self::Text { width, projected, .. } => {
                let width = width.map_or_else(String::new, |w| format!(" {w} features wide"));
                let end = if projected { ", with its projection" } else { "" };
                format!("a CLIP text encoder{width}{end}")
            }
            Self::Tokenizer => "CLIP's vocabulary in the text encoder's size".to_owned(),
        }
    }
}

/// What is known of a file from beside it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    /// What the network predicts.
    pub(crate) prediction: Option<PredictionType>,
    /// The settings that its writer's YAML file names: heads, channels of a head, parameterisation.
    pub(crate) yaml: Option<Yaml>,
}

/// The few settings of an original YAML file that shapes do not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Yaml {
    /// `num_heads` of the U-Net.
    pub(crate) heads: Option<usize>,
    /// `num_head_channels` of the U-Net.
    pub(crate) head_channels: Option<usize>,
    /// `parameterization: "v"`.
    pub(crate) v: bool,
}

impl Yaml {
    /// Reads them: these keys stand once in such a file, on a line of their own.
    pub(crate) fn read(text: &str) -> Self {
        let mut yaml = Self::default();
        for line in text.lines().take(1000) {
            let Some((key, value)) = line.trim().split_once(':') else { continue };
            let value = value.split('#').next().unwrap_or("").trim().trim_matches(['"', '\'']);
            let number = || value.parse().ok().filter(|n| (1..=1024).contains(n));
            match key {
                "num_heads" => yaml.heads = number(),
                "num_head_channels" => yaml.head_channels = number(),
                "parameterization" => yaml.v = value == "v",
                _ => {}
            }
        }
        yaml
    }
}

/// Reads a file of weights; `file` is named in errors.
///
/// # Errors
/// It holds no network that is known (the error names some of its keys), or one that differs from
/// the published ones.
pub(crate) fn read(file: &Path, set: &TensorSet, told: &Told) -> Result<Single> {
    let found = layout::find(set)?;
    let Some(first) = found.first() else { return Err(unknown(file, set)) };
    if set.contains("scaled_fp8") || set.names().any(|n| n.ends_with(".scale_weight")) {
        let why = "8-bit weights with scales beside them are not supported; plain ones are";
        return Err(Error::format(file, "scaled_fp8", why));
    }
    let mut single = match first.kind {
        Kind::ControlNet | Kind::UsualControlNet => control(file, first)?,
        Kind::UNet | Kind::UsualUNet => model(file, set, &found, told)?,
        _ => {
            let component = alone(file, first, "", Family::Sd1.factor())?;
            let what = format!("a file with one part: {}", first.kind.name());
            Single { what, components: vec![component], ..Single::default() }
        }
    };
    if let Some(text) = set.metadata(SETTINGS) {
        let kept = super::json::object(file, text.as_bytes())?;
        for component in &mut single.components {
            let name = if component.name.is_empty() { "model" } else { &component.name };
            if let Some(Value::Object(own)) = kept.get(name) {
                if let Some(class) = super::folder::class_of(own) {
                    class.clone_into(&mut component.class);
                }
                component.config.clone_from(own);
            }
        }
        if let Some(Value::Object(index)) = kept.get("model_index") {
            let index = super::folder::ModelIndex::read(file, index.clone())?;
            if !single.pipeline.is_empty() {
                single.pipeline = index.class;
                single.arguments = index.arguments;
            }
        }
    }
    Ok(single)
}

fn unknown(file: &Path, set: &TensorSet) -> Error {
    let some: Vec<String> = set.names().take(3).map(one_line).collect();
    let tail = if set.len() > 3 { format!(" and {} more", set.len() - 3) } else { String::new() };
    let lora = set.names().any(|n| n.contains("lora_") || n.contains(".lora"));
    let hint = if lora { "; it looks like a LoRA, which is given beside a model" } else { "" };
    let why = format!(
        "none of the networks that are known: no Stable Diffusion 1, 2 or XL, no ControlNet, autoencoder or CLIP{hint}; it holds {}{tail}",
        some.join(", ")
    );
    Error::format(file, "", why)
}

/// A component with weights of its own.
fn component(
    file: &Path,
    name: &str,
    class: &str,
    config: Map<String, Value>,
    weights: TensorSet,
) -> Component {
    let held = Held { weights: Some(weights), ..Held::default() };
    Component::held(name, class, config, file, held)
}

/// The tensors of a part under the usual names. What the table does not name stays as it is, so that
/// the check against the network's own list tells it.
fn renamed(set: &TensorSet, names: &Names) -> Result<TensorSet> {
    let mut out = set.bare();
    for name in set.names() {
        let to = names.translate(name).unwrap_or_else(|| name.to_owned());
        // The middle of an autoencoder attends through 1x1 convolutions in the original.
        let shape = set.shape_of(name).unwrap_or_default();
        let edit = match *shape {
            [a, b, 1, 1] | [a, b, 1]
                if to.contains("mid_block.attentions.0.to_")
                    && !to.contains("transformer_blocks") =>
            {
                Edit::Shape(vec![a, b])
            }
            _ => Edit::Keep,
        };
        out.add(to, set, name, &edit)?;
    }
    Ok(out)
}

fn unet_of(found: &Found) -> Result<(UNet, TensorSet)> {
    if matches!(found.kind, Kind::UsualUNet | Kind::UsualControlNet) {
        return Ok((UNet::usual(&found.tensors)?, found.tensors.clone()));
    }
    let unet = UNet::original(&found.tensors)?;
    let tensors = renamed(&found.tensors, &unet.names())?;
    Ok((unet, tensors))
}

fn control(file: &Path, found: &Found) -> Result<Single> {
    let (unet, tensors) = unet_of(found)?;
    let family = Family::of(&unet, false, false);
    let config = unet.config(64, family.times());
    let what = format!("a file with one part: {}, for {}", found.kind.name(), family.name());
    let component = component(file, "", "ControlNetModel", config, tensors);
    Ok(Single { what, components: vec![component], ..Single::default() })
}

fn vae_of(
    file: &Path,
    found: &Found,
    name: &str,
    side: usize,
    (factor, shift): (f64, Option<f64>),
) -> Result<Component> {
    let (vae, tensors) = if found.kind == Kind::UsualVae {
        let tensors = super::names::usual("AutoencoderKL", found.tensors.clone())?;
        (Vae::usual(&tensors)?, tensors)
    } else {
        let vae = Vae::original(&found.tensors)?;
        (vae.clone(), renamed(&known(&found.tensors, &vae.names())?, &vae.names())?)
    };
    // 16 channels are those of Stable Diffusion 3 and FLUX; their factor is that of FLUX where the file
    // does not say.
    let (factor, shift) = if vae.latents == 16 { (0.3611, Some(0.1159)) } else { (factor, shift) };
    Ok(component(file, name, "AutoencoderKL", vae.config(side, factor, shift), tensors))
}

/// Without what its training alone needed: the loss of an autoencoder and its averages.
fn known(set: &TensorSet, names: &Names) -> Result<TensorSet> {
    let mut out = set.bare();
    for name in set.names() {
        if names.translate(name).is_some()
            || !(name.starts_with("loss.") || name.starts_with("model_ema"))
        {
            out.add(name.to_owned(), set, name, &Edit::Keep)?;
        }
    }
    Ok(out)
}

fn text_of(found: &Found, projected: bool) -> Result<TextEncoder> {
    if found.kind == Kind::OpenClip {
        TextEncoder::open_clip(&found.tensors, projected)
    } else {
        TextEncoder::clip(found.tensors.clone(), projected)
    }
}

/// A network alone: an autoencoder or a text encoder.
///
/// # Errors
/// Its shapes do not fit each other.
pub(crate) fn alone(
    file: &Path,
    found: &Found,
    name: &str,
    factor: (f64, Option<f64>),
) -> Result<Component> {
    match found.kind {
        Kind::Vae | Kind::UsualVae => vae_of(file, found, name, 512, factor),
        _ => {
            let text = text_of(found, true)?;
            Ok(component(file, name, text.class(), text.config.clone(), text.tensors))
        }
    }
}

/// The same with what the place in a model asks for; `None` where it does not fit.
///
/// # Errors
/// As for [`alone`].
pub(crate) fn fitting(
    file: &Path,
    found: &Found,
    wish: &Wish,
    factor: (f64, Option<f64>),
) -> Result<Option<Component>> {
    match (wish.fit, found.kind) {
        (Fit::Vae(channels), Kind::Vae | Kind::UsualVae) => {
            let vae = vae_of(file, found, wish.name, 512, factor)?;
            Ok((vae.config.get("latent_channels") == Some(&json!(channels))).then_some(vae))
        }
        (Fit::Text { width, projected, open }, Kind::Clip | Kind::OpenClip) => {
            let text = text_of(found, projected)?;
            let fits = width.is_none_or(|w| w == text.width)
                && (!projected || text.projection.is_some())
                // Without a width to go by: CLIP-L is 768 wide, OpenCLIP's encoders are wider.
                && (width.is_some() || open == (text.width > 768 || found.kind == Kind::OpenClip));
            let class = text.class();
            Ok(fits.then(|| component(file, wish.name, class, text.config, text.tensors)))
        }
        _ => Ok(None),
    }
}

/// CLIP's tokenizer with the vocabulary that is part of the library.
fn tokenizer(file: &Path, name: &str, open: bool) -> Result<Component> {
    let pad = if open { "!" } else { super::tokenizer::END };
    let files = ClipVocabulary::published()?.files_padded(LENGTH, pad);
    let texts = files.into_iter().map(|(n, t)| (n.to_owned(), Cow::Owned(t))).collect();
    let held = Held { texts, ..Held::default() };
    Ok(Component::held(name, "CLIPTokenizer", Map::new(), file, held))
}

/// A whole model, or the U-Net of one.
fn model(file: &Path, set: &TensorSet, found: &[Found], told: &Told) -> Result<Single> {
    let at = |wanted: &[Kind]| found.iter().find(|f| wanted.contains(&f.kind));
    let missing_unet = || Error::format(file, "", "the U-Net is not in the file");
    let part = at(&[Kind::UNet, Kind::UsualUNet]).ok_or_else(missing_unet)?;
    let (unet, tensors) = unet_of(part)?;
    // The wider of two encoders in the names of transformers is OpenCLIP's.
    let open = at(&[Kind::OpenClip])
        .or_else(|| found.iter().find(|f| f.kind == Kind::Clip && f.prefix.contains("clip_g")));
    let clip = found.iter().find(|f| f.kind == Kind::Clip && !f.prefix.contains("clip_g"));
    let family = Family::of(&unet, clip.is_some(), open.is_some());
    let yaml = told.yaml.unwrap_or_default();
    let assumed = match told.prediction {
        Some(prediction) => layout::Assumed { prediction, why: "as asked for".to_owned() },
        None if yaml.v => layout::Assumed {
            prediction: PredictionType::VPrediction,
            why: "the YAML file beside it says so".to_owned(),
        },
        None => family.prediction(&unet, &part.tensors, set),
    };
    let prediction = assumed.prediction;
    let mut single = Single {
        what: match unet.in_channels {
            9 => format!("{}, for inpainting", family.name()),
            8 => format!("{}, for editing by instruction", family.name()),
            _ => family.name().to_owned(),
        },
        pipeline: family.pipeline(unet.in_channels).to_owned(),
        arguments: family.arguments(),
        factor: Some(family.factor()),
        ..Single::default()
    };
    single.notes.push(format!(
        "it predicts {}: {}",
        if prediction == PredictionType::VPrediction { "v" } else { "noise" },
        assumed.why
    ));
    let side = family.side(prediction);
    let wish = Wish { name: "vae", fit: Fit::Vae(4) };
    match at(&[Kind::Vae, Kind::UsualVae]) {
        Some(found) => {
            single.components.push(vae_of(file, found, "vae", 8 * side, family.factor())?);
        }
        None => single.missing.push(wish),
    }
    texts(file, &mut single, family, &unet, [clip, open])?;
    let mut config = unet.config(side, family.times());
    if let Some(channels) = config.get("block_out_channels").and_then(Value::as_array).cloned() {
        let heads = |c: &Value| match (yaml.heads, yaml.head_channels, c.as_u64()) {
            (Some(heads), _, _) => Some(json!(heads)),
            (None, Some(size), Some(c)) => Some(json!((c as usize / size).max(1))),
            _ => None,
        };
        if let Some(heads) = channels.iter().map(heads).collect::<Option<Vec<_>>>() {
            config.insert("attention_head_dim".to_owned(), Value::Array(heads));
        }
    }
    single.components.push(component(file, "unet", "UNet2DConditionModel", config, tensors));
    let zero = set.contains("ztsnr");
    let config = layout::scheduler(family, unet.in_channels, prediction, zero);
    let class = config.get("_class_name").and_then(Value::as_str).unwrap_or_default().to_owned();
    let none = Held::default();
    single.components.push(Component::held("scheduler", &class, config, file, none));
    Ok(single)
}

/// The text encoders and tokenizers of a family.
fn texts(
    file: &Path,
    single: &mut Single,
    family: Family,
    unet: &UNet,
    [clip, open]: [Option<&Found>; 2],
) -> Result<()> {
    let projected = matches!(family, Family::Sdxl | Family::Refiner);
    let clip_l = (clip, "text_encoder", "tokenizer", false);
    let places: Vec<(Option<&Found>, &'static str, &'static str, bool)> = match family {
        Family::Sd1 => vec![clip_l],
        Family::Sd2 => vec![(open.or(clip), "text_encoder", "tokenizer", true)],
        Family::Sdxl => vec![clip_l, (open, "text_encoder_2", "tokenizer_2", true)],
        Family::Refiner => vec![(open, "text_encoder_2", "tokenizer_2", true)],
    };
    let mut widths = Vec::new();
    let mut tokenizers = Vec::new();
    for (found, name, tokens, is_open) in &places {
        let vocabulary = match found {
            Some(found) => {
                let text = text_of(found, projected && *is_open)?;
                widths.push(text.width);
                let vocabulary = text.vocabulary;
                let (class, config) = (text.class(), text.config);
                single.components.push(component(file, name, class, config, text.tensors));
                Some(vocabulary)
            }
            None => None,
        };
        tokenizers.push((*tokens, *is_open, vocabulary));
    }
    // The context is what the encoders give side by side; what one is known to give, the other fills.
    let rest = unet.context.saturating_sub(widths.iter().sum());
    for (found, name, _, is_open) in &places {
        if found.is_none() {
            let both = places.len() == 2 && widths.is_empty();
            let fit = Fit::Text {
                width: (!both).then_some(rest),
                projected: projected && *is_open,
                open: *is_open,
            };
            single.missing.push(Wish { name, fit });
        }
    }
    for (name, is_open, vocabulary) in tokenizers {
        if vocabulary.is_none_or(|v| v == ClipVocabulary::PUBLISHED) {
            single.components.push(tokenizer(file, name, is_open)?);
        } else {
            single.missing.push(Wish { name, fit: Fit::Tokenizer });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_yaml_file_tells_what_shapes_do_not() {
        let text = "model:\n  params:\n    parameterization: \"v\"\n    unet_config:\n      params:\n        num_head_channels: 64 # need to fix\n        num_heads: 8\n";
        assert_eq!(Yaml::read(text), Yaml { heads: Some(8), head_channels: Some(64), v: true });
        assert_eq!(Yaml::read("num_heads: -1\nx"), Yaml::default());
    }
}
