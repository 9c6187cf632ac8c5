"""Compares whole pipelines with diffusers from a seed alone: final latents after 10 steps.

    cargo build --release
    python tools/parity/pipelines.py target/release/tweedie [TASK...]
    python tools/parity/pipelines.py target/release/tweedie --model models/shapes [TASK...]
    python tools/parity/pipelines.py --fixture crates/tweedie/tests/data/tasks

Makes tiny Stable Diffusions with random weights in a temporary folder, lets diffusers and this
program (`--rng torch-cpu`) draw two pictures of each task with each scheduler, and prints the largest
difference of the latents beside their size. Exits with 1 where one is above 1e-3. With --model it does so
with a folder of Stable Diffusion's layout and the scheduler that it names. With --fixture it
writes one such model (weights in f16, to which they are rounded first), its pictures and the latents
of diffusers for the tasks that need no other network.
Needs diffusers, transformers, torch, pillow, and peft for the task `lora`.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

import diffusers
import numpy
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file

STEPS, SEED, COUNT, GUIDANCE, SIDE = 10, 11, 2, 3.0, 32
PROMPT, NEGATIVE = "a red circle", "blue"
BOUND = 1e-3

UNET = {
    "sample_size": 16,
    "in_channels": 4,
    "out_channels": 4,
    "layers_per_block": 1,
    "block_out_channels": [8, 16],
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "attention_head_dim": 2,
    "cross_attention_dim": 16,
    "norm_num_groups": 4,
}
VAE = {
    "sample_size": SIDE,
    "latent_channels": 4,
    "block_out_channels": [8, 8],
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
    "layers_per_block": 1,
    "norm_num_groups": 4,
}
CLIP = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 16,
}
SCHEDULERS = {
    "ddim": ("DDIMScheduler", {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}),
    "dpmpp-2m": ("DPMSolverMultistepScheduler", {}),
    "dpmpp-2m karras": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
    "euler": ("EulerDiscreteScheduler", {"timestep_spacing": "leading", "steps_offset": 1}),
    "euler-ancestral": ("EulerAncestralDiscreteScheduler", {"timestep_spacing": "leading", "steps_offset": 1}),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True, "set_alpha_to_one": False, "steps_offset": 1}),
    "ddpm": ("DDPMScheduler", {"clip_sample": False, "steps_offset": 1}),
    "heun": ("HeunDiscreteScheduler", {"steps_offset": 1}),
    "dpm2": ("KDPM2DiscreteScheduler", {"steps_offset": 1}),
    "dpm2-ancestral": ("KDPM2AncestralDiscreteScheduler", {"steps_offset": 1}),
    "lms": ("LMSDiscreteScheduler", {"steps_offset": 1}),
    "unipc": ("UniPCMultistepScheduler", {"steps_offset": 1}),
    "deis": ("DEISMultistepScheduler", {"steps_offset": 1}),
    "dpm-singlestep": ("DPMSolverSinglestepScheduler", {}),
    "lcm": ("LCMScheduler", {"steps_offset": 1}),
}
# Tasks of networks that are made for one scheduler.
OWN = {"lcm": ["lcm"]}


def randomise(model, name):
    """Lively weights from a seed by name; a fresh network's zeros would hide mistakes."""
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim == 1:
            parameter.data = 0.2 * noise + (1.0 if (parameter.data == 1).all() else 0.0)
        else:
            parameter.data = 0.7 * noise / parameter[0].numel() ** 0.5
        parameter.data = parameter.data.half().float()
    return model.eval()


