"""Writes the fields and defaults of the published classes that tweedie's settings mirror.

    python tools/parity/class_defaults.py > crates/tweedie/tests/data/class_defaults.json

Needs diffusers and transformers.
"""

import dataclasses
import inspect
import json

import diffusers
import transformers

NETWORKS = [
    "UNet2DModel",
    "UNet2DConditionModel",
    "ControlNetModel",
    "DiTTransformer2DModel",
    "PixArtTransformer2DModel",
    "Transformer2DModel",
    "AutoencoderKL",
    "AutoencoderTiny",
]
SCHEDULERS = [
    "DDIMScheduler",
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSDEScheduler",
    "DPMSolverSinglestepScheduler",
    "EDMDPMSolverMultistepScheduler",
    "EDMEulerScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "FlowMatchEulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LCMScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "SASolverScheduler",
    "TCDScheduler",
    "UniPCMultistepScheduler",
]


def signature(cls):
    parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]
    return {p.name: p.default for p in parameters if p.kind == p.POSITIONAL_OR_KEYWORD}


classes = {name: signature(getattr(diffusers, name)) for name in NETWORKS + SCHEDULERS}
text = transformers.CLIPTextConfig
own = {f for f in text.__annotations__ if not f.startswith("_")}
classes["CLIPTextModel"] = {
    f.name: f.default for f in dataclasses.fields(text) if f.name in own and f.name not in ("model_type", "base_config_key")
}
out = {
    "what": "fields and defaults of published classes",
    "script": "tools/parity/class_defaults.py",
    "versions": {"diffusers": diffusers.__version__, "transformers": transformers.__version__},
    "classes": classes,
}
print(json.dumps(out, indent=1).replace("-Infinity", '"-Infinity"'))
