"""The script against canned output: both sides are stand-ins that print what the real ones printed once.

It runs every part but the training itself: reading manifests, child processes and their memory, parsing, verdicts,
record and tables. It also checks that what must not pass does not. No time is judged.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import tempfile
from pathlib import Path
from unittest import mock

from . import compare, host, process, stats, table, upstream, whole_report, whole_runs
from .manifest import Failure, Shape, read
from .measure import Run
from .nanorun import Nanorun
from .session import Options, Session
from .upstream import NEEDED, Upstream

CANNED = Path(__file__).parent / "testdata"
STEPS = 8

PYTHON = """#!/bin/sh
case "$*" in
  -c*) echo '{versions}' ;;
  *scripts.tok_train*) mkdir -p "$NANOCHAT_BASE_DIR/tokenizer"; echo pickle > "$NANOCHAT_BASE_DIR/tokenizer/tokenizer.pkl"
    echo 'Training time: 0.38s' ;;
  *upstream_tokens.py*) echo '{tokens}' ;;
  *upstream_run.py*--num-iterations={steps}*)
    if [ "$TORCHDYNAMO_DISABLE" = 1 ]; then cat {canned}/upstream_eager.log; else cat {canned}/upstream_compiled.log; fi ;;
  *) echo "unexpected: $*" >&2; exit 9 ;;
esac
"""
NANORUN = """#!/bin/sh
case "$1" in
  --version) echo 'nanorun 0.0.0' ;;
  run) case "$*" in *--set=data.tokenizer.path=*) cat {run} ;; *) exit 2 ;; esac ;;
  bench) echo '{bench}' ;;
esac
"""


TOKENS = {
    "bytes": 1000000, "tokens": 300000, "tokenizer_train_seconds": 0.5, "encode_seconds": 0.1,
    "packed_tokens_per_second": 1e6,
}
BENCH = {
    "host": "secret", "threads": 2, "step_seconds": 0.5, "tokens_per_step": 4096, "gflop_per_step": 100.0,
    "gflops_per_second": 200.0, "share_of_sgemm": 0.9, "optimizer_share": 0.2, "data_wait_seconds": 1e-6,
    "fma_gflops_per_second": 400.0, "moving_seconds": 0.05, "moved_gbytes_per_second": 12.0, "copied_gbytes_per_second": 20.0,
    "process_start_to_first_step_seconds": 0.2, "allocations_after_first_step": 0, "data": TOKENS,
    "scaling": [{"threads": 1, "tokens_per_second": 4000.0}, {"threads": 2, "tokens_per_second": 8000.0}],
}


def check(condition: bool, what: str) -> None:
    if not condition:
        raise AssertionError(what)


def refused(action, part: str) -> None:
    """`action` must fail and say `part`."""
    try:
        action()
    except Failure as failure:
        check(part in str(failure), f"{str(failure)!r} does not say {part!r}")
    else:
        raise AssertionError(f"not refused: {part}")


def canned_run() -> process.Finished:
    text = (CANNED / "upstream_compiled.log").read_text(encoding="utf-8")
    return process.Finished(0, 99.0, 1 << 30, [(float(i), line) for i, line in enumerate(text.splitlines())])


def executable(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
    return path


def nanorun_json(shift: float, result_hash: str = "ab") -> str:
    """What `nanorun run --json` would print for upstream's losses, moved by `shift`."""
    theirs = upstream.parse(canned_run(), "compiled", "cpu", 1, 0.0, STEPS)
    steps = [{"step": i, "loss": loss + shift, "seconds": 0.5} for i, loss in enumerate(theirs.losses)]
    evals = [{"step": step, "values": {"val_bpb": bpb}} for step, bpb in theirs.bpb.items()]
    return json.dumps({"runs": [{"key": "00", "steps": steps, "evals": evals, "result_hash": result_hash}]})


def session(root: Path, place: Path, shift: float, repeats: int, minutes: float | None = None) -> tuple[int, dict, Path]:
    """One call with the stand-ins, going on where an earlier one stopped; its status, its record and where that is."""
    place.mkdir(exist_ok=True)
    checkout = place / "nanochat"
    (checkout / "scripts").mkdir(parents=True, exist_ok=True)
    (checkout / "scripts" / "base_train.py").touch()
    versions = json.dumps({name: "1" for name in [*NEEDED.values(), "python"]})
    run = place / "run.json"
    run.write_text(nanorun_json(shift), encoding="utf-8")
    tokens = json.dumps(TOKENS)
    text = PYTHON.format(versions=versions, steps=STEPS, canned=CANNED, tokens=tokens)
    python = executable(place / "python", text)
    binary = executable(place / "nanorun", NANORUN.format(run=run, bench=json.dumps(BENCH)))
    shards = [place / "shard_00000.parquet", place / "shard_00001.parquet"]
    for shard in shards:
        shard.write_bytes(b"PAR1")
    path = root / "experiments" / "bench_d4_t512.toml"
    options = Options("cpu", ["eager", "compiled"], repeats, False, 1, 1, place / "out", root, place, minutes)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        made = Session(options, Upstream(checkout, python, place, 1, True), Nanorun(binary, root, place, 1), shards)
        status = made.run([Shape("d4_t512", path, {"budget.steps": STEPS})])
    return status, json.loads((place / "out" / "record.json").read_text(encoding="utf-8")), place / "out"


