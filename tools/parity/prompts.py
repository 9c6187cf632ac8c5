"""Writes what prompts become: by diffusers where there is no markup, by A1111's published formula
where there is.

    python tools/parity/prompts.py crates/tweedie/tests/data/pipelines crates/tweedie/tests/data/prompts.safetensors

The windows of prompts with markup are laid out by hand below; the encoders are transformers'.
Needs diffusers, transformers and torch; `tiny.py` writes the pipelines.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from tiny import open_pipeline, versions

ROOM = 22
LONG = "a red circle and a blue square on a white background,"
MORE = "with a small green star under a large yellow ring beside a tiny box"

# The model, the prompt, the negative one, and diffusers' clip_skip.
PLAIN = [
    ("one", "a red circle on a white background", "", None),
    ("one", "", "unknown words, blurry", None),
    ("one", "a Red  circle, left of a blue square!", "", 1),
    ("one", "two stars", "x", 2),
    ("two", "a red circle on a white background", "", None),
    ("two", "a red circle", "blurry", None),
    ("two", "two stars", "x", 1),
]

# The model, the prompt, how weights act, and for each window its pieces with their weights.
MARKED = [
    ("one", "a (red:1.5) circle, [small] ((square))", "keep-mean",
     [[("a", 1), ("red", 1.5), ("circle,", 1), ("small", 1 / 1.1), ("square", 1.1 * 1.1)]]),
    ("one", "a (red:1.5) circle, [small] ((square))", "multiply",
     [[("a", 1), ("red", 1.5), ("circle,", 1), ("small", 1 / 1.1), ("square", 1.1 * 1.1)]]),
    ("one", "a (red:1.5) circle, [small] ((square))", "interpolate",
     [[("a", 1), ("red", 1.5), ("circle,", 1), ("small", 1 / 1.1), ("square", 1.1 * 1.1)]]),
    ("one", "a (red:1.5) circle", "off", [[("a (red:1.5) circle", 1)]]),
    ("one", "a \\(red\\) (circle", "keep-mean", [[("a (red)", 1), ("circle", 1.1)]]),
    ("one", "a red circle BREAK a blue (square:0.5)", "keep-mean",
     [[("a red circle", 1)], [("a blue", 1), ("square", 0.5)]]),
    ("one", f"{LONG} {MORE}", "keep-mean", [[(LONG, 1)], [(MORE, 1)]]),
    ("one", f"{LONG} ({MORE}:1.25)", "keep-mean", [[(LONG, 1)], [(MORE, 1.25)]]),
    ("two", "a (red:1.5) circle BREAK [small] square", "keep-mean",
     [[("a", 1), ("red", 1.5), ("circle", 1)], [("small", 1 / 1.1), ("square", 1)]]),
]


def parts(pipeline, name):
    first = (pipeline.tokenizer, pipeline.text_encoder)
    return [first] if name == "one" else [first, (pipeline.tokenizer_2, pipeline.text_encoder_2)]


def encode(tokenizer, encoder, name, pieces):
    """One window without weights, and the weight of each position."""
    ids, weights = [], []
    for text, weight in pieces:
        new = tokenizer(text, add_special_tokens=False).input_ids
        ids += new
        weights += [weight] * len(new)
    assert len(ids) <= ROOM, ids
    rest = ROOM - len(ids)
    ids = [tokenizer.bos_token_id, *ids, tokenizer.eos_token_id, *[tokenizer.pad_token_id] * rest]
    weights = torch.tensor([1.0, *weights, 1.0, *[1.0] * rest])
    out = encoder(input_ids=torch.tensor([ids]), output_hidden_states=True)
    hidden = out.last_hidden_state if name == "one" else out.hidden_states[-2]
    pooled = getattr(out, "text_embeds", None)
    return hidden, weights[None, :, None], pooled


def weigh(hidden, weights, empty, how):
    if how == "off" or (weights == 1).all():
        return hidden
    if how == "interpolate":
        return empty + weights * (hidden - empty)
    changed = hidden * weights
    return changed if how == "multiply" else changed * (hidden.mean() / changed.mean())


def marked(pipeline, name, how, windows):
    contexts = []
    for tokenizer, encoder in parts(pipeline, name):
        empty, _, _ = encode(tokenizer, encoder, name, [])
        row, first = [], None
        for i, pieces in enumerate(windows):
            hidden, weights, pooled = encode(tokenizer, encoder, name, pieces)
            first = pooled if i == 0 else first
            row.append(weigh(hidden, weights, empty, how))
        contexts.append((torch.cat(row, 1), empty))
    context = torch.cat([c for c, _ in contexts], -1)
    empty = torch.cat([torch.cat([e] * len(windows), 1) for _, e in contexts], -1)
    return context, empty, first


def main(root, path):
    pipelines = {name: open_pipeline(root, name) for name in ["one", "two"]}
    # diffusers 0.42 looks for the norm where transformers had it before 5.6.
    encoder = pipelines["one"].text_encoder
    object.__setattr__(encoder, "text_model", encoder)
    tensors, cases = {}, []
    for name, prompt, negative, skip in PLAIN:
        pipeline = pipelines[name]
        kwargs = {"num_images_per_prompt": 1, "do_classifier_free_guidance": True, "clip_skip": skip}
        # diffusers asks for zeros by the absence of a negative prompt.
        absent = None if name == "two" and not negative else negative
        out = pipeline.encode_prompt(prompt, device="cpu", negative_prompt=absent, **kwargs)
        own = 1 if name == "one" else 2
        case = {"model": name, "prompt": prompt, "negative": negative, "how": "keep-mean"}
        case["clip_skip"] = None if skip is None else skip + own
        at = len(cases)
        for key, value in zip(["context", "negative", "pooled", "negative_pooled"], out):
            # diffusers skips no layer for the negative prompt; A1111, ComfyUI and tweedie do.
            if skip is None or not key.startswith("negative"):
                tensors[f"{at}.{key}"] = value
        cases.append(case)
    for name, prompt, how, windows in MARKED:
        at = len(cases)
        context, empty, pooled = marked(pipelines[name], name, how, windows)
        tensors[f"{at}.context"] = context
        if name == "one":
            tensors[f"{at}.negative"] = empty
        else:
            tensors[f"{at}.pooled"] = pooled
        cases.append({"model": name, "prompt": prompt, "negative": "", "how": how, "clip_skip": None})
    tokenizer = pipelines["one"].tokenizer
    lengths = [len(tokenizer(t, add_special_tokens=False).input_ids) for t in [LONG, MORE]]
    assert max(lengths) <= ROOM < sum(lengths), lengths
    tensors = {k: v.detach().clone().contiguous() for k, v in tensors.items()}
    save_file(tensors, path, {"cases": json.dumps(cases), **versions()})
    print(f"{len(cases)} cases, {Path(path).stat().st_size} bytes")


with torch.no_grad():
    torch.set_num_threads(1)
    main(*sys.argv[1:])
