"""Writes tiny networks with random weights, their inputs and their outputs, one file for each case.

    python tools/parity/networks.py crates/tweedie/tests/data/parity [CASE...]

Each file is a safetensors file: `weight.*` (f16, which the network here was rounded to first),
`input.*`, `output.*`; the header's metadata holds the class, its settings, the seed and the
versions of the packages. Cases of FOLDERS hold a model folder's `config.json` and tensor names as
`save_pretrained` writes them, and inputs and outputs by the names of `tweedie forward`; their tests
open them as a folder. Needs diffusers, transformers and torch.
"""

import json
import sys
import tempfile
import zlib
from pathlib import Path

import diffusers
import torch
import transformers
from safetensors.torch import load_file, save_file

UNET = {
    "in_channels": 3,
    "out_channels": 2,
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    "attention_head_dim": 8,
}
COND = {
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "attention_head_dim": 2,
    "cross_attention_dim": 12,
}
VAE = {
    "in_channels": 3,
    "out_channels": 3,
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "latent_channels": 4,
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
}
CLIP = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "max_position_embeddings": 12,
    "bos_token_id": 38,
    "eos_token_id": 39,
    "pad_token_id": 39,
}
DIT = {
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "in_channels": 4,
    "out_channels": 8,
    "num_layers": 2,
    "sample_size": 8,
    "patch_size": 2,
    "num_embeds_ada_norm": 5,
}

PIXART = {
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "in_channels": 4,
    "out_channels": 8,
    "num_layers": 2,
    "sample_size": 8,
    "patch_size": 2,
    "cross_attention_dim": 16,
    "caption_channels": 12,
}

# The class, its settings, the size of the input and what else goes in.
CASES = {
    "unet2d_plain": ("UNet2DModel", {**UNET}, (3, 8, 8), {}),
    "unet2d_scale_shift_classes": (
        "UNet2DModel",
        {**UNET, "resnet_time_scale_shift": "scale_shift", "num_class_embeds": 4, "layers_per_block": 2},
        (2, 8, 12),
        {"class": [1, 3]},
    ),
    "unet2d_ddpm": (
        "UNet2DModel",
        {
            **UNET,
            "block_out_channels": [8, 8, 16],
            "attention_head_dim": None,
            "downsample_padding": 0,
            "flip_sin_to_cos": False,
            "freq_shift": 1,
            "norm_eps": 1e-6,
            "act_fn": "silu",
            "center_input_sample": True,
            "class_embed_type": "timestep",
            "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D"],
            "up_block_types": ["UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
        },
        (2, 8, 8),
        {"class": [7, 130]},
    ),
    "unet2d_identity_no_attention": (
        "UNet2DModel",
        {**UNET, "class_embed_type": "identity", "add_attention": False, "time_embedding_dim": 20},
        (2, 6, 6),
        {"vector": 20},
    ),
    "unet2d_condition_plain": ("UNet2DConditionModel", {**COND}, (3, 8, 8), {"context": 5}),
    "unet2d_condition_odd_masked": (
        "UNet2DConditionModel",
        {**COND, "block_out_channels": [8, 8, 16],
         "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
         "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
         "attention_head_dim": [1, 2, 4]},
        (2, 9, 7),
        {"context": 5, "mask": True},
    ),
    "unet2d_condition_linear_deep": (
        "UNet2DConditionModel",
        {**COND, "use_linear_projection": True, "transformer_layers_per_block": [2, 1], "layers_per_block": [1, 2],
         "only_cross_attention": [True, False], "num_class_embeds": 3, "resnet_time_scale_shift": "scale_shift"},
        (2, 8, 8),
        {"context": 4, "class": [0, 2]},
    ),
    "unet2d_condition_text_time": (
        "UNet2DConditionModel",
        {**COND, "addition_embed_type": "text_time", "addition_time_embed_dim": 4,
         "projection_class_embeddings_input_dim": 30, "time_cond_proj_dim": 6, "class_embed_type": None},
        (2, 8, 8),
        {"context": 4, "vector": 6, "time_ids": True, "guidance": [7.5, 1.0]},
    ),
    "autoencoder_kl_plain": ("AutoencoderKL", {**VAE}, (2, 16, 12), {}),
    "autoencoder_kl_bare": (
        "AutoencoderKL",
        {**VAE, "use_quant_conv": False, "use_post_quant_conv": False, "mid_block_add_attention": False,
         "scaling_factor": 0.36, "shift_factor": 0.11, "latent_channels": 2},
        (2, 8, 8),
        {},
    ),
    "clip_text_quick": ("CLIPTextModel", {**CLIP}, None, {}),
    "clip_text_gelu_old_eos": (
        "CLIPTextModel", {**CLIP, "hidden_act": "gelu", "eos_token_id": 2, "pad_token_id": 0}, None, {"pad": 0},
    ),
    "dit_plain": ("DiTTransformer2DModel", {**DIT}, (3, 8, 8), {"class": [0, 4, 5]}),
    "dit_larger": ("DiTTransformer2DModel", {**DIT, "attention_bias": False}, (2, 12, 12), {"class": [1, 2]}),
    "pixart_plain": ("PixArtTransformer2DModel", {**PIXART}, (3, 8, 8), {"context": 5}),
    "pixart_larger_masked": (
        "PixArtTransformer2DModel",
        {**PIXART, "attention_bias": False, "interpolation_scale": 2, "caption_channels": None,
         "cross_attention_dim": 12, "out_channels": None},
        (2, 12, 8),
        {"context": 5, "mask": True},
    ),
}