def parsing(root: Path, place: Path) -> None:
    run = upstream.parse(canned_run(), "compiled", "cpu", 1, 0.0, STEPS)
    check(len(run.losses) == STEPS and run.bpb == {0: 3.659406, STEPS: 3.647347}, "upstream's log is misread")
    check(run.compile_seconds is not None and run.compile_seconds > 70, "the compiling first step is not seen")
    check(run.optimizer_share() is not None and run.data_wait_seconds() == 0.002, "the stopwatch is misread")
    again = Run.from_summary(json.loads(json.dumps(run.summary(4096))))
    check(again.losses == run.losses and again.bpb == run.bpb and again.steady == run.steady, "a run does not come back")
    cut = canned_run()
    cut.lines = [line for line in cut.lines if "step 00003" not in line[1]]
    refused(lambda: upstream.parse(cut, "eager", "cpu", 1, 0.0, STEPS), "skips from step 3")
    refused(lambda: upstream.parse(canned_run(), "eager", "cpu", 1, 0.0, STEPS + 1), "expected 9")
    other = canned_run()
    other.lines = [(at, line.replace("loss: 8.302", "loss: 8.402")) for at, line in other.lines]
    other.lines = [(at, re.sub(r"(step 0000[5-7].*loss: )8", r"\g<1>9", line)) for at, line in other.lines]
    refused(lambda: upstream.parse(other, "eager", "cpu", 1, 0.0, STEPS), "from those that upstream logs")
    for path in sorted((root / "experiments").glob("bench_*.toml")):
        flags = Shape(path.stem, path, {}).upstream_flags("cpu")
        check(f"--depth={read(path)['model.depth']}" in flags, f"{path} does not become flags")
        check(read(path)["upstream.commit"] == upstream.COMMIT, f"{path} pins another commit")
    bad = place / "bench_bad.toml"
    bad.write_text("[run]\nseed = 42 years\n", encoding="utf-8")
    refused(lambda: read(bad), ":2: expected")
    refused(lambda: Shape("x", root / "experiments" / "bench_x.toml", {}), "no such shape")


