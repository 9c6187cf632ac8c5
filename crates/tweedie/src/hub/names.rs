//! The names that the same weights have gone by over the years, as the names of today.

/// The name that a tensor of a network of this class goes by in diffusers and transformers today;
/// `None` for what older versions wrote though it is no weight (counts of positions, tables that
/// are computed).
///
/// Text encoders have stood below `text_model.` and without it (transformers 5 leaves it out for the
/// encoder without a projection). The attention of image blocks was once named after the parts of
/// a dictionary: `query`, `key`, `value` and `proj_attn`.
pub(crate) fn today(class: &str, name: &str) -> Option<String> {
    if class.starts_with("CLIPTextModel") {
        if name.ends_with("embeddings.position_ids") {
            return None;
        }
        let bare = ["embeddings.", "encoder.", "final_layer_norm."];
        return Some(match bare.iter().any(|part| name.starts_with(part)) {
            true => format!("text_model.{name}"),
            false => name.to_owned(),
        });
    }
    if name == "pos_embed.pos_embed" {
        return None;
    }
    let mut parts: Vec<&str> = name.split('.').collect();
    if let [.., "attentions", _, layer, _] = parts.as_mut_slice() {
        *layer = match *layer {
            "query" => "to_q",
            "key" => "to_k",
            "value" => "to_v",
            "proj_attn" => "to_out.0",
            other => other,
        };
    }
    Some(parts.join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_names_become_those_of_today() {
        let text = |name| today("CLIPTextModel", name);
        let long = "text_model.encoder.layers.0.layer_norm1.bias";
        assert_eq!(text("encoder.layers.0.layer_norm1.bias").as_deref(), Some(long));
        assert_eq!(text(long).as_deref(), Some(long));
        assert_eq!(text("text_model.embeddings.position_ids"), None);
        let projection = today("CLIPTextModelWithProjection", "text_projection.weight");
        assert_eq!(projection.as_deref(), Some("text_projection.weight"));
        let vae = |name: &str| today("AutoencoderKL", name);
        for (old, new) in [
            ("query.weight", "to_q.weight"),
            ("key.bias", "to_k.bias"),
            ("value.weight", "to_v.weight"),
            ("proj_attn.weight", "to_out.0.weight"),
            ("to_out.0.bias", "to_out.0.bias"),
            ("group_norm.weight", "group_norm.weight"),
        ] {
            let at = |name| format!("decoder.mid_block.attentions.0.{name}");
            assert_eq!(vae(&at(old)), Some(at(new)));
        }
        assert_eq!(today("DiTTransformer2DModel", "pos_embed.pos_embed"), None);
        assert_eq!(vae("key.weight").as_deref(), Some("key.weight"));
    }
}
