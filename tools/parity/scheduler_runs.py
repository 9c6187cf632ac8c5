"""Whole runs of diffusers' schedulers, for crates/tweedie/tests/data/scheduler_runs.json and for random comparisons.

    python tools/parity/scheduler_runs.py > crates/tweedie/tests/data/scheduler_runs.json
    python tools/parity/scheduler_runs.py --random 300 --seed 1 > /tmp/runs.json
    TWEEDIE_SCHEDULER_RUNS=/tmp/runs.json cargo test --release -p tweedie --test it -- scheduler_runs

Needs diffusers, torch, numpy, scipy and torchsde. A state has two values; the network is a closed formula of what a
network is given (the scaled state and the time), and so is the noise. A run is the list of what the network was
given and the last state. Left out are configurations that diffusers refuses, whose result is not finite, whose end
moves by more than 30 parts in a million when the start moves by one (the 32 bits of its tables and of some of its steps
move such ends by more than is compared), and where the cut of a time to a whole step hangs on the processor's logarithm.
"""

import argparse
import importlib
import json
import math
import random
import sys
import warnings

import diffusers
import numpy as np
import torch

warnings.filterwarnings("ignore")
diffusers.logging.set_verbosity_error()

X = torch.tensor([0.8, -1.3], dtype=torch.float64).reshape(1, 2, 1, 1)


def network(x, t):
    """What the network says of the state that it is given and the time."""
    a, b = x[:, 0], x[:, 1]
    t = float(t)
    one = 0.7 * torch.tanh(0.9 * a - 0.4 * b + 0.3 * math.cos(0.005 * t)) + 0.1 * a
    two = 0.6 * torch.tanh(0.3 * a + 0.8 * b - 0.2 * math.sin(0.007 * t)) - 0.1
    return torch.stack([one, two], dim=1)


def noise(k):
    """Draw k of the steps."""
    j = torch.arange(2, dtype=torch.float64).reshape(1, 2, 1, 1)
    return torch.sin(1.3 * (k + 1) + 0.7 * j) * 1.2


def hangs_on_the_logarithm(scheduler, config):
    """Whether a time that is cut to a whole step depends on the last bit of numpy's 32-bit logarithm, which differs
    between processors."""
    if not hasattr(scheduler, "_sigma_to_t") or type(scheduler).__name__ not in CUT:
        return False
    cosine = config.get("beta_schedule") == "squaredcos_cap_v2" and config.get("use_karras_sigmas")
    if not (config.get("use_exponential_sigmas") or config.get("use_beta_sigmas") or cosine):
        return False
    ratio = ((1 - scheduler.alphas_cumprod) / scheduler.alphas_cumprod).numpy()
    table, rooted = np.array(ratio**0.5), np.sqrt(ratio)
    exact = np.log(rooted.astype(np.float64)).astype(np.float32)
    sigmas = np.array(scheduler.sigmas_of_grid, dtype=np.float64)
    turns = [(np.log(table), 1.0), (exact, 1.0), (exact, 1 + 1e-12), (exact, 1 - 1e-12)]
    times = [[int(scheduler._sigma_to_t(s * f, logs)) for s in sigmas] for logs, f in turns]
    return any(t != times[0] for t in times) or table[-1] != torch.tensor(ratio).sqrt().numpy()[-1]


CUT = ("DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "DEISMultistepScheduler", "UniPCMultistepScheduler",
       "SASolverScheduler")


class Increments:
    """Two increments of a Brownian motion in sigma a step, in place of a tree's: to the middle of the step and, over
    all of it, the same one and another."""

    def __init__(self):
        self.k, self.middle = 0, None

    def __call__(self, sigma, sigma_next):
        sigma, sigma_next = float(sigma), float(sigma_next)
        if self.middle is None:
            self.middle = sigma_next
            return noise(self.k)
        first, second = sigma - self.middle, self.middle - sigma_next
        z = (noise(self.k) * first**0.5 + noise(self.k + 1) * second**0.5) / (sigma - sigma_next) ** 0.5
        self.k, self.middle = self.k + 2, None
        return z


