"""What upstream's model says of itself, and what is measured of its initial values and its forward."""

import inspect
import math
import types
from unittest import mock

import torch

from .checkout import only, role, told


# Of one small model whose tensors are looked into. Every gate's channels fit its width.
SMALL = {"sequence_len": 256, "vocab_size": 320, "n_layer": 5, "n_head": 2, "n_kv_head": 2, "n_embd": 64}


class Small:
    """One small model as upstream initialises it, with a record of how."""

    def __init__(self):
        from nanochat.gpt import GPT, GPTConfig

        with torch.device("meta"):
            self.model = GPT(GPTConfig(**SMALL))
        self.model.to_empty(device="cpu")
        params = dict(self.model.named_parameters())
        with torch.no_grad():
            for value in params.values():
                value.fill_(math.nan)
        names = {id(value): name for name, value in params.items()}
        self.drawn = {}

        def recorded(kind, original):
            def init(tensor, *args, **kwargs):
                if id(tensor) in names:
                    self.drawn[names[id(tensor)]] = (kind, [*args, *kwargs.values()])
                return original(tensor, *args, **kwargs)

            return init

        kinds = ("normal_", "uniform_", "zeros_", "ones_", "constant_", "trunc_normal_")
        patches = {kind: recorded(kind, getattr(torch.nn.init, kind)) for kind in kinds}
        with mock.patch.multiple(torch.nn.init, **patches):
            self.model.init_weights()
        self.params = params
        self.uninitialised = sorted({role(name) for name, value in params.items() if value.isnan().any()})
        with torch.no_grad():
            for value in params.values():
                # By this project's convention, where upstream leaves what memory held.
                value.nan_to_num_(0.0)
        self.unit = math.sqrt(3 / SMALL["n_embd"])

    def draw(self, part, kind):
        """The numbers that the parameters with `part` in their name were drawn with, the same for all of them."""
        found = [(how, tuple(numbers)) for name, (how, numbers) in self.drawn.items() if part in name]
        how, numbers = only(found, part)
        if how != kind:
            raise ValueError(f"{part}: drawn by {how}, expected {kind}")
        return numbers

    def uniform_max(self, part):
        """The upper end of a uniform draw from 0; 0 where zeros are written, or nothing is."""
        found = {(how, tuple(numbers)) for name, (how, numbers) in self.drawn.items() if part in name}
        if not found or found == {("zeros_", ())}:
            return 0.0
        low, high = self.draw(part, "uniform_")
        if low != 0.0:
            raise ValueError(f"{part}: drawn from {low} on, expected 0")
        return high

    def ramp(self, name):
        """A value at the first layer, and how much lower it is at the last; refused where it does not fall linearly."""
        values = self.params[name].detach().double().tolist()
        fall = values[0] - values[-1]
        for layer, value in enumerate(values):
            expected = values[0] - fall * layer / (len(values) - 1)
            if abs(value - expected) > 1e-6:
                raise ValueError(f"{name}: {values} do not fall linearly")
        return {"first": told(values[0], 6), "fall": told(fall, 6) if abs(fall) > 1e-6 else 0.0}

    def scalar(self, name):
        """A scalar's initial value."""
        return told(self.params[name].item(), 6)

    def initial(self):
        """How each role begins, bounds in units of sqrt(3 / n_embd) where they are symmetric."""
        found = {}
        for name, (kind, numbers) in self.drawn.items():
            if kind == "uniform_" and len(numbers) == 2 and numbers[0] == -numbers[1]:
                kind, numbers = "symmetric", [told(numbers[1] / self.unit, 6)]
            text = " ".join([kind.rstrip("_"), *map(str, numbers)])
            if found.setdefault(role(name), text) != text:
                found[role(name)] = "differs between layers"
        return found


class Attention:
    """What attention is given, layer by layer, while it does what it does."""

    def __init__(self):
        from nanochat import gpt

        self.gpt, self.calls = gpt, []

    def __enter__(self):
        original = self.gpt.flash_attn

        def func(q, k, v, *args, **kwargs):
            self.calls.append((q.detach().float(), k.detach().float(), v.detach().float()))
            return original.flash_attn_func(q, k, v, *args, **kwargs)

        stand_in = types.SimpleNamespace(**{**vars(original), "flash_attn_func": func})
        self.patch = mock.patch.object(self.gpt, "flash_attn", stand_in)
        self.patch.start()
        return self

    def __exit__(self, *_):
        self.patch.stop()


def ids():
    generator = torch.Generator().manual_seed(1)
    return torch.randint(SMALL["vocab_size"], (2, 64), generator=generator)


def qk_scale(small):
    """The root mean square of q and k as attention gets them: they were brought to 1 before."""
    with torch.no_grad(), Attention() as attention:
        for name, value in small.params.items():
            if "c_q" in name or "c_k" in name:
                # So large that the epsilon of the norm does not show.
                value.copy_(torch.randn_like(value) * 1000)
        small.model(ids())
    scales = [x.square().mean(-1).sqrt().mean().item() for q, k, _ in attention.calls for x in (q, k)]
    return only([told(scale, 4) for scale in scales], "size of q and k")


