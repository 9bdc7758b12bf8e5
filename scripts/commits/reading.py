"""Reads the recipe of a nanochat checkout by running its own code, and prints it as JSON.

    python -m commits.reading CHECKOUT [--shapes FILE]

Run with torch at hand, on the CPU. Nothing of upstream's is repeated here: its flags and everything that
scripts/base_train.py derives are what that script has in its names when its training loop would begin (the script runs
on a few sizes, with a tokenizer and a loader that do nothing), its model is asked for its windows, counts and initial
values, and what no name tells is measured: the softcap is where huge logits end, the scale of q and k is their size as
attention gets them, an update that is unmoved by scaling the gradient's rows equilibrates them.

A value that cannot be read is left out, with the reason under `unread`. What a recipe has no name for is under
`surface`: flags, members of the configuration, initial values, groups of parameters, and the operations of a forward
and of an optimizer's step. It is compared between two commits, so that nothing new goes unseen.
"""

import argparse
import contextlib
import importlib
import io
import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile
from unittest import mock

from .checkout import Script, flag_defaults, group_of, only, role, stand_in_for_missing, told

# What base_train.py is run with, and the vocabulary. Small models, so that seconds are enough; depth, horizon, batch and
# width move apart, so that laws can be told from each other.
SETTINGS = [
    ({"depth": 4, "aspect_ratio": 64, "head_dim": 64, "max_seq_len": 256}, 300),
    ({"depth": 6, "aspect_ratio": 32, "head_dim": 32, "max_seq_len": 256, "target_param_data_ratio": 20.0}, 300),
    ({"depth": 16, "aspect_ratio": 16, "head_dim": 64, "max_seq_len": 512}, 1000),
    ({"depth": 12, "aspect_ratio": 16, "head_dim": 64, "max_seq_len": 512, "total_batch_size": 65536}, 1000),
    ({"depth": 8, "aspect_ratio": 24, "head_dim": 64, "max_seq_len": 256, "num_iterations": 77}, 300),
    ({"depth": 3, "aspect_ratio": 100, "head_dim": 64, "max_seq_len": 256, "target_flops": 3e14}, 300),
]


class Readings:
    """Values by path, and why others have none."""

    def __init__(self):
        self.values, self.unread = {}, {}

    def read(self, path, how):
        try:
            value = how()
        except Exception as error:  # Whatever upstream's code came to: the person who reads the report is told.
            self.unread[path] = f"{type(error).__name__}: {error}"
            return
        if value is not None:
            self.values[path] = value


def a_count(value):
    """A flag that says how many; below zero it stands for a rule, of which a recipe has no name."""
    if value < 1:
        raise ValueError(f"the default is {value}: a rule decides")
    return value


def token_bytes(checkout):
    """The bytes that scripts/tok_train.py counts for the byte 0x80, which is no text by itself."""
    import torch

    dataset = importlib.import_module("nanochat.dataset")
    texts = [["some words, and some more words: enough of them to merge what is often beside each other"] * 50]
    code = compile((checkout / "scripts" / "tok_train.py").read_text(), "tok_train.py", "exec")
    place = pathlib.Path(os.environ["NANOCHAT_BASE_DIR"])
    with (
        mock.patch.object(dataset, "parquets_iter_batched", lambda *_, **__: iter(texts)),
        mock.patch.object(sys, "argv", ["tok_train", "--vocab-size=280"]),
        # What it reports after that is no matter.
        contextlib.suppress(Exception),
    ):
        exec(code, {"__name__": "__main__"})
    saved = next(place.rglob("token_bytes.pt"), None)
    if saved is None:
        raise ValueError("scripts/tok_train.py left no token_bytes.pt: it takes rustbpe and tiktoken")
    counted = torch.load(saved)[0x80].item()
    rules = {1: "raw", 3: "decoded"}
    if counted not in rules:
        raise ValueError(f"the byte 0x80 counts as {counted}")
    return rules[counted]


