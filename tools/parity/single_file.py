"""Opens a single file that this program wrote by diffusers' `from_single_file`, and compares every weight.

    cargo build --release
    python tools/parity/single_file.py target/release/tweedie crates/tweedie/tests/data/tasks/model

Converts the folder of a Stable Diffusion to one file, opens that with the folder's settings (its weights
taken out), and prints for each component how many tensors there are and the largest difference from the
folder's own. Exits with 1 where names or numbers differ. Needs diffusers, transformers and torch.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import diffusers
import torch
import transformers


def main():
    diffusers.utils.logging.set_verbosity_error()
    transformers.utils.logging.set_verbosity_error()
    program, folder = sys.argv[1:3]
    wide = {"torch_dtype": torch.float32}
    with tempfile.TemporaryDirectory() as root:
        file, settings = Path(root) / "model.safetensors", Path(root) / "settings"
        subprocess.run([program, "convert", folder, file], check=True, capture_output=True)
        shutil.copytree(folder, settings)
        for weights in settings.rglob("*.safetensors"):
            weights.unlink()
        opened = diffusers.StableDiffusionPipeline.from_single_file(
            str(file), config=str(settings), local_files_only=True, safety_checker=None, **wide
        )
        wrong = 0
        for name, cls in [
            ("unet", diffusers.UNet2DConditionModel),
            ("vae", diffusers.AutoencoderKL),
            ("text_encoder", transformers.CLIPTextModel),
        ]:
            ours = getattr(opened, name).state_dict()
            theirs = cls.from_pretrained(folder, subfolder=name, **wide).state_dict()
            apart = max((ours[k] - theirs[k]).abs().max().item() for k in theirs.keys() & ours.keys())
            same = ours.keys() == theirs.keys()
            print(f"{name:14} {len(ours):5} tensors, names {'agree' if same else 'differ'}, largest difference {apart}")
            wrong += not same or apart != 0
    sys.exit(min(wrong, 1))


if __name__ == "__main__":
    main()