def vocabulary(folder):
    """A byte-level vocabulary with a few merges, as the CLIP tokenizer's files have it."""
    kept = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    letters = [chr(b) for b in kept] + [chr(256 + i) for i in range(256 - len(kept))]
    merges = ["r e", "re d</w>", "c i", "ci r", "b l", "bl u", "blu e</w>"]
    words = letters + [c + "</w>" for c in letters] + [m.replace(" ", "") for m in merges]
    words += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({w: i for i, w in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    return words


def tokenizer(folder):
    words = vocabulary(folder)
    made = transformers.CLIPTokenizer.from_pretrained(folder)
    made.model_max_length = CLIP["max_position_embeddings"]
    return made, words


class Setup:
    """The networks of one temporary folder."""

    def __init__(self, root):
        self.root = root
        self.tokenizer, words = tokenizer(root / "words")
        ends = {"bos_token_id": len(words) - 2, "eos_token_id": len(words) - 1, "pad_token_id": len(words) - 1}
        config = transformers.CLIPTextConfig(vocab_size=len(words), **CLIP, **ends)
        config._attn_implementation = "eager"
        self.text = randomise(transformers.CLIPTextModel(config), "text")
        self.vae = randomise(diffusers.AutoencoderKL(**VAE), "vae")
        self.control = randomise(
            diffusers.ControlNetModel(
                **{k: v for k, v in UNET.items() if k not in ("sample_size", "out_channels", "up_block_types")},
                conditioning_embedding_out_channels=[8, 16],
            ),
            "control",
        )
        numbers = numpy.random.default_rng(5)
        self.init = root / "init.png"
        coarse = numbers.integers(0, 256, (SIDE // 4, SIDE // 4, 3), dtype=numpy.uint8)
        Image.fromarray(coarse.repeat(4, 0).repeat(4, 1)).save(self.init)
        self.mask = root / "mask.png"
        mask = numpy.zeros((SIDE, SIDE), numpy.uint8)
        mask[SIDE // 5 : SIDE * 5 // 8, SIDE // 3 : SIDE - 2] = 255
        Image.fromarray(mask).save(self.mask)

    def unet(self, channels, **other):
        config = {**UNET, "in_channels": channels, **other}
        return randomise(diffusers.UNet2DConditionModel(**config), f"unet{channels}")

    def pipeline(self, cls, channels, scheduler, unet={}, **more):
        name, settings = SCHEDULERS[scheduler]
        betas = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
        pipeline = cls(
            vae=self.vae,
            text_encoder=self.text,
            tokenizer=self.tokenizer,
            unet=self.unet(channels, **unet),
            scheduler=getattr(diffusers, name)(**betas, **settings),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
            **more,
        )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def saved(self, pipeline, label):
        folder = self.root / label.replace(" ", "-")
        pipeline.save_pretrained(folder)
        # As the published folders have it: tensor names with the prefix, and the plain vocabulary.
        file = folder / "text_encoder" / "model.safetensors"
        weights = load_file(file)
        if not any(key.startswith("text_model.") for key in weights):
            save_file({f"text_model.{k}": v for k, v in weights.items()}, file, {"format": "pt"})
        vocabulary(folder / "tokenizer")
        return folder


class Opened(Setup):
    """A model folder that is there."""

    def __init__(self, root, folder):
        super().__init__(root)
        self.folder = folder
        unet = diffusers.UNet2DConditionModel.from_pretrained(folder, subfolder="unet")
        levels = len(json.loads((folder / "vae" / "config.json").read_text())["block_out_channels"])
        widths = [8 * 2**i for i in range(levels)]
        made = diffusers.ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=widths)
        self.control = randomise(made, "control")

    def pipeline(self, cls, channels, scheduler, unet={}, **more):
        pipeline = cls.from_pretrained(self.folder, safety_checker=None, requires_safety_checker=False, **more)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def saved(self, pipeline, label):
        return self.folder


def image(path, mode="RGB"):
    return Image.open(path).convert(mode)


def text_to_image(setup, scheduler):
    pipeline = setup.pipeline(diffusers.StableDiffusionPipeline, 4, scheduler)
    return pipeline, {"height": SIDE, "width": SIDE}, []


def image_to_image(setup, scheduler, strength=0.63):
    pipeline = setup.pipeline(diffusers.StableDiffusionImg2ImgPipeline, 4, scheduler)
    flags = ["--init", setup.init, "--strength", str(strength)]
    return pipeline, {"image": image(setup.init), "strength": strength}, flags


def inpaint(setup, scheduler, channels=4, strength=1.0):
    pipeline = setup.pipeline(diffusers.StableDiffusionInpaintPipeline, channels, scheduler)
    given = {"image": image(setup.init), "mask_image": image(setup.mask, "L"), "strength": strength}
    flags = ["--init", setup.init, "--mask", setup.mask]
    return pipeline, given | {"height": SIDE, "width": SIDE}, flags + ["--strength", str(strength)]


def instruct(setup, scheduler):
    pipeline = setup.pipeline(diffusers.StableDiffusionInstructPix2PixPipeline, 8, scheduler)
    return pipeline, {"image": image(setup.init), "image_guidance_scale": 1.4}, ["--init", setup.init, "--image-guidance", "1.4"]


def control(setup, scheduler):
    pipeline = setup.pipeline(diffusers.StableDiffusionControlNetPipeline, 4, scheduler, controlnet=setup.control)
    place = setup.root / "control"
    setup.control.save_pretrained(place)
    given = {"image": image(setup.init), "controlnet_conditioning_scale": 0.8, "height": SIDE, "width": SIDE}
    return pipeline, given, ["--control", setup.init, "--controlnet", place, "--control-strength", "0.8"]


def lcm(setup, scheduler):
    taught = {"time_cond_proj_dim": 12}
    pipeline = setup.pipeline(diffusers.LatentConsistencyModelPipeline, 4, scheduler, taught)
    # It takes no negative prompt: the network is told the weight.
    return pipeline, {"height": SIDE, "width": SIDE, "negative_prompt": None}, []


def lora(setup, scheduler):
    from diffusers.training_utils import _collate_lora_metadata
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    pipeline = setup.pipeline(diffusers.StableDiffusionPipeline, 4, scheduler)
    # Before the adapter: it gives the layers under it other names.
    folder = setup.saved(pipeline, f"lora {scheduler}")
    config = LoraConfig(r=4, lora_alpha=3, target_modules=["to_q", "to_k", "to_v", "to_out.0"])
    pipeline.unet.add_adapter(config)
    generator = torch.Generator().manual_seed(3)
    state = get_peft_model_state_dict(pipeline.unet)
    state = {k: 0.3 * torch.randn(v.shape, generator=generator) for k, v in state.items()}
    file = setup.root / "adapter.safetensors"
    # As diffusers writes it, the alpha in the header.
    told = _collate_lora_metadata({"unet": pipeline.unet})
    diffusers.StableDiffusionPipeline.save_lora_weights(
        setup.root, unet_lora_layers=state, weight_name=file.name, **told
    )
    pipeline.unet.delete_adapters("default")
    pipeline.load_lora_weights(file, adapter_name="one")
    pipeline.set_adapters("one", 0.6)
    return pipeline, {"height": SIDE, "width": SIDE}, ["--lora", f"{file}:0.6"], folder


TASKS = {
    "text": text_to_image,
    "image": image_to_image,
    # One step and two steps less than the whole: PNDM's list of steps has a pair there.
    "image-0.95": lambda s, k: image_to_image(s, k, strength=0.95),
    "image-0.85": lambda s, k: image_to_image(s, k, strength=0.85),
    "inpaint": inpaint,
    "inpaint-0.7": lambda s, k: inpaint(s, k, strength=0.7),
    "inpaint9": lambda s, k: inpaint(s, k, channels=9),
    "inpaint9-0.7": lambda s, k: inpaint(s, k, channels=9, strength=0.7),
    "instruct": instruct,
    "control": control,
    "lora": lora,
    "lcm": lcm,
}


# What a folder that is there is asked.
OPENED = ["text", "image", "image-0.85", "inpaint", "inpaint-0.7", "control", "lora"]

# What the fixture holds besides the tasks with dpmpp-2m.
OTHERS = [("image", "pndm"), ("image-0.95", "pndm"), ("inpaint-0.7", "pndm"), ("image", "lms"), ("inpaint", "heun")]


@torch.no_grad()
def alone(pipeline, seed, given):
    given = {"negative_prompt": NEGATIVE} | given
    return pipeline(
        prompt=PROMPT,
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
        generator=torch.Generator().manual_seed(seed),
        output_type="latent",
        **{k: v for k, v in given.items() if v is not None},
    ).images


def compare(program, setup, task, scheduler):
    pipeline, given, flags, *folder = TASKS[task](setup, scheduler)
    folder = folder[0] if folder else setup.saved(pipeline, f"{task} {scheduler}")
    out = setup.root / "latents.safetensors"
    command = [program, "generate", PROMPT, "--negative", NEGATIVE, "--model", folder, "--rng", "torch-cpu"]
    command += ["--steps", STEPS, "--seed", SEED, "--count", COUNT, "--guidance", GUIDANCE]
    command += ["--save-latents", out, "--out", setup.root / "out", "--json", *flags]
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if done.returncode:
        return done.stderr.strip().splitlines()[-1]
    ours = load_file(out)["latents"]
    # One at a time: in a batch some pipelines draw the picture's latents once for all, and a picture
    # here repeats alone.
    theirs = torch.cat([alone(pipeline, SEED + k, given) for k in range(COUNT)]).contiguous()
    return (ours - theirs).abs().max().item(), theirs.abs().max().item()


def fixture(folder):
    """Writes one model, its pictures and what diffusers makes of them."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as root:
        setup = Setup(Path(root))
        latents = {}
        for task in ["text", "image", "inpaint", "inpaint-0.7"]:
            pipeline, given, _ = TASKS[task](setup, "dpmpp-2m")
            latents[task] = torch.cat([alone(pipeline, SEED + k, given) for k in range(COUNT)]).contiguous()
        # Schedulers that begin in the middle, or blend between, in ways of their own.
        (folder / "schedulers").mkdir()
        for task, scheduler in OTHERS:
            pipeline, given, _ = TASKS[task](setup, scheduler)
            drawn = [alone(pipeline, SEED + k, given) for k in range(COUNT)]
            latents[f"{task} {scheduler}"] = torch.cat(drawn).contiguous()
            pipeline.scheduler.to_json_file(folder / "schedulers" / f"{scheduler}.json")
        pipeline, *_ = TASKS["text"](setup, "dpmpp-2m")
        saved = setup.saved(pipeline.to(torch.float16), "model")
        for file in [setup.init, setup.mask]:
            shutil.copy(file, folder / file.name)
        for unused in ["safety_checker", "feature_extractor", "tokenizer/tokenizer.json"]:
            (saved / unused).unlink(missing_ok=True)
        shutil.move(saved, folder / "model")
    versions = {p.__name__: p.__version__.split("+")[0] for p in (torch, diffusers, transformers)}
    save_file(latents, folder / "latents.safetensors", versions)


def main():
    diffusers.utils.logging.set_verbosity_error()
    transformers.utils.logging.set_verbosity_error()
    global SIDE, PROMPT, NEGATIVE
    if sys.argv[1] == "--fixture":
        SIDE = 16
        UNET["sample_size"], VAE["sample_size"] = 8, 16
        return fixture(Path(sys.argv[2]))
    program = Path(sys.argv[1]).resolve()
    folder, tasks = None, sys.argv[2:]
    if tasks[:1] == ["--model"]:
        folder, tasks = Path(tasks[1]).resolve(), tasks[2:] or OPENED
        settings = {part: json.loads((folder / part / "config.json").read_text()) for part in ["unet", "vae"]}
        SIDE = settings["unet"]["sample_size"] * 2 ** (len(settings["vae"]["block_out_channels"]) - 1)
        PROMPT, NEGATIVE = "a large red circle on a white background", "a blue square"
    wrong = 0
    with tempfile.TemporaryDirectory() as root:
        setup = Opened(Path(root), folder) if folder else Setup(Path(root))
        for task in tasks or TASKS:
            for scheduler in ["its own"] if folder else OWN.get(task, SCHEDULERS):
                result = compare(program, setup, task, scheduler)
                if isinstance(result, str):
                    print(f"{task:14} {scheduler:16} refused: {result}")
                    wrong += 1
                    continue
                error, size = result
                wrong += error > BOUND
                print(f"{task:14} {scheduler:16} error {error:.2e}  largest {size:.3f}", flush=True)
    return sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