def read(checkout, rows):
    """All that one precision tells."""
    missing = stand_in_for_missing(checkout)
    # Upstream decides on precision and kernels as it is imported, so after everything above.
    from nanochat.gpt import GPT, GPTConfig

    from .forward import Small, counts_smear_gate, norm_eps, qk_scale, rope_base, shape_row, short_window, softcap, ve_gate_scale
    from .training import GROUPS, Muon, decay_shape, law, momentum, weight_decay_law

    got = Readings()
    scripts = [Script(checkout, flags, vocab) for flags, vocab in SETTINGS]
    plain = scripts[0]
    laws = [law(script, flags, vocab) for script, (flags, vocab) in zip(scripts, SETTINGS)]
    # Defaults: those of a script whose flags were not set.
    defaults = flag_defaults(checkout)

    def flag(path, name, as_type=None):
        got.read(path, lambda: (as_type or (lambda value: value))(defaults[name]))

    flag("model.depth", "depth")
    flag("model.aspect_ratio", "aspect_ratio")
    flag("model.head_dim", "head_dim")
    flag("model.sequence_len", "max_seq_len")
    flag("model.window_pattern", "window_pattern")
    got.read("model.short_window", lambda: short_window(GPT, GPTConfig))
    small = Small()
    has = lambda name: name in small.params  # noqa: E731
    got.read("model.rope_base", lambda: rope_base(small))
    got.read("model.rotary_dtype", lambda: str(small.model.cos.dtype).removeprefix("torch."))
    got.read("model.qk_scale", lambda: qk_scale(Small()))
    got.read("model.softcap", lambda: softcap(Small()))
    got.read("model.value_embeds", lambda: len(small.model.value_embeds) > 0)
    gates = [value for name, value in small.params.items() if "ve_gate" in name]
    got.read("model.ve_gate_channels", lambda: only([gate.shape[1] for gate in gates], "gates") if gates else None)
    got.read("model.ve_gate_scale", lambda: ve_gate_scale(Small()))
    got.read("model.smear", lambda: has("smear_lambda"))
    got.read("model.smear_channels", lambda: small.params["smear_gate.weight"].shape[1] if has("smear_gate.weight") else None)
    got.read("model.backout", lambda: has("backout_lambda"))
    got.read("model.norm_eps", norm_eps)
    got.read("model.flops_count_smear_gate", lambda: counts_smear_gate(small.model))

    got.read("init.wte_std", lambda: small.draw("transformer.wte", "normal_")[1])
    got.read("init.lm_head_std", lambda: small.draw("lm_head", "normal_")[1])
    got.read("init.c_fc_scale", lambda: told(small.draw("c_fc", "uniform_")[1] / small.unit, 6))
    got.read("init.ve_gate_max", lambda: small.uniform_max("ve_gate"))
    got.read("init.resid_lambda", lambda: small.ramp("resid_lambdas"))
    got.read("init.x0_lambda", lambda: small.ramp("x0_lambdas"))
    if has("smear_gate.weight"):
        got.read("init.smear_gate_max", lambda: small.uniform_max("smear_gate"))
    if has("smear_lambda"):
        got.read("init.smear_lambda", lambda: small.scalar("smear_lambda"))
    if has("backout_lambda"):
        got.read("init.backout_lambda", lambda: small.scalar("backout_lambda"))

    # The rates that the optimizer is given are the flags', times the batch's factor.
    batch = math.sqrt(plain.batch / 2**19)
    width = (plain.model.config.n_embd / 768) ** -0.5
    bases = {
        "unembedding": lambda: batch * width,
        "embedding": lambda: batch * width,
        "value_embeds": lambda: plain.flags["embedding_lr"] * batch * width,
        "resid": lambda: plain.flags["scalar_lr"] * batch,
        "x0": lambda: batch,
        "smear": lambda: 1.0,
    }
    for name, base in bases.items():
        constants = group_of(plain.groups, GROUPS[name])
        if constants is None:
            continue
        got.read(f"optimizer.{name}.lr", lambda base=base, constants=constants: told(constants["lr"] / base()))
        got.read(f"optimizer.{name}.betas", lambda constants=constants: list(constants["betas"]))
        got.read(f"optimizer.{name}.weight_decay", lambda constants=constants: constants["weight_decay"])
    got.read(
        "optimizer.adam_eps",
        lambda: only([group["constants"]["eps"] for group in plain.groups.values() if group["kind"] == "adamw"], "epsilon"),
    )
    muon = Muon(plain.names["optimizer"])
    got.read("optimizer.muon.lr", lambda: told(group_of(plain.groups, "attn.c_q")["lr"] / batch))
    got.read("optimizer.muon.beta2", lambda: muon.constants["beta2"])
    got.read("optimizer.muon.norm_factor", muon.norm_factor)
    got.read("optimizer.muon.ns_steps", lambda: muon.constants["ns_steps"])
    got.read("optimizer.muon.row_equilibration", muon.row_equilibration)
    got.read("optimizer.muon.renormalize", muon.renormalize)
    got.read("optimizer.muon.polar_dtype", muon.polar_dtype)
    got.read("optimizer.muon.update_dtype", muon.update_dtype)
    flag("optimizer.muon.weight_decay", "weight_decay")
    # A horizon of some length.
    long = Script(checkout, {**SETTINGS[0][0], "num_iterations": 2000}, 300)
    got.read("optimizer.muon.momentum", lambda: momentum(long))
    reference_counts = {}

    def reference(row):
        """Scaling parameters of a d12 of the same kind."""
        flags = row["flags"]
        key = (flags["aspect_ratio"], flags["head_dim"], flags["max_seq_len"], row["vocab_size"])
        if key not in reference_counts:
            aspect, head, length, vocab = key
            shape = {"depth": 12, "aspect_ratio": aspect, "head_dim": head, "sequence_len": length}
            counts = shape_row({**shape, "window_pattern": "SSSL", "vocab_size": vocab})["params"]
            reference_counts[key] = counts["transformer_matrices"] + counts["lm_head"]
        return reference_counts[key]

    got.read("optimizer.weight_decay_law", lambda: weight_decay_law(laws, scripts, reference))
    if "warmup_steps" in defaults:
        got.read("schedule.warmup", lambda: {"steps": defaults["warmup_steps"]})
    else:
        got.read("schedule.warmup", lambda: {"ratio": defaults["warmup_ratio"]})
    flag("schedule.warmdown_ratio", "warmdown_ratio")
    flag("schedule.final_lr_frac", "final_lr_frac")
    got.read("schedule.weight_decay_shape", lambda: decay_shape(long))
    flag("schedule.param_data_ratio", "target_param_data_ratio", float)
    flag("data.device_batch_size", "device_batch_size", a_count)
    flag("data.total_batch_size", "total_batch_size", lambda tokens: "auto" if tokens == -1 else tokens)
    flag("data.eval_every", "eval_every")
    flag("data.eval_tokens", "eval_tokens")
    got.read("data.token_bytes", lambda: token_bytes(checkout))
    return {
        "recipe": got.values,
        "unread": got.unread,
        "uninitialised": small.uninitialised,
        "laws": laws,
        "shapes": [shape_row(row) for row in rows],
        "missing": sorted(missing),
        "surface": surface(small, plain, defaults, muon),
    }


