"""Random small configurations of every family through diffusers / transformers and `tweedie forward`.

    python tools/parity/forward.py PROGRAM [--family NAME] [--count N] [--seed S] [--keep FOLDER]

Each case draws a configuration over every branch that the published classes have, gives every
parameter a value (those that start at zero too), writes the model as `save_pretrained` does, runs it
in Python and with the program, and prints the largest error over the largest value of each output.
The exit status counts the cases above 1e-4. Needs diffusers, transformers and torch.
"""

import argparse
import copy
import json
import random
import subprocess
import tempfile
from pathlib import Path

import diffusers
import torch
import transformers
from safetensors.torch import load_file, save_file

LIMIT = 1e-4
GROUPS = 4


def randomise(model, generator):
    for name, p in model.named_parameters():
        noise = torch.randn(p.shape, generator=generator)
        if p.ndim <= 1:
            value = 0.2 * noise + (1.0 if p.numel() and (p.data == 1).all() else 0.0)
        elif "embedding" in name and p.ndim == 2 and ("token" in name or "position" in name):
            value = 0.5 * noise
        else:
            value = noise / max(p[0].numel(), 1) ** 0.5
        p.data = value.to(p.dtype)


def maybe(r, chance, value, other=None):
    return value() if r.random() < chance else other


def channels(r, levels, least=1):
    return [GROUPS * r.randint(least, 5) * 2 for _ in range(levels)]


def times(r, batch, generator):
    """A time as a pipeline would give it: one for all, one a row, whole or not."""
    kind = r.choice(["scalar", "one", "rows", "real"])
    whole = torch.randint(0, 1000, (batch,), generator=generator)
    if kind == "scalar":
        return whole[0]
    if kind == "one":
        return whole[:1]
    return whole if kind == "rows" else whole.float() + 0.25


def size(r, levels, odd=True):
    unit = 2 ** (levels - 1)
    if odd and r.random() < 0.3:
        return [r.randint(unit + 1, 4 * unit + 1) for _ in range(2)]
    return [unit * r.randint(2, 4) for _ in range(2)]


def class_settings(r, config, kinds, widths):
    kind = r.choice(kinds)
    if kind == "table":
        config["num_class_embeds"] = r.randint(2, 9)
    elif kind:
        config["class_embed_type"] = kind
        if "projection" in kind:
            config["projection_class_embeddings_input_dim"] = widths
    return kind


def labels(kind, config, batch, width, generator):
    if kind == "table":
        return torch.randint(0, config["num_class_embeds"], (batch,), generator=generator)
    if kind == "timestep":
        return torch.randint(0, 1000, (batch,), generator=generator)
    if kind == "identity":
        return torch.randn(batch, width, generator=generator)
    if kind:
        return torch.randn(batch, config["projection_class_embeddings_input_dim"], generator=generator)
    return None


def unet2d(r, g):
    levels = r.randint(1, 4)
    down = [r.choice(["DownBlock2D", "AttnDownBlock2D", "ResnetDownsampleBlock2D"]) for _ in range(levels)]
    up = [r.choice(["UpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D"]) for _ in range(levels)]
    time = r.choice(["positional"] * 4 + ["fourier", "learned"])
    config = {
        "in_channels": r.randint(1, 4), "out_channels": r.randint(1, 6),
        "center_input_sample": r.random() < 0.3,
        "time_embedding_type": time,
        "time_embedding_dim": maybe(r, 0.3, lambda: r.randint(5, 40)),
        "freq_shift": r.choice([0, 1]), "flip_sin_to_cos": r.random() < 0.5,
        "down_block_types": down, "up_block_types": up,
        "mid_block_type": maybe(r, 0.85, lambda: "UNetMidBlock2D"),
        "block_out_channels": channels(r, levels), "layers_per_block": r.randint(1, 3),
        "mid_block_scale_factor": r.choice([1, 1, 1.5]),
        "downsample_padding": r.choice([0, 1]),
        "downsample_type": r.choice(["conv", "conv", "resnet"]),
        "upsample_type": r.choice(["conv", "conv", "resnet"]),
        "act_fn": r.choice(["silu", "silu", "swish", "mish", "gelu", "relu"]),
        "attention_head_dim": r.choice([None, 1, 2, 4, 8, 3]),
        "norm_num_groups": r.choice([1, 2, GROUPS]),
        "attn_norm_num_groups": r.choice([None, None, 2]),
        "norm_eps": r.choice([1e-5, 1e-6]),
        "resnet_time_scale_shift": r.choice(["default", "scale_shift"]),
        "add_attention": r.random() < 0.8,
        "num_train_timesteps": 1000 if time == "learned" else None,
    }
    kind = class_settings(r, config, [None, None, "table", "timestep", "identity"], 0)
    model = diffusers.UNet2DModel(**config)
    b = r.randint(1, 3)
    h, w = size(r, levels, odd=False)
    t = times(r, b, g)
    if time == "learned":
        t = t.long()
    if time == "fourier":
        t = t.float().reshape(-1).expand(b).contiguous() / 100 + 0.5
        if kind == "timestep":
            kind = config["class_embed_type"] = None
            model = diffusers.UNet2DModel(**config)
    width = config["time_embedding_dim"] or 4 * config["block_out_channels"][0]
    inputs = {"sample": torch.randn(b, config["in_channels"], h, w, generator=g), "timestep": t}
    if kind:
        inputs["class_labels"] = labels(kind, config, b, width, g)
    return "unet", model, inputs, lambda m, i: {"sample": m(**i).sample}


