//! The fields and defaults are those of the published classes, and bad values are named.

use serde_json::{Value, json};

use super::*;

/// The settings after `change` was laid over the defaults.
fn with<C: Config>(change: &Value) -> Result<(), String> {
    let mut map = serde_json::to_value(C::default()).unwrap();
    for (key, value) in change.as_object().unwrap() {
        map[key] = value.clone();
    }
    let config: C = serde_json::from_value(map).map_err(|e| e.to_string())?;
    config.validate().map_err(|e| e.to_string())
}

fn refused<C: Config>(change: &Value, says: &str) {
    let message = with::<C>(change).unwrap_err();
    assert!(message.contains(says), "{change}: {message}");
}

#[test]
fn the_published_defaults_are_valid() {
    UNet2DConfig::default().validate().unwrap();
    UNet2DConditionConfig::default().validate().unwrap();
    DitConfig::default().validate().unwrap();
    AutoencoderKlConfig::default().validate().unwrap();
    ClipTextConfig::default().validate().unwrap();
}

/// Fields and defaults as Python lists them: the signatures of diffusers 0.42.0 and the fields of
/// transformers 5.23.0.
#[test]
fn fields_and_defaults_are_those_of_the_classes() {
    let published: Value =
        serde_json::from_str(include_str!("../../../tests/data/class_defaults.json")).unwrap();
    let same = |class: &str, ours: &Value| {
        let theirs = published["classes"][class].as_object().unwrap();
        let ours = ours.as_object().unwrap();
        let keys = |map: &serde_json::Map<String, Value>| {
            let mut keys: Vec<String> = map.keys().cloned().collect();
            keys.sort();
            keys
        };
        assert_eq!(keys(ours), keys(theirs), "{class}");
        for (key, value) in theirs {
            let equal = match (value.as_f64(), ours[key].as_f64()) {
                (Some(a), Some(b)) => a == b,
                _ => *value == ours[key],
            };
            assert!(equal, "{class}.{key}: {value} and {}", ours[key]);
        }
    };
    same(UNet2DConfig::CLASS, &json!(UNet2DConfig::default()));
    same(UNet2DConditionConfig::CLASS, &json!(UNet2DConditionConfig::default()));
    same(DitConfig::CLASS, &json!(DitConfig::default()));
    same(AutoencoderKlConfig::CLASS, &json!(AutoencoderKlConfig::default()));
    same(ClipTextConfig::CLASS, &json!(ClipTextConfig::default()));
}

#[test]
fn settings_of_published_models_are_taken() {
    // The U-Net of Stable Diffusion 1.5, that of 2.1 and the first one of DDPM.
    let fine = [
        with::<UNet2DConditionConfig>(&json!({"cross_attention_dim": 768, "sample_size": 64})),
        with::<UNet2DConditionConfig>(&json!({
            "attention_head_dim": [5, 10, 20, 20], "cross_attention_dim": 1024,
            "use_linear_projection": true, "upcast_attention": true, "sample_size": [96, 64],
        })),
        with::<UNet2DConfig>(&json!({
            "act_fn": "swish", "attention_head_dim": null, "block_out_channels": [128, 256, 256, 256],
            "downsample_padding": 0, "flip_sin_to_cos": false, "freq_shift": 1, "norm_eps": 1e-6,
            "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"],
            "up_block_types": ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
        })),
        with::<ClipTextConfig>(
            &json!({"hidden_size": 768, "num_attention_heads": 12, "eos_token_id": 2}),
        ),
    ];
    for result in fine {
        result.unwrap();
    }
}

