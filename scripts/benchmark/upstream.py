"""Upstream's half: its own scripts in its own checkout, over a private base directory."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from statistics import median

from . import process
from .manifest import Failure, Shape
from .measure import Run, smoothed
from .upstream_run import MARK

HERE = Path(__file__).resolve().parent

COMMIT = "92d63d4e8bb4df75c3b71618f31ddde2378b2bcd"
# Import name -> distribution of what upstream's scripts import.
NEEDED = {
    "torch": "torch", "tiktoken": "tiktoken", "rustbpe": "rustbpe", "pyarrow": "pyarrow", "filelock": "filelock",
    "requests": "requests", "wandb": "wandb", "yaml": "pyyaml", "jinja2": "jinja2", "psutil": "psutil",
}
# Upstream detects its compute type from the device; said here so that both sides' are the same by name.
DTYPES = {"f32": "float32", "bf16": "bfloat16"}
ANSI = re.compile(r"\x1b\[[0-9;]*m")
STEP = re.compile(r"^step (\d+)/\d+ .*?\| loss: ([\d.]+|nan|inf) .*?\| dt: ([\d.]+)ms .*?\| bf16_mfu: ([\d.]+)")
BPB = re.compile(r"^Step (\d+) \| Validation bpb: ([\d.]+|nan|inf)")
READY = re.compile(r"^Total batch size .*gradient accumulation steps")
PEAK = re.compile(r"^Peak memory usage: ([\d.]+)MiB")
KEPT = re.compile(
    r"^(step \d|Step \d|GPU:|COMPUTE_DTYPE|Vocab size|Parameter counts|[a-z_]+ +: [\d,]+$|Estimated FLOPs|Scaling|"
    r"Using|Total|Tokens|Peak memory|Minimum|.*Flash Attention|.*(Error|error:|Traceback))"
)


class Upstream:
    """A checkout, a Python for it, and a scratch directory."""

    def __init__(self, checkout: Path, python: Path, scratch: Path, threads: int, any_commit: bool):
        self.checkout, self.python, self.scratch, self.threads = checkout, python, scratch, threads
        if not (checkout / "scripts" / "base_train.py").is_file():
            raise Failure(f"--nanochat {checkout}: no scripts/base_train.py there; give a checkout of karpathy/nanochat")
        self.commit = commit_of(checkout)
        self.modified = bool(self.commit and git(checkout, "status", "--porcelain", "--untracked-files=no"))
        if not any_commit and (self.commit != COMMIT or self.modified):
            found = f"{self.commit[:7] or 'no commit'}{' with changes' if self.modified else ''}"
            raise Failure(
                f"--nanochat {checkout}: found {found}, expected {COMMIT[:7]} unchanged.\n"
                f"Run `git -C {checkout} checkout {COMMIT[:7]}`, or allow it with --any-commit."
            )
        self.versions = versions(python)

    def environment(self, base: Path, **more: str) -> dict[str, str]:
        # PYTHONPATH, for `versions` found packages there; what leads Triton to compiler and driver; and whether upstream
        # may ask the network for flash attention 3.
        keep = (
            "PATH", "HOME", "LANG", "PYTHONPATH", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "CC", "CXX", "TMPDIR",
            "CUDA_HOME", "TRITON_LIBCUDA_PATH", "TRITON_PTXAS_PATH", "HF_HUB_OFFLINE",
        )
        environment = {key: os.environ[key] for key in keep if key in os.environ}
        threads = str(self.threads)
        return environment | {
            "NANOCHAT_BASE_DIR": str(base), "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads,
            "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1", "WANDB_MODE": "disabled",
            # Ours and empty at first: the first compiled run of a shape pays for compilation, later ones find it.
            "TORCHINDUCTOR_CACHE_DIR": str(self.scratch / "inductor"),
            "TRITON_CACHE_DIR": str(self.scratch / "triton"),
        } | more

    def prepare(self, shards: list[Path], vocab_size: int) -> tuple[Path, float]:
        """A base directory with the shards and upstream's own tokenizer; its path and the training's seconds."""
        base = self.scratch / f"nanochat_{vocab_size}"
        data = base / "base_data_climbmix"
        data.mkdir(parents=True, exist_ok=True)
        for shard in shards:
            shutil.copyfile(shard, data / shard.name)
        command = [str(self.python), "-m", "scripts.tok_train", f"--vocab-size={vocab_size}"]
        done = process.run(command, cwd=self.checkout, env=self.environment(base))
        if done.status != 0 or not (base / "tokenizer" / "tokenizer.pkl").is_file():
            raise Failure(f"upstream's scripts.tok_train failed (status {done.status}):\n{tail(done.text)}")
        seconds = re.search(r"Training time: ([\d.]+)s", done.text)
        return base, float(seconds[1]) if seconds else done.wall_seconds

    def train(self, shape: Shape, mode: str, device: str, base: Path, repetition: int) -> tuple[Run, str]:
        """One run of scripts.base_train; the run and its trimmed log."""
        more = {"NANOCHAT_DTYPE": DTYPES[str(shape["run.precision"])]}
        if mode == "eager":
            more["TORCHDYNAMO_DISABLE"] = "1"
        load = os.getloadavg()[0]
        more["NANORUN_BENCHMARK_STARTED"] = repr(time.time())
        command = [str(self.python), str(HERE / "upstream_run.py"), *shape.upstream_flags(device)]
        done = process.run(command, cwd=self.checkout, env=self.environment(base, **more))
        shutil.rmtree(base / "base_checkpoints", ignore_errors=True)
        if done.status != 0:
            raise Failure(f"upstream ({mode}) ended with status {done.status}:\n{tail(done.text)}")
        return parse(done, mode, device, repetition, load, shape.steps), trimmed(done.text)

    def watched(
        self, flags: list[str], mode: str, base: Path, threads: int, more: dict[str, str]
    ) -> dict[str, object]:
        """One run of scripts.base_train in float32, varied as `upstream_run.py` can; what was watched of it."""
        count = str(threads)
        more = more | {
            "NANOCHAT_DTYPE": DTYPES["f32"], "NANORUN_BENCHMARK_STARTED": repr(time.time()),
            "OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count,
        }
        if mode == "eager":
            more["TORCHDYNAMO_DISABLE"] = "1"
        command = [str(self.python), str(HERE / "upstream_run.py"), *flags]
        done = process.run(command, cwd=self.checkout, env=self.environment(base, **more))
        found = [line.removeprefix(MARK) for _, line in done.lines if line.startswith(MARK)]
        if done.status != 0 or not found:
            raise Failure(f"upstream ({mode}) ended with status {done.status}:\n{tail(done.text)}")
        return json.loads(found[-1])

    def tokens(self, base: Path, shape: Shape) -> dict[str, object]:
        """How fast upstream trains its tokenizer, encodes and packs."""
        sizes = ("train.device_batch_size", "model.sequence_len")
        numbers = [shape.vocab_size, self.threads, *(shape.number(key) for key in sizes)]
        command = [str(self.python), str(HERE / "upstream_tokens.py"), *map(str, numbers)]
        more = {"RAYON_NUM_THREADS": str(self.threads)}
        done = process.run(command, cwd=self.checkout, env=self.environment(base, **more))
        try:
            return json.loads(done.lines[-1][1])
        except (IndexError, ValueError):
            raise Failure(f"upstream's tokenizer could not be timed (status {done.status}):\n{tail(done.text)}") from None


def parse(done: process.Finished, mode: str, device: str, repetition: int, load: float, steps: int) -> Run:
    """A run from upstream's log and the line that `upstream_run.py` adds."""
    logged, seconds, mfu, bpb, at, watched = [], [], [], {}, {}, None
    peak, attention = done.peak_rss_bytes, "sdpa"
    previous, eval_seconds = 0.0, []
    for arrived, raw in done.lines:
        line = ANSI.sub("", raw)
        if found := STEP.match(line):
            if int(found[1]) != len(logged):
                raise Failure(f"upstream's log skips from step {len(logged)} to {int(found[1])}")
            logged.append(float(found[2]))
            seconds.append(float(found[3]) / 1000)
            mfu.append(float(found[4]))
            at.setdefault("first_step", arrived - seconds[-1])
        elif found := BPB.match(line):
            bpb[int(found[1])] = float(found[2])
            eval_seconds.append(arrived - previous)
        elif (found := PEAK.match(line)) and device == "cuda":
            peak = int(float(found[1]) * 2**20)
        elif "Using Flash Attention 3" in line:
            attention = "fa3"
        elif line.startswith(MARK):
            watched = json.loads(line.removeprefix(MARK))
        elif not READY.match(line):
            continue
        previous = arrived
    if len(logged) != steps or len(bpb) != 2:
        raise Failure(
            f"upstream's log has {len(logged)} steps and {len(bpb)} evaluations, expected {steps} and 2:\n"
            + tail(done.text)
        )
    if watched is None or len(watched["micro_losses"]) != steps:
        raise Failure("upstream's run lacks the losses of its micro-batches")
    micro = watched["micro_losses"]
    # What was watched must be what upstream logs: the running mean of the last micro-batch's loss.
    apart = max(abs(a - b) for a, b in zip(smoothed([step[-1] * len(step) for step in micro]), logged))
    if not apart <= 1e-5:
        raise Failure(f"the watched losses are {apart:.1e} from those that upstream logs")
    run = Run(
        "upstream", mode, repetition, load, done.wall_seconds, peak, seconds, [sum(step) for step in micro], bpb,
        first_step_at=at["first_step"], ready_seconds=watched["ready_seconds"], attention=attention,
        optimizer_seconds=watched["optimizer_seconds"], data_seconds=watched["data_seconds"],
    )
    if mode == "compiled":
        # What the first step and the first evaluation took beyond their steady selves.
        run.compile_seconds = max(0.0, seconds[0] - median(run.steady)) + max(0.0, eval_seconds[0] - eval_seconds[1])
    if device == "cuda":
        run.mfu_percent = median(mfu[-len(run.steady):])
    return run


