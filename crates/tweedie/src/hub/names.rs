//! The usual names of weights: those that the networks here have, for files that have others.
//!
//! The same class has been written under several names over time. transformers 5 leaves out the
//! `text_model.` of a `CLIPTextModel` that version 4 wrote (and still writes that of one with a
//! projection); both write or leave out the positions as a buffer. diffusers before 0.18 called the
//! attention of autoencoders and of pixel U-Nets `query`, `key`, `value` and `proj_attn`. Some
//! converters kept its 1x1 convolutions where the class has linear layers.

use super::tensor_set::{Edit, TensorSet};
use crate::Result;

/// Old and new names of the layers of a pixel attention.
const ATTENTION: [(&str, &str); 4] =
    [("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("proj_attn", "to_out.0")];

/// What text encoders' names begin with.
const TEXT: &str = "text_model.";

/// The set under the names, and in the shapes, that the network of this class has.
///
/// # Errors
/// Two tensors get one name.
pub(crate) fn usual(class: &str, set: TensorSet) -> Result<TensorSet> {
    let text = class.starts_with("CLIPText");
    let odd = |name: &str| {
        let renamed = if text { text_name(class, name) } else { plain_name(name) };
        renamed.as_deref() != Some(name) || flattened(name, &set).is_some()
    };
    if !set.names().any(odd) {
        return Ok(set);
    }
    let mut out = set.bare();
    for name in set.names() {
        let new = if text { text_name(class, name) } else { plain_name(name) };
        let Some(new) = new else { continue };
        let edit = flattened(&new, &set.shape_of(name)).map_or(Edit::Keep, Edit::Shape);
        out.add(new, &set, name, &edit)?;
    }
    Ok(out)
}

/// A text encoder's name for a tensor; `None` for one that it does without.
fn text_name(class: &str, name: &str) -> Option<String> {
    if name.ends_with("embeddings.position_ids") || name == "logit_scale" {
        return None;
    }
    if name == "text_projection.weight" {
        return (class == "CLIPTextModelWithProjection").then(|| name.to_owned());
    }
    let bare = ["embeddings.", "encoder.", "final_layer_norm."].iter().any(|p| name.starts_with(p));
    Some(if bare { format!("{TEXT}{name}") } else { name.to_owned() })
}

/// The name of a layer of a network of diffusers; `None` for a table that is computed and was written
/// all the same.
fn plain_name(name: &str) -> Option<String> {
    if name == "pos_embed.pos_embed" {
        return None;
    }
    let mut parts: Vec<&str> = name.split('.').collect();
    if let [.., attentions, _, layer, _] = parts.as_mut_slice()
        && *attentions == "attentions"
        && let Some((_, new)) = ATTENTION.iter().find(|(old, _)| old == layer)
    {
        *layer = new;
        return Some(parts.join("."));
    }
    Some(name.to_owned())
}

/// The shape of a matrix for the weight of a pixel attention that is stored as a 1x1 convolution.
fn flattened(name: &str, shape: &impl Shaped) -> Option<Vec<usize>> {
    let mut parts = name.rsplit('.');
    let (leaf, mut layer) = (parts.next()?, parts.next()?);
    if layer == "0" {
        layer = parts.next()?;
    }
    let inner = ["to_q", "to_k", "to_v", "to_out", "query", "key", "value", "proj_attn"];
    if leaf != "weight" || !inner.contains(&layer) {
        return None;
    }
    match shape.at(name)?.as_slice() {
        [to, from, 1, 1] | [to, from, 1] => Some(vec![*to, *from]),
        _ => None,
    }
}

/// Where the shape of a tensor is known from.
trait Shaped {
    fn at(&self, name: &str) -> Option<Vec<usize>>;
}

impl Shaped for TensorSet {
    fn at(&self, name: &str) -> Option<Vec<usize>> {
        self.info(name).ok().map(|i| i.shape)
    }
}

impl Shaped for Option<Vec<usize>> {
    fn at(&self, _: &str) -> Option<Vec<usize>> {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::{Dtype, Output, TensorFile, encode_safetensors};

    fn set(tensors: &[(&str, &[usize])]) -> TensorSet {
        let numbers = [0.5_f32; 64];
        let outputs: Vec<_> = tensors
            .iter()
            .map(|(n, s)| Output::f32(n, s, &numbers[..s.iter().product()], Dtype::F32))
            .collect();
        let bytes = encode_safetensors(&outputs, &std::collections::BTreeMap::new()).unwrap();
        TensorFile::from_bytes(bytes, "m.safetensors").unwrap().into()
    }

    fn named(class: &str, tensors: &[(&str, &[usize])]) -> Vec<(String, Vec<usize>)> {
        let set = usual(class, set(tensors)).unwrap();
        set.names().map(|n| (n.to_owned(), set.info(n).unwrap().shape)).collect()
    }

    #[test]
    fn text_encoders_of_both_versions() {
        let both: [&[(&str, &[usize])]; 2] = [
            &[("embeddings.position_ids", &[1, 3]), ("final_layer_norm.bias", &[2])],
            &[("text_model.final_layer_norm.bias", &[2]), ("text_projection.weight", &[2, 2])],
        ];
        for tensors in both {
            let names = named("CLIPTextModel", tensors);
            assert_eq!(names, [("text_model.final_layer_norm.bias".to_owned(), vec![2])]);
        }
        let names = named("CLIPTextModelWithProjection", both[1]);
        assert_eq!(names[1], ("text_projection.weight".to_owned(), vec![2, 2]));
        let twice: &[(&str, &[usize])] = &[("encoder.x", &[1]), ("text_model.encoder.x", &[1])];
        assert!(usual("CLIPTextModel", set(twice)).is_err());
        assert_eq!(named("DiTTransformer2DModel", &[("pos_embed.pos_embed", &[1, 4])]), []);
    }

    #[test]
    fn old_attentions() {
        let names = named(
            "AutoencoderKL",
            &[
                ("decoder.mid_block.attentions.0.query.weight", &[2, 2, 1, 1]),
                ("decoder.mid_block.attentions.0.key.bias", &[2]),
                ("decoder.mid_block.attentions.0.proj_attn.weight", &[2, 2]),
                ("encoder.mid_block.attentions.0.to_out.0.weight", &[2, 2, 1, 1]),
                ("decoder.conv_out.weight", &[2, 2, 1, 1]),
            ],
        );
        let at = |n: &str| format!("decoder.mid_block.attentions.0.{n}");
        assert_eq!(
            names,
            [
                ("decoder.conv_out.weight".to_owned(), vec![2, 2, 1, 1]),
                (at("to_k.bias"), vec![2]),
                (at("to_out.0.weight"), vec![2, 2]),
                (at("to_q.weight"), vec![2, 2]),
                ("encoder.mid_block.attentions.0.to_out.0.weight".to_owned(), vec![2, 2]),
            ]
        );
    }
}
