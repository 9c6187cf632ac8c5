"""Writes the latents that diffusers draws with the tiny pipelines from a seed alone.

    python tools/parity/pictures.py crates/tweedie/tests/data

10 steps of the pipelines' own scheduler, two pictures of one prompt, each with a generator of its own
(seed, seed + 1), plain and with LoRAs. Needs diffusers, peft, transformers and torch; `tiny.py` and
`adapters.py` write what it reads.
"""

import json
import sys
from pathlib import Path

import diffusers
import torch
from safetensors.torch import save_file

from tiny import open_pipeline, versions

STEPS, SEED, COUNT, GUIDANCE, SIDE = 10, 11, 2, 3.0, 16
PROMPT = "a red circle"
# The model, the negative prompt, LoRAs with their weights.
CASES = [
    ("one", "", []),
    ("one", "blue square", [["new_one.safetensors", 0.5], ["kohya.safetensors", -0.25]]),
    ("two", "", []),
    ("two", "blue square", []),
    ("two", "", [["kohya_blocks.safetensors", 0.5]]),
]


def main(data):
    data = Path(data)
    tensors = {}
    for at, (name, negative, loras) in enumerate(CASES):
        pipeline = open_pipeline(data / "pipelines", name)
        for i, (file, _) in enumerate(loras):
            pipeline.load_lora_weights(data / "adapters", weight_name=file, adapter_name=f"a{i}")
        if loras:
            pipeline.set_adapters([f"a{i}" for i in range(len(loras))], [w for _, w in loras])
        drawn = []
        for k in range(COUNT):
            made = pipeline(
                PROMPT,
                # Zeros for the second pipeline are asked for by the absence of a negative prompt.
                negative_prompt=negative or None,
                num_inference_steps=STEPS,
                guidance_scale=GUIDANCE,
                height=SIDE,
                width=SIDE,
                generator=torch.Generator().manual_seed(SEED + k),
                output_type="latent",
            )
            drawn.append(made.images)
        tensors[str(at)] = torch.cat(drawn).contiguous()
    cases = [{"model": m, "negative": n, "loras": l} for m, n, l in CASES]
    settings = {"prompt": PROMPT, "steps": STEPS, "seed": SEED, "count": COUNT, "guidance": GUIDANCE}
    metadata = {"cases": json.dumps(cases), "settings": json.dumps(settings), **versions()}
    save_file(tensors, data / "pictures.safetensors", metadata)
    for at, t in tensors.items():
        print(at, CASES[int(at)], tuple(t.shape), float(t.abs().max()))


diffusers.utils.logging.set_verbosity_error()
with torch.no_grad():
    torch.set_num_threads(1)
    main(*sys.argv[1:])
