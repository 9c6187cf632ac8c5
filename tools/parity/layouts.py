"""Writes the key lists of published single files, and what diffusers makes of them.

    git clone https://github.com/arenasys/stable-diffusion-webui-model-toolkit TOOLKIT
    python tools/parity/layouts.py TOOLKIT/components crates/tweedie/tests/data/layouts

The lists of that repository (MIT) were read off published checkpoints; they hold keys and shapes. A list
here is one of its lists, shortened: `KEY SHAPE`, where `+` behind a weight's shape stands for a bias of
its first dimension. `expected.json` holds for each file what diffusers' and transformers' own conversion
functions give, under the settings of the published folder of the same model: for each component the
SHA-256 of names and shapes, and that of names, shapes and numbers when the file is filled by rule
(`fill`) with every dimension that 32 divides made smaller by 32. Needs diffusers, transformers, torch.
"""

import hashlib
import json
import sys
from pathlib import Path

import diffusers
import numpy as np
import torch
import transformers
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from diffusers.loaders import single_file_utils as reference
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

SD1 = {
    "sample_size": 64, "in_channels": 4, "out_channels": 4, "layers_per_block": 2, "cross_attention_dim": 768,
    "block_out_channels": [320, 640, 1280, 1280], "attention_head_dim": 8,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
}
SD2 = {**SD1, "sample_size": 96, "cross_attention_dim": 1024, "attention_head_dim": [5, 10, 20, 20], "use_linear_projection": True}
ADDED = {"addition_embed_type": "text_time", "addition_time_embed_dim": 256, "use_linear_projection": True}
XL = {
    **ADDED, "sample_size": 128, "in_channels": 4, "out_channels": 4, "layers_per_block": 2, "cross_attention_dim": 2048,
    "block_out_channels": [320, 640, 1280], "attention_head_dim": [5, 10, 20],
    "transformer_layers_per_block": [1, 2, 10], "projection_class_embeddings_input_dim": 2816,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
}
REFINER = {
    **ADDED, "sample_size": 128, "in_channels": 4, "out_channels": 4, "layers_per_block": 2, "cross_attention_dim": 1280,
    "block_out_channels": [384, 768, 1536, 1536], "attention_head_dim": [6, 12, 24, 24],
    "transformer_layers_per_block": 4, "projection_class_embeddings_input_dim": 2560,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
}
CONTROL = {k: v for k, v in SD1.items() if k not in ("sample_size", "out_channels", "up_block_types")}
VAE = {
    "in_channels": 3, "out_channels": 3, "latent_channels": 4, "sample_size": 512, "layers_per_block": 2,
    "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [128, 256, 512, 512], "scaling_factor": 0.18215,
}
XL_VAE = {**VAE, "sample_size": 1024, "scaling_factor": 0.13025}
TEXT = {"vocab_size": 49408, "max_position_embeddings": 77}
CLIP_L = {
    **TEXT, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
    "hidden_act": "quick_gelu",
}
OPEN_H = {
    **TEXT, "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23, "num_attention_heads": 16,
    "hidden_act": "gelu",
}
OPEN_G = {
    **TEXT, "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20,
    "hidden_act": "gelu", "projection_dim": 1280,
}

UNET = "model.diffusion_model."
FIRST = "first_stage_model."
CLASSES = {
    "unet": UNet2DConditionModel, "vae": AutoencoderKL, "controlnet": ControlNetModel,
    "clip": CLIPTextModel, "open": CLIPTextModel, "open_projected": CLIPTextModelWithProjection,
}

# The file: its parts (the list, the prefix) and its components (name, kind, prefix, settings).
FILES = {
    "sd1": (
        [("UNET-v1-SD", UNET), ("VAE-v1-SD", FIRST), ("CLIP-v1-SD", "cond_stage_model.transformer.text_model.")],
        [("unet", "unet", UNET, SD1), ("vae", "vae", FIRST, VAE), ("text_encoder", "clip", "cond_stage_model.transformer.", CLIP_L)],
    ),
    "sd1_inpaint": ([("UNET-v1-Inpainting", UNET)], [("unet", "unet", UNET, {**SD1, "in_channels": 9})]),
    "sd1_instruct": ([("UNET-v1-Pix2Pix", UNET)], [("unet", "unet", UNET, {**SD1, "in_channels": 8})]),
    "sd2": (
        [("UNET-v2-SD", UNET), ("VAE-v1-SD", FIRST), ("CLIP-v2-SD", "cond_stage_model.model.")],
        [("unet", "unet", UNET, SD2), ("vae", "vae", FIRST, {**VAE, "sample_size": 768}), ("text_encoder", "open", "cond_stage_model.model.", OPEN_H)],
    ),
    "sd2_inpaint": ([("UNET-v2-Inpainting", UNET)], [("unet", "unet", UNET, {**SD2, "in_channels": 9, "sample_size": 64})]),
    "sdxl": (
        [
            ("UNET-XL-SD", UNET), ("VAE-v1-SD", FIRST), ("CLIP-v1-SD", "conditioner.embedders.0.transformer.text_model."),
            ("CLIP-XL-SD", "conditioner.embedders.1.model."),
        ],
        [
            ("unet", "unet", UNET, XL), ("vae", "vae", FIRST, XL_VAE),
            ("text_encoder", "clip", "conditioner.embedders.0.transformer.", CLIP_L),
            ("text_encoder_2", "open_projected", "conditioner.embedders.1.model.", OPEN_G),
        ],
    ),
    "refiner": (
        [("UNET-XL-Refiner", UNET), ("VAE-v1-SD", FIRST), ("CLIP-XL-SD", "conditioner.embedders.0.model.")],
        [
            ("unet", "unet", UNET, REFINER), ("vae", "vae", FIRST, XL_VAE),
            ("text_encoder_2", "open_projected", "conditioner.embedders.0.model.", OPEN_G),
        ],
    ),
    "controlnet": ([("ControlNet-v1-SD", "control_model.")], [("", "controlnet", "control_model.", CONTROL)]),
}