def versions(python: Path) -> dict[str, str]:
    """Versions of the Python and of what upstream imports; all must be there."""
    code = (
        "import json, platform, importlib.metadata as m, sys\n"
        "out = {'python': platform.python_version()}\n"
        "for name in sys.argv[1:]:\n"
        "    try: out[name] = m.version(name)\n"
        "    except m.PackageNotFoundError: out[name] = ''\n"
        "print(json.dumps(out))"
    )
    command = [str(python), "-c", code, *NEEDED.values()]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found = json.loads(done.stdout)
    except (OSError, subprocess.CalledProcessError, ValueError) as error:
        raise Failure(f"--python {python}: cannot be run: {error}") from None
    missing = [name for name in NEEDED.values() if not found.get(name)]
    if missing:
        raise Failure(f"--python {python}: packages are missing; run `{python} -m pip install {' '.join(missing)}`")
    return found


def git(directory: Path, *arguments: str) -> str:
    """What git says there; empty where it says nothing."""
    try:
        done = subprocess.run(["git", "-C", str(directory), *arguments], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def commit_of(checkout: Path) -> str:
    """The commit that a checkout is at; empty where it has no history, also if it lies within another repository."""
    top = git(checkout, "rev-parse", "--show-toplevel")
    return git(checkout, "rev-parse", "HEAD") if top and Path(top).resolve() == checkout.resolve() else ""


def tail(text: str) -> str:
    return "\n".join("    " + line for line in ANSI.sub("", text).splitlines()[-15:])


def trimmed(text: str) -> str:
    """The lines of a log that say something about the run."""
    return "\n".join(line for line in ANSI.sub("", text).splitlines() if KEPT.match(line)) + "\n"
