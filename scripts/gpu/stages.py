"""The stages: each takes the session, and gives what it found or fails."""

from __future__ import annotations

import glob
import json
import os
import shutil
import sys
import time
from pathlib import Path

from benchmark.upstream import commit_of

from .record import ROOT, remarks
from .session import Failed

# What the environment class of a bf16 run says on a GPU that has the fast kernels.
FAST = ("flash attention", "fused bf16 sums")

# Sizes that take seconds on the CPU device.
SMALL_D12 = {
    "model.depth": 2, "model.head_dim": 32, "model.aspect_ratio": 32, "model.sequence_len": 128, "run.precision": "bf16",
    "train.device_batch_size": 2, "train.total_batch_size": 512, "eval.tokens": 1024, "budget.steps": 3,
    "data.tokenizer.vocab_size": 300,
}
SMALL_BENCH = {
    "model.depth": 2, "model.head_dim": 32, "model.aspect_ratio": 32, "model.sequence_len": 128,
    "train.device_batch_size": 2, "train.total_batch_size": 256, "data.tokenizer.vocab_size": 300,
}


def nanorun(session, verb, manifest, sets, *more):
    """A command line of the binary on the session's device."""
    sets = {"run.backend": "tch", "run.device": session.args.device} | sets
    options = [f"--set={key}={json.dumps(value)}" for key, value in sets.items()]
    # All threads that there are on the CPU device would leave none for anything else; the number is part of the class.
    threads = ["--threads=2"] if session.small else []
    return [session.binary, verb, manifest, *more, *options, *threads]


def check_class(session, classes):
    """What ran on slower kernels than a GPU has would be measured for nothing."""
    slow = sorted({str(name) for name in classes if not all(words in str(name) for words in FAST)})
    if slow and not session.small:
        raise Failed(f"slow paths: {'; '.join(slow)}")


def runs_of(session, command):
    """The runs of an experiment, all of them finished."""
    # A verdict of the manifest's own, such as that its baseline is another backend's or, of d12 with one seed, that
    # an arm is worse, is not what is tested here.
    runs = json.loads(session.run(command, expected=(0, 4, 5)))["runs"]
    if not runs or not all(run["result_hash"] for run in runs):
        raise Failed("a run did not finish")
    return runs


def hashes_of(runs):
    return {run["label"]: run["result_hash"] for run in runs}


def check_run(session, precision, results):
    """A small experiment that takes seconds, exercises every op, and saves checkpoints to resume from."""
    sets = {"run.precision": precision, "run.seed": 1}
    return nanorun(session, "run", "experiments/ci.toml", sets, "--json", f"--results={results}")


def doctor(session):
    """Whether the backend works here, and on which GPU."""
    found = json.loads(session.run([session.binary, "doctor", "--json"]))["backends"]["tch"]
    if not found["works"]:
        raise Failed(f"the tch backend does not work: {found.get('reason')}")
    session.findings["doctor"] = {key: found[key] for key in ("libtorch", "cuda") if key in found}
    if not session.small and "devices" not in found["cuda"]:
        raise Failed(f"no GPU: {found['cuda'].get('reason')}")
    # What works in a slow way only is remarked too; the stages that it would spoil say so.
    if broken := [remark for remark in remarks(session) if remark.startswith("does not work")]:
        raise Failed("; ".join(broken))


def parity(session, precision):
    """Upstream's numbers, within tolerance."""
    cases = [ROOT / "tests/fixtures/parity/92d63d4_d3"] if session.small else []
    # 3: a case could not be finished, and its report says why; 5: a number is beyond its tolerance.
    output = session.run([
        session.binary, "parity", *cases, "--backend=tch", f"--device={session.args.device}", f"--precision={precision}",
        "--json",
    ], expected=(0, 3, 5))
    reports = json.loads(output)
    worst = {
        f"{r['case']}: {c['name']}": [c["deviation"], c["tolerance"]] for r in reports for c in r["checks"]
    }
    session.findings[f"parity_{precision}"] = worst
    unfinished = [f"{r['case']}: {r['error']}" for r in reports if r.get("error")]
    beyond = [f"{r['case']}: {c['name']}" for r in reports for c in r["checks"] if not c["passed"]]
    found = {"not finished": unfinished, "beyond tolerance": beyond}
    if wrong := [f"{what}: {'; '.join(names)}" for what, names in found.items() if names]:
        raise Failed(". ".join(wrong))
    return worst


def repeat(session, precision):
    """Three times from nothing: one hash a run."""
    found = []
    for i in (1, 2, 3):
        runs = runs_of(session, check_run(session, precision, session.scratch / f"{precision}_{i}"))
        found.append(hashes_of(runs))
    if found[1] != found[0] or found[2] != found[0]:
        raise Failed(f"hashes differ: {found}")
    session.hashes[precision] = found[0]
    classes = sorted({run["environment_class"] for run in runs})
    session.findings[f"repeat_{precision}"] = {"hashes": found[0], "environment_classes": classes}
    if precision == "bf16":
        check_class(session, classes)