def cross_settings(r, levels, for_control=False):
    """What U-Nets with cross-attention and control networks share."""
    ch = channels(r, levels, 2)
    kinds = ["CrossAttnDownBlock2D"] * 6 + ["DownBlock2D"] * 2
    kinds += ["AttnDownBlock2D", "ResnetDownsampleBlock2D"]
    down = [r.choice(kinds) for _ in range(levels)]
    each = lambda chance, one: [one() for _ in range(levels)] if r.random() < chance else one()
    config = {
        "flip_sin_to_cos": r.random() < 0.7, "freq_shift": r.choice([0, 1]),
        "down_block_types": down, "block_out_channels": ch,
        "mid_block_type": "UNetMidBlock2DCrossAttn",
        "only_cross_attention": each(0.3, lambda: r.random() < 0.3),
        "downsample_padding": r.choice([0, 1, 1]),
        "mid_block_scale_factor": r.choice([1, 1, 1, 1.5]),
        "act_fn": r.choice(["silu"] * 4 + ["mish", "gelu", "relu"]),
        "norm_num_groups": r.choice([1, 2, GROUPS]), "norm_eps": r.choice([1e-5, 1e-6]),
        "attention_head_dim": each(0.5, lambda: r.choice([1, 2, 4, 8, 3])),
        "use_linear_projection": r.random() < 0.5,
        "upcast_attention": r.random() < 0.3,
        "resnet_time_scale_shift": r.choice(["default", "default", "scale_shift"]),
        "transformer_layers_per_block": each(0.5, lambda: r.randint(1, 2)),
        "addition_embed_type_num_heads": 4,
    }
    return config, each


def cross_inputs(r, g, config, kind, levels, width):
    b = r.randint(1, 3)
    h, w = size(r, levels)
    dim = config["cross_attention_dim"]
    dim = config.get("encoder_hid_dim") or (dim if isinstance(dim, int) else dim[0])
    inputs = {
        "sample": torch.randn(b, config["in_channels"], h, w, generator=g),
        "timestep": times(r, b, g),
        "encoder_hidden_states": torch.randn(b, r.randint(1, 9), dim, generator=g),
    }
    if kind:
        inputs["class_labels"] = labels(kind, config, b, width, g)
    if config.get("addition_embed_type") == "text_time":
        count = r.choice([5, 6])
        pooled = config["projection_class_embeddings_input_dim"] - count * config["addition_time_embed_dim"]
        inputs["text_embeds"] = torch.randn(b, pooled, generator=g)
        inputs["time_ids"] = torch.randint(0, 1100, (b, count), generator=g).float()
    return b, inputs


def call(model, inputs):
    inputs = dict(inputs)
    if "text_embeds" in inputs:
        inputs["added_cond_kwargs"] = {"text_embeds": inputs.pop("text_embeds"), "time_ids": inputs.pop("time_ids")}
    return model(**inputs)