CONTROL = {
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "attention_head_dim": 2,
    "cross_attention_dim": 12,
    "conditioning_embedding_out_channels": [4, 6, 8],
}
TINY = {
    "encoder_block_out_channels": [6, 6, 6],
    "decoder_block_out_channels": [5, 5, 5],
    "num_encoder_blocks": [1, 2, 1],
    "num_decoder_blocks": [2, 1, 1],
}
SIZES = {"addition_embed_type": "text_time", "addition_time_embed_dim": 4, "projection_class_embeddings_input_dim": 30}

# The component, the class, its settings, and the inputs: a shape for real numbers, a list for whole ones.
FOLDERS = {
    "folder_unet2d_fourier_residual": ("unet", "UNet2DModel", {
        **UNET, "time_embedding_type": "fourier", "downsample_type": "resnet", "upsample_type": "resnet",
        "act_fn": "mish", "mid_block_scale_factor": 1.5, "attn_norm_num_groups": 2, "attention_head_dim": 3,
        "block_out_channels": [8, 8, 16], "down_block_types": ["AttnDownBlock2D", "DownBlock2D", "AttnDownBlock2D"],
        "up_block_types": ["AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
    }, {"sample": (2, 3, 8, 12), "timestep": [[0.3], [2.5]]}),
    "folder_unet2d_learned": ("unet", "UNet2DModel", {
        **UNET, "time_embedding_type": "learned", "num_train_timesteps": 50, "act_fn": "relu", "mid_block_type": None,
        "class_embed_type": "timestep", "norm_eps": 1e-6, "downsample_padding": 0, "attention_head_dim": None,
    }, {"sample": (2, 3, 8, 8), "timestep": [49, 7], "class_labels": [3, 48]}),
    "folder_unet2d_shift_alone": ("unet", "UNet2DModel", {
        **UNET, "act_fn": "gelu", "resnet_time_scale_shift": "scale_shift", "block_out_channels": [16],
        "attn_norm_num_groups": 4, "down_block_types": ["AttnDownBlock2D"], "up_block_types": ["UpBlock2D"],
        "norm_num_groups": 2, "layers_per_block": 2, "num_class_embeds": 3,
    }, {"sample": (1, 3, 5, 7), "timestep": [999], "class_labels": [2]}),
    "folder_unet2d_resnet_blocks": ("unet", "UNet2DModel", {
        **UNET, "block_out_channels": [8, 8], "down_block_types": ["ResnetDownsampleBlock2D", "AttnDownBlock2D"],
        "up_block_types": ["AttnUpBlock2D", "ResnetUpsampleBlock2D"], "upsample_type": "resnet", "attention_head_dim": 4,
        "downsample_type": "resnet", "resnet_time_scale_shift": "scale_shift", "num_class_embeds": 3,
    }, {"sample": (2, 3, 8, 8), "timestep": [0.5], "class_labels": [2, 0]}),
    "folder_unet2d_condition_resnet_blocks": ("unet", "UNet2DConditionModel", {
        **COND, "block_out_channels": [8, 8, 8], "attention_head_dim": [2, 4, 8], "resnet_out_scale_factor": 2.0,
        "down_block_types": ["ResnetDownsampleBlock2D", "CrossAttnDownBlock2D", "AttnDownBlock2D"],
        "up_block_types": ["AttnUpBlock2D", "ResnetUpsampleBlock2D", "AttnUpBlock2D"], "resnet_skip_time_act": True,
    }, {"sample": (1, 4, 8, 8), "timestep": [77], "encoder_hidden_states": (1, 3, 12)}),
    "folder_unet2d_condition_inpaint": ("unet", "UNet2DConditionModel", {
        **COND, "in_channels": 9, "class_embed_type": "projection", "projection_class_embeddings_input_dim": 7,
        "class_embeddings_concat": True, "conv_in_kernel": 1, "conv_out_kernel": 5, "attention_head_dim": [3, 2],
        "mid_block_scale_factor": 1.5, "act_fn": "gelu", "upcast_attention": True,
    }, {"sample": (2, 9, 8, 8), "timestep": 601, "encoder_hidden_states": (2, 5, 12), "class_labels": (2, 7)}),
    "folder_unet2d_condition_nested_depths": ("unet", "UNet2DConditionModel", {
        **COND, "in_channels": 8, "layers_per_block": [1, 2], "use_linear_projection": True,
        "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
        "transformer_layers_per_block": [1, [1, 2]], "reverse_transformer_layers_per_block": [[1, 2, 1], 2],
        "only_cross_attention": True, "time_embedding_type": "fourier", "timestep_post_act": "silu",
        "class_embed_type": "simple_projection", "projection_class_embeddings_input_dim": 5,
    }, {"sample": (1, 8, 6, 4), "timestep": [[0.7]], "encoder_hidden_states": (1, 3, 12), "class_labels": (1, 5),
        "encoder_attention_mask": [[1, 1, 0]]}),
    "folder_unet2d_condition_pooled_text": ("unet", "UNet2DConditionModel", {
        **COND, "addition_embed_type": "text", "addition_embed_type_num_heads": 4, "encoder_hid_dim": 8,
        "mid_block_type": "UNetMidBlock2D", "time_embedding_act_fn": "relu", "time_embedding_dim": 20,
        "act_fn": "mish", "class_embed_type": "timestep", "flip_sin_to_cos": False, "freq_shift": 1,
    }, {"sample": (2, 4, 7, 9), "timestep": [1, 700], "encoder_hidden_states": (2, 5, 8), "class_labels": [30, 4]}),
    "folder_unet2d_condition_sizes": ("unet", "UNet2DConditionModel", {
        **COND, **SIZES, "class_embed_type": "identity", "time_cond_proj_dim": 5, "mid_block_type": None,
        "resnet_time_scale_shift": "scale_shift", "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "AttnUpBlock2D"],
    }, {"sample": (2, 4, 8, 8), "timestep": [999], "encoder_hidden_states": (2, 4, 12), "text_embeds": (2, 10),
        "time_ids": [[64.0, 64.0, 0.0, 0.0, 9.5], [32.0, 48.0, 8.0, 0.0, 6.0]], "class_labels": (2, 32),
        "timestep_cond": (2, 5)}),
    "folder_controlnet": ("controlnet", "ControlNetModel", {**CONTROL}, {
        "sample": (2, 4, 8, 6), "timestep": [981], "encoder_hidden_states": (2, 5, 12), "controlnet_cond": (2, 3, 32, 24)}),
    "folder_controlnet_sizes": ("controlnet", "ControlNetModel", {
        **CONTROL, **SIZES, "controlnet_conditioning_channel_order": "bgr", "use_linear_projection": True,
        "transformer_layers_per_block": [1, 2], "attention_head_dim": [1, 4], "layers_per_block": 2,
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"], "num_class_embeds": 4,
    }, {"sample": (1, 4, 9, 7), "timestep": 20, "encoder_hidden_states": (1, 5, 12), "controlnet_cond": (1, 3, 36, 28),
        "text_embeds": (1, 6), "time_ids": [[64, 64, 0, 0, 64, 48]], "class_labels": [3], "conditioning_scale": [[0.6]]}),
    "folder_controlnet_pooled": ("controlnet", "ControlNetModel", {
        **CONTROL, "global_pool_conditions": True, "mid_block_type": "UNetMidBlock2D", "conditioning_channels": 1,
        "act_fn": "relu", "mid_block_scale_factor": 1.5, "addition_embed_type": "text", "addition_embed_type_num_heads": 3,
        "resnet_time_scale_shift": "scale_shift", "downsample_padding": 0, "only_cross_attention": [True, False],
        "conditioning_embedding_out_channels": [4],
    }, {"sample": (2, 4, 8, 8), "timestep": [5, 500], "encoder_hidden_states": (2, 2, 12), "controlnet_cond": (2, 1, 8, 8)}),
    "folder_autoencoder_kl_encoder": ("vae-encoder", "AutoencoderKL", {
        **VAE, "latent_channels": 16, "act_fn": "mish", "block_out_channels": [8, 8, 16], "layers_per_block": 2,
        "down_block_types": ["DownEncoderBlock2D"] * 3, "up_block_types": ["UpDecoderBlock2D"] * 3,
        "latents_mean": [0.1] * 16, "latents_std": [1.5] * 16, "norm_num_groups": 2, "use_quant_conv": False,
    }, {"sample": (1, 3, 16, 24)}),
    "folder_autoencoder_kl_decoder": ("vae-decoder", "AutoencoderKL", {
        **VAE, "latent_channels": 16, "act_fn": "relu", "out_channels": 4, "mid_block_add_attention": False,
    }, {"latents": (2, 16, 3, 5)}),
    "folder_autoencoder_kl_attention": ("vae-encoder", "AutoencoderKL", {
        **VAE, "down_block_types": ["AttnDownEncoderBlock2D", "DownEncoderBlock2D"], "act_fn": "gelu",
        "block_out_channels": [4, 8], "up_block_types": ["AttnUpDecoderBlock2D", "UpDecoderBlock2D"],
    }, {"sample": (1, 3, 6, 8)}),
    "folder_autoencoder_tiny_encoder": ("vae-encoder", "AutoencoderTiny", {**TINY}, {"sample": (2, 3, 13, 18)}),
    "folder_autoencoder_tiny_decoder": ("vae-decoder", "AutoencoderTiny", {**TINY}, {"latents": (2, 4, 3, 5)}),
    "folder_autoencoder_tiny_other": ("vae-decoder", "AutoencoderTiny", {
        **TINY, "act_fn": "silu", "upsampling_scaling_factor": 3, "num_decoder_blocks": [0, 1], "latent_channels": 16,
        "decoder_block_out_channels": [4, 4], "out_channels": 1,
    }, {"latents": (1, 16, 4, 3)}),
    "folder_clip_text": ("text_encoder", "CLIPTextModel", {**CLIP, "hidden_act": "gelu_new"}, {
        "input_ids": [[38, 5, 39, 0, 0, 0], [38, 39, 39, 39, 39, 39]]}),
    "folder_clip_text_projection": ("text_encoder_2", "CLIPTextModelWithProjection", {
        **CLIP, "hidden_act": "gelu", "projection_dim": 7, "num_attention_heads": 4}, {
        "input_ids": [[38, 5, 17, 39, 0], [38, 39, 0, 0, 0]]}),
    "folder_clip_text_projection_old": ("text_encoder", "CLIPTextModelWithProjection", {
        **CLIP, "eos_token_id": 2, "bos_token_id": 0, "projection_dim": 20, "layer_norm_eps": 1e-6}, {
        "input_ids": [[38, 5, 2, 39, 39, 1]]}),
    "folder_dit_gated": ("transformer", "DiTTransformer2DModel", {
        **DIT, "activation_fn": "geglu", "norm_elementwise_affine": True, "norm_eps": 1e-6, "patch_size": 4,
        "out_channels": None}, {"sample": (2, 4, 16, 16), "timestep": [1, 999], "class_labels": [5, 0]}),
    "folder_dit_swish": ("transformer", "DiTTransformer2DModel", {
        **DIT, "activation_fn": "swiglu", "attention_bias": False, "patch_size": 1, "sample_size": 4, "num_layers": 1,
    }, {"sample": (1, 4, 3, 3), "timestep": [500], "class_labels": [2]}),
    "folder_dit_of_old": ("transformer", "Transformer2DModel", {
        **DIT, "activation_fn": "gelu", "norm_type": "ada_norm_zero", "norm_elementwise_affine": False,
        "attention_bias": True}, {"sample": (2, 4, 8, 8), "timestep": [0, 250], "class_labels": [5, 1]}),
}


def randomise(model, generator):
    """Lively weights, rounded to f16."""
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim == 1:
            value = 0.2 * noise + (1.0 if (parameter.data == 1).all() else 0.0)
        else:
            value = noise / parameter[0].numel() ** 0.5
        parameter.data = value.half().float()


def inputs_of(size, extra, config, generator):
    batch = size[0]
    channels = config["in_channels"]
    inputs = {
        "x": torch.randn(batch, channels, *size[1:], generator=generator),
        "time": torch.tensor([3.0, 981.0, 250.5])[:batch],
    }
    if "class" in extra:
        inputs["class"] = torch.tensor(extra["class"])
    if "vector" in extra:
        inputs["vector"] = torch.randn(batch, extra["vector"], generator=generator)
    if "context" in extra:
        told = config.get("caption_channels") or config["cross_attention_dim"]
        inputs["context"] = torch.randn(batch, extra["context"], told, generator=generator)
    if "mask" in extra:
        mask = torch.ones(batch, extra["context"])
        mask[0, 3:] = 0
        mask[1, 1:2] = 0
        inputs["mask"] = mask
    if "time_ids" in extra:
        inputs["time_ids"] = torch.tensor([[64.0, 64, 0, 0, 64, 48], [32.0, 40, 8, 3, 64, 64]])
    if "guidance" in extra:
        inputs["guidance"] = torch.tensor(extra["guidance"])
    return inputs


def guidance_embedding(guidance, width):
    """As the latent consistency pipeline of diffusers computes it."""
    w = (guidance - 1) * 1000.0
    half = width // 2
    emb = torch.log(torch.tensor(10000.0)) / (half - 1)
    emb = torch.exp(torch.arange(half) * -emb)
    emb = w[:, None] * emb[None, :]
    return torch.cat([torch.sin(emb), torch.cos(emb)], dim=1)


def denoiser(model, inputs, extra, config):
    """The output, and the hidden states at a few named modules."""
    seen = {}
    hooks = []
    for name, module in model.named_modules():
        last = name.rsplit(".", 1)
        if (last[0].endswith("resnets") and last[-1] == "0") or (last[0] == "transformer_blocks"):
            def record(_m, _i, out, name=name):
                seen[name] = (out[0] if isinstance(out, tuple) else out).detach().contiguous()
            hooks.append(module.register_forward_hook(record))
    kwargs = {}
    if "context" in inputs:
        kwargs["encoder_hidden_states"] = inputs["context"]
        kwargs["encoder_attention_mask"] = inputs["mask"] if "mask" in inputs else None
        if "guidance" in inputs:
            kwargs["timestep_cond"] = guidance_embedding(inputs["guidance"], config["time_cond_proj_dim"])
        if "time_ids" in inputs:
            kwargs["added_cond_kwargs"] = {"text_embeds": inputs["vector"], "time_ids": inputs["time_ids"]}
    if "class" in inputs:
        kwargs["class_labels"] = inputs["class"]
    elif config.get("class_embed_type") == "identity":
        kwargs["class_labels"] = inputs["vector"]
    y = model(inputs["x"], timestep=inputs["time"], **kwargs).sample
    for hook in hooks:
        hook.remove()
    return {"y": y, **{f"at.{k}": v for k, v in seen.items()}}


def write(folder, case):
    name, config, size, extra = CASES[case]
    seed = zlib.crc32(case.encode())
    generator = torch.Generator().manual_seed(seed)
    if name == "CLIPTextModel":
        model = transformers.CLIPTextModel(transformers.CLIPTextConfig(**config)).eval()
        randomise(model, generator)
        model.config._attn_implementation = "eager"
        pad, end = extra.get("pad", config["pad_token_id"]), 39
        rows = [[38, 5, 17, 9, end], [38, end], [38, 1, 2, 3, 4, 30, 31, 32, 33, 34, 35, end]]
        ids = torch.tensor([row + [pad] * (12 - len(row)) for row in rows])
        out = model(input_ids=ids, output_hidden_states=True)
        inputs = {"ids": ids}
        norm = model.final_layer_norm
        outputs = {
            "hidden": out.last_hidden_state,
            "pooled": out.pooler_output,
            "skip1": norm(out.hidden_states[-2]),
            "skip2": norm(out.hidden_states[-3]),
        }
        # The published files name everything below `text_model`.
        weights = {f"text_model.{k}": v for k, v in model.state_dict().items()}
    else:
        model = getattr(diffusers, name)(**config).eval()
        randomise(model, generator)
        inputs = inputs_of(size, extra, config, generator)
        if name == "AutoencoderKL":
            del inputs["time"]
            latent = model.encode(inputs["x"]).latent_dist
            z = torch.randn(latent.mean.shape, generator=generator)
            inputs["z"] = z
            outputs = {"mean": latent.mean, "logvar": latent.logvar, "y": model.decode(z).sample}
        else:
            outputs = denoiser(model, inputs, extra, config)
        weights = model.state_dict()
    tensors = {f"weight.{k}": v.half().contiguous() for k, v in weights.items()}
    tensors |= {f"input.{k}": v.contiguous() for k, v in inputs.items()}
    tensors |= {f"output.{k}": v.detach().contiguous() for k, v in outputs.items()}
    metadata = {
        "class": name,
        "config": json.dumps(config),
        "seed": str(seed),
        "torch": torch.__version__.split("+")[0],
        "diffusers": diffusers.__version__,
        "transformers": transformers.__version__,
    }
    path = folder / f"{case}.safetensors"
    save_file(tensors, path, metadata)
    print(f"{path.name}: {path.stat().st_size} bytes")


def call(component, model, i):
    """What the component says, by the names of `tweedie forward`."""
    if component == "vae-encoder":
        coded = model.encode(i["sample"])
        if hasattr(coded, "latents"):
            return {"mean": coded.latents}
        return {"mean": coded.latent_dist.mean, "logvar": coded.latent_dist.logvar}
    if component == "vae-decoder":
        return {"sample": model.decode(i["latents"]).sample}
    if component.startswith("text_encoder"):
        projects = hasattr(model, "text_projection")
        inner = (model.text_model if projects else model)(i["input_ids"])
        out = {"last_hidden_state": inner.last_hidden_state, "pooled": inner.pooler_output}
        return out | ({"text_embeds": model(i["input_ids"]).text_embeds} if projects else {})
    if component == "transformer":
        return {"sample": model(i["sample"], timestep=i["timestep"], class_labels=i["class_labels"]).sample}
    i = dict(i)
    if "text_embeds" in i:
        i["added_cond_kwargs"] = {"text_embeds": i.pop("text_embeds"), "time_ids": i.pop("time_ids")}
    if "conditioning_scale" in i:
        i["conditioning_scale"] = i["conditioning_scale"].item()
    out = model(**i)
    if component == "unet":
        return {"sample": out.sample}
    return {f"down_{k}": v for k, v in enumerate(out.down_block_res_samples)} | {"mid": out.mid_block_res_sample}


def write_folder(folder, case):
    component, name, config, wants = FOLDERS[case]
    seed = zlib.crc32(case.encode())
    generator = torch.Generator().manual_seed(seed)
    if name.startswith("CLIP"):
        model = getattr(transformers, name)(transformers.CLIPTextConfig(**config)).eval()
    else:
        model = getattr(diffusers, name)(**config).eval()
    randomise(model, generator)
    inputs = {}
    for key, want in wants.items():
        if isinstance(want, tuple):
            inputs[key] = torch.randn(want, generator=generator)
        else:
            value = torch.tensor(want)
            # A list of lists of one number stands for real numbers, a row each.
            inputs[key] = value[:, 0] if value.ndim == 2 and value.shape[1] == 1 else value
    if "time_ids" in inputs:
        inputs["time_ids"] = inputs["time_ids"].float()
    with tempfile.TemporaryDirectory() as place:
        model.save_pretrained(place)
        settings = json.loads((Path(place) / "config.json").read_text())
        weights = load_file(next(Path(place).glob("*.safetensors")))
    if name == "Transformer2DModel":
        settings["_class_name"] = name
    outputs = call(component, model, inputs)
    tensors = {f"weight.{k}": v.half().contiguous() for k, v in weights.items()}
    tensors |= {f"input.{k}": v.contiguous() for k, v in inputs.items()}
    tensors |= {f"output.{k}": v.detach().contiguous() for k, v in outputs.items()}
    metadata = {
        "component": component,
        "class": name,
        "config": json.dumps(settings),
        "seed": str(seed),
        "torch": torch.__version__.split("+")[0],
        "diffusers": diffusers.__version__,
        "transformers": transformers.__version__,
    }
    path = folder / f"{case}.safetensors"
    save_file(tensors, path, metadata)
    print(f"{path.name}: {path.stat().st_size} bytes")


def write_controlled(folder, case):
    """A U-Net of the inpainting kind under two control networks, whose residuals are added up."""
    generator = torch.Generator().manual_seed(zlib.crc32(case.encode()))
    settings = {"unet": {**COND, "in_channels": 9}, "control_0": {**CONTROL},
                "control_1": {**CONTROL, "attention_head_dim": 4, "global_pool_conditions": True}}
    models = {
        part: (diffusers.UNet2DConditionModel if part == "unet" else diffusers.ControlNetModel)(**config).eval()
        for part, config in settings.items()
    }
    for model in models.values():
        randomise(model, generator)
    x = {
        "sample": torch.randn(2, 4, 7, 10, generator=generator),
        "beside": torch.randn(2, 5, 7, 10, generator=generator),
        "timestep": torch.tensor([981.0, 14.0]),
        "encoder_hidden_states": torch.randn(2, 5, 12, generator=generator),
        "picture_0": torch.rand(2, 3, 28, 40, generator=generator),
        "picture_1": torch.rand(2, 3, 28, 40, generator=generator),
        "scales": torch.tensor([0.7, 1.3]),
    }
    down, mid = None, None
    for i in range(2):
        said = models[f"control_{i}"](x["sample"], x["timestep"], x["encoder_hidden_states"],
                                      controlnet_cond=x[f"picture_{i}"], conditioning_scale=x["scales"][i].item())
        if down is None:
            down, mid = said.down_block_res_samples, said.mid_block_res_sample
        else:
            down = [a + b for a, b in zip(down, said.down_block_res_samples)]
            mid = mid + said.mid_block_res_sample
    y = models["unet"](torch.cat([x["sample"], x["beside"]], dim=1), x["timestep"], x["encoder_hidden_states"],
                       down_block_additional_residuals=down, mid_block_additional_residual=mid).sample
    plain = models["unet"](torch.cat([x["sample"], x["beside"]], dim=1), x["timestep"], x["encoder_hidden_states"]).sample
    tensors = {f"weight.{part}.{k}": v.half().contiguous()
               for part, model in models.items() for k, v in model.state_dict().items()}
    tensors |= {f"input.{k}": v.contiguous() for k, v in x.items()}
    tensors |= {"output.sample": y.contiguous(), "output.plain": plain.contiguous()}
    metadata = {"class": "", **{part: json.dumps(config) for part, config in settings.items()}}
    path = folder / f"{case}.safetensors"
    save_file(tensors, path, metadata)
    print(f"{path.name}: {path.stat().st_size} bytes")


WRITERS = {case: write for case in CASES} | {case: write_folder for case in FOLDERS}
WRITERS["controlled_pair"] = write_controlled

with torch.no_grad():
    torch.set_num_threads(1)
    for case in sys.argv[2:] or WRITERS:
        WRITERS[case](Path(sys.argv[1]), case)