def read(path):
    """Keys and shapes of a list of the toolkit."""
    out = {}
    for line in path.read_text().splitlines():
        key, shape = line.rsplit(" ", 1)
        out[key] = [int(n) for n in shape.strip("[]").split(",") if n]
    return out


def compact(shapes):
    """The lines of a list here."""
    lines, done = [], set()
    for key in sorted(shapes):
        if key in done:
            continue
        module = key.removesuffix(".weight").removesuffix(".bias")
        weight, bias = f"{module}.weight", f"{module}.bias"
        shape = lambda k: "x".join(map(str, shapes[k])) or "-"
        if key in (weight, bias) and weight in shapes and shapes.get(bias) == shapes[weight][:1]:
            lines.append(f"{module}.weight {shape(weight)}+")
            done |= {weight, bias}
        else:
            lines.append(f"{key} {shape(key)}")
    return "\n".join(sorted(lines)) + "\n"


def fill(key, shape):
    """The numbers of a tensor: a function of its key and each number's place."""
    start = 0xCBF29CE484222325
    for byte in key.encode():
        start = ((start ^ byte) * 0x100000001B3) % 2**64
    count = int(np.prod(shape, dtype=np.int64))
    mixed = (np.arange(count, dtype=np.uint64) * np.uint64(2654435761) + np.uint64(start % 2**32)) % np.uint64(2**32)
    numbers = (mixed >> np.uint64(8)).astype(np.float32) / np.float32(2**24) - np.float32(0.5)
    return torch.from_numpy(numbers.astype(np.float32).reshape(shape))


def small(shape):
    return [n // 32 if n % 32 == 0 else n for n in shape]


def converted(kind, prefix, config, tensors):
    """What diffusers makes of a component of the file `tensors`."""
    if kind == "unet":
        # Diffusers looks for some entries by `in`, others by their value.
        settings = {"class_embed_type": None, "num_class_embeds": None, "addition_embed_type": None, **config}
        return reference.convert_ldm_unet_checkpoint(tensors, settings)
    if kind == "controlnet":
        return reference.convert_controlnet_checkpoint(tensors, config)
    if kind == "vae":
        return reference.convert_ldm_vae_checkpoint(tensors, config)
    if kind == "clip":
        out = reference.convert_ldm_clip_checkpoint(tensors)
        return {k: v for k, v in out.items() if not k.endswith("position_ids")}
    width = tensors[f"{prefix}positional_embedding"].shape[-1]
    model = type("Model", (), {"config": type("Config", (), {"hidden_size": width})()})()
    return reference.convert_open_clip_checkpoint(model, tensors, prefix=prefix)


def digest(tensors, numbers):
    total = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name]
        total.update(f"{name} {list(value.shape)}\n".replace(" ", "").encode())
        if numbers:
            total.update(value.contiguous().numpy().tobytes())
    return total.hexdigest()


def check(kind, config, tensors):
    """The names and shapes are those of the class itself."""
    with torch.device("meta"):
        if kind in ("unet", "vae", "controlnet"):
            model = CLASSES[kind](**config)
        else:
            model = CLASSES[kind](CLIPTextConfig(**config))
    # transformers 5 leaves the first part out of one of its two classes.
    bare = lambda name: name.removeprefix("text_model.")
    wanted = {bare(k): list(v.shape) for k, v in model.state_dict().items()}
    found = {bare(k): list(v.shape) for k, v in tensors.items()}
    assert wanted == found, (kind, set(wanted) ^ set(found))


def main():
    lists, out = Path(sys.argv[1]), Path(sys.argv[2])
    expected = {
        "source": "github.com/arenasys/stable-diffusion-webui-model-toolkit e19dd46e61f04436832b258f7ae6adfc72bca346 (MIT)",
        "versions": {p.__name__: p.__version__ for p in (diffusers, transformers)},
        "files": {},
    }
    for name, (parts, components) in FILES.items():
        shapes = {}
        for part, prefix in parts:
            (out / f"{part}.txt").write_text(compact(read(lists / f"{part}.txt")))
            shapes |= {prefix + key: shape for key, shape in read(lists / f"{part}.txt").items()}
        # What training alone needs is not in every file, and means nothing.
        meta = {k: torch.empty(s, device="meta") for k, s in shapes.items()}
        tiny = {k: fill(k, small(s)) for k, s in shapes.items()}
        entry = {"parts": parts, "components": {}}
        for component, kind, prefix, config in components:
            whole = converted(kind, prefix, config, meta)
            check(kind, config, whole)
            entry["components"][component] = {
                "class": CLASSES[kind].__name__,
                "config": config,
                "names": digest(whole, False),
                "numbers": digest(converted(kind, prefix, config, tiny), True),
                "tensors": len(whole),
            }
        expected["files"][name] = entry
        print(name, {k: v["tensors"] for k, v in entry["components"].items()})
    (out / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main()