def unet2d_condition(r, g):
    levels = r.randint(1, 4)
    config, each = cross_settings(r, levels)
    config |= {
        "in_channels": r.choice([4, 4, 4, 8, 9, 16]), "out_channels": r.choice([4, 4, 16]),
        "center_input_sample": r.random() < 0.2,
        "mid_block_type": r.choice(["UNetMidBlock2DCrossAttn"] * 5 + ["UNetMidBlock2D", None]),
        "up_block_types": [
            r.choice(["CrossAttnUpBlock2D"] * 6 + ["UpBlock2D"] * 2 + ["AttnUpBlock2D", "ResnetUpsampleBlock2D"])
            for _ in range(levels)
        ],
        "layers_per_block": each(0.4, lambda: r.randint(1, 3)),
        "cross_attention_dim": each(0.1, lambda: 12) if r.random() < 0.9 else 17,
        "time_embedding_dim": maybe(r, 0.25, lambda: 2 * r.randint(6, 20)),
        "time_embedding_type": r.choice(["positional"] * 8 + ["fourier"]),
        "time_cond_proj_dim": maybe(r, 0.3, lambda: r.randint(2, 9)),
        "timestep_post_act": r.choice([None, None, None, "silu", "gelu"]),
        "time_embedding_act_fn": r.choice([None, None, None, "silu", "relu"]),
        "conv_in_kernel": r.choice([3, 3, 3, 1, 5]), "conv_out_kernel": r.choice([3, 3, 3, 1, 5]),
        "resnet_out_scale_factor": r.choice([1.0, 1.0, 2.0]), "resnet_skip_time_act": r.random() < 0.3,
        "class_embeddings_concat": False,
    }
    if r.random() < 0.2:
        config["encoder_hid_dim"] = r.randint(8, 20)
        config["cross_attention_dim"] = 12
        config["encoder_hid_dim_type"] = r.choice([None, "text_proj"])
    if r.random() < 0.25:
        layers = config["layers_per_block"]
        layers = layers if isinstance(layers, list) else [layers] * levels
        config["transformer_layers_per_block"] = [
            r.choice([1, [r.randint(1, 2) for _ in range(n)]]) for n in layers
        ]
        config["reverse_transformer_layers_per_block"] = [
            r.choice([1, 2, [r.randint(1, 2) for _ in range(n + 1)]]) for n in reversed(layers)
        ]
    added = r.choice([None, None, "text_time", "text_time", "text"])
    kinds = [None, None, None, "table", "timestep", "identity"]
    if added != "text_time":
        kinds += ["projection", "simple_projection"]
    kind = class_settings(r, config, kinds, 14)
    if added == "text_time":
        config |= {"addition_embed_type": added, "addition_time_embed_dim": r.choice([4, 6, 7]),
                   "projection_class_embeddings_input_dim": r.randint(46, 70)}
    elif added == "text":
        width = config.get("encoder_hid_dim") or config["cross_attention_dim"]
        if isinstance(width, int):
            heads = [n for n in (1, 2, 3, 4) if width % n == 0]
            config |= {"addition_embed_type": added, "addition_embed_type_num_heads": r.choice(heads)}
    width = config["time_embedding_dim"] or config["block_out_channels"][0] * (
        2 if config["time_embedding_type"] == "fourier" else 4)
    if kind and kind != "timestep" and r.random() < 0.3 and not config.get("addition_embed_type"):
        config["class_embeddings_concat"] = True
    model = diffusers.UNet2DConditionModel(**config)
    b, inputs = cross_inputs(r, g, config, kind, levels, width)
    if config["time_embedding_type"] == "fourier":
        inputs["timestep"] = inputs["timestep"].float() / 1000
        if kind == "timestep":
            inputs["class_labels"] = inputs["class_labels"].float() / 1000
    if config["time_cond_proj_dim"] and r.random() < 0.8:
        inputs["timestep_cond"] = torch.randn(b, config["time_cond_proj_dim"], generator=g)
    if r.random() < 0.2:
        mask = (torch.rand(b, inputs["encoder_hidden_states"].shape[1], generator=g) < 0.7).float()
        mask[:, 0] = 1
        inputs["encoder_attention_mask"] = mask
    return "unet", model, inputs, lambda m, i: {"sample": call(m, i).sample}