def run(name, steps, config, first=0, scale=1.0):
    scheduler = getattr(diffusers, name)(**config)
    # The sigmas before they are cut to 32 bits.
    for convert in ("_convert_to_exponential", "_convert_to_beta", "_convert_to_karras"):
        if name in CUT:
            kept = getattr(scheduler, convert)

            def keeping(*args, kept=kept, **kwargs):
                scheduler.sigmas_of_grid = kept(*args, **kwargs)
                return scheduler.sigmas_of_grid

            setattr(scheduler, convert, keeping)
    scheduler.set_timesteps(steps)
    if hangs_on_the_logarithm(scheduler, config):
        raise ValueError("the cut of a time hangs on the last bit of a logarithm")
    # Everything after the tables in 64 bits, where the class lets us.
    for attr in ("sigmas", "alphas_cumprod", "final_alpha_cumprod", "one", "sigmas_interpol", "sigmas_up", "sigmas_down"):
        if isinstance(getattr(scheduler, attr, None), torch.Tensor):
            setattr(scheduler, attr, getattr(scheduler, attr).double())
    drawn = [0]

    def recorded(shape, **kwargs):
        drawn[0] += 1
        return noise(drawn[0] - 1)

    module = importlib.import_module(type(scheduler).__module__)
    if hasattr(module, "randn_tensor"):
        module.randn_tensor = recorded
    if name == "DPMSolverSDEScheduler":
        scheduler.noise_sampler = Increments()
    x = X * scale * float(scheduler.init_noise_sigma)
    timesteps = scheduler.timesteps
    if first:
        timesteps = timesteps[first * scheduler.order:]
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(first * scheduler.order)
        x = scheduler.add_noise(X * 0.5 * scale, noise(50), timesteps[:1]).double()
    calls = []
    for t in timesteps:
        given = scheduler.scale_model_input(x, t)
        calls.append([float(t), float(given[0, 0]), float(given[0, 1])])
        x = scheduler.step(network(given.double(), t), t, x).prev_sample
    end = [float(v) for v in x.flatten()]
    numbers = [v for call in calls for v in call] + end
    if not all(math.isfinite(v) for v in numbers) or max(abs(v) for v in end) > 1e6:
        return None
    return {"class": name, "config": config, "steps": steps, "first": first,
            "calls": [[round_to(v) for v in call] for call in calls], "end": [round_to(v) for v in end]}


def round_to(v):
    return float(f"{v:.8g}")


SCALED = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
TABLE = [
    {},
    SCALED,
    dict(beta_schedule="squaredcos_cap_v2"),
    dict(num_train_timesteps=40, trained_betas=[0.001 + 0.0007 * i * (1 + 0.3 * math.sin(i)) for i in range(40)]),
    dict(beta_start=0.0015, beta_end=0.0195, beta_schedule="scaled_linear", num_train_timesteps=500),
]
SPACING = [dict(timestep_spacing="linspace"), dict(timestep_spacing="leading"), dict(timestep_spacing="leading", steps_offset=1),
           dict(timestep_spacing="trailing")]
SIGMAS = [{}, {}, dict(use_karras_sigmas=True), dict(use_exponential_sigmas=True), dict(use_beta_sigmas=True)]
PREDICTION = [dict(prediction_type=p) for p in ("epsilon", "epsilon", "v_prediction", "sample")]
CORRECT = [{}, {}, dict(clip_sample=True, clip_sample_range=0.9),
           dict(thresholding=True, dynamic_thresholding_ratio=0.7, sample_max_value=1.4)]
