"""Reference numbers of diffusers' schedulers, for crates/tweedie/tests/data/schedulers.json.

    python tools/parity/schedulers.py > crates/tweedie/tests/data/schedulers.json

Needs the packages diffusers, torch and numpy, nothing else. No weights: the network is a closed formula that the
tests compute too, and so is the noise, so that only configurations and results are stored. Scheduler arithmetic is
lifted to 64 bits where the class lets us (the tables are 32-bit in diffusers either way).
"""

import importlib
import json

import diffusers
import numpy as np
import torch

X = torch.tensor([[0.8, -1.3, 0.05], [-0.4, 2.1, -0.9]], dtype=torch.float64)


def network(x, sigma):
    """eps as a function of the state x = alpha x0 + sigma eps and of sigma_edm."""
    s = sigma / (1.0 + sigma)
    return torch.tanh(0.7 * x + 0.3 * s) * (0.4 + 0.5 * s)


def noise(k):
    j = torch.arange(X.numel(), dtype=torch.float64).reshape(X.shape)
    return torch.sin(1.3 * (k + 1) + 0.7 * j) * 1.2


def make(name, **config):
    module = importlib.import_module("diffusers")
    return getattr(module, name)(**config)


def rows(t):
    return [[float(v) for v in row] for row in t]


def grid(name, steps, **config):
    s = make(name, **config)
    s.set_timesteps(steps)
    sigmas = getattr(s, "sigmas", None)
    if name == "DDIMScheduler":
        bars = [s.alphas_cumprod[int(t)] for t in s.timesteps] + [s.final_alpha_cumprod]
        sigmas = torch.stack([((1 - b.double()) / b.double()).sqrt() for b in bars])
    return {
        "class": name,
        "config": config,
        "steps": steps,
        "timesteps": [float(t) for t in s.timesteps],
        # JSON has no infinity.
        "sigmas": [min(float(v), 1e30) for v in sigmas],
    }


SCALED = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")


def grids():
    out = []
    for steps in (7, 20, 50):
        out.append(grid("DDIMScheduler", steps, timestep_spacing="leading", steps_offset=1, set_alpha_to_one=False, **SCALED))
        out.append(grid("DDIMScheduler", steps, timestep_spacing="linspace", **SCALED))
        out.append(grid("DDIMScheduler", steps, timestep_spacing="trailing"))
        out.append(grid("EulerDiscreteScheduler", steps, timestep_spacing="linspace", **SCALED))
        out.append(grid("EulerDiscreteScheduler", steps, timestep_spacing="leading", steps_offset=1, **SCALED))
        out.append(grid("EulerDiscreteScheduler", steps, timestep_spacing="trailing", final_sigmas_type="sigma_min", **SCALED))
        out.append(grid("EulerDiscreteScheduler", steps, use_karras_sigmas=True, **SCALED))
        out.append(grid("EulerDiscreteScheduler", steps, use_exponential_sigmas=True, **SCALED))
        out.append(grid("DPMSolverMultistepScheduler", steps, timestep_spacing="linspace", **SCALED))
        out.append(grid("DPMSolverMultistepScheduler", steps, timestep_spacing="leading", steps_offset=1, **SCALED))
        out.append(grid("DPMSolverMultistepScheduler", steps, timestep_spacing="trailing", **SCALED))
        out.append(grid("DPMSolverMultistepScheduler", steps, use_karras_sigmas=True, **SCALED))
        out.append(grid("DPMSolverMultistepScheduler", steps, use_lu_lambdas=True, **SCALED))
        out.append(grid("UniPCMultistepScheduler", steps, timestep_spacing="linspace", beta_schedule="squaredcos_cap_v2"))
        out.append(grid("UniPCMultistepScheduler", steps, use_karras_sigmas=True, **SCALED))
        out.append(grid("FlowMatchEulerDiscreteScheduler", steps, shift=3.0))
        out.append(grid("FlowMatchEulerDiscreteScheduler", steps, shift=1.0))
    out.append(grid("DDIMScheduler", 16, timestep_spacing="trailing"))
    out.append(grid("DDIMScheduler", 48, timestep_spacing="trailing"))
    out.append(grid("DDIMScheduler", 10, timestep_spacing="trailing", rescale_betas_zero_snr=True, **SCALED))
    return out