def controlnet(r, g):
    levels = r.randint(1, 4)
    config, each = cross_settings(r, levels)
    embed = [r.randint(1, 6) * 2 for _ in range(4)]
    config |= {
        "in_channels": r.choice([4, 4, 9]), "conditioning_channels": r.choice([3, 3, 1]),
        "layers_per_block": r.randint(1, 3), "cross_attention_dim": r.choice([12, 17]),
        "mid_block_type": r.choice(["UNetMidBlock2DCrossAttn"] * 3 + ["UNetMidBlock2D"]),
        "conditioning_embedding_out_channels": embed[: r.choice([4, 4, 3, 1])],
        "controlnet_conditioning_channel_order": r.choice(["rgb", "rgb", "bgr"]),
        "global_pool_conditions": r.random() < 0.2,
    }
    kinds = [None, None, None, "table", "timestep", "identity"]
    added = r.choice([None, None, "text_time", "text"])
    if added != "text_time":
        kinds.append("projection")
    kind = class_settings(r, config, kinds, 14)
    if added == "text_time":
        config |= {"addition_embed_type": added, "addition_time_embed_dim": r.choice([4, 6]),
                   "projection_class_embeddings_input_dim": r.randint(46, 70)}
    elif added == "text":
        config |= {"addition_embed_type": added, "cross_attention_dim": 12}
    model = diffusers.ControlNetModel(**config)
    b, inputs = cross_inputs(r, g, config, kind, levels, 4 * config["block_out_channels"][0])
    h, w = inputs["sample"].shape[2:]
    factor = 2 ** (len(config["conditioning_embedding_out_channels"]) - 1)
    inputs["controlnet_cond"] = torch.rand(b, config["conditioning_channels"], h * factor, w * factor, generator=g)
    if r.random() < 0.4:
        inputs["conditioning_scale"] = torch.tensor(r.choice([0.5, 0.8, 1.3]))

    def run(m, i):
        i = dict(i)
        if "conditioning_scale" in i:
            i["conditioning_scale"] = float(i["conditioning_scale"])
        out = call(m, i)
        return {f"down_{k}": v for k, v in enumerate(out.down_block_res_samples)} | {"mid": out.mid_block_res_sample}

    return "controlnet", model, inputs, run


def autoencoder_kl(r, g):
    levels = r.randint(1, 4)
    config = {
        "in_channels": r.choice([3, 3, 1]), "out_channels": r.choice([3, 3, 4]),
        "block_out_channels": channels(r, levels), "layers_per_block": r.randint(1, 3),
        "down_block_types": [r.choice(["DownEncoderBlock2D"] * 3 + ["AttnDownEncoderBlock2D"]) for _ in range(levels)],
        "up_block_types": [r.choice(["UpDecoderBlock2D"] * 3 + ["AttnUpDecoderBlock2D"]) for _ in range(levels)],
        "latent_channels": r.choice([4, 4, 16]), "norm_num_groups": r.choice([1, 2, GROUPS]),
        "act_fn": r.choice(["silu", "silu", "silu", "mish", "relu", "gelu"]),
        "scaling_factor": r.choice([0.18215, 0.13025]), "shift_factor": maybe(r, 0.3, lambda: 0.1),
        "force_upcast": r.random() < 0.5, "use_quant_conv": r.random() < 0.6,
        "use_post_quant_conv": r.random() < 0.6, "mid_block_add_attention": r.random() < 0.7,
    }
    if r.random() < 0.3:
        config["latents_mean"] = [round(r.uniform(-1, 1), 3) for _ in range(config["latent_channels"])]
        config["latents_std"] = [round(r.uniform(0.5, 2), 3) for _ in range(config["latent_channels"])]
    model = diffusers.AutoencoderKL(**config)
    b, unit = r.randint(1, 2), 2 ** (levels - 1)
    if r.random() < 0.5:
        inputs = {"sample": torch.randn(b, config["in_channels"], unit * r.randint(2, 5), unit * r.randint(2, 5), generator=g)}

        def encode(m, i):
            d = m.encode(i["sample"]).latent_dist
            return {"mean": d.mean, "logvar": d.logvar}

        return "vae-encoder", model, inputs, encode
    inputs = {"latents": torch.randn(b, config["latent_channels"], r.randint(2, 6), r.randint(2, 6), generator=g)}
    return "vae-decoder", model, inputs, lambda m, i: {"sample": m.decode(i["latents"]).sample}


