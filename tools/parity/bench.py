"""What the timed pass of `tweedie bench` puts out, against PyTorch, on inputs that neither has seen.

    python tools/parity/bench.py PROGRAM ROOT [--pieces unet32,unet64,unet64b2,vae512,dit256] [--seed 1]

ROOT holds full-size folders, `sd15` and `dit-xl-2`. Prints the largest difference of each piece, in units of the
largest number of PyTorch's; above 1e-4 it fails. Needs torch, diffusers and safetensors.
"""

import argparse
import subprocess
import sys
import tempfile

import diffusers
import torch
from safetensors.torch import load_file, save_file

PIECES = {"unet32": (1, 32), "unet64": (1, 64), "unet64b2": (2, 64), "vae512": (1, 64), "dit256": (1, 32)}


def inputs(piece, seed):
    batch, size = PIECES[piece]
    torch.manual_seed(seed)
    latents = torch.randn(batch, 4, size, size)
    if piece == "vae512":
        return {"latents": latents}
    if piece == "dit256":
        return {"sample": latents, "timestep": torch.tensor([371]), "class_labels": torch.tensor([207])}
    timestep = torch.full((batch,), 613)
    return {"sample": latents, "timestep": timestep, "encoder_hidden_states": torch.randn(batch, 77, 768)}


def theirs(piece, root, given):
    with torch.no_grad():
        if piece == "vae512":
            vae = diffusers.AutoencoderKL.from_pretrained(f"{root}/sd15/vae").eval()
            return vae.decode(given["latents"]).sample
        if piece == "dit256":
            dit = diffusers.DiTTransformer2DModel.from_pretrained(f"{root}/dit-xl-2/transformer").eval()
            return dit(given["sample"], timestep=given["timestep"], class_labels=given["class_labels"]).sample
        unet = diffusers.UNet2DConditionModel.from_pretrained(f"{root}/sd15/unet").eval()
        return unet(given["sample"], given["timestep"], given["encoder_hidden_states"]).sample


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("program")
    ap.add_argument("root")
    ap.add_argument("--pieces", default=",".join(PIECES))
    ap.add_argument("--seed", type=int, default=1)
    args = ap.parse_args()
    worst = 0.0
    for piece in args.pieces.split(","):
        given = inputs(piece, args.seed)
        with tempfile.TemporaryDirectory() as folder:
            save_file(given, f"{folder}/in.safetensors")
            command = [args.program, "bench", "--root", args.root, "--pieces", piece, "--runs", "1", "--json"]
            command += ["--inputs", f"{folder}/in.safetensors", "--out", f"{folder}/out.safetensors"]
            subprocess.run(command, check=True, capture_output=True)
            (ours,) = load_file(f"{folder}/out.safetensors").values()
        wanted = theirs(piece, args.root, given)
        assert ours.shape == wanted.shape, (ours.shape, wanted.shape)
        off = ((ours - wanted).abs().max() / wanted.abs().max()).item()
        worst = max(worst, off)
        print(f"{piece}: {off:.1e}", flush=True)
    if not worst <= 1e-4:
        sys.exit(f"the worst is {worst:.1e}, above 1e-4")


if __name__ == "__main__":
    main()
