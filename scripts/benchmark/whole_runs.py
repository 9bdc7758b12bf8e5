"""Whole runs of both sides: what is left to run, and one line of JSON for each that is finished."""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from . import host, whole_report
from .manifest import Failure, Shape
from .nanorun import Nanorun, load_json
from .session import say, sha256
from .upstream import Upstream

# In the order of their worth: whether there is a bias, the spread of both sides, each side against itself, and longer runs.
KINDS = ("warm", "cold", "self", "long", "long-self")
MANIFEST = "bench_d4_t512"
THREADS = "threads "
TCH = "tch"
# What must be equal for runs to stand beside each other.
IDENTITY = ("upstream", "python", "nanorun_sha256", "machine", "threads", "settings", "data")


@dataclass(frozen=True)
class Plan:
    """What the command line decided."""

    kinds: list[str]
    depths: list[int]
    self_depths: list[int]
    seeds: list[int]
    long_seeds: list[int]
    steps: int
    long_steps: int
    start: int
    warm_steps: int
    threads: int


@dataclass(frozen=True)
class Task:
    """One run. `kind` is start, warm or cold; `variant` is what the side is varied by, empty for a side as it is."""

    kind: str
    depth: int
    seed: int
    steps: int
    side: str
    variant: str = ""

    @property
    def key(self) -> str:
        return f"{self.kind} d{self.depth} seed {self.seed} {self.steps} {self.side}" + (f" {self.variant}" if self.variant else "")

    @property
    def tag(self) -> str:
        """The name of its start among upstream's checkpoints."""
        return f"d{self.depth}_seed{self.seed}"


def tasks(plan: Plan) -> list[Task]:
    """All runs, each once. A warm run comes after the start that it continues."""
    found: list[Task] = []
    for kind in plan.kinds:
        for depth in plan.self_depths if kind.endswith("self") else plan.depths:
            for seed in plan.long_seeds if kind.startswith("long") else plan.seeds:
                found += tasks_of(plan, kind, depth, seed)
    return list(dict.fromkeys(found))


def tasks_of(plan: Plan, kind: str, depth: int, seed: int) -> list[Task]:
    start = Task("start", depth, seed, plan.start, "upstream")
    sides = ("upstream", "nanorun")
    if kind == "warm":
        return [start] + [Task("warm", depth, seed, plan.warm_steps, side) for side in sides]
    if kind == "self":
        warm = Task("warm", depth, seed, plan.warm_steps, "upstream", "nudged")
        # What upstream is varied by, to see how far it lands from itself. nanorun's other backend rounds otherwise.
        variants = (THREADS + str(2 if plan.threads == 1 else 1), "compiled", "nudged")
        theirs = [Task("cold", depth, seed, plan.steps, "upstream", variant) for variant in variants]
        return [start, warm, *theirs, Task("cold", depth, seed, plan.steps, "nanorun", TCH)]
    if kind == "long-self":
        more = (("nanorun", TCH), ("upstream", "nudged"))
        return [Task("cold", depth, seed, plan.long_steps, *of) for of in more]
    return [Task("cold", depth, seed, plan.long_steps if kind == "long" else plan.steps, side) for side in sides]


