"""Writes learned embeddings in the layouts that people have, and what the tiny pipelines make of
prompts that name them, by diffusers' `load_textual_inversion`.

    python tools/parity/embeddings.py crates/tweedie/tests/data/pipelines crates/tweedie/tests/data/embeddings

Needs diffusers, transformers and torch; `tiny.py` writes the pipelines.
"""

import json
import sys
from pathlib import Path

import diffusers
import torch
from safetensors.torch import save_file

from tiny import open_pipeline, versions

# The file, what holds the vectors, how many they are for which width, and the word.
FILES = [
    ("ink.safetensors", {"emb_params": (3, 16)}, "ink"),
    ("toy.safetensors", {"<cat-toy>": (1, 16)}, "<cat-toy>"),
    ("old.pt", {"*": (2, 16)}, "old"),
    ("pair.safetensors", {"clip_l": (2, 16), "clip_g": (2, 12)}, "pair"),
]
# The model, the prompt, the files that are loaded.
CASES = [
    ("one", "a red circle, ink, on a white background", ["ink.safetensors"]),
    ("one", "a <cat-toy>, and two <cat-toy>!", ["toy.safetensors"]),
    ("one", "ink with <cat-toy>", ["ink.safetensors", "toy.safetensors"]),
    ("one", "an old star", ["old.pt"]),
    ("two", "a pair beside a red circle", ["pair.safetensors"]),
]


def main(root, folder):
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(7)
    vectors, words = {}, {}
    for name, sizes, word in FILES:
        made = {k: torch.randn(s, generator=generator).half().float() for k, s in sizes.items()}
        vectors[name], words[name] = made, word
        if name.endswith(".pt"):
            extra = {"string_to_token": {"*": 265}, "name": word, "step": 100, "sd_checkpoint": None}
            torch.save({"string_to_param": made, **extra}, folder / name)
        else:
            save_file({k: v.half() for k, v in made.items()}, folder / name, {"format": "pt"})
    tensors = {}
    for at, (model, prompt, files) in enumerate(CASES):
        pipeline = open_pipeline(root, model)
        for file in files:
            token = words[file]
            for i, v in enumerate(vectors[file].values()):
                second = {"text_encoder": pipeline.text_encoder_2, "tokenizer": pipeline.tokenizer_2} if i else {}
                pipeline.load_textual_inversion(v, token=token, **second)
        kwargs = {"num_images_per_prompt": 1, "do_classifier_free_guidance": False}
        out = pipeline.encode_prompt(prompt, device="cpu", **kwargs)
        tensors[f"{at}.context"] = out[0]
        if model == "two":
            tensors[f"{at}.pooled"] = out[2]
    cases = [{"model": m, "prompt": p, "files": f} for m, p, f in CASES]
    tensors = {k: v.detach().clone().contiguous() for k, v in tensors.items()}
    save_file(tensors, folder / "references.safetensors", {"cases": json.dumps(cases), **versions()})
    for file in sorted(folder.iterdir()):
        print(file.name, file.stat().st_size)


diffusers.utils.logging.set_verbosity_error()
with torch.no_grad():
    torch.set_num_threads(1)
    main(*sys.argv[1:])