def autoencoder_tiny(r, g):
    levels, back = r.randint(1, 4), r.randint(1, 4)
    width = r.randint(3, 12)
    config = {
        "in_channels": r.choice([3, 3, 1]), "out_channels": r.choice([3, 3, 4]),
        "encoder_block_out_channels": [width] * levels, "decoder_block_out_channels": [r.randint(3, 12)] * back,
        "act_fn": r.choice(["relu", "relu", "silu", "mish", "gelu"]), "latent_channels": r.choice([4, 16]),
        "upsampling_scaling_factor": r.choice([2, 2, 3]),
        "num_encoder_blocks": [r.randint(0, 2) for _ in range(levels)],
        "num_decoder_blocks": [r.randint(0, 2) for _ in range(back)],
        "latent_magnitude": 3, "latent_shift": 0.5, "scaling_factor": r.choice([1.0, 1.5]),
    }
    model = diffusers.AutoencoderTiny(**config)
    b = r.randint(1, 2)
    if r.random() < 0.5:
        inputs = {"sample": torch.randn(b, config["in_channels"], r.randint(9, 33), r.randint(9, 33), generator=g)}
        return "vae-encoder", model, inputs, lambda m, i: {"mean": m.encode(i["sample"]).latents}
    inputs = {"latents": 3 * torch.randn(b, config["latent_channels"], r.randint(2, 6), r.randint(2, 6), generator=g)}
    return "vae-decoder", model, inputs, lambda m, i: {"sample": m.decode(i["latents"]).sample}


def clip_text(r, g):
    heads = r.choice([1, 2, 4])
    old = r.random() < 0.4
    config = {
        "vocab_size": 60, "hidden_size": heads * r.choice([4, 5, 8]), "intermediate_size": r.randint(6, 40),
        "num_hidden_layers": r.randint(1, 4), "num_attention_heads": heads,
        "max_position_embeddings": r.choice([8, 12, 20]), "hidden_act": r.choice(["quick_gelu", "gelu", "gelu_new", "gelu_pytorch_tanh", "silu", "relu"]),
        "layer_norm_eps": r.choice([1e-5, 1e-6]), "projection_dim": r.randint(3, 20),
        "bos_token_id": 0 if old else 58, "eos_token_id": 2 if old else 59, "pad_token_id": 1,
    }
    projected = r.random() < 0.5
    cls = transformers.CLIPTextModelWithProjection if projected else transformers.CLIPTextModel
    model = cls(transformers.CLIPTextConfig(**config))
    b, n = r.randint(1, 3), r.randint(2, config["max_position_embeddings"])
    ids = torch.randint(3, 58, (b, n), generator=g)
    for row in ids:
        end = r.randint(1, n - 1)
        row[end] = 59
        row[end + 1 :] = r.choice([1, 59])
    ids = r.choice([ids, ids.int()])

    def run(m, i):
        ids = i["input_ids"].long()
        if projected:
            out, inner = m(ids), m.text_model(ids)
            return {"last_hidden_state": out.last_hidden_state, "pooled": inner.pooler_output, "text_embeds": out.text_embeds}
        out = m(ids)
        return {"last_hidden_state": out.last_hidden_state, "pooled": out.pooler_output}

    return r.choice(["text_encoder", "text_encoder_2"]), model, {"input_ids": ids}, run


def dit(r, g):
    heads, patch = r.choice([1, 2, 3]), r.choice([1, 2, 2, 4])
    config = {
        "num_attention_heads": heads, "attention_head_dim": r.choice([4, 8, 12]), "in_channels": r.choice([1, 4]),
        "out_channels": r.choice([None, 4, 8]), "num_layers": r.randint(1, 3), "attention_bias": r.random() < 0.7,
        "sample_size": patch * r.randint(2, 5), "patch_size": patch,
        "activation_fn": r.choice(["gelu-approximate"] * 3 + ["gelu", "geglu", "geglu-approximate", "swiglu", "linear-silu"]),
        "num_embeds_ada_norm": r.randint(1, 9), "upcast_attention": r.random() < 0.3, "norm_type": "ada_norm_zero",
        "norm_elementwise_affine": r.random() < 0.3, "norm_eps": r.choice([1e-5, 1e-6]),
    }
    old = r.random() < 0.3
    model = (diffusers.Transformer2DModel if old else diffusers.DiTTransformer2DModel)(**config)
    b = r.randint(1, 3)
    side = r.choice([config["sample_size"], patch * r.randint(1, 6)])
    t = times(r, b, g).reshape(-1).expand(b).contiguous()
    inputs = {
        "sample": torch.randn(b, config["in_channels"], side, side, generator=g), "timestep": t,
        "class_labels": torch.randint(0, config["num_embeds_ada_norm"] + 1, (b,), generator=g),
    }
    model.old = old
    return "transformer", model, inputs, lambda m, i: {
        "sample": m(i["sample"], timestep=i["timestep"], class_labels=i["class_labels"]).sample
    }


