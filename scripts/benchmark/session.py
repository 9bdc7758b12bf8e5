"""One benchmark session: what is left to measure, sides alternating, the record written after each thing measured."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from . import compare, host, table
from .manifest import Failure, Shape
from .measure import Run
from .nanorun import Nanorun
from .planner import SCALING, Clock, Task, tasks
from .upstream import Upstream

FORMAT = 2
# What must be equal for a record to be continued.
IDENTITY = ("format", "quick", "device", "threads", "machine", "software", "data")


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
    budget_minutes: float | None = None
    scaling: bool = True


class Session:
    """Measures what the record lacks, and keeps it."""

    def __init__(self, options: Options, upstream: Upstream, nanorun: Nanorun | None, shards: list[Path]):
        self.options, self.upstream, self.nanorun, self.shards = options, upstream, nanorun, shards
        self.prepared: dict[int, Path] = {}
        self.failures: list[str] = []
        self.failed: set[str] = set()
        self.clock = Clock(options.budget_minutes)
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
                "nanorun": {
                    "version": nanorun.version, "commit": nanorun.commit, "modified": nanorun.modified,
                    "binary_sha256": nanorun.sha256,
                } if nanorun else None,
                "rustc": host.rustc(),
            },
            "data": [{"file": shard.name, "sha256": sha256(shard)} for shard in shards],
            "tokenizers": {},
            "method": (
                "Upstream and nanorun alternate on the same shards, tokenizer, seed, initial weights, settings and "
                "number of threads. tok/s is at the median step after warm-up; a ratio is of two neighbouring runs, "
                "and the median over the pairs counts. Losses are the means over each step's micro-batches, taken "
                "from both sides' own. Peak memory is each process's own, from wait4."
            ),
            "calls": [],
            "shapes": {},
        }
        self._continue()
        self.call = {"started": f"{now:%Y-%m-%dT%H:%M:%SZ}", "load_average": os.getloadavg()[0]}
        self.record["calls"].append(self.call)

    def _continue(self) -> None:
        """Takes over what an earlier call left there, if it is of the same things."""
        path = self.out / "record.json"
        if not path.is_file():
            return
        found = json.loads(path.read_text(encoding="utf-8"))
        for key in IDENTITY:
            if identity(found, key) != identity(json.loads(json.dumps(self.record)), key):
                raise Failure(
                    f"{path}: its `{key}` is not of this session, so it cannot be continued.\n"
                    "Give another --out, or remove that record."
                )
        self.record = found
        for name, entry in found["shapes"].items():
            # What failed is tried again.
            entry.pop("errors", None)
            say(f"{name}: {len(entry.get('runs', []))} runs are there already")

    def run(self, shapes: list[Shape]) -> int:
        """All shapes; the exit status: 0 done, 1 a verdict other than speed or memory failed, 3 a run failed."""
        (self.out / "logs").mkdir(parents=True, exist_ok=True)
        for shape in shapes:
            self._begin(shape)
        benches = self.nanorun is not None and self.options.bench_steps > 0
        scaling = [scaled(shapes[0], depth, length) for depth, length in SCALING] if self._scales(shapes) else []
        todo = tasks(shapes, self.options.modes, self.options.repeats, benches, scaling if benches else [])
        left_out = []
        for number, task in enumerate(todo, 1):
            if self._is_done(task):
                continue
            if {task.shape.name, f"{task.shape.name} {task.mode}"} & self.failed:
                continue
            estimate, left = self.clock.estimate(task), self.clock.left()
            if left is not None and estimate > left:
                say(f"[{number}/{len(todo)}] {task.key}: left out, about {estimate:.0f} s, {max(left, 0):.0f} s left")
                left_out.append(task.key)
                continue
            remains = "" if left is None else f", {left:.0f} s left"
            say(f"[{number}/{len(todo)}] {task.key}: about {estimate:.0f} s{remains}")
            started = time.monotonic()
            try:
                compiling = self._measure(task)
                self.clock.learn(task, time.monotonic() - started, compiling)
            except Failure as error:
                self._failed(task, str(error))
            self._judge(task.shape)
            self.call["seconds"] = round(time.monotonic() - self.clock.started)
            self.record["left_out"] = left_out
            self._write()
        self.record["left_out"] = left_out
        self._write()
        say(f"record: {self.out}")
        if left_out:
            say(f"left out for lack of time: {', '.join(left_out)}; the same command goes on with them")
        print(table.summary(self.record), end="")
        if self.failures:
            return 3
        must = ("losses", "quality", "reproducibility")
        found = [shape.get("verdicts", {}) for shape in self.record["shapes"].values()]
        return 1 if any(v[key]["verdict"] == "fail" for v in found for key in must if key in v) else 0

    def _scales(self, shapes: list[Shape]) -> bool:
        return self.options.scaling and not self.options.quick and self.options.device == "cpu" and bool(shapes)

    def _begin(self, shape: Shape) -> None:
        settings = {
            "settings": shape.values,
            "upstream_flags": shape.upstream_flags(self.options.device),
            "steps": shape.steps,
            "tokens": shape.steps * shape.tokens_per_step,
        }
        entry = self.record["shapes"].setdefault(shape.name, dict(settings))
        if any(entry.get(key) != value for key, value in json.loads(json.dumps(settings)).items()):
            raise Failure(f"{self.out}: {shape.name} was measured there with other settings; give another --out")

    def _is_done(self, task: Task) -> bool:
        entry = self.record["shapes"].get(task.shape.name, {})
        match task.kind:
            case "tokens":
                return "tokens" in self.record
            case "bench":
                return "bench" in entry
            case "scaling":
                return any(point["shape"] == task.shape.name for point in self.record.get("scaling", []))
            case _:
                name = f"{task.mode}-{task.repetition}"
                sides = {run["side"] for run in entry.get("runs", []) if run["pair"] == name}
                return sides >= ({"upstream", "nanorun"} if self.nanorun else {"upstream"})

    def _measure(self, task: Task) -> float:
        """Does it and puts it into the record; the seconds of it that will not come again."""
        shape, device = task.shape, self.options.device
        base = self._base(shape.vocab_size)
        tokenizer = base / "tokenizer" / "tokenizer.pkl"
        match task.kind:
            case "tokens":
                ours = self.nanorun.tokens(shape)
                theirs = self.upstream.tokens(base, shape)
                self.record["tokens"] = {
                    "vocab_size": shape.vocab_size, "upstream": theirs, "nanorun": ours,
                    "verdicts": compare.judge_tokens(ours, theirs),
                }
            case "bench":
                self.record["shapes"][shape.name]["bench"] = self.nanorun.bench(
                    shape, device, tokenizer, self.options.bench_steps
                )
            case "scaling":
                bench = self.nanorun.bench(shape, device, tokenizer, 2)
                self.record.setdefault("scaling", []).append({
                    "shape": shape.name, "depth": shape["model.depth"], "sequence_len": shape["model.sequence_len"],
                    "tokens_per_step": bench["tokens_per_step"], "gflop_per_step": bench["gflop_per_step"],
                    "scaling": bench["scaling"],
                })
            case _:
                return self._pair(task, base, tokenizer)
        return 0.0

    def _pair(self, task: Task, base: Path, tokenizer: Path) -> float:
        """Upstream, then nanorun; nothing is kept of a pair cut short."""
        shape, device, name = task.shape, self.options.device, f"{task.mode}-{task.repetition}"
        theirs, log = self.upstream.train(shape, task.mode, device, base, task.repetition)
        self._log(f"{shape.name}-{task.repetition}-upstream-{task.mode}.log", log)
        report(theirs, shape)
        runs = [theirs]
        if self.nanorun:
            ours, log = self.nanorun.train(shape, device, tokenizer, task.repetition)
            self._log(f"{shape.name}-{task.repetition}-nanorun-after-{task.mode}.log", log)
            report(ours, shape)
            runs.append(ours)
        for run in runs:
            run.pair = name
        kept = self.record["shapes"][shape.name].setdefault("runs", [])
        kept += [json.loads(json.dumps(run.summary(shape.tokens_per_step))) for run in runs]
        return theirs.compile_seconds or 0.0

    def _judge(self, shape: Shape) -> None:
        """Everything said about a shape, from its runs in the record."""
        entry, device = self.record["shapes"].get(shape.name), self.options.device
        if entry is None:
            return
        runs = [Run.from_summary(values) for values in entry.get("runs", [])]
        ours = {run.pair: run for run in runs if run.side == "nanorun"}
        pairs = [(run, ours.get(run.pair)) for run in runs if run.side == "upstream"]
        if pairs:
            precision = str(shape["run.precision"])
            entry |= compare.judge(shape.name, device, precision, shape.tokens_per_step, pairs)
        if "bench" in entry:
            modes = entry.get("upstream", {})
            entry["bench_verdicts"] = compare.judge_bench(shape.number("model.depth"), device, modes, entry["bench"])

    def _failed(self, task: Task, message: str) -> None:
        say(f"{task.key}: {message}")
        shape = task.shape.name
        # A mode that failed is not tried again in this call, nor a shape whose nanorun side did.
        self.failed.add(f"{shape} {task.mode}" if message.startswith("upstream") else shape)
        where = self.record["shapes"].get(shape, self.record)
        where.setdefault("errors", []).append(self._clean(message))
        self.failures.append(task.key)

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
            self.upstream.python.parent.parent: "$PYTHON_HOME", self.options.root: ".",
        }
        return host.without_paths(text, places)

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


def identity(record: dict[str, object], key: str) -> object:
    """The part that must be equal. Of nanorun that is the binary: a commit beside it, such as of a record, is none."""
    value = record.get(key)
    if key == "software" and isinstance(value, dict) and value.get("nanorun"):
        return value | {"nanorun": value["nanorun"].get("binary_sha256")}
    return value


def scaled(shape: Shape, depth: int, length: int) -> Shape:
    """The shape at another depth and sequence length, with 4,096 tokens a step in one micro-batch."""
    sizes = {
        "model.depth": depth, "model.sequence_len": length, "train.device_batch_size": 4096 // length,
        "train.total_batch_size": 4096, "eval.tokens": 4096,
    }
    return Shape(f"d{depth}_t{length}_scaling", shape.path, shape.overrides | sizes)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