def recording(root: Path, place: Path) -> None:
    status, record, out = session(root, place / "good", 1e-6, 3)
    shape = record["shapes"]["d4_t512"]
    found = {key: value["verdict"] for key, value in shape["verdicts"].items()}
    check(status == 0 and not shape.get("errors"), f"a good session ended with {status}: {shape.get('errors')}")
    check(found["losses"] == found["quality"] == found["reproducibility"] == "pass", f"a good session: {found}")
    check(len(shape["runs"]) == 12 and shape["verdicts"]["reproducibility"]["runs"] == 6, "runs are missing")
    check(all(run["peak_memory_bytes"] > 0 for run in shape["runs"]), "no peak memory")
    check(len(list((out / "logs").iterdir())) == 12, "logs are missing")
    written = "".join(path.read_text(encoding="utf-8") for path in out.rglob("*") if path.is_file())
    check(str(place) not in written and "secret" not in written, "the record names the machine's paths or host")
    check("| d4_t512 |" in table.markdown(record, "x") and "nanorun" in table.summary(record), "no table")
    both = {key: value["verdict"] for key, value in shape["bench_verdicts"].items()}
    check(both["start"] == both["optimizer"] == both["data"] == "pass" and both["sgemm"] == "no goal", f"bench: {both}")
    check(len(record["scaling"]) == 4 and record["tokens"]["verdicts"]["training"]["verdict"] == "pass", "no scaling")

    # No time: nothing new, and said so. Then the same record goes on, but not with another binary.
    _, record, _ = session(root, place / "parts", 1e-6, 1, minutes=1e-3)
    check("runs" not in record["shapes"]["d4_t512"] and "d4_t512 pair eager-1" in record["left_out"], "no time was kept")
    _, record, _ = session(root, place / "parts", 1e-6, 1)
    check(len(record["shapes"]["d4_t512"]["runs"]) == 4 and record["left_out"] == [], "the session did not go on")
    kept = place / "parts" / "out" / "record.json"
    kept.write_text(kept.read_text(encoding="utf-8").replace('"commit": "', '"commit": "0', 2), encoding="utf-8")
    refused(lambda: session(root, place / "parts", 1e-6, 2), "`software` is not of this session")
    record["software"]["nanorun"]["commit"] = "another"
    kept.write_text(json.dumps(record), encoding="utf-8")
    _, record, _ = session(root, place / "parts", 1e-6, 2)
    check(len(record["shapes"]["d4_t512"]["runs"]) == 8 and len(record["calls"]) == 3, "it began anew")
    kept.write_text(json.dumps(record | {"threads": 7}), encoding="utf-8")
    refused(lambda: session(root, place / "parts", 1e-6, 2), "cannot be continued")

    status, record, _ = session(root, place / "apart", 3e-3, 1)
    shape = record["shapes"]["d4_t512"]
    check(status == 1 and shape["verdicts"]["losses"]["verdict"] == "fail", "losses 0.003 apart pass for equal")
    found = [compare.speed_verdict(value, 2.0, pairs) for value, pairs in ((2.1, 1), (2.7, 1), (1.4, 1), (2.1, 3), (1.9, 3))]
    check(found == ["undecided", "pass", "fail", "pass", "fail"], f"speed verdicts: {found}")

    theirs = upstream.parse(canned_run(), "eager", "cpu", 1, 0.0, STEPS)
    ours = upstream.parse(canned_run(), "eager", "cpu", 1, 0.0, STEPS)
    ours.losses[5] = float("nan")
    check(not compare.agreement(ours, theirs, "f32", [])["agree"], "a NaN agrees")
    chaos(theirs)
    ours.bpb = {0: 3.659406, STEPS: 3.647347 * 1.006}
    ours.result_hash = "other"
    judged = compare.judge("d4_t512", "cpu", "f32", 4096, [(theirs, ours), (theirs, theirs)])["verdicts"]
    check(judged["reproducibility"]["verdict"] == "fail", "two result hashes pass for one")
    alone = compare.judge("d4_t512", "cpu", "f32", 4096, [(theirs, ours)])["verdicts"]
    check(alone["quality"]["verdict"] == "fail", "0.6 % more bits per byte pass")
    check(alone["reproducibility"]["verdict"] == "undecided", "one run shows reproducibility")


def chaos(theirs: Run) -> None:
    """Steps are held as long as upstream holds still, its smoothed loss afterwards."""
    def run(*moves: float) -> Run:
        made = Run.from_summary(json.loads(json.dumps(theirs.summary(4096))))
        made.losses = [8.0 - 0.01 * step + (moves[step] if step < len(moves) else moves[-1]) for step in range(40)]
        return made

    base = run(0.0)
    other = run(*[0.0] * 10, 1e-5, 1e-4, 5e-4, 2e-3, 0.05, 0.1)
    agrees = lambda ours, others: compare.agreement(ours, base, "f32", others)
    check(compare.steps_held(base, [other]) == 13 and compare.steps_held(base, []) == compare.EARLY_STEPS, "steps held")
    check(agrees(run(*[0.0] * 11, 3e-4, 1e-3, 0.05, 0.2), [other])["agree"], "within upstream's own movement fails")
    check(not agrees(run(*[0.0] * 9, 3e-4, 0.0), [other])["agree"], "a step off before upstream moves passes")
    check(not agrees(run(*[0.0] * 13, 0.5), [other])["agree"], "far beyond upstream's own spread passes")
    check(not agrees(run(*[0.0] * 13, 0.2), [])["agree"], "without another run of upstream's the spread is not known")
    check(agrees(run(*[0.0] * 8, 3e-4), [])["steps_compared"] == 8, "more than the early steps are held alone")