FAMILIES = {f.__name__: f for f in (
    unet2d, unet2d_condition, controlnet, autoencoder_kl, autoencoder_tiny, clip_text, dit)}


def save(model, folder, r):
    """As `save_pretrained` writes it, in f32 or in 16 bits."""
    dtype = r.choice([torch.float32, torch.float32, torch.float16, torch.bfloat16])
    if dtype != torch.float32:
        for p in model.parameters():
            p.data = p.data.to(dtype).float()
    # A copy: tables that are computed, not stored, must not be rounded.
    copy.deepcopy(model).to(dtype).save_pretrained(folder)
    if getattr(model, "old", False):
        file = folder / "config.json"
        config = json.loads(file.read_text())
        config["_class_name"] = "Transformer2DModel"
        file.write_text(json.dumps(config))
    return str(dtype).split(".")[-1]


def one(program, family, seed, keep):
    r, g = random.Random(seed), torch.Generator().manual_seed(seed)
    folder = Path(keep) / f"{family}-{seed}"
    while True:
        try:
            component, model, inputs, run = FAMILIES[family](r, g)
            randomise(model.eval(), g)
            dtype = save(model, folder, r)
            wanted = run(model, inputs)
            break
        except (ValueError, TypeError, RuntimeError, AttributeError, ZeroDivisionError) as error:
            # A combination that the published class itself refuses.
            print(f"# {family} {seed}: drawn again, diffusers says: {str(error).splitlines()[0][:120]}")
    save_file({k: v.contiguous() for k, v in inputs.items()}, folder / "inputs.safetensors")
    save_file({k: v.detach().contiguous() for k, v in wanted.items()}, folder / "wanted.safetensors")
    done = subprocess.run(
        [program, "forward", "--model", folder, "--component", component, "--threads", "1",
         "--inputs", folder / "inputs.safetensors", "--out", folder / "out.safetensors"],
        capture_output=True, text=True)
    if done.returncode:
        return None, dtype, done.stderr.strip()
    found = load_file(folder / "out.safetensors")
    worst, at = 0.0, ""
    for name, value in wanted.items():
        if name not in found or found[name].shape != value.shape:
            return None, dtype, f"{name}: wanted {list(value.shape)}, found {list(found[name].shape) if name in found else None}"
        error = ((found[name] - value).abs().max() / value.abs().max()).item()
        if not error <= worst:
            worst, at = error, name
    return worst, dtype, at


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("--family", choices=FAMILIES, action="append")
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep")
    args = parser.parse_args()
    torch.set_num_threads(1)
    bad, total = 0, 0
    with tempfile.TemporaryDirectory() as temporary, torch.no_grad():
        for family in args.family or FAMILIES:
            errors = []
            for seed in range(args.seed, args.seed + args.count):
                error, dtype, note = one(args.program, family, seed, args.keep or temporary)
                total += 1
                if error is None or not error <= LIMIT:
                    bad += 1
                    print(f"{family} {seed} {dtype}: {'FAILED' if error is None else f'{error:.1e}'} {note}", flush=True)
                else:
                    errors.append(error)
            if errors:
                print(f"{family}: {len(errors)} of {args.count} fine, worst {max(errors):.1e}, "
                      f"median {sorted(errors)[len(errors) // 2]:.1e}", flush=True)
    print(f"{total} cases, {bad} above {LIMIT} or failed")
    raise SystemExit(min(bad, 100))


if __name__ == "__main__":
    main()
