"""Upstream's code, carried out: its training script up to its loop, and what stands in for what a reading does not take."""

import argparse
import ast
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import sys
import types
from unittest import mock


def told(value, digits=12):
    """A measured number without the last digits of its float arithmetic."""
    return float(f"{value:.{digits}g}")


def only(values, what):
    found = sorted(set(values))
    if len(found) != 1:
        raise ValueError(f"{what}: expected one value, found {found}")
    return found[0]


class Missing(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Stands in for packages that upstream imports at its top and that a reading does not use (wandb, tiktoken, ...)."""

    def __init__(self, names):
        self.names = names

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.names:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        module = types.ModuleType(spec.name)
        module.__getattr__ = lambda name: mock.MagicMock(name=f"{spec.name}.{name}")
        return module

    def exec_module(self, module):
        pass


def stand_in_for_missing(checkout):
    """Upstream's imports at the top of a file that nothing here provides."""
    names = set()
    for file in [*checkout.glob("nanochat/*.py"), *checkout.glob("scripts/*.py")]:
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.split(".")[0])
    missing = {name for name in names if importlib.util.find_spec(name) is None}
    sys.meta_path.append(Missing(missing))
    return missing


class Script:
    """The names of scripts/base_train.py at the moment before its training loop."""

    def __init__(self, checkout, flags, vocab_size):
        import torch

        source = (checkout / "scripts" / "base_train.py").read_text()
        body = ast.parse(source).body
        loop = next((at for at, node in enumerate(body) if isinstance(node, ast.While)), None)
        if loop is None:
            raise ValueError("scripts/base_train.py: expected a loop `while ...` at its top level")
        tokenizer = importlib.import_module("nanochat.tokenizer")
        loader = importlib.import_module("nanochat.dataloader")
        known = mock.MagicMock(get_vocab_size=lambda: vocab_size)

        def batches(*_, **__):
            while True:
                yield mock.MagicMock(), mock.MagicMock(), {}

        replaced = {
            name: batches
            for name, value in vars(loader).items()
            if isinstance(value, types.FunctionType) and value.__module__ == loader.__name__
        }
        argv = ["base_train", "--device-type=cpu"] + [f"--{name.replace('_', '-')}={value}" for name, value in flags.items()]
        self.names = {"__name__": "__main__", "__file__": "base_train.py"}
        code = compile(ast.Module(body[:loop], []), "base_train.py", "exec")
        with (
            mock.patch.multiple(tokenizer, get_tokenizer=lambda *_: known, get_token_bytes=lambda *_, **__: torch.ones(vocab_size)),
            mock.patch.multiple(loader, **replaced),
            # It evaluates CORE, and brings what that takes.
            mock.patch.dict(sys.modules, {"scripts.base_eval": mock.MagicMock()}),
            mock.patch.object(sys, "argv", argv),
        ):
            exec(code, self.names)
        self.flags = vars(self.names["args"])
        self.steps = self.names["num_iterations"]
        self.batch = self.names.get("total_batch_size", self.flags["total_batch_size"])
        self.model = self.names["orig_model"]
        self.groups = groups(self.names["optimizer"], self.model)

    def step(self, at):
        names = ("get_lr_multiplier", "get_muon_momentum", "get_weight_decay")
        return [self.names[name](at) for name in names]


def flag_defaults(checkout):
    """The defaults of base_train's flags: its calls of add_argument, carried out on a parser of our own."""
    parser = argparse.ArgumentParser()
    body = ast.parse((checkout / "scripts" / "base_train.py").read_text()).body
    calls = [node for node in body if isinstance(node, ast.Expr) and "parser.add_argument" in ast.unparse(node)]
    exec(compile(ast.Module(calls, []), "base_train.py", "exec"), {"parser": parser})
    return vars(parser.parse_args([]))


def role(name):
    """A parameter's name without its layer."""
    return ".".join("*" if part.isdigit() else part for part in name.split("."))


def groups(optimizer, model):
    """The groups of parameters, each with the roles that it trains; Muon's groups, which are one a shape, as one."""
    names = {id(value): role(name) for name, value in model.named_parameters()}
    found = {}
    for group in optimizer.param_groups:
        kind = group["kind"]
        constants = {key: value for key, value in group.items() if key not in ("params", "initial_lr", "kind")}
        roles = {names[id(param)] for param in group["params"]}
        key = "muon" if kind == "muon" else min(roles)
        if key in found and found[key]["constants"] != constants:
            raise ValueError(f"groups of {key} with other constants: {constants}")
        entry = found.setdefault(key, {"kind": kind, "roles": set(), "constants": constants})
        entry["roles"] |= roles
    return found


def group_of(found, part):
    """The group that trains the parameters with `part` in their name, and its constants."""
    entries = [group for group in found.values() if any(part in name for name in group["roles"])]
    if not entries:
        return None
    return only([json.dumps(group["constants"]) for group in entries], part) and entries[0]["constants"]