def resume(session, precision):
    """Killed three times, each time after another checkpoint; then finished."""
    if precision not in session.hashes:
        raise Failed("there are no hashes to compare with")
    results = session.scratch / f"{precision}_resumed"
    # Numbers of checkpoints, not moments: machines differ in speed. This glob minds nothing that vanishes meanwhile.
    pattern = f"{glob.escape(str(results))}/*/runs/*/attempt/*/checkpoints/*"
    kills = 0
    for checkpoints in (1, 3, 5):
        process = session.start(check_run(session, precision, results), log=False)
        try:
            while process.poll() is None and len(glob.glob(pattern)) < checkpoints:
                session.left()
                time.sleep(0.01)
            kills += process.poll() is None
        finally:
            session.kill(process)
    if kills == 0:
        raise Failed("it was never killed on the way")
    found = hashes_of(runs_of(session, check_run(session, precision, results)))
    if found != session.hashes[precision]:
        raise Failed(f"hashes differ: {found}, uninterrupted {session.hashes[precision]}")
    return {"kills": kills}


def upstream(session):
    """Upstream compiled beside nanorun, on one shape."""
    # Without flash attention 3, which has to be downloaded, upstream's windows fall back to a masked SDPA: a
    # comparison with that is worth nothing. Long windows alone are fast on both sides.
    pattern = session.args.window_pattern or ("" if session.small else "L")
    place = session.out / "upstream"
    # What an earlier session left there is of other things: it would be refused.
    names = {path.name for path in place.iterdir()} if place.is_dir() else set()
    left = {"logs", "record.json", "summary.md"}
    if strange := names - left - {f".{name}.partial" for name in left}:
        raise Failed(f"{place} holds more than a record: move {', '.join(sorted(strange))} away")
    shutil.rmtree(place, ignore_errors=True)
    command = [
        sys.executable, ROOT / "scripts/benchmark_upstream", "--nanorun", session.binary, "--nanochat",
        session.args.nanochat, "--python", session.args.python, "--out", place, "--repeats=1", "--bench-steps=0",
    ]
    if session.small:
        command += ["--device=cpu", "--shapes=d4_t512", "--modes=eager", "--quick", "--steps=2"]
    else:
        command += ["--device=cuda", "--modes=compiled", "--steps=40"]
    if pattern:
        command.append(f"--window-pattern={pattern}")
    if not commit_of(session.args.nanochat):
        # A copy without its history. What it is, the losses tell: they must agree.
        command.append("--any-commit")
    found = {"window_pattern": pattern or "the shape's own"}
    session.findings["upstream"] = found
    # The benchmark builds nothing and needs the time it needs: compiling alone takes a minute.
    output = session.run(command, expected=(0, 1, 3))
    found["summary"] = output.splitlines()
    shapes = json.loads((place / "record.json").read_text(encoding="utf-8"))["shapes"]
    wrong = [error for shape in shapes.values() for error in shape.get("errors", [])]
    # Speed and memory are goals.
    must = ("losses", "quality", "reproducibility")
    found["verdicts"] = {name: shape.get("verdicts", {}) for name, shape in shapes.items()}
    for name, judged in found["verdicts"].items():
        wrong += [f"{name}: {key} failed" for key in must if judged.get(key, {}).get("verdict") == "fail"]
    if wrong or "exit code 0" not in session.ending or not all(found["verdicts"].values()):
        raise Failed("; ".join(wrong) or session.ending)


def d12(session):
    """Both arms of the question, one seed, few steps."""
    # 60 steps of 131,072 tokens for each arm, and validation: a minute and a half at 300 thousand tok/s.
    sets = dict(SMALL_D12) if session.small else {"budget.steps": 60}
    sets["run.seed"] = 1
    cache = Path(os.path.expanduser("~/.cache/nanochat"))
    if session.small or not (list(cache.glob("base_data_climbmix/*.parquet")) and (cache / "tokenizer").is_dir()):
        sets |= {"data.shards": "embedded"}
        sets.setdefault("data.tokenizer.vocab_size", 32768)
    command = nanorun(
        session, "run", "experiments/d12_sqrt.toml", sets, "--profile=gpu", "--json",
        f"--results={session.scratch / 'd12'}",
    )
    runs = runs_of(session, command)
    keep = ("label", "result_hash", "tokens_per_second", "mfu_percent", "peak_device_bytes", "environment_class")
    session.findings["d12"] = [
        {key: run.get(key) for key in keep} | {"final": run["evals"][-1]["values"] if run["evals"] else None}
        for run in runs
    ]
    check_class(session, (run["environment_class"] for run in runs))


def bench(session):
    """A step of d12 by operation."""
    sets, steps = (SMALL_BENCH, 2) if session.small else ({}, 10)
    command = nanorun(session, "bench", "experiments/bench_d12_t2048.toml", sets, "--json", f"--steps={steps}")
    found = json.loads(session.run(command))
    found.pop("host", None)
    return found
