"""Numbers that torch's CPU generator draws, for crates/tweedie/tests/data/torch_noise.json.

    python tools/parity/noise.py > crates/tweedie/tests/data/torch_noise.json

Needs torch. Of a large draw only some numbers are stored: the first, the last sixteen and one in the middle.
"""

import json

import torch

# Several draws of one generator, so that its state between calls is compared too.
SEQUENCES = ([5, 4, 16, 3, 1], [16], [17, 16], [31, 5], [32, 32], [100], [16384, 16384], [1300, 7])


def draws(seed, dtype, counts):
    generator = torch.Generator().manual_seed(seed)
    out = []
    for count in counts:
        x = torch.randn(count, generator=generator, dtype=dtype).double().tolist()
        at = sorted(set(range(min(count, 3))) | {count // 2} | set(range(max(0, count - 16), count, 3)) | {count - 1})
        out.append({"count": count, "at": at, "values": [x[i] for i in at]})
    return out


cases = []
for dtype in ("float32", "float64", "float16", "bfloat16"):
    for i, counts in enumerate(SEQUENCES):
        for seed in (0, 42 + i, 2**32 + 5 + i):
            cases.append({"dtype": dtype, "seed": seed, "draws": draws(seed, getattr(torch, dtype), counts)})
header = {"script": "tools/parity/noise.py", "torch": torch.__version__.split("+")[0]}
print(json.dumps({"header": header, "cases": cases}, separators=(",", ":")))