THRESHOLD = [{}, {}, dict(thresholding=True, dynamic_thresholding_ratio=0.7, sample_max_value=1.4)]
ZERO = [{}, {}, dict(rescale_betas_zero_snr=True)]
FINAL = [{}, dict(final_sigmas_type="zero"), dict(final_sigmas_type="sigma_min")]
LOWER = [{}, dict(lower_order_final=True), dict(lower_order_final=False)]
SOLVER = [dict(solver_order=o) for o in (1, 2, 2, 3)]
TYPE = [{}, dict(solver_type="midpoint"), dict(solver_type="heun")]
LIMITS = [{}, {}, dict(sigma_min=0.05, sigma_max=9.0)]
CLIPPED = [{}, {}, {}, dict(lambda_min_clipped=-4.5)]
CLASSES = {
    "DDPMScheduler": [TABLE + [dict(beta_schedule="sigmoid")], SPACING, PREDICTION, CORRECT, ZERO,
                      [{}, dict(variance_type="fixed_small_log"), dict(variance_type="fixed_large")]],
    "DDIMScheduler": [TABLE, SPACING, PREDICTION, CORRECT + [dict(clip_sample=False)], ZERO, [{}, dict(set_alpha_to_one=False)]],
    "PNDMScheduler": [TABLE, SPACING, PREDICTION, [{}, dict(set_alpha_to_one=True)], [dict(skip_prk_steps=True), {}]],
    "LMSDiscreteScheduler": [TABLE, SPACING, PREDICTION, SIGMAS],
    "EulerDiscreteScheduler": [TABLE, SPACING, PREDICTION, SIGMAS, ZERO, FINAL, LIMITS,
                               [{}, {}, dict(interpolation_type="log_linear"), dict(timestep_type="continuous")]],
    "EulerAncestralDiscreteScheduler": [TABLE, SPACING, PREDICTION, ZERO],
    "HeunDiscreteScheduler": [TABLE, SPACING, PREDICTION, SIGMAS, [{}, dict(clip_sample=True, clip_sample_range=0.9)]],
    "KDPM2DiscreteScheduler": [TABLE, SPACING, PREDICTION, SIGMAS],
    "KDPM2AncestralDiscreteScheduler": [TABLE, SPACING, PREDICTION, SIGMAS],
    "DPMSolverMultistepScheduler": [TABLE, SPACING, PREDICTION, SIGMAS + [dict(use_lu_lambdas=True)], THRESHOLD, ZERO, FINAL, LOWER,
                                    SOLVER, TYPE, [{}, dict(euler_at_final=True)], CLIPPED,
                                    [{}, {}, dict(algorithm_type="sde-dpmsolver++"),
                                     dict(algorithm_type="dpmsolver", final_sigmas_type="sigma_min"),
                                     dict(algorithm_type="sde-dpmsolver", final_sigmas_type="sigma_min")]],
    "DPMSolverSinglestepScheduler": [TABLE, PREDICTION, SIGMAS, THRESHOLD, FINAL, LOWER, SOLVER, TYPE, CLIPPED,
                                     [{}, {}, dict(algorithm_type="sde-dpmsolver++"),
                                      dict(algorithm_type="dpmsolver", final_sigmas_type="sigma_min")]],
    "DPMSolverSDEScheduler": [TABLE, SPACING, PREDICTION, SIGMAS],
    "DEISMultistepScheduler": [TABLE, SPACING, PREDICTION, SIGMAS, THRESHOLD, LOWER, SOLVER],
    "UniPCMultistepScheduler": [TABLE, SPACING, PREDICTION, SIGMAS, THRESHOLD, ZERO, FINAL, LOWER, SOLVER, LIMITS,
                                [{}, dict(solver_type="bh1"), dict(solver_type="bh2")], [{}, {}, dict(disable_corrector=[0, 2])],
                                [{}, {}, dict(predict_x0=False)]],
    "SASolverScheduler": [TABLE, SPACING, PREDICTION, SIGMAS, THRESHOLD, LOWER, CLIPPED,
                          [{}, dict(predictor_order=3, corrector_order=4), dict(predictor_order=1, corrector_order=2),
                           dict(predictor_order=3, corrector_order=3)]],
    "LCMScheduler": [TABLE, PREDICTION, CORRECT, ZERO, [{}, dict(original_inference_steps=100), dict(timestep_scaling=4.0)]],
    "TCDScheduler": [TABLE, PREDICTION, [{}], ZERO, [{}, dict(original_inference_steps=100)]],
    "EDMEulerScheduler": [[{}, dict(sigma_max=30.0, sigma_min=0.01, sigma_data=0.7, rho=5.0)], [{}, dict(sigma_schedule="exponential")],
                          [{}, dict(prediction_type="v_prediction")], FINAL],
    "EDMDPMSolverMultistepScheduler": [[{}, dict(sigma_max=30.0, sigma_min=0.01, sigma_data=0.7, rho=5.0)],
                                       [{}, dict(sigma_schedule="exponential")], [{}, dict(prediction_type="v_prediction")], FINAL,
                                       THRESHOLD, LOWER, SOLVER, TYPE, [{}, dict(euler_at_final=True)],
                                       [{}, {}, dict(algorithm_type="sde-dpmsolver++")]],
}
MIDDLE = ["DDIMScheduler", "DDPMScheduler", "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler",
          "KDPM2DiscreteScheduler", "DPMSolverMultistepScheduler", "UniPCMultistepScheduler", "DEISMultistepScheduler",
          "KDPM2AncestralDiscreteScheduler", "DPMSolverSDEScheduler"]