def whole() -> None:
    """Whole runs: quantiles from tables, verdicts on canned runs, and which runs there are to do."""
    close = lambda found, known: abs(found / known - 1) < 1e-4
    check(close(stats.t_quantile(0.975, 4), 2.77645) and close(stats.t_quantile(0.975, 1), 12.7062), "Student's t")
    check(close(stats.f_quantile(0.95, 5, 10), 3.32583) and close(stats.f_quantile(0.99, 4, 15), 4.89321), "Fisher's F")
    verdicts = [
        whole_report.bias_verdict(values) for values in ([1e-5, -1e-5, 0.0], [0.01, 0.011, 0.012], [0.004, -0.004, 0.0])
    ]
    check([fine for _, fine in verdicts] == [True, False, True], f"bias: {verdicts}")
    check("no bias" in verdicts[0][0] and "undecided" in verdicts[2][0], f"bias: {verdicts}")

    def line(kind: str, seed: int, side: str, variant: str, bpb: float) -> dict[str, object]:
        losses = [8.0, 7.0 + bpb / 100, 6.0]
        return {
            "kind": kind, "depth": 2, "steps": 3, "seed": seed, "side": side, "variant": variant, "bpb": bpb,
            "losses": losses, "first_step": 60 if kind == "warm" else 0, "seconds": 1.0,
        }

    moves = [0.02, -0.03, 0.01, 0.03, -0.02]
    def lines(offset: float) -> list[dict[str, object]]:
        found = [line("warm", seed, side, "", 2.0) for seed in range(3) for side in ("upstream", "nanorun")]
        for seed, move in enumerate(moves):
            found += [line("cold", seed, "upstream", "", 2.5), line("cold", seed, "upstream", "nudged", 2.5 - move)]
            found.append(line("cold", seed, "nanorun", "", 2.5 + move + offset))
        found.append(line("cold", 0, "nanorun", "tch", 2.5 - 5 * moves[0] + offset))
        return found

    about = {
        "machine": {"cpu": "a CPU", "cores": 2}, "python": {"torch": "1", "python": "3"}, "threads": 2,
        "upstream": {"commit": "92d63d4", "modified": False}, "nanorun": {"version": "nanorun 0", "commit": "", "modified": False},
        "settings": {"model.sequence_len": 512, "train.total_batch_size": 4096, "data.tokenizer.vocab_size": 4096, "eval.tokens": 1},
    }
    text, fine = whole_report.markdown(about, lines(0.0), ["cold d4 seed 1 120 nanorun"])
    check(fine and "the spread is upstream's own" in text and "1 of cold d4" in text, text)
    # The first seed's runs: upstream 2.5 and 2.48, nanorun 2.52 and 2.4, so that the means are 0.03 apart.
    first = "| 0 | 2.50000 | 2.48000 (never) | 2.52000 (never) | 2.40000 (1) | -0.03000 |"
    check(first in text and "| upstream, nudged | nanorun | nanorun, tch |" in text, text)
    text, fine = whole_report.markdown(about, lines(0.3), [])
    check(not fine and "Zero is outside" in text and "more than upstream's own spread" in text, text)

    plan = whole_runs.Plan(list(whole_runs.KINDS), [2, 4], [2], [1, 2, 3], [1, 2], 120, 300, 60, 200, 1)
    keys = [task.key for task in whole_runs.tasks(plan)]
    check(len(keys) == len(set(keys)) and keys[0] == "start d2 seed 1 60 upstream", f"tasks: {keys}")
    check("cold d2 seed 3 120 upstream threads 2" in keys and not any("d4" in key and "nudged" in key for key in keys), "tasks")
    check({"cold d2 seed 3 120 nanorun tch", "cold d2 seed 2 300 upstream nudged"} <= set(keys), f"tasks: {keys}")
    check("cold d4 seed 2 300 nanorun" in keys and "cold d4 seed 3 300 nanorun" not in keys, f"tasks: {keys}")


def surroundings(root: Path, place: Path) -> None:
    """What a machine that was only lent has otherwise: packages on PYTHONPATH, a checkout without git, no home."""
    checkout = place / "good" / "nanochat"
    with mock.patch.dict(os.environ, {"PYTHONPATH": "/carried", "NANORUN_SEED": "1"}):
        kept = Upstream(checkout, place / "good" / "python", place, 1, True).environment(place)
    check(kept.get("PYTHONPATH") == "/carried" and "NANORUN_SEED" not in kept, f"upstream's environment: {kept}")
    refused(lambda: Upstream(checkout, place / "good" / "python", place, 1, False), "found no commit")
    check(upstream.commit_of(root / "scripts") == "", "a directory in a repository passes for a checkout of its own")
    for home in ("/", ""):
        with mock.patch.dict(os.environ, {"HOME": home}):
            check(host.without_paths("/a/b /r/c", {Path("/r"): "."}) == "/a/b ./c", f"HOME {home!r} is taken for a name")


def main(root: Path) -> int:
    with tempfile.TemporaryDirectory(prefix="nanorun-benchmark-selftest-") as scratch:
        parsing(root, Path(scratch))
        recording(root, Path(scratch))
        surroundings(root, Path(scratch))
        whole()
    print("benchmark_upstream: self-test passed")
    return 0
