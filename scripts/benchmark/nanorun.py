"""nanorun's half: its command line, and the JSON it prints."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

from . import process
from .manifest import Failure, Shape
from .measure import Run
from .upstream import commit_of, git, tail


class Nanorun:
    """A built binary and a scratch directory."""

    def __init__(self, binary: Path, root: Path, scratch: Path, threads: int):
        self.binary, self.root, self.scratch, self.threads = binary, root, scratch, threads
        if not binary.is_file():
            raise Failure(f"--nanorun {binary}: no such file; run `cargo build --release`")
        done = process.run([str(binary), "--version"], cwd=root, env=dict(os.environ))
        if done.status != 0:
            raise Failure(f"--nanorun {binary}: `--version` ended with status {done.status}:\n{tail(done.text)}")
        self.version = done.text.strip()
        self.sha256 = hashlib.sha256(binary.read_bytes()).hexdigest()
        # What the binary was built from, as far as the working tree tells.
        self.commit = commit_of(root)
        changes = ("status", "--porcelain", "--untracked-files=no", "--", "src", "Cargo.lock")
        self.modified = bool(self.commit and git(root, *changes))

    def _command(self, verb: str, shape: Shape, tokenizer: Path | None, device: str, results: Path) -> list[str]:
        sets = dict(shape.overrides)
        if tokenizer:
            sets["data.tokenizer.path"] = str(tokenizer)
        if device == "cuda":
            sets |= {"run.backend": "tch", "run.device": "cuda:0"}
        command = [
            str(self.binary), verb, str(shape.path), "--json", "--quiet", f"--threads={self.threads}",
            f"--results={results}",
        ]
        for key, value in sets.items():
            command.append(f"--set={key}={json.dumps(value)}")
        return command

    def train(self, shape: Shape, device: str, tokenizer: Path, repetition: int) -> tuple[Run, str]:
        """One `nanorun run`, with nothing found from an earlier one but cached tokens; the run and its JSON."""
        results = self.scratch / "results"
        shutil.rmtree(results, ignore_errors=True)
        load = os.getloadavg()[0]
        done = self.call(self._command("run", shape, tokenizer, device, results))
        return parse(done, device, repetition, load, shape.steps), _kept(done.text)

    def bench(self, shape: Shape, device: str, tokenizer: Path, steps: int) -> dict[str, object]:
        """`nanorun bench`: GFLOP/s, share of the sgemm peak, time an operation, speed on one thread and on all."""
        return self._bench(shape, device, tokenizer, [f"--steps={steps}"])

    def tokens(self, shape: Shape) -> dict[str, object]:
        """How fast nanorun trains its own tokenizer, encodes and packs."""
        return self._bench(shape, "cpu", None, ["--steps=1", "--data"])["data"]

    def _bench(self, shape: Shape, device: str, tokenizer: Path | None, more: list[str]) -> dict[str, object]:
        command = self._command("bench", shape, tokenizer, device, self.scratch / "bench") + more
        found = load_json(self.call(command).text, "bench")
        found.pop("host", None)
        return found

    def has(self, backend: str, manifest: Path) -> bool:
        """Whether a step of a small model can be trained with a backend."""
        sets = {"model.depth": 1, "budget.steps": 1, "eval.every": 0, "run.backend": backend}
        command = [str(self.binary), "run", str(manifest), "--quiet", "--threads=1", f"--results={self.scratch / 'results'}"]
        try:
            self.call(command + [f"--set={key}={json.dumps(value)}" for key, value in sets.items()])
        except Failure:
            return False
        finally:
            shutil.rmtree(self.scratch / "results", ignore_errors=True)
        return True

    def call(self, command: list[str]) -> process.Finished:
        """The command with nothing of nanorun's from the environment; it must succeed."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("NANORUN_")}
        # Reading and encoding are rayon's.
        environment["RAYON_NUM_THREADS"] = str(self.threads)
        done = process.run(command, cwd=self.root, env=environment, errors=self.scratch / "nanorun.stderr")
        # 5 is a verdict of the manifest's own scorecard; the run itself is done.
        if done.status not in (0, 5):
            raise Failure(f"nanorun ended with status {done.status}:\n{tail(done.errors or done.text)}")
        return done


def load_json(text: str, what: str) -> dict[str, object]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise Failure(f"nanorun {what} --json printed no JSON document ({error}):\n{tail(text)}") from None
    if not isinstance(found, dict):
        raise Failure(f"nanorun {what} --json printed {type(found).__name__}, expected an object")
    return found


def parse(done: process.Finished, device: str, repetition: int, load: float, steps: int) -> Run:
    """A run from `nanorun run --json`: its only run, with `steps`, `evals` and `result_hash`."""
    document = load_json(done.text, "run")
    runs = document.get("runs")
    if not isinstance(runs, list) or len(runs) != 1:
        raise Failure("nanorun run --json: expected one run in `runs`: a benchmark manifest has no matrix")
    run = runs[0]
    try:
        rows = sorted(run["steps"], key=lambda row: row["step"])
        bpb = {int(row["step"]): float(row["values"]["val_bpb"]) for row in run["evals"]}
        losses = [float(row["loss"]) for row in rows]
        seconds = [float(row["seconds"]) for row in rows]
        result_hash = str(run["result_hash"])
    except (KeyError, TypeError, ValueError) as error:
        raise Failure(f"nanorun run --json: a run lacks or misspells {error}") from None
    if len(rows) != steps or len(bpb) < 2:
        raise Failure(f"nanorun run --json: {len(rows)} steps and {len(bpb)} evaluations, expected {steps} and 2")
    # nanorun says when its first step had ended.
    ended = document.get("first_step_seconds")
    on_device = run.get("peak_device_bytes")
    peak = int(on_device) if device == "cuda" and on_device else done.peak_rss_bytes
    return Run(
        "nanorun", str(run.get("backend", "cpu")), repetition, load, done.wall_seconds, peak, seconds, losses, bpb,
        first_step_at=ended - seconds[0] if ended else None, result_hash=result_hash, mfu_percent=run.get("mfu_percent"),
    )


def _kept(text: str) -> str:
    """The JSON without facts about the host, a step a line."""
    runs = load_json(text, "run")["runs"]
    keep = ("run_key", "steps", "evals", "tokens_per_second", "peak_rss_bytes", "result_hash", "train_hash")
    lines = [f"{key}: {json.dumps(run[key])}" for run in runs for key in keep if key in run and key != "steps"]
    lines += [json.dumps(row) for run in runs for row in run["steps"]]
    return "\n".join(lines) + "\n"