class WholeRuns:
    """Runs what is missing, and keeps it."""

    def __init__(self, plan: Plan, upstream: Upstream, nanorun: Nanorun, root: Path, out: Path):
        self.plan, self.upstream, self.nanorun, self.out = plan, upstream, nanorun, out
        self.manifest = root / "experiments" / f"{MANIFEST}.toml"
        self.shards = sorted((root / "src/data/embedded").glob("*.parquet"))
        self.base: Path | None = None
        shape = Shape(MANIFEST, self.manifest, {})
        self.about: dict[str, object] = {
            "upstream": {"commit": upstream.commit, "modified": upstream.modified},
            "python": upstream.versions,
            "nanorun": {"version": nanorun.version, "commit": nanorun.commit, "modified": nanorun.modified},
            "nanorun_sha256": nanorun.sha256,
            "machine": host.facts(),
            "threads": plan.threads,
            "settings": shape.values,
            "data": [{"file": shard.name, "sha256": sha256(shard)} for shard in self.shards],
        }
        self._continue()
        self.done = {line["key"]: line for line in self._lines()}

    def _continue(self) -> None:
        """Runs beside each other must be of the same things."""
        path = self.out / "about.json"
        about = json.loads(json.dumps(self.about))
        if not path.is_file():
            path.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
            return
        found = json.loads(path.read_text(encoding="utf-8"))
        for key in IDENTITY:
            if found.get(key) != about[key]:
                raise Failure(f"{path}: its `{key}` is not of this call.\nGive another --out, or remove that directory.")
        self.about = found

    def _lines(self) -> list[dict[str, object]]:
        path = self.out / "runs.jsonl"
        if not path.is_file():
            return []
        text = path.read_text(encoding="utf-8")
        # A last line without an end was cut short by a crash.
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            path.write_text(whole, encoding="utf-8")
        return [json.loads(line) for line in whole.splitlines()]

    def run(self) -> int:
        """Everything that is missing; the exit status."""
        todo = self._here(tasks(self.plan))
        failed = 0
        for number, task in enumerate(todo, 1):
            if self._is_done(task):
                continue
            say(f"[{number}/{len(todo)}] {task.key}")
            started = time.monotonic()
            try:
                line = self._measure(task)
            except Failure as error:
                say(f"{task.key}: {error}")
                failed += 1
                continue
            line = {"key": task.key, **asdict(task), **line, "seconds": round(time.monotonic() - started, 1)}
            with open(self.out / "runs.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
                file.flush()
                os.fsync(file.fileno())
            self.done[task.key] = line
            say(f"  val bpb {line['bpb']:.6f}, {line['seconds']:.0f} s" if line["bpb"] is not None else f"  {line['seconds']:.0f} s")
            self._write()
        status = self.judge()
        return 3 if failed else status

    def _here(self, todo: list[Task]) -> list[Task]:
        """Those that can be run: nanorun's other backend may not be built in."""
        if not any(task.variant == TCH and not self._is_done(task) for task in todo) or self.nanorun.has("tch", self.manifest):
            return todo
        say("nanorun has no tch backend here (cargo build --release --features tch): it is not run against itself")
        return [task for task in todo if task.variant != TCH]

    def judge(self) -> int:
        """Writes the summary of what is there; 1 where it shows a bias or another spread, else 0."""
        text, fine = self._write()
        print(text, end="")
        return 0 if fine else 1

    def _write(self) -> tuple[str, bool]:
        # A warm run of a start that was made anew since is of another checkpoint than its pair may be.
        lines = [line for line in self.done.values() if self._of_the_start(line)]
        missing = [task.key for task in tasks(self.plan) if not self._is_done(task)]
        text, fine = whole_report.markdown(self.about, lines, missing)
        partial = self.out / ".summary.md.partial"
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, self.out / "summary.md")
        return text, fine

    def _start(self, task: Task) -> Task:
        return Task("start", task.depth, task.seed, self.plan.start, "upstream")

    def _of_the_start(self, line: dict[str, object]) -> bool:
        if line["kind"] != "warm":
            return True
        start = Task("start", line["depth"], line["seed"], line["first_step"], "upstream")
        return line["start"] == self.done.get(start.key, {}).get("start")

    def _is_done(self, task: Task) -> bool:
        line = self.done.get(task.key)
        if line is None or not self._of_the_start(line):
            return False
        if task.kind == "start":
            return self._checkpoint(task).is_file() or self._all_continued(task)
        return task.kind != "warm" or line["first_step"] == self.plan.start

    def _all_continued(self, start: Task) -> bool:
        """Whether nobody needs the checkpoint any more."""
        return all(
            self._is_done(task) for task in tasks(self.plan)
            if task.kind == "warm" and (task.depth, task.seed) == (start.depth, start.seed)
        )

    def _checkpoint(self, task: Task) -> Path:
        return self._directory(task) / f"model_{self.plan.start:06d}.pt"

    def _directory(self, task: Task) -> Path:
        return self._base_path() / "base_checkpoints" / task.tag

    def _base_path(self) -> Path:
        return self.upstream.scratch / f"nanochat_{Shape(MANIFEST, self.manifest, {}).vocab_size}"

    def _prepared(self) -> Path:
        if self.base is None:
            base = self._base_path()
            if not (base / "tokenizer" / "tokenizer.pkl").is_file():
                base, _ = self.upstream.prepare(self.shards, Shape(MANIFEST, self.manifest, {}).vocab_size)
            self.base = base
        return self.base

    def _measure(self, task: Task) -> dict[str, object]:
        self._prepared()
        return self._upstream(task) if task.side == "upstream" else self._nanorun(task)

    def _upstream(self, task: Task) -> dict[str, object]:
        plan, first = self.plan, self.plan.start if task.kind == "warm" else 0
        # A start is the first part of the run that is continued from it: its schedules are that run's.
        end = plan.start + plan.warm_steps if task.kind in ("start", "warm") else task.steps
        shape = Shape(MANIFEST, self.manifest, {"model.depth": task.depth, "budget.steps": end})
        flags = shape.upstream_flags("cpu") + [f"--model-tag={task.tag if task.kind != 'cold' else 'cold'}"]
        more = {"NANORUN_BENCHMARK_SEED": str(task.seed)}
        if task.kind == "start":
            flags.append(f"--save-every={plan.start}")
            more["NANORUN_BENCHMARK_STOP"] = str(plan.start)
        if task.kind == "warm":
            flags.append(f"--resume-from-step={plan.start}")
        if task.variant == "nudged":
            more["NANORUN_BENCHMARK_NUDGE"] = str(task.seed)
        threads = int(task.variant.removeprefix(THREADS)) if task.variant.startswith(THREADS) else plan.threads
        mode = "compiled" if task.variant == "compiled" else "eager"
        watched = self.upstream.watched(flags, mode, self._base_path(), threads, more)
        checkpoints = self._directory(task)
        for path in checkpoints.glob(f"*_{end:06d}*"):
            path.unlink()
        shutil.rmtree(checkpoints.parent / "cold", ignore_errors=True)
        losses = [sum(step) for step in watched["micro_losses"]]
        if len(losses) != task.steps:
            raise Failure(f"upstream trained {len(losses)} steps, expected {task.steps}")
        bpb = watched["validation_bpb"]
        return {
            "first_step": first, "losses": losses, "bpb": None if task.kind == "start" else bpb[-1],
            "start": self._start_digest(task) if task.kind in ("start", "warm") else None,
        }

    def _start_digest(self, task: Task) -> str:
        """Of the weights and the optimizer's state that are continued."""
        model = self._checkpoint(task)
        optimizer = model.with_name(f"optim_{self.plan.start:06d}_rank0.pt")
        return f"{sha256(model)[:16]} {sha256(optimizer)[:16]}"

    def _nanorun(self, task: Task) -> dict[str, object]:
        results, place = self.upstream.scratch / "results", self.upstream.scratch
        shutil.rmtree(results, ignore_errors=True)
        tokenizer = self._base_path() / "tokenizer"
        sets: dict[str, object] = {"run.seed": task.seed, "data.tokenizer.path": str(tokenizer), "eval.every": 0}
        if task.kind == "warm":
            manifest = place / "on.toml"
            command = [
                str(self.nanorun.binary), "import", str(self._checkpoint(task)), f"--commit={self.upstream.commit}",
                "--shards", str(self.shards[0].parent), f"--to={manifest}", "--force", "--quiet",
            ]
            self.nanorun.call(command)
            sets["budget.steps"] = self.plan.start + self.plan.warm_steps
        else:
            manifest = self.manifest
            sets |= {"model.depth": task.depth, "budget.steps": task.steps}
        if task.variant == TCH:
            sets["run.backend"] = "tch"
        command = [
            str(self.nanorun.binary), "run", str(manifest), "--json", "--quiet", f"--threads={self.plan.threads}",
            f"--results={results}",
        ]
        command += [f"--set={key}={json.dumps(value)}" for key, value in sets.items()]
        document = load_json(self.nanorun.call(command).text, "run")
        shutil.rmtree(results, ignore_errors=True)
        try:
            (run,) = document["runs"]
            losses = [float(row["loss"]) for row in sorted(run["steps"], key=lambda row: row["step"])]
            last = max(run["evals"], key=lambda row: row["step"])
            bpb, result_hash = float(last["values"]["val_bpb"]), str(run["result_hash"])
        except (KeyError, TypeError, ValueError) as error:
            raise Failure(f"nanorun run --json: a run lacks or misspells {error}") from None
        if len(losses) != task.steps:
            raise Failure(f"nanorun trained {len(losses)} steps, expected {task.steps}")
        return {
            "first_step": self.plan.start if task.kind == "warm" else 0, "losses": losses, "bpb": bpb,
            "start": self._start_digest(task) if task.kind == "warm" else None, "result_hash": result_hash,
        }
