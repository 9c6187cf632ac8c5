"""Compares the built-in models with diffusers on the same noise: latents and pictures.

    cargo build --release
    python tools/parity/builtin.py target/release/tweedie models/fashion [STEPS [GUIDANCE]]
    python tools/parity/builtin.py target/release/tweedie models/shapes [STEPS [GUIDANCE]]

A class-conditional model is walked by a short loop over `from_pretrained`, its last class standing
for 'none'; a model with a text encoder is opened as StableDiffusionPipeline. Prints the largest
difference of the latents and of the pictures, in steps of eight bits, and exits with 1 where the
pictures are more than 2 apart. Needs diffusers, transformers, torch and pillow.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import diffusers
import numpy
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file

COUNT, SEED = 4, 3
PROMPT = "a large red circle on a white background"


def ours(program, model, noise, steps, guidance, root, what):
    save_file({"noise": noise}, root / "noise.safetensors")
    out = root / "out"
    command = [program, "generate", *what, "--model", model, "--count", COUNT, "--steps", steps, "--sampler", "ddim"]
    command += ["--guidance", guidance, "--noise", root / "noise.safetensors", "--out", out]
    command += ["--save-latents", root / "latents.safetensors"]
    subprocess.run([str(c) for c in command], check=True, stdout=subprocess.DEVNULL)
    mode = "L" if noise.shape[1] == 1 else "RGB"
    files = [out / f"{model.name}-{k}.png" for k in range(COUNT)]
    pictures = numpy.stack([numpy.asarray(Image.open(f).convert(mode)) for f in files])
    return load_file(root / "latents.safetensors")["latents"], pictures


def by_class(model, noise, steps, guidance):
    unet = diffusers.UNet2DModel.from_pretrained(model, subfolder="unet").eval()
    scheduler = scheduler_of(model)
    scheduler.set_timesteps(steps)
    x = noise * scheduler.init_noise_sigma
    classes = torch.arange(COUNT)
    none = torch.full((COUNT,), unet.config.num_class_embeds - 1)
    for t in scheduler.timesteps:
        scaled = scheduler.scale_model_input(x, t)
        output = unet(scaled, t, class_labels=classes).sample
        if guidance != 1:
            without = unet(scaled, t, class_labels=none).sample
            output = without + guidance * (output - without)
        x = scheduler.step(output, t, x).prev_sample
    pixels = ((x.clamp(-1, 1) + 1) * 127.5).round().byte().numpy()
    return x, pixels[:, 0] if pixels.shape[1] == 1 else pixels.transpose(0, 2, 3, 1)


def scheduler_of(model):
    """DDIM on the folder's own path: what draws noise in every step has no noise to share here."""
    config = diffusers.DDIMScheduler.load_config(model, subfolder="scheduler")
    return diffusers.DDIMScheduler.from_config(config, clip_sample=False)


def by_prompt(pipeline, noise, steps, guidance):
    pipeline.scheduler = diffusers.DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=False)
    settings = {"num_inference_steps": steps, "guidance_scale": guidance, "latents": noise}
    latents = pipeline([PROMPT] * COUNT, output_type="latent", **settings).images
    pictures = pipeline([PROMPT] * COUNT, output_type="pil", **settings).images
    return latents, numpy.stack([numpy.asarray(p) for p in pictures])


@torch.no_grad()
def main():
    diffusers.utils.logging.set_verbosity_error()
    transformers.utils.logging.set_verbosity_error()
    program, model = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    steps = int(sys.argv[3]) if len(sys.argv) > 3 else 20
    captioned = (model / "text_encoder").is_dir()
    guidance = float(sys.argv[4]) if len(sys.argv) > 4 else (3.0 if captioned else 1.75)
    torch.manual_seed(SEED)
    with tempfile.TemporaryDirectory() as root:
        if captioned:
            pipeline = diffusers.StableDiffusionPipeline.from_pretrained(model, safety_checker=None)
            pipeline.set_progress_bar_config(disable=True)
            unet = pipeline.unet.config
        else:
            unet = diffusers.UNet2DModel.load_config(model, subfolder="unet")
            unet = type("Config", (), unet)
        noise = torch.randn(COUNT, unet.in_channels, unet.sample_size, unet.sample_size)
        what = [PROMPT] if captioned else ["--class", ",".join(map(str, range(COUNT)))]
        latents, pictures = ours(program, model, noise, steps, guidance, Path(root), what)
        theirs = by_prompt(pipeline, noise, steps, guidance) if captioned else by_class(model, noise, steps, guidance)
    apart = (latents - theirs[0]).abs().max().item()
    bits = numpy.abs(pictures.astype(int) - theirs[1].astype(int)).max()
    print(f"{model.name}: {steps} steps, guidance {guidance}")
    print(f"latents: largest difference {apart:.2e}, largest {theirs[0].abs().max().item():.3f}")
    print(f"pictures: largest difference {bits} of 255")
    sys.exit(int(bits > 2))


if __name__ == "__main__":
    main()
