"""What is measured of upstream's optimizer, its schedules and its laws."""

import math

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from .checkout import group_of, only, told


GROUPS = {
    "unembedding": "lm_head",
    "embedding": "transformer.wte",
    "value_embeds": "value_embeds",
    "resid": "resid_lambdas",
    "x0": "x0_lambdas",
    "smear": "smear_lambda",
    "matrix": "attn.c_q",
}


class Operations(TorchDispatchMode):
    """The operations that torch carries out, with types and scalars, but without sizes."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        shown = []

        def show(value):
            if isinstance(value, torch.Tensor):
                shown.append(str(value.dtype).removeprefix("torch."))
            elif isinstance(value, (list, tuple)) and any(isinstance(item, torch.Tensor) for item in value):
                for item in value:
                    show(item)
            elif isinstance(value, (bool, float)) or (isinstance(value, int) and abs(value) < 8):
                shown.append(repr(value))

        for value in [*args, *(kwargs or {}).values()]:
            show(value)
        self.names.append(" ".join([str(func).removeprefix("aten."), *shown]))
        return func(*args, **(kwargs or {}))


class Muon:
    """One step of Muon from a parameter of zeros, without decay and momentum, at rate 1: minus the direction itself."""

    def __init__(self, optimizer):
        self.kind = type(optimizer)
        self.constants = next(group for group in optimizer.param_groups if group["kind"] == "muon")

    def step(self, gradient, ns_steps=None):
        param = torch.nn.Parameter(torch.zeros_like(gradient))
        param.grad = gradient.clone()
        group = {key: value for key, value in self.constants.items() if key not in ("params", "initial_lr")}
        group |= {"params": [param], "lr": 1.0, "momentum": 0.0, "weight_decay": 0.0}
        if ns_steps is not None:
            group["ns_steps"] = ns_steps
        operations = Operations()
        optimizer = self.kind([group])
        with operations:
            optimizer.step()
        return param.detach(), operations.names

    @staticmethod
    def gradient(rows, columns):
        return torch.randn(rows, columns, generator=torch.Generator().manual_seed(2))

    def norm_factor(self):
        """The f of |X| f + 1e-6: what a norm is multiplied with before 1e-6 is added."""
        names = self.step(self.gradient(16, 64))[1]
        found = []
        for norm, times, plus in zip(names, names[1:], names[2:]):
            if "norm" in norm and times.startswith("mul.Tensor") and plus.startswith("add.Tensor") and plus.endswith("1e-06"):
                found.append(float(times.split()[-1]))
        return only(found, "factor on the norm")

    def polar_dtype(self):
        names = self.step(self.gradient(16, 64))[1]
        return only([name.split()[1] for name in names if name.split(".")[0] in ("bmm", "mm", "baddbmm")], "type of products")

    def update_dtype(self):
        update = self.step(self.gradient(16, 64))[0]
        return "bfloat16" if torch.equal(update, update.bfloat16().float()) else "float32"

    def row_equilibration(self):
        gradient = self.gradient(16, 64)
        scaled = gradient * torch.logspace(-1, 1, 16)[:, None]
        first, second = (self.step(g)[0].flatten().double() for g in (gradient, scaled))
        return (first @ second / (first.norm() * second.norm())).item() > 0.999

    def renormalize(self):
        norm = self.step(self.gradient(16, 64), ns_steps=1)[0].norm().item()
        # bfloat16 has eight digits of two.
        return abs(norm / 4.0 - 1) < 4e-3


def momentum(script):
    """Of a long horizon, so that the warm-up ends within it."""
    values = [script.step(at)[1] for at in range(script.steps + 1)]
    peak = max(values)
    warmup = values.index(peak)
    end = values[-1]
    return {
        "start": told(values[0]),
        "peak": told(peak),
        "warmup_steps": warmup,
        "warmdown_to": told(end) if end < peak else None,
    }


def decay_shape(script):
    first = script.step(0)[2]
    shares = [script.step(at)[2] / first for at in range(script.steps)]
    rules = {
        "linear": lambda t: 1 - t,
        "cosine": lambda t: (1 + math.cos(math.pi * t)) / 2,
        "constant": lambda t: 1.0,
    }
    fits = [
        name
        for name, rule in rules.items()
        if all(abs(rule(at / script.steps) - share) < 1e-9 for at, share in enumerate(shares))
    ]
    if len(fits) != 1:
        raise ValueError("weight decay over the steps follows no shape that is known here")
    return fits[0]


def law(script, setting, vocab_size):
    """What base_train derives for a setting, and what it derives it from."""
    counts = script.model.num_scaling_params()
    rates = {}
    for name, part in GROUPS.items():
        constants = group_of(script.groups, part)
        if constants is not None:
            rates[name] = constants["lr"]
    return {
        "flags": setting,
        "vocab_size": vocab_size,
        "scaling_params": counts["transformer_matrices"] + counts["lm_head"],
        "flops_per_token": script.model.estimate_flops(),
        "total_batch_size": script.batch,
        "num_iterations": script.steps,
        "weight_decay": group_of(script.groups, "attn.c_q")["weight_decay"],
        "lr": rates,
    }


def weight_decay_law(laws, scripts, reference):
    """The rule that explains every setting's decay."""

    def explains(rule):
        return all(abs(row["weight_decay"] / (script.flags["weight_decay"] * rule(row, script)) - 1) < 1e-9 for row, script in zip(laws, scripts))

    def horizon(row, script):
        ratio = script.flags["target_param_data_ratio"]
        target = int(ratio * row["scaling_params"])
        return math.sqrt(row["total_batch_size"] / 2**19) * (ratio * reference(row) / target)

    rules = {
        "depth": lambda row, _: (12 / row["flags"]["depth"]) ** 2,
        "horizon": horizon,
        "constant": lambda *_: 1.0,
    }
    fits = [name for name, rule in rules.items() if explains(rule)]
    if len(fits) != 1:
        raise ValueError("the decays of several depths and horizons follow no law that is known here")
    return fits[0]