def pick(rng, name):
    config = {}
    for options in CLASSES[name]:
        config.update(rng.choice(options))
    if config.get("num_train_timesteps") == 40 and "original_inference_steps" not in config and name in ("LCMScheduler", "TCDScheduler"):
        config["original_inference_steps"] = 20
    return config


def cases(count, seed, names):
    """`count` different configurations that run, the classes in turn; three in four of the few steps of pictures."""
    rng = random.Random(seed)
    seen, out, tried = set(), [], 0
    while len(out) < count and tried < 40 * count:
        name = names[len(out) % len(names)]
        tried += 1
        config = pick(rng, name)
        steps = rng.choice([1, 2, 3, 4, 5, 6, 7, 8, 10, 10, 12, 15, 16, 20] if count < 1000 else [10])
        first = rng.randrange(1, steps) if name in MIDDLE and steps > 3 and rng.random() < 0.2 else 0
        if steps == 1 and config.get("sigma_schedule") == "exponential":
            continue  # One step there starts at the cleanest sigma.
        key = json.dumps([name, steps, first, config], sort_keys=True)
        if key in seen:
            continue
        seen.add(key)
        try:
            case = run(name, steps, config, first)
        except (ValueError, NotImplementedError, AssertionError, UnboundLocalError, IndexError, RuntimeError, TypeError) as e:
            print(name, steps, first, config, type(e).__name__, str(e)[:100], file=sys.stderr)
            continue
        if case is None:
            continue
        moved = run(name, steps, config, first, 1 + 1e-6)
        size = max(abs(v) for v in case["end"])
        if moved is None or max(abs(a - b) for a, b in zip(case["end"], moved["end"])) > 3e-5 * size:
            print(name, steps, first, config, "ill conditioned", file=sys.stderr)
            continue
        out.append(case)
    return out


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--random", type=int, default=0, help="this many random configurations, in place of the stored ones")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--classes", default="", help="only these, with commas between")
    args = parser.parse_args()
    names = args.classes.split(",") if args.classes else list(CLASSES)
    header = {"script": "tools/parity/scheduler_runs.py", "diffusers": diffusers.__version__,
              "torch": torch.__version__.split("+")[0], "numpy": np.__version__}
    print(json.dumps({"header": header, "cases": cases(args.random or 180, args.seed, names)}, separators=(",", ":")))
