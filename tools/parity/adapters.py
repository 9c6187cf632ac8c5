"""Writes LoRA files in the namings that people have, and what the tiny pipelines make with them.

    python tools/parity/adapters.py crates/tweedie/tests/data/pipelines crates/tweedie/tests/data/adapters

The references are diffusers' `load_lora_weights` and, for a PEFT folder, PEFT itself. diffusers 0.42
loses the alphas of attentions where they are not all the same (its patterns of alphas keep the
`.processor` of the old names), and it does not read Tucker's form: those files are merged by their
definition, alpha over rank times up times down. Kohya's files
and the old ones of diffusers are written by hand, in the layouts that sd-scripts (networks/lora.py)
and diffusers before 0.22 wrote. Needs diffusers, peft, transformers and torch; `tiny.py` writes the pipelines.
"""

import json
import sys
import warnings
import zlib
from pathlib import Path

import diffusers
import peft
import torch
from diffusers.training_utils import _collate_lora_metadata
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file

from tiny import open_pipeline, versions

PROMPT = "a red circle"
ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
TEXT = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]
INNER = {
    "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}


def generator(name):
    return torch.Generator().manual_seed(zlib.crc32(name.encode()))


def modules(model, ends):
    found = [(n, m) for n, m in model.named_modules() if n.endswith(tuple(ends)) and hasattr(m, "weight")]
    return [(n, m) for n, m in found if m.weight.ndim in (2, 4)]


def factors(module, rank, gen):
    """A way down and a way up, loud enough to be heard."""
    shape = module.weight.shape
    down = torch.randn((rank, *shape[1:]), generator=gen) / (shape[1:].numel() ** 0.5)
    up = torch.randn((shape[0], rank, *[1] * (len(shape) - 2)), generator=gen) / rank**0.5
    return down.half(), up.half()


def text_name(name):
    """As published files have it; transformers left the first word out in 5.6."""
    return name if name.startswith("text_model.") else f"text_model.{name}"


# ---- files ----


def kohya(name, parts, rename=lambda name: name, alphas=(1.5,), tucker=()):
    gen, out, ranks = generator(name), {}, [4, 2, 3]
    for prefix, found in parts:
        for i, (path, module) in enumerate(found):
            rank = ranks[i % 3]
            down, up = factors(module, rank, gen)
            key = prefix + rename(path).replace(".", "_")
            if path in tucker:
                kernel = module.weight.shape[2:]
                mid = torch.randn((rank, rank, *kernel), generator=gen) / (rank * kernel.numel()) ** 0.5
                out[f"{key}.lora_mid.weight"] = mid.half()
                down = down.mean((2, 3), keepdim=True) * 3
            out[f"{key}.lora_down.weight"], out[f"{key}.lora_up.weight"] = down, up
            if alphas:
                out[f"{key}.alpha"] = torch.tensor(float(alphas[i % len(alphas)]))
    return out


def original(unet):
    """diffusers' paths to the numbered blocks of the original code, by walking both in order."""
    table, number = {"conv_in": "input_blocks.0.0", "conv_out": "out.2"}, 1
    table |= {"time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2"}
    table |= {"add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2"}
    for i, block in enumerate(unet.down_blocks):
        for j in range(len(block.resnets)):
            table[f"down_blocks.{i}.resnets.{j}"] = f"input_blocks.{number}.0"
            table[f"down_blocks.{i}.attentions.{j}"] = f"input_blocks.{number}.1"
            number += 1
        if block.downsamplers:
            table[f"down_blocks.{i}.downsamplers.0.conv"] = f"input_blocks.{number}.0.op"
            number += 1
    middle = {"resnets.0": 0, "attentions.0": 1, "resnets.1": 2}
    table |= {f"mid_block.{k}": f"middle_block.{v}" for k, v in middle.items()}
    number = 0
    for i, block in enumerate(unet.up_blocks):
        for j in range(len(block.resnets)):
            table[f"up_blocks.{i}.resnets.{j}"] = f"output_blocks.{number}.0"
            table[f"up_blocks.{i}.attentions.{j}"] = f"output_blocks.{number}.1"
            number += 1
        if block.upsamplers:
            at = 2 if hasattr(block, "attentions") else 1
            table[f"up_blocks.{i}.upsamplers.0.conv"] = f"output_blocks.{number - 1}.{at}.conv"

    def rename(path):
        head = next(h for h in sorted(table, key=len, reverse=True) if path == h or path.startswith(h + "."))
        rest = path[len(head) + 1 :]
        return table[head] + ("." + INNER.get(rest, rest) if rest else "")

    return rename


def old_processors(pipeline):
    gen, out = generator("old_processors"), {}
    for name, module in modules(pipeline.unet, ATTENTION):
        down, up = factors(module, 4, gen)
        parent, layer = name.replace(".to_out.0", ".to_out").rsplit(".", 1)
        out[f"unet.{parent}.processor.{layer}_lora.down.weight"] = down
        out[f"unet.{parent}.processor.{layer}_lora.up.weight"] = up
    layers = {"q_proj": "to_q", "k_proj": "to_k", "v_proj": "to_v", "out_proj": "to_out"}
    for name, module in modules(pipeline.text_encoder, TEXT[:4]):
        down, up = factors(module, 4, gen)
        parent, layer = text_name(name).rsplit(".", 1)
        out[f"text_encoder.{parent}.{layers[layer]}_lora.down.weight"] = down
        out[f"text_encoder.{parent}.{layers[layer]}_lora.up.weight"] = up
    return out


def old_layers(pipeline):
    gen, out = generator("old_layers"), {}
    for name, module in modules(pipeline.unet, [*ATTENTION, "proj_in", "ff.net.2"]):
        down, up = factors(module, 3, gen)
        out[f"unet.{name}.lora.down.weight"], out[f"unet.{name}.lora.up.weight"] = down, up
    for name, module in modules(pipeline.text_encoder, TEXT):
        down, up = factors(module, 3, gen)
        name = f"text_encoder.{text_name(name)}.lora_linear_layer"
        out[f"{name}.down.weight"], out[f"{name}.up.weight"] = down, up
    return out


def wake(model, name):
    """Ways up start from zero; give them numbers."""
    gen = generator(name)
    for key, parameter in model.named_parameters():
        if ".lora_" in key:
            value = torch.randn(parameter.shape, generator=gen) / parameter[0].numel() ** 0.5
            parameter.data = value.half().float()


def by_diffusers(folder, root, name, case):
    """A file that diffusers writes, with ranks and alphas of their own for some modules."""
    pipeline = open_pipeline(root, name)
    pattern = {"mid_block.attentions.0.proj_in": 2, "attn2.to_k": 3}
    alpha = {"mid_block.attentions.0.proj_in": 3, "attn2.to_k": 6, "to_v": 1}
    config = peft.LoraConfig(
        r=4, lora_alpha=2, target_modules=[*ATTENTION, "proj_in"], rank_pattern=pattern, alpha_pattern=alpha
    )
    pipeline.unet.add_adapter(config)
    text = peft.LoraConfig(r=2, lora_alpha=5, target_modules=["q_proj", "out_proj", "fc1"])
    parts = {"unet": pipeline.unet, "text_encoder": pipeline.text_encoder}
    if name == "two":
        parts["text_encoder_2"] = pipeline.text_encoder_2
    for key, part in parts.items():
        if key != "unet":
            part.add_adapter(text)
        wake(part, f"{case}.{key}")
    layers = {
        ("unet_lora_layers" if k == "unet" else f"{k}_lora_layers"): {
            n: v.half() for n, v in get_peft_model_state_dict(p, adapter_name="default").items()
        }
        for k, p in parts.items()
    }
    metadata = _collate_lora_metadata(parts)
    type(pipeline).save_lora_weights(folder, weight_name=f"{case}.safetensors", **layers, **metadata)


def by_peft(folder, root):
    pipeline = open_pipeline(root, "one")
    config = peft.LoraConfig(
        r=4, lora_alpha=8, target_modules=["to_q", "to_out.0", "conv1"], rank_pattern={"conv1": 2}, alpha_pattern={"conv1": 1}
    )
    model = peft.get_peft_model(pipeline.unet, config)
    wake(model, "peft")
    model.save_pretrained(folder / "peft")
    (folder / "peft" / "README.md").unlink(missing_ok=True)


# ---- references ----


def outputs(pipeline, name, inputs):
    kwargs = {}
    if name == "two":
        kwargs["added_cond_kwargs"] = {"text_embeds": inputs["vector"], "time_ids": inputs["time_ids"]}
    y = pipeline.unet(inputs["sample"], inputs["timestep"], inputs["context"], **kwargs).sample
    out = pipeline.encode_prompt(PROMPT, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False)
    made = {"unet": y, "text": out[0]}
    return made | ({"pooled": out[2]} if name == "two" else {})


def inputs_of(name):
    gen = generator(f"inputs of {name}")
    width = {"one": 16, "two": 28}[name]
    made = {
        "sample": torch.randn(2, 4, 8, 8, generator=gen),
        "timestep": torch.tensor([3.0, 701.0]),
        "context": torch.randn(2, 5, width, generator=gen),
    }
    if name == "two":
        made["vector"] = torch.randn(2, 10, generator=gen)
        made["time_ids"] = torch.tensor([[64.0, 64, 0, 0, 64, 48], [32.0, 40, 8, 3, 64, 64]])
    return made


def merge(pipeline, tensors, weight):
    unet = [("lora_unet_" + n.replace(".", "_"), m) for n, m in pipeline.unet.named_modules()]
    text = [("lora_te_" + text_name(n).replace(".", "_"), m) for n, m in pipeline.text_encoder.named_modules()]
    for key, module in unet + text:
        down, up = (tensors.get(f"{key}.lora_{w}.weight") for w in ("down", "up"))
        if down is None:
            continue
        down, up, mid = down.float(), up.float(), tensors.get(f"{key}.lora_mid.weight")
        if mid is not None:
            kernel = torch.einsum("oa,abhw,bi->oihw", up[:, :, 0, 0], mid.float(), down[:, :, 0, 0])
        elif down.ndim == 4:
            kernel = torch.einsum("or,rihw->oihw", up[:, :, 0, 0], down)
        else:
            kernel = up @ down
        scale = tensors[f"{key}.alpha"].item() / down.shape[0]
        module.weight.data += weight * scale * kernel.reshape(module.weight.shape)


def main(root, folder):
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    one, two = open_pipeline(root, "one"), open_pipeline(root, "two")
    rename = original(two.unet)
    text = lambda encoder: [(text_name(n), m) for n, m in modules(encoder, TEXT)]
    convolutions = ["conv1", "conv2", "conv_shortcut", "time_emb_proj", "samplers.0.conv", "proj_in", "ff.net.0.proj"]
    unets = {n: modules(p.unet, [*ATTENTION, *convolutions]) for n, p in [("one", one), ("two", two)]}
    few = [(n, m) for n, m in unets["one"] if n.startswith(("mid_block", "up_blocks.0"))]
    tucker = [n for n, m in few if m.weight.ndim == 4 and m.weight.shape[-1] == 3]
    files = {
        "old_processors": ("one", old_processors(one)),
        "old_layers": ("one", old_layers(one)),
        "kohya": ("one", kohya("kohya", [("lora_unet_", unets["one"]), ("lora_te_", text(one.text_encoder))])),
        "kohya_no_alpha": ("one", kohya("no_alpha", [("lora_unet_", few)], alphas=())),
        "alphas": ("one", kohya("alphas", [("lora_unet_", few), ("lora_te_", text(one.text_encoder))], alphas=[1, 2, 4])),
        "tucker": ("one", kohya("tucker", [("lora_unet_", few)], alphas=[1, 4], tucker=tucker)),
    }
    parts = [("lora_te1_", text(two.text_encoder)), ("lora_te2_", text(two.text_encoder_2))]
    half = unets["two"][::2]
    files["kohya_blocks"] = ("two", kohya("blocks", [("lora_unet_", half)], rename) | kohya("te", parts))
    files["kohya_names"] = ("two", kohya("names", [("lora_unet_", half)]) | kohya("te", parts))
    for case, (_, tensors) in files.items():
        # `format` alone: nothing in the header helps.
        save_file({k: v.contiguous() for k, v in tensors.items()}, folder / f"{case}.safetensors", {"format": "pt"})
    names = {case: name for case, (name, _) in files.items()}
    for case, name in [("new_one", "one"), ("new_two", "two")]:
        by_diffusers(folder, root, name, case)
        names[case] = name
    by_peft(folder, root)
    tensors, cases = {}, []
    inputs = {name: inputs_of(name) for name in ["one", "two"]}
    for name in inputs:
        tensors |= {f"{name}.{k}": v for k, v in inputs[name].items()}

    def record(pipeline, name, loras):
        at = len(cases)
        made = outputs(pipeline, name, inputs[name])
        tensors.update({f"{at}.{k}": v for k, v in made.items()})
        cases.append({"model": name, "loras": loras})

    for name in ["one", "two"]:
        record(open_pipeline(root, name), name, [])
    for case, name in names.items():
        pipeline = open_pipeline(root, name)
        weight = 1.0 if case == "kohya_no_alpha" else 0.75
        if case in ("alphas", "tucker"):
            merge(pipeline, files[case][1], weight)
        else:
            pipeline.load_lora_weights(folder, weight_name=f"{case}.safetensors", adapter_name="a")
            pipeline.set_adapters(["a"], [weight])
        record(pipeline, name, [[f"{case}.safetensors", weight]])
    pipeline = open_pipeline(root, "one")
    for case in ["new_one", "kohya"]:
        pipeline.load_lora_weights(folder, weight_name=f"{case}.safetensors", adapter_name=case)
    pipeline.set_adapters(["new_one", "kohya"], [0.8, -0.5])
    record(pipeline, "one", [["new_one.safetensors", 0.8], ["kohya.safetensors", -0.5]])
    pipeline = open_pipeline(root, "one")
    pipeline.unet = peft.PeftModel.from_pretrained(pipeline.unet, folder / "peft").eval()
    record(pipeline, "one", [["peft", 1.0]])
    tensors = {k: v.detach().clone().contiguous() for k, v in tensors.items()}
    save_file(tensors, folder / "references.safetensors", {"cases": json.dumps(cases), "peft": peft.__version__, **versions()})
    for at, case in enumerate(cases):
        base = 0 if case["model"] == "one" else 1
        heard = {k: float((tensors[f"{at}.{k}"] - tensors[f"{base}.{k}"]).abs().max()) for k in ["unet", "text"]}
        print(case, heard)
    for file in sorted(folder.rglob("*")):
        print(file.name, file.stat().st_size)


warnings.simplefilter("ignore")
diffusers.utils.logging.set_verbosity_error()
with torch.no_grad():
    torch.set_num_threads(1)
    main(*sys.argv[1:])