def ve_gate_scale(small):
    """With c_v at zero the values are the gate times the value embedding, and a gate that reads zeros is half its scale."""
    if not len(small.model.value_embeds):
        return None
    with torch.no_grad(), Attention() as attention:
        for name, value in small.params.items():
            if "c_v" in name or "ve_gate" in name:
                value.zero_()
        x = ids()
        small.model(x)
    scales = []
    for layer, table in small.model.value_embeds.items():
        embedding = table.weight[x].detach().float().flatten()
        values = attention.calls[int(layer)][2].flatten()
        scales.append((values @ embedding / (embedding @ embedding)).item())
    return only([told(2 * scale, 4) for scale in scales], "gate of the value embeddings")


def softcap(small):
    """Where logits end, however large they would be."""
    with torch.no_grad():
        small.params["lm_head.weight"].copy_(1e4 * torch.randn_like(small.params["lm_head.weight"]))
        largest = small.model(ids()).abs().max().item()
    if not largest < 1e3:
        raise ValueError(f"logits reach {largest}: they have no cap")
    return told(largest, 6)


def norm_eps():
    """y^2 = x^2 / (x^2 + eps) where all of x are equal."""
    from nanochat.gpt import norm

    x = torch.full((1, 64), 1e-4, dtype=torch.float32)
    y, x = norm(x)[0, 0].double().item(), x[0, 0].double().item()
    eps = x * x * (1 / (y * y) - 1)
    default = torch.finfo(torch.float32).eps
    return default if abs(eps / default - 1) < 1e-4 else told(eps, 3)


def rope_base(small):
    """From the slowest but one of the angles at position 1: base^(-2 i / head_dim)."""
    width = SMALL["n_embd"] // SMALL["n_head"]
    base = inspect.signature(small.model._precompute_rotary_embeddings).parameters["base"].default
    # The table that a model has is what counts: the signature's default has to explain it, as far as its precision goes.
    cos = small.model.cos.float().reshape(small.model.cos.shape[1], -1)
    angle = base ** (-torch.arange(0, width, 2, dtype=torch.float32) / width)
    expected = torch.outer(torch.arange(cos.shape[0], dtype=torch.float32), angle).cos()
    tolerance = 1e-2 if small.model.cos.dtype == torch.bfloat16 else 1e-3
    worst = (cos[:256] - expected[:256]).abs().max().item()
    if worst > tolerance:
        raise ValueError(f"the rotary table is off base {base} by {worst}")
    return float(base)


def short_window(model_class, config_class):
    """The rule that gives the windows of several lengths."""
    rules = {
        "half": lambda n: n // 2,
        "third": lambda n: -(-(-(-n // 3)) // 128) * 128,
        "quarter": lambda n: -(-(-(-n // 4)) // 128) * 128,
    }
    found = {}
    for length in (200, 256, 512, 1000, 1024, 2048, 4096):
        config = config_class(**{**SMALL, "sequence_len": length, "window_pattern": "SL"})
        found[length] = model_class._compute_window_sizes(None, config)[0][0]
    fits = [name for name, rule in rules.items() if all(rule(n) == window for n, window in found.items())]
    if len(fits) != 1:
        raise ValueError(f"short windows of {found} follow no rule that is known here")
    return fits[0]


def counts_smear_gate(model):
    """Whether FLOPs a token count the smear gate beside what the scaling laws count."""
    config, counts = model.config, model.num_scaling_params()
    attention = sum(
        12 * config.n_embd * (config.sequence_len if left < 0 else min(left, config.sequence_len))
        for left, _ in model.window_sizes
    )
    rest = model.estimate_flops() - attention - 6 * (counts["transformer_matrices"] + counts["lm_head"])
    gate = model.smear_gate.weight.numel() if hasattr(model, "smear_gate") else 0
    if rest not in (0, 6 * gate):
        raise ValueError(f"FLOPs a token have {rest} that matrices, unembedding and attention do not explain")
    return rest != 0


def shape_row(row):
    """What upstream's model says of the sizes in a row of shapes.jsonl."""
    from nanochat.gpt import GPT, GPTConfig

    dim = -(-row["depth"] * row["aspect_ratio"] // row["head_dim"]) * row["head_dim"]
    heads = dim // row["head_dim"]
    config = GPTConfig(
        sequence_len=row["sequence_len"],
        vocab_size=row["vocab_size"],
        n_layer=row["depth"],
        n_head=heads,
        n_kv_head=heads,
        n_embd=dim,
        window_pattern=row["window_pattern"],
    )
    with torch.device("meta"):
        model = GPT(config)
    return {
        **{key: row[key] for key in ("depth", "sequence_len", "head_dim", "aspect_ratio", "window_pattern", "vocab_size")},
        "n_embd": dim,
        "n_head": heads,
        # Before it had windows of every length, -1 stood for no limit.
        "window_left": [left if left >= 0 else row["sequence_len"] for left, _ in model.window_sizes],
        "flops_per_token": model.estimate_flops(),
        "params": model.num_scaling_params(),
        "value_embed_layers": sorted(int(layer) for layer in model.value_embeds),
    }
