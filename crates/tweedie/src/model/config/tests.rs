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
    ControlNetConfig::default().validate().unwrap();
    DitConfig::default().validate().unwrap();
    AutoencoderTinyConfig::default().validate().unwrap();
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
    same(ControlNetConfig::CLASS, &json!(ControlNetConfig::default()));
    same(DitConfig::CLASS, &json!(DitConfig::default()));
    same(PixArtConfig::CLASS, &json!(PixArtConfig::default()));
    same(Transformer2DConfig::CLASS, &json!(Transformer2DConfig::default()));
    same(AutoencoderTinyConfig::CLASS, &json!(AutoencoderTinyConfig::default()));
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
        // The base network and the refiner of Podell et al., 2023, and a network distilled for
        // few steps.
        with::<UNet2DConditionConfig>(&json!({
            "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816, "attention_head_dim": [5, 10, 20],
            "block_out_channels": [320, 640, 1280], "cross_attention_dim": 2048,
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
            "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
            "transformer_layers_per_block": [1, 2, 10], "use_linear_projection": true,
        })),
        with::<UNet2DConditionConfig>(&json!({
            "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2560, "attention_head_dim": [6, 12, 24, 24],
            "block_out_channels": [384, 768, 1536, 1536], "cross_attention_dim": 1280,
            "down_block_types": [
                "DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"
            ],
            "up_block_types": [
                "UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"
            ],
            "transformer_layers_per_block": 4, "use_linear_projection": true,
        })),
        with::<UNet2DConditionConfig>(&json!({"time_cond_proj_dim": 256, "in_channels": 9})),
        // The transformer of Peebles and Xie, 2023, as it was first published.
        with::<Transformer2DConfig>(&json!({
            "activation_fn": "gelu-approximate", "attention_bias": true, "attention_head_dim": 72,
            "in_channels": 4, "norm_elementwise_affine": false, "norm_type": "ada_norm_zero",
            "num_attention_heads": 16, "num_embeds_ada_norm": 1000, "num_layers": 28,
            "out_channels": 8, "patch_size": 2, "sample_size": 32,
        })),
        with::<ControlNetConfig>(&json!({
            "cross_attention_dim": 768, "conditioning_embedding_out_channels": [16, 32, 96, 256],
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
    refused::<UNet2DConfig>(&json!({"attention_head_dim": 500}), "`attention_head_dim`");
    refused::<UNet2DConfig>(&json!({"sample_size": 0}), "`sample_size`");
    refused::<UNet2DConfig>(&json!({"sample_size": "big"}), "wanted a size in pixels");
    refused::<UNet2DConfig>(&json!({"layers_per_block": 1_000_000}), "`layers_per_block`");
    refused::<UNet2DConfig>(&json!({"dropout": 1.0}), "`dropout`");
    refused::<UNet2DConfig>(&json!({"freq_shift": 112}), "`freq_shift`");
    refused::<UNet2DConfig>(&json!({"downsample_padding": 2}), "`downsample_padding`");
    refused::<UNet2DConfig>(&json!({"act_fn": "tanh"}), "`tanh`");
    refused::<UNet2DConfig>(&json!({"time_embedding_type": "learned"}), "`num_train_timesteps`");
    refused::<UNet2DConfig>(&json!({"attn_norm_num_groups": 5}), "does not divide");
    refused::<UNet2DConfig>(&json!({"mid_block_scale_factor": 0.0}), "above 0");
    let many = vec![32; 17];
    refused::<UNet2DConfig>(&json!({"block_out_channels": many}), "their number");
    refused::<UNet2DConditionConfig>(&json!({"cross_attention_dim": [1, 2]}), "wanted 4 values");
    refused::<UNet2DConditionConfig>(&json!({"attention_head_dim": 700}), "`attention_head_dim`");
    refused::<UNet2DConditionConfig>(
        &json!({"cross_attention_dim": [8, 8, 9, 8]}),
        "one sequence is attended to, found widths 8 and 9",
    );
    refused::<UNet2DConditionConfig>(
        &json!({"transformer_layers_per_block": [[1, 1], [1, 2], 1, 1]}),
        "`reverse_transformer_layers_per_block`: is wanted beside lists",
    );
    refused::<UNet2DConditionConfig>(
        &json!({"reverse_transformer_layers_per_block": [1, [1, 2], 1, 1]}),
        "wanted 3 values, found 2",
    );
    refused::<UNet2DConditionConfig>(
        &json!({"addition_embed_type": "text_time"}),
        "`projection_class_embeddings_input_dim`",
    );
    refused::<UNet2DConditionConfig>(
        &json!({"encoder_hid_dim_type": "text_proj"}),
        "`encoder_hid_dim`",
    );
    refused::<UNet2DConditionConfig>(
        &json!({"class_embeddings_concat": true}),
        "with class embeddings",
    );
    refused::<ControlNetConfig>(
        &json!({"conditioning_embedding_out_channels": []}),
        "their number",
    );
    refused::<AutoencoderTinyConfig>(&json!({"num_encoder_blocks": [1]}), "`num_encoder_blocks`");
    refused::<AutoencoderTinyConfig>(
        &json!({"decoder_block_out_channels": [64, 64, 32, 64]}),
        "wanted all the same, found 64 and 32",
    );
    refused::<AutoencoderKlConfig>(&json!({"latents_mean": [0.0, 0.0]}), "wanted 4 finite numbers");
    refused::<AutoencoderKlConfig>(&json!({"latents_std": [1.0, 0.0, 1.0, 1.0]}), "above 0");
    refused::<UNet2DConditionConfig>(&json!({"norm_num_groups": null}), "`norm_num_groups`");
    // The class's own defaults are those of a network that is told resolution and aspect ratio.
    refused::<PixArtConfig>(&json!({}), "use_additional_conditions");
    with::<PixArtConfig>(&json!({"sample_size": 32, "caption_channels": 5})).unwrap();
    with::<PixArtConfig>(&json!({"use_additional_conditions": false})).unwrap();
    let sized = |sample_size, interpolation_scale| {
        PixArtConfig { sample_size, interpolation_scale, ..PixArtConfig::default() }.base()
    };
    assert_eq!([sized(32, None), sized(128, None), sized(128, Some(4.0))], [16.0, 32.0, 16.0]);
    let told = json!({"sample_size": 32, "caption_channels": 5, "cross_attention_dim": 7});
    refused::<PixArtConfig>(&told, "cross_attention_dim");
    refused::<PixArtConfig>(&json!({"norm_type": "ada_norm_zero"}), "`norm_type`");
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
        json!({"down_block_types": ["SkipDownBlock2D", "DownBlock2D", "DownBlock2D", "DownBlock2D"]}),
        json!({"up_block_types": ["SkipUpBlock2D", "UpBlock2D", "UpBlock2D", "UpBlock2D"]}),
        json!({"resnet_time_scale_shift": "spatial"}),
        json!({"downsample_type": "fir"}),
    ] {
        refused::<UNet2DConfig>(&change, "unknown variant");
    }
    for change in [
        json!({"encoder_hid_dim": 8, "encoder_hid_dim_type": "image_proj"}),
        json!({"num_attention_heads": 8}),
        json!({"dual_cross_attention": true}),
        json!({"time_embedding_type": "learned"}),
        json!({"conv_in_kernel": 4}),
        json!({"conv_out_kernel": 0}),
        json!({"attention_type": "gated"}),
    ] {
        let key = change.as_object().unwrap().keys().next_back().unwrap().clone();
        refused::<UNet2DConditionConfig>(&change, &format!("`{key}`: "));
    }
    for change in [
        json!({"addition_embed_type": "image"}),
        json!({"mid_block_type": "UNetMidBlock2DSimpleCrossAttn"}),
        json!({"time_embedding_act_fn": "tanh"}),
    ] {
        refused::<UNet2DConditionConfig>(&change, "unknown variant");
    }
    refused::<ControlNetConfig>(&json!({"encoder_hid_dim": 8}), "`encoder_hid_dim`: ");
    refused::<ControlNetConfig>(
        &json!({"class_embed_type": "simple_projection"}),
        "simple_projection",
    );
    refused::<AutoencoderTinyConfig>(&json!({"upsample_fn": "bilinear"}), "`upsample_fn`: ");
    refused::<Transformer2DConfig>(&json!({}), "`norm_type`: ");
    refused::<UNet2DConfig>(&json!({"class_embed_type": "projection"}), "class_embed_type");
    refused::<DitConfig>(&json!({"activation_fn": "relu"}), "unknown variant");
    refused::<DitConfig>(&json!({"norm_type": "ada_norm"}), "`norm_type`");
}