def run(name, steps, step_kwargs=None, **config):
    """A whole run; states of sigma-space schedulers are written as x = alpha (x / alpha)."""
    s = make(name, **config)
    s.set_timesteps(steps)
    flow = name.startswith("FlowMatch")
    edm_space = name.startswith(("Euler", "Heun"))
    # Everything after the tables in 64 bits.
    if hasattr(s, "alphas_cumprod"):
        s.alphas_cumprod = s.alphas_cumprod.double()
    for attr in ("final_alpha_cumprod", "one"):
        if hasattr(s, attr):
            setattr(s, attr, getattr(s, attr).double())
    if hasattr(s, "sigmas"):
        s.sigmas = s.sigmas.double()
        sigmas = [float(v) for v in s.sigmas]
    else:
        bars = [s.alphas_cumprod[int(t)] for t in s.timesteps]
        last = getattr(s, "final_alpha_cumprod", torch.ones((), dtype=torch.float64))
        sigmas = [float(((1 - b) / b).sqrt()) for b in bars] + [float(((1 - last) / last).sqrt())]
    if name.startswith("Heun"):
        sigmas = [sigmas[0]] + sigmas[1:-1:2] + [sigmas[-1]]
    drawn = []

    def recorded(shape, **kwargs):
        drawn.append(noise(len(drawn)))
        return drawn[-1].to(kwargs.get("dtype") or torch.float64)

    module = importlib.import_module(type(s).__module__)
    saved = getattr(module, "randn_tensor", None)
    module.randn_tensor = recorded
    x = X.clone()
    if edm_space:
        x = x * (1 + sigmas[0] ** 2) ** 0.5
    k = 0
    for i, t in enumerate(s.timesteps):
        if edm_space:
            index = s.step_index if s.step_index is not None else 0
            sigma = float(s.sigmas[index])
            inner = x / (1 + sigma**2) ** 0.5
            s.scale_model_input(x, t)
            eps = network(inner, torch.tensor(sigma, dtype=torch.float64))
        elif flow:
            sigma = float(s.sigmas[i])
            eps = network(x, torch.tensor(sigma / (1 - sigma) if sigma < 1 else 1e30, dtype=torch.float64))
            x0 = (x - sigma * eps) / (1 - sigma) if sigma < 1 else 0.3 * torch.tanh(x)
            eps = (x - (1 - sigma) * x0) / sigma - x0
        else:
            sigma = sigmas[i]
            eps = network(x, torch.tensor(sigma, dtype=torch.float64))
        kwargs = dict(step_kwargs or {})
        if name == "DPMSolverMultistepScheduler" and "sde" in config.get("algorithm_type", ""):
            kwargs["variance_noise"] = noise(k)
            k += 1
        x = s.step(eps, t, x, **kwargs).prev_sample.double()
    if saved is not None:
        module.randn_tensor = saved
    end = sigmas[-1]
    if edm_space:
        x = x / (1 + end**2) ** 0.5
    return {"class": name, "config": config, "step": step_kwargs or {}, "steps": steps, "flow": flow,
            "levels": sigmas, "x": rows(x)}


def runs():
    out = []
    leading = dict(timestep_spacing="leading", steps_offset=1, **SCALED)
    out.append(run("DDIMScheduler", 10, clip_sample=False, set_alpha_to_one=False, **leading))
    out.append(run("DDIMScheduler", 10, dict(eta=0.6), clip_sample=False, **leading))
    out.append(run("DDIMScheduler", 10, dict(eta=1.0), clip_sample=False, **leading))
    out.append(run("DDPMScheduler", 10, clip_sample=False, **leading))
    # With an offset diffusers adds noise on the step to clean data too.
    out.append(run("DDPMScheduler", 10, clip_sample=False, variance_type="fixed_large", timestep_spacing="leading", **SCALED))
    out.append(run("EulerDiscreteScheduler", 10, **SCALED))
    out.append(run("EulerDiscreteScheduler", 10, final_sigmas_type="sigma_min", **leading))
    out.append(run("EulerDiscreteScheduler", 10, use_karras_sigmas=True, **SCALED))
    out.append(run("EulerAncestralDiscreteScheduler", 10, **SCALED))
    out.append(run("HeunDiscreteScheduler", 10, **SCALED))
    out.append(run("HeunDiscreteScheduler", 10, use_karras_sigmas=True, **SCALED))
    for steps in (8, 20):
        for solver in ("midpoint", "heun"):
            for algorithm in ("dpmsolver++", "sde-dpmsolver++"):
                out.append(run("DPMSolverMultistepScheduler", steps, algorithm_type=algorithm, solver_type=solver,
                               use_karras_sigmas=True, **SCALED))
        out.append(run("DPMSolverMultistepScheduler", steps, final_sigmas_type="sigma_min", **leading))
        for order in (1, 2, 3):
            for variant in ("bh1", "bh2"):
                # A clean end and bh1 give minus infinity times zero there, so bh1 ends at the table's first step.
                last = "zero" if variant == "bh2" else "sigma_min"
                out.append(run("UniPCMultistepScheduler", steps, solver_order=order, solver_type=variant,
                               final_sigmas_type=last, **leading))
        out.append(run("UniPCMultistepScheduler", steps, solver_order=2, lower_order_final=False,
                       final_sigmas_type="sigma_min", disable_corrector=[0, 2], **leading))
        out.append(run("UniPCMultistepScheduler", steps, solver_order=3, lower_order_final=False,
                       final_sigmas_type="sigma_min", **leading))
    out.append(run("FlowMatchEulerDiscreteScheduler", 10, shift=3.0))
    return out


if __name__ == "__main__":
    header = {
        "what": "levels and results of diffusers' schedulers on a closed-form network",
        "script": "tools/parity/schedulers.py",
        "diffusers": diffusers.__version__,
        "torch": torch.__version__.split("+")[0],
        "numpy": np.__version__,
        "x": rows(X),
    }
    print(json.dumps({"header": header, "grids": grids(), "runs": runs()}, indent=None, separators=(",", ":"), allow_nan=False))
