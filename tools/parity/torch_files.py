"""Writes small files of `torch.save` in every form that is read, and what is in them.

    python tools/parity/torch_files.py crates/tweedie/tests/data/torch

`expected.safetensors` holds the tensors of the `weights-*` files, each row after row. `evil-*` files call
functions when they are unpickled; they must be refused. Needs torch and safetensors.
"""

import builtins
import os
import sys
from collections import OrderedDict
from pathlib import Path

import torch
from safetensors.torch import save_file


class Evil:
    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def weights():
    torch.manual_seed(0)
    base = torch.randn(4, 6)
    return OrderedDict(
        plain=base,
        half=torch.randn(3, 5).half(),
        brain=torch.randn(2, 3).bfloat16(),
        double=torch.randn(3).double(),
        ids=torch.tensor([1, -2, 2**40]),
        flags=torch.tensor([True, False, True]),
        bytes=torch.tensor([0, 255], dtype=torch.uint8),
        scalar=torch.tensor(2.5),
        empty=torch.zeros(0, 3),
        turned=torch.randn(5, 3).T,
        part=base[1:3, 2:5],
        rows=base[2:],
        swapped=torch.randn(2, 3, 4).permute(2, 0, 1),
        parameter=torch.nn.Parameter(torch.randn(3)),
        one_column=torch.randn(4, 1)[:, 0],
    )


def main():
    out = Path(sys.argv[1])
    tensors = weights()
    checkpoint = {
        "epoch": 3, "global_step": 875000, "note": "text", "rate": 0.5, "none": None, "big": 2**70, "pair": (1, [2, 3]),
        "state_dict": tensors,
    }
    torch.save(checkpoint, out / "weights-zip.ckpt")
    torch.save(checkpoint, out / "weights-protocol5.ckpt", pickle_protocol=5)
    torch.save(checkpoint, out / "weights-old.ckpt", _use_new_zipfile_serialization=False)
    torch.save(dict(tensors), out / "weights-bare.bin")
    layer = torch.nn.Linear(3, 2)
    torch.save(layer.state_dict(), out / "module.bin")
    save_file({k: v.detach().contiguous() for k, v in layer.state_dict().items()}, out / "module.safetensors")
    save_file({k: v.detach().clone().contiguous() for k, v in tensors.items()}, out / "expected.safetensors")
    vectors = {"*": torch.randn(2, 4)}
    embedding = {"string_to_token": {"*": 265}, "string_to_param": torch.nn.ParameterDict(vectors), "name": "word", "step": 10}
    torch.save(embedding, out / "embedding.pt")
    torch.save({**embedding, "string_to_param": vectors}, out / "embedding-plain.pt")
    save_file({"string_to_param.*": vectors["*"]}, out / "embedding.safetensors")
    if hasattr(torch, "float8_e4m3fn"):
        small = {"e4m3": torch.randn(3, 3).to(torch.float8_e4m3fn), "e5m2": torch.randn(2).to(torch.float8_e5m2)}
        torch.save(small, out / "eight.bin")
        save_file(small, out / "eight.safetensors")
    torch.save({"w": torch.ones(1), "x": Evil(os.system, "true")}, out / "evil-system.ckpt")
    torch.save({"w": torch.ones(1), "x": Evil(builtins.eval, "1")}, out / "evil-eval.ckpt", _use_new_zipfile_serialization=False)
    torch.save({"w": torch.ones(1), "x": Evil(builtins.getattr, "a", "upper")}, out / "evil-getattr.ckpt", pickle_protocol=4)
    torch.save({"w": torch.ones(1).expand(1000)}, out / "copies.pt")


if __name__ == "__main__":
    main()