def surface(small, script, defaults, muon):
    """What a recipe has no name for, as text that two commits are compared by."""
    import dataclasses

    from .forward import Small, ids
    from .training import Operations

    tokenizer = importlib.import_module("nanochat.tokenizer")
    optim = importlib.import_module("nanochat.optim")
    fresh = Small()
    operations = Operations()
    x = ids()
    with operations:
        fresh.model(x, x).backward()
    forward = operations.names
    step = Operations()
    with step:
        script.names["optimizer"].__class__(
            [{**group, "params": [grown(param) for param in group["params"]][:1]} for group in script.names["optimizer"].param_groups if group["kind"] == "adamw"][:1]
        ).step()
    return {
        "flags": {name: repr(value) for name, value in defaults.items()},
        "configuration": {field.name: repr(field.default) for field in dataclasses.fields(type(small.model.config))},
        "initial values": small.initial(),
        "parameters": {role(name): str(value.dtype) for name, value in small.params.items()},
        "groups": {name: ", ".join(sorted(group["roles"])) for name, group in script.groups.items()},
        "polar coefficients": {str(at): repr(row) for at, row in enumerate(getattr(optim, "polar_express_coeffs", []))},
        "tokenizer": {"special tokens": repr(tokenizer.SPECIAL_TOKENS), "split pattern": tokenizer.SPLIT_PATTERN},
        "operations of forward and backward": forward,
        "operations of a step of AdamW": step.names,
        "operations of a step of Muon, wide": muon.step(muon.gradient(16, 64))[1],
        "operations of a step of Muon, tall": muon.step(muon.gradient(64, 16))[1],
    }


