"""Benchmark manifests as the one source of settings for both sides.

Python 3.10 has no TOML reader, so this reads what the benchmark manifests use: sections, and a key with a
JSON-like value on one line. Anything else is an error; nanorun itself checks the rest.
"""

from __future__ import annotations

import json
from pathlib import Path


class Failure(Exception):
    """Something the user can mend: the message says what and how."""


def read(path: Path) -> dict[str, object]:
    """The manifest as dotted key -> value."""
    if not path.is_file():
        known = sorted(p.stem.removeprefix("bench_") for p in path.parent.glob("bench_*.toml"))
        raise Failure(f"{path}: no such shape; there are {', '.join(known)}")
    values: dict[str, object] = {}
    section = ""
    for number, raw in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1].strip() + "."
            continue
        key, separator, value = line.partition("=")
        try:
            if not separator:
                raise ValueError
            values[section + key.strip()] = json.loads(value)
        except ValueError:
            raise Failure(f"{path}:{number}: expected `key = value` on one line, found {line!r}") from None
    return values


class Shape:
    """One benchmark shape: what is trained, for how many steps."""

    def __init__(self, name: str, path: Path, overrides: dict[str, object]):
        self.name = name
        self.path = path
        self.overrides = overrides
        self.values = read(path) | overrides

    def __getitem__(self, key: str) -> object:
        if key not in self.values:
            raise Failure(f"{self.path}: {key} is missing; a benchmark manifest sets it")
        return self.values[key]

    def number(self, key: str) -> int:
        value = self[key]
        if not isinstance(value, int):
            raise Failure(f"{self.path}: {key} = {value!r}, expected an integer")
        return value

    @property
    def steps(self) -> int:
        return self.number("budget.steps")

    @property
    def tokens_per_step(self) -> int:
        return self.number("train.total_batch_size")

    @property
    def micro_batches(self) -> int:
        return self.tokens_per_step // (self.number("train.device_batch_size") * self.number("model.sequence_len"))

    @property
    def vocab_size(self) -> int:
        return self.number("data.tokenizer.vocab_size")

    def upstream_flags(self, device: str) -> list[str]:
        """The flags of upstream's scripts.base_train for these settings."""
        if self["run.seed"] != 42:
            raise Failure(f"{self.path}: run.seed must be 42: upstream's base_train knows no other")
        if self["schedule.warmdown"] != "linear":
            raise Failure(f"{self.path}: schedule.warmdown must be linear, as upstream's is")
        pairs = {
            "device-type": device,
            "depth": self["model.depth"],
            "aspect-ratio": self["model.aspect_ratio"],
            "head-dim": self["model.head_dim"],
            "max-seq-len": self["model.sequence_len"],
            "window-pattern": self["model.window_pattern"],
            "device-batch-size": self["train.device_batch_size"],
            "total-batch-size": self.tokens_per_step,
            "num-iterations": self.steps,
            # Beyond the last step: upstream evaluates at the first and the last step whatever this is.
            "eval-every": self.steps + 1,
            "eval-tokens": self["eval.tokens"],
            "core-metric-every": -1,
            "sample-every": -1,
            "save-every": -1,
            "run": "dummy",
        }
        return [f"--{name}={value}" for name, value in pairs.items()]
