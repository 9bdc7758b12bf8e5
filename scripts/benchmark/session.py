"""One benchmark session: shapes one after another, sides alternating, the record written after each shape."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from . import compare, host, table
from .manifest import Failure, Shape
from .measure import Run
from .nanorun import Nanorun
from .upstream import Upstream

FORMAT = 1


@dataclass
class Options:
    """What the command line decided."""

    device: str
    modes: list[str]
    repeats: int
    quick: bool
    bench_steps: int
    threads: int
    out: Path | None
    root: Path
    scratch: Path


class Session:
    """Runs the shapes and keeps the record."""

    def __init__(self, options: Options, upstream: Upstream, nanorun: Nanorun | None, shards: list[Path]):
        self.options, self.upstream, self.nanorun, self.shards = options, upstream, nanorun, shards
        self.prepared: dict[int, Path] = {}
        self.failures: list[str] = []
        now = datetime.now(timezone.utc)
        machine = host.facts()
        self.out = options.out or (
            options.root / "results" / "benchmarks" / f"{now:%Y-%m-%d}-{host.label(machine, options.device)}"
        )
        self.record: dict[str, object] = {
            "format": FORMAT,
            "taken": f"{now:%Y-%m-%dT%H:%M:%SZ}",
            "quick": options.quick,
            "device": options.device,
            "threads": options.threads,
            "machine": machine,
            "software": {
                "upstream": {"commit": upstream.commit, "modified": upstream.modified},
                "python": upstream.versions,
                "nanorun": {"version": nanorun.version, "commit": nanorun.commit, "modified": nanorun.modified}
                if nanorun else None,
                "rustc": host.rustc(),
            },
            "data": [{"file": shard.name, "sha256": sha256(shard)} for shard in shards],
            "tokenizers": {},
            "method": (
                "Upstream and nanorun alternate on the same shards, tokenizer, seed, initial weights, settings and "
                "number of threads. tok/s is at the median step after three of warm-up; a ratio is of two "
                "neighbouring runs, and the median over the pairs counts. Peak memory is each process's own, from wait4."
            ),
            "shapes": {},
        }

    def run(self, shapes: list[Shape]) -> int:
        """All shapes; the exit status: 0 done, 1 a verdict other than speed or memory failed, 3 a run failed."""
        (self.out / "logs").mkdir(parents=True, exist_ok=True)
        for shape in shapes:
            say(f"{shape.name}: {shape.steps} steps of {shape.tokens_per_step} tokens")
            self.record["shapes"][shape.name] = self._shape(shape)
            self._write()
        say(f"record: {self.out}")
        print(table.summary(self.record), end="")
        if self.failures:
            return 3
        must = ("losses", "quality", "reproducibility")
        found = [shape.get("verdicts", {}) for shape in self.record["shapes"].values()]
        return 1 if any(v[key]["verdict"] == "fail" for v in found for key in must if key in v) else 0

    def _shape(self, shape: Shape) -> dict[str, object]:
        options, device = self.options, self.options.device
        base = self._base(shape.vocab_size)
        tokenizer = base / "tokenizer" / "tokenizer.pkl"
        pairs: list[tuple[Run, Run | None]] = []
        bench: dict[str, object] | None = None
        errors: list[str] = []
        failed: set[str] = set()
        for repetition in range(1, options.repeats + 1):
            for mode in options.modes:
                if mode in failed:
                    continue
                try:
                    theirs, log = self.upstream.train(shape, mode, device, base, repetition)
                    self._log(f"{shape.name}-{repetition}-upstream-{mode}.log", log)
                    report(theirs, shape)
                    ours = None
                    if self.nanorun and "nanorun" not in failed:
                        ours = self._ours(shape, tokenizer, repetition, mode, errors, failed)
                    pairs.append((theirs, ours))
                except Failure as error:
                    failed.add(mode)
                    self._failed(shape, str(error), errors)
        if self.nanorun and "nanorun" not in failed and options.bench_steps:
            try:
                bench = self.nanorun.bench(shape, device, tokenizer, options.bench_steps)
            except Failure as error:
                self._failed(shape, str(error), errors)
        entry: dict[str, object] = {
            "settings": shape.values,
            "upstream_flags": shape.upstream_flags(device),
            "steps": shape.steps,
            "tokens": shape.steps * shape.tokens_per_step,
        }
        if pairs:
            precision = str(shape["run.precision"])
            tokens = shape.tokens_per_step
            entry |= compare.judge(shape.name, device, precision, tokens, shape.micro_batches, pairs)
            entry["runs"] = [run.summary(tokens) for pair in pairs for run in pair if run is not None]
        if bench:
            entry["bench"] = bench
        if errors:
            entry["errors"] = errors
        return entry

    def _ours(self, shape: Shape, tokenizer: Path, repetition: int, mode: str, errors: list[str],
              failed: set[str]) -> Run | None:
        try:
            ours, log = self.nanorun.train(shape, self.options.device, tokenizer, repetition)
        except Failure as error:
            failed.add("nanorun")
            self._failed(shape, str(error), errors)
            return None
        self._log(f"{shape.name}-{repetition}-nanorun-after-{mode}.log", log)
        report(ours, shape)
        return ours

    def _failed(self, shape: Shape, message: str, errors: list[str]) -> None:
        say(f"{shape.name}: {message}")
        errors.append(self._clean(message))
        self.failures.append(shape.name)

    def _base(self, vocab_size: int) -> Path:
        if vocab_size not in self.prepared:
            say(f"tokenizer of {vocab_size} by upstream's scripts.tok_train")
            base, seconds = self.upstream.prepare(self.shards, vocab_size)
            self.prepared[vocab_size] = base
            digest = sha256(base / "tokenizer" / "tokenizer.pkl")
            self.record["tokenizers"][str(vocab_size)] = {"sha256": digest, "upstream_training_seconds": seconds}
        return self.prepared[vocab_size]

    def _clean(self, text: str) -> str:
        """Without paths of the machine."""
        places = {
            self.options.scratch: "$SCRATCH", self.upstream.checkout: "$NANOCHAT", self.upstream.python: "$PYTHON",
            self.upstream.python.parent.parent: "$PYTHON_HOME", self.options.root: ".", Path.home(): "~",
        }
        for path, name in places.items():
            if str(path) not in ("/", "."):
                text = text.replace(str(path), name)
        return text

    def _log(self, name: str, text: str) -> None:
        (self.out / "logs" / name).write_text(self._clean(text), encoding="utf-8")

    def _write(self) -> None:
        texts = {
            "record.json": json.dumps(self.record, indent=1, sort_keys=False) + "\n",
            "summary.md": table.markdown(self.record, str(self.out.name)),
        }
        for name, text in texts.items():
            partial = self.out / f".{name}.partial"
            partial.write_text(self._clean(text), encoding="utf-8")
            os.replace(partial, self.out / name)


def report(run: Run, shape: Shape) -> None:
    say(
        f"  {run.side} {run.mode}: {run.tokens_per_second(shape.tokens_per_step):,.0f} tok/s, "
        f"{run.wall_seconds:.1f} s, {run.peak_memory_bytes / 2**20:,.0f} MiB, val bpb {run.final_bpb:.6f}"
    )


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