def grown(param):
    """A parameter like it, with a gradient."""
    import torch

    other = torch.nn.Parameter(torch.ones_like(param))
    other.grad = torch.ones_like(param)
    return other


def child(arguments):
    """One precision, which upstream fixes as it is imported."""
    checkout = pathlib.Path(arguments.checkout).resolve()
    rows = [json.loads(line) for line in pathlib.Path(arguments.shapes).read_text().splitlines()] if arguments.shapes else []
    sys.path.insert(0, str(checkout))
    import torch

    torch.set_num_threads(1)
    with contextlib.redirect_stdout(io.StringIO()):
        found = read(checkout, rows)
    print(json.dumps(found))


def precision_rule(float32, bfloat16):
    """What is computed in, by what it was in a run of float32 and in one of bfloat16."""
    rules = {
        ("float32", "float32"): "f32",
        ("bfloat16", "bfloat16"): "bf16",
        ("float32", "bfloat16"): "compute",
    }
    return rules[float32, bfloat16]


def reading(checkout, shapes=None, python=sys.executable):
    """The reading of a checkout: both precisions, each in a process of its own.

    Raises RuntimeError with what upstream's code said where it could not be run at all.
    """
    found = {}
    with tempfile.TemporaryDirectory() as base:
        for dtype in ("float32", "bfloat16"):
            environment = {
                **os.environ,
                "NANOCHAT_DTYPE": dtype,
                "NANOCHAT_BASE_DIR": base,
                "TORCHDYNAMO_DISABLE": "1",
                "CUDA_VISIBLE_DEVICES": "",
                "PYTHONDONTWRITEBYTECODE": "1",
                "PYTHONPATH": str(pathlib.Path(__file__).resolve().parent.parent),
            }
            command = [str(python), "-m", "commits.reading", str(checkout), "--child"]
            if shapes:
                command += ["--shapes", str(pathlib.Path(shapes).resolve())]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=base)
            if done.returncode:
                raise RuntimeError(f"{checkout} in {dtype}: {done.stderr.strip()[-2000:]}")
            found[dtype] = json.loads(done.stdout)
    merged = found["float32"]
    recipe, other = merged["recipe"], found["bfloat16"]["recipe"]
    for path in ("model.rotary", "optimizer.muon.polar", "optimizer.muon.update"):
        first, second = recipe.pop(f"{path}_dtype", None), other.get(f"{path}_dtype")
        if first and second:
            recipe[f"{path}_precision"] = precision_rule(first, second)
    merged["surface"]["operations in bfloat16"] = found["bfloat16"]["surface"]["operations of forward and backward"]
    for name in ("AdamW", "Muon, wide"):
        merged["surface"][f"operations of a step of {name}, in bfloat16"] = found["bfloat16"]["surface"][f"operations of a step of {name}"]
    return merged


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkout", help="a checkout of nanochat")
    parser.add_argument("--shapes", help="rows of sizes, as tests/fixtures/upstream/shapes.jsonl has them")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments)
    else:
        print(json.dumps(reading(pathlib.Path(arguments.checkout).resolve(), arguments.shapes), indent=1))


if __name__ == "__main__":
    main()
