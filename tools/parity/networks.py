"""Writes tiny networks with random weights, their inputs and their outputs, one file for each case.

    python tools/parity/networks.py crates/tweedie/tests/data/parity [CASE...]

Each file is a safetensors file: `weight.*` (f16, which the network here was rounded to first),
`input.*`, `output.*`; the header's metadata holds the class, its settings, the seed and the
versions of the packages. Needs diffusers, transformers and torch.
"""

import json
import sys
import zlib
from pathlib import Path

import diffusers
import torch
import transformers
from safetensors.torch import save_file

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
        inputs["context"] = torch.randn(batch, extra["context"], config["cross_attention_dim"], generator=generator)
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
    y = model(inputs["x"], inputs["time"], **kwargs).sample
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


with torch.no_grad():
    torch.set_num_threads(1)
    for case in sys.argv[2:] or CASES:
        write(Path(sys.argv[1]), case)