#[test]
fn bad_values_are_named() {
    refused::<UNet2DConfig>(&json!({"in_channels": 0}), "`in_channels`: wanted 1 to");
    refused::<UNet2DConfig>(&json!({"in_channels": -3}), "-3");
    refused::<UNet2DConfig>(&json!({"block_out_channels": [32]}), "`down_block_types`");
    refused::<UNet2DConfig>(&json!({"norm_num_groups": 5}), "does not divide");
    refused::<UNet2DConfig>(&json!({"norm_num_groups": 0}), "`norm_num_groups`");
    refused::<UNet2DConfig>(&json!({"norm_eps": 0.0}), "above 0");
    refused::<UNet2DConfig>(&json!({"attention_head_dim": 5}), "`attention_head_dim`");
    refused::<UNet2DConfig>(&json!({"sample_size": 0}), "`sample_size`");
    refused::<UNet2DConfig>(&json!({"sample_size": "big"}), "wanted a size in pixels");
    refused::<UNet2DConfig>(&json!({"layers_per_block": 1_000_000}), "`layers_per_block`");
    refused::<UNet2DConfig>(&json!({"dropout": 1.0}), "`dropout`");
    refused::<UNet2DConfig>(&json!({"freq_shift": 112}), "`freq_shift`");
    refused::<UNet2DConfig>(&json!({"downsample_padding": 2}), "`downsample_padding`");
    refused::<UNet2DConfig>(&json!({"act_fn": "mish"}), "`mish`");
    let many = vec![32; 17];
    refused::<UNet2DConfig>(&json!({"block_out_channels": many}), "their number");
    refused::<UNet2DConditionConfig>(&json!({"cross_attention_dim": [1, 2]}), "wanted 4 values");
    refused::<UNet2DConditionConfig>(&json!({"attention_head_dim": 7}), "does not divide");
    refused::<UNet2DConditionConfig>(&json!({"norm_num_groups": null}), "`norm_num_groups`");
    refused::<DitConfig>(&json!({"patch_size": 3}), "does not divide");
    refused::<DitConfig>(&json!({"patch_size": 0}), "`patch_size`");
    refused::<DitConfig>(&json!({"num_attention_heads": 1, "attention_head_dim": 2}), "positions");
    refused::<AutoencoderKlConfig>(&json!({"scaling_factor": 0}), "`scaling_factor`");
    refused::<AutoencoderKlConfig>(&json!({"latent_channels": 99999}), "`latent_channels`");
    refused::<ClipTextConfig>(&json!({"num_attention_heads": 7}), "does not divide");
    refused::<ClipTextConfig>(&json!({"vocab_size": 600, "bos_token_id": 600}), "`bos_token_id`");
}

/// A value that would change the result is refused for every field that the networks do not act
/// on.
#[test]
fn what_is_not_supported_is_refused() {
    for change in [
        json!({"time_embedding_type": "fourier"}),
        json!({"mid_block_scale_factor": 2.0}),
        json!({"downsample_type": "resnet"}),
        json!({"upsample_type": "resnet"}),
        json!({"attn_norm_num_groups": 8}),
    ] {
        let key = change.as_object().unwrap().keys().next().unwrap().clone();
        refused::<UNet2DConfig>(&change, &format!("`{key}`: "));
    }
    for change in [
        json!({"mid_block_scale_factor": 2.0}),
        json!({"reverse_transformer_layers_per_block": [[1], [1], [1], [1]]}),
        json!({"encoder_hid_dim": 8}),
        json!({"encoder_hid_dim_type": "text_proj"}),
        json!({"num_attention_heads": 8}),
        json!({"dual_cross_attention": true}),
        json!({"resnet_skip_time_act": true}),
        json!({"resnet_out_scale_factor": 1.5}),
        json!({"time_embedding_type": "fourier"}),
        json!({"time_embedding_act_fn": "silu"}),
        json!({"timestep_post_act": "silu"}),
        json!({"conv_in_kernel": 5}),
        json!({"conv_out_kernel": 1}),
        json!({"attention_type": "gated"}),
        json!({"class_embeddings_concat": true}),
        json!({"cross_attention_norm": "layer_norm"}),
    ] {
        let key = change.as_object().unwrap().keys().next().unwrap().clone();
        refused::<UNet2DConditionConfig>(&change, &format!("`{key}`: "));
    }
    refused::<UNet2DConfig>(&json!({"class_embed_type": "projection"}), "class_embed_type");
    refused::<DitConfig>(&json!({"activation_fn": "geglu"}), "`activation_fn`");
    refused::<DitConfig>(&json!({"norm_type": "ada_norm"}), "`norm_type`");
    refused::<DitConfig>(&json!({"norm_elementwise_affine": true}), "`norm_elementwise_affine`");
    refused::<AutoencoderKlConfig>(
        &json!({"latents_mean": [0.0, 0.0, 0.0, 0.0]}),
        "`latents_mean`",
    );
    refused::<AutoencoderKlConfig>(&json!({"latents_std": [1.0, 1.0, 1.0, 1.0]}), "`latents_std`");
}
