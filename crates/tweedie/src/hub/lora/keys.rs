//! What the name of a tensor in a LoRA file says: which module, and which of its factors.

/// Which factor of a module a tensor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Down,
    Mid,
    Up,
    Alpha,
}

/// A module as a file names it. Modules of the usual naming come first in order, those named after
/// the original blocks last, so that a module that stands in a file twice is taken by the first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    /// Whether it names the blocks of the original network.
    pub(super) original: bool,
    /// The part of the model that it is in; `None` where the file does not say.
    pub(super) part: Option<&'static str>,
    /// The module with `_` for every dot, as [`super::names`] looks it up.
    pub(super) module: String,
    /// As the file writes it, for messages.
    pub(super) shown: String,
}

/// How factors are spelled behind the module's name. Longer endings stand before those that they
/// end in.
const ENDINGS: &[(&str, Role)] = &[
    // kohya
    (".lora_down.weight", Role::Down),
    (".lora_mid.weight", Role::Mid),
    (".lora_up.weight", Role::Up),
    // diffusers before PEFT: attention processors, other layers, text encoders
    ("_lora.down.weight", Role::Down),
    ("_lora.up.weight", Role::Up),
    (".lora.down.weight", Role::Down),
    (".lora.up.weight", Role::Up),
    (".lora_linear_layer.down.weight", Role::Down),
    (".lora_linear_layer.up.weight", Role::Up),
    // PEFT, and diffusers since
    (".lora_A.weight", Role::Down),
    (".lora_B.weight", Role::Up),
    (".lora_A", Role::Down),
    (".lora_B", Role::Up),
    // converters that leave the `lora` out
    (".down.weight", Role::Down),
    (".up.weight", Role::Up),
    ("_lora.alpha", Role::Alpha),
    (".lora.alpha", Role::Alpha),
    (".alpha", Role::Alpha),
];

/// How the part of the model is spelled before the module's name.
const PARTS: &[(&str, &str)] = &[
    ("lora_unet_", "unet"),
    ("lora_te_", "text_encoder"),
    ("lora_te1_", "text_encoder"),
    ("lora_te2_", "text_encoder_2"),
    ("unet.", "unet"),
    ("transformer.", "unet"),
    ("diffusion_model.", "unet"),
    ("text_encoder.", "text_encoder"),
    ("text_encoder_2.", "text_encoder_2"),
];

/// Words in a name that say nothing about the module: PEFT's wrapper, attention processors.
const WRAPPERS: &[&str] = &["base_model.model.", "model.diffusion_model.", "module."];

/// The module and the factor that a name means; `None` where it means none.
pub(super) fn read(name: &str) -> Option<(Key, Role)> {
    let plain = without_adapter(name);
    let (stem, role) =
        ENDINGS.iter().find_map(|(end, role)| Some((plain.strip_suffix(end)?, *role)))?;
    let mut rest = stem;
    let mut part = None;
    loop {
        if let Some(wrapper) = WRAPPERS.iter().find(|w| rest.starts_with(**w)) {
            rest = &rest[wrapper.len()..];
            if *wrapper == WRAPPERS[1] {
                part = Some("unet");
            }
        } else if part.is_none()
            && let Some((prefix, named)) = PARTS.iter().find(|(p, _)| rest.starts_with(p))
        {
            rest = &rest[prefix.len()..];
            part = Some(*named);
        } else {
            break;
        }
    }
    if rest.is_empty() {
        return None;
    }
    let module = rest.replace(".processor", "").replace('.', "_");
    let original = ["input_blocks", "middle_block", "output_blocks"];
    let original = original.iter().any(|o| module.starts_with(o));
    Some((Key { original, part, module, shown: stem.to_owned() }, role))
}

/// PEFT may write an adapter's name between factor and `weight`: `lora_A.default.weight`.
fn without_adapter(name: &str) -> String {
    for factor in [".lora_A.", ".lora_B."] {
        if let Some((module, rest)) = name.split_once(factor)
            && let Some(adapter) = rest.strip_suffix(".weight")
            && !adapter.contains('.')
        {
            return format!("{module}{factor}weight");
        }
    }
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(name: &str) -> (Option<&'static str>, String, Role) {
        let (key, role) = read(name).unwrap();
        (key.part, key.module, role)
    }

    #[test]
    fn every_spelling_is_read() {
        let q = "down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q".to_owned();
        let dotted = "down_blocks.0.attentions.0.transformer_blocks.0.attn1";
        for (name, part, role) in [
            (format!("lora_unet_{q}.lora_down.weight"), Some("unet"), Role::Down),
            (format!("lora_unet_{q}.alpha"), Some("unet"), Role::Alpha),
            (format!("lora_unet_{q}.lora_mid.weight"), Some("unet"), Role::Mid),
            (format!("unet.{dotted}.to_q.lora_A.weight"), Some("unet"), Role::Down),
            (format!("unet.{dotted}.to_q.lora.up.weight"), Some("unet"), Role::Up),
            (format!("unet.{dotted}.processor.to_q_lora.up.weight"), Some("unet"), Role::Up),
            (format!("{dotted}.processor.to_q_lora.down.weight"), None, Role::Down),
            (format!("{dotted}.to_q.down.weight"), None, Role::Down),
            (format!("base_model.model.{dotted}.to_q.lora_B.weight"), None, Role::Up),
            (format!("base_model.model.{dotted}.to_q.lora_B.default.weight"), None, Role::Up),
            (format!("base_model.model.unet.{dotted}.to_q.lora_B"), Some("unet"), Role::Up),
        ] {
            assert_eq!(parts(&name), (part, q.clone(), role), "{name}");
        }
        let layer = "text_model_encoder_layers_0_self_attn_q_proj".to_owned();
        for (name, part) in [
            (format!("lora_te_{layer}.lora_up.weight"), "text_encoder"),
            (format!("lora_te1_{layer}.lora_up.weight"), "text_encoder"),
            (format!("lora_te2_{layer}.lora_up.weight"), "text_encoder_2"),
            (
                "text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_linear_layer.up.weight"
                    .to_owned(),
                "text_encoder",
            ),
            (
                "text_encoder_2.text_model.encoder.layers.0.self_attn.q_proj.lora_B.weight".to_owned(),
                "text_encoder_2",
            ),
        ] {
            assert_eq!(parts(&name), (Some(part), layer.clone(), Role::Up), "{name}");
        }
        let (key, _) = read("lora_unet_input_blocks_4_1_proj_in.lora_up.weight").unwrap();
        assert!(key.original);
    }

    #[test]
    fn what_is_no_factor_is_left() {
        for name in [
            "lora_unet_conv_in.hada_w1_a",
            "lora_unet_conv_in.dora_scale",
            "unet.conv_in.lora_B.bias",
            "unet.conv_in.lora_magnitude_vector",
            "unet.conv_in.weight",
            "",
        ] {
            assert!(read(name).is_none(), "{name}");
        }
    }
}
