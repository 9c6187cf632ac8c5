"""Times of other ways to run the pieces of `tweedie bench` on a CPU, beside plain PyTorch: memory format
channels_last, torch.compile, and OpenVINO with static shapes.

    python tools/parity/bench_peers.py DIR [--pieces unet64,...] [--ways eager,channels_last,compile,openvino]

DIR holds the folders `sd15` and `dit-xl-2`. Needs torch and diffusers, and openvino for the last. One JSON
line for each piece and way: the median of the timed runs, what preparing took, and how far the output is from
that of plain PyTorch, as a part of its largest number.
"""

import argparse
import json
import statistics
import time

import torch
from diffusers import AutoencoderKL, DiTTransformer2DModel, UNet2DConditionModel


class Unet(torch.nn.Module):
    def __init__(self, root):
        super().__init__()
        self.net = UNet2DConditionModel.from_pretrained(f"{root}/sd15/unet").eval()

    def forward(self, x, t, c):
        return self.net(x, t, c, return_dict=False)[0]


class Decoder(torch.nn.Module):
    def __init__(self, root):
        super().__init__()
        self.net = AutoencoderKL.from_pretrained(f"{root}/sd15/vae").eval()

    def forward(self, z):
        return self.net.decode(z, return_dict=False)[0]


class Dit(torch.nn.Module):
    def __init__(self, root):
        super().__init__()
        self.net = DiTTransformer2DModel.from_pretrained(f"{root}/dit-xl-2/transformer").eval()

    def forward(self, x, t, c):
        return self.net(x, timestep=t, class_labels=c, return_dict=False)[0]


def piece(name):
    def latents(batch, side):
        return torch.randn(batch, 4, side, side)

    def unet(batch, side):
        return Unet, lambda: (latents(batch, side), torch.tensor([10]), torch.randn(batch, 77, 768))

    return {
        "unet32": unet(1, 32),
        "unet64": unet(1, 64),
        "unet64b2": unet(2, 64),
        "vae512": (Decoder, lambda: (latents(1, 64),)),
        "dit256": (Dit, lambda: (latents(1, 32), torch.tensor([10]), torch.tensor([1]))),
    }[name]


def prepare(way, net, inputs, threads):
    """A function of the inputs, and the inputs in the form that it wants."""
    if way == "eager":
        return lambda *x: net(*x)
    if way == "channels_last":
        net = net.to(memory_format=torch.channels_last)
        last = torch.channels_last
        return lambda *x: net(*[v.to(memory_format=last) if v.dim() == 4 else v for v in x])
    if way == "compile":
        compiled = torch.compile(net)
        return lambda *x: compiled(*x)
    import openvino

    model = openvino.convert_model(net, example_input=inputs)
    shapes = [openvino.PartialShape(list(v.shape)) for v in inputs]
    model.reshape(dict(enumerate(shapes)))
    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(model, "CPU", settings)
    return lambda *x: torch.from_numpy(compiled([v.numpy() for v in x])[0])


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("root")
    ap.add_argument("--pieces", default="unet64,unet32,vae512,dit256")
    ap.add_argument("--ways", default="eager,channels_last,compile,openvino")
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--runs", type=int, default=3)
    args = ap.parse_args()
    torch.set_num_threads(args.threads)
    with torch.no_grad():
        for name in args.pieces.split(","):
            make, draw = piece(name)
            torch.manual_seed(0)
            inputs = draw()
            wanted = make(args.root)(*inputs)
            for way in args.ways.split(","):
                start = time.perf_counter()
                run = prepare(way, make(args.root), inputs, args.threads)
                found = run(*inputs)
                ready = time.perf_counter() - start
                times = []
                for _ in range(args.runs):
                    start = time.perf_counter()
                    run(*inputs)
                    times.append(time.perf_counter() - start)
                off = ((found - wanted).abs().max() / wanted.abs().max()).item()
                line = {"piece": name, "way": way, "seconds": round(statistics.median(times), 4)}
                print(json.dumps(line | {"ready": round(ready, 1), "off": float(f"{off:.2g}")}), flush=True)


if __name__ == "__main__":
    main()
