"""The script against canned output: both sides are stand-ins that print what the real ones printed once.

It runs every part but the training itself: reading manifests, child processes and their memory, parsing, verdicts,
record and tables. It also checks that what must not pass does not. No time is judged.
"""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from pathlib import Path

from . import compare, process, table, upstream
from .manifest import Failure, Shape, read
from .measure import smoothed, unsmoothed
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
  *scripts.base_train*--num-iterations={steps}*)
    if [ "$TORCHDYNAMO_DISABLE" = 1 ]; then cat {canned}/upstream_eager.log; else cat {canned}/upstream_compiled.log; fi ;;
  *) echo "unexpected: $*" >&2; exit 9 ;;
esac
"""
NANORUN = """#!/bin/sh
case "$1" in
  --version) echo 'nanorun 0.0.0' ;;
  run) case "$*" in *--set=data.tokenizer.path=*) cat {run} ;; *) exit 2 ;; esac ;;
  bench) echo '{{"host": "secret", "gflops": 1.5}}' ;;
esac
"""


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


def session(root: Path, place: Path, shift: float, repeats: int) -> tuple[int, dict, Path]:
    """One whole session with the stand-ins; its status, its record and where that is."""
    place.mkdir()
    checkout = place / "nanochat"
    (checkout / "scripts").mkdir(parents=True)
    (checkout / "scripts" / "base_train.py").touch()
    versions = json.dumps({name: "1" for name in [*NEEDED.values(), "python"]})
    run = place / "run.json"
    run.write_text(nanorun_json(shift), encoding="utf-8")
    python = executable(place / "python", PYTHON.format(versions=versions, steps=STEPS, canned=CANNED))
    binary = executable(place / "nanorun", NANORUN.format(run=run))
    shards = [place / "shard_00000.parquet", place / "shard_00001.parquet"]
    for shard in shards:
        shard.write_bytes(b"PAR1")
    path = root / "experiments" / "bench_d4_t512.toml"
    options = Options("cpu", ["eager", "compiled"], repeats, False, 1, 1, place / "out", root, place)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        made = Session(options, Upstream(checkout, python, place, 1, True), Nanorun(binary, root, place, 1), shards)
        status = made.run([Shape("d4_t512", path, {"budget.steps": STEPS})])
    return status, json.loads((place / "out" / "record.json").read_text(encoding="utf-8")), place / "out"


def parsing(root: Path, place: Path) -> None:
    run = upstream.parse(canned_run(), "compiled", "cpu", 1, 0.0, STEPS)
    check(len(run.losses) == STEPS and run.bpb == {0: 3.659406, STEPS: 3.647347}, "upstream's log is misread")
    check(run.compile_seconds is not None and run.compile_seconds > 70, "the compiling first step is not seen")
    values = [3.0, 2.5, 2.75, 2.0]
    check(all(abs(a - b) < 1e-9 for a, b in zip(unsmoothed(smoothed(values)), values)), "unsmoothing is no inverse")
    cut = canned_run()
    cut.lines = [line for line in cut.lines if "step 00003" not in line[1]]
    refused(lambda: upstream.parse(cut, "eager", "cpu", 1, 0.0, STEPS), "skips from step 3")
    refused(lambda: upstream.parse(canned_run(), "eager", "cpu", 1, 0.0, STEPS + 1), "expected 9")
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

    status, record, _ = session(root, place / "apart", 3e-3, 1)
    shape = record["shapes"]["d4_t512"]
    check(status == 1 and shape["verdicts"]["losses"]["verdict"] == "fail", "losses 0.003 apart pass for equal")
    check(shape["verdicts"]["speed"]["verdict"] == "undecided", "one pair decides a speed verdict")

    theirs = upstream.parse(canned_run(), "eager", "cpu", 1, 0.0, STEPS)
    ours = upstream.parse(canned_run(), "eager", "cpu", 1, 0.0, STEPS)
    ours.losses[5] = float("nan")
    check(not compare.agreement(ours, theirs, "f32", 1)["agree"], "a NaN agrees")
    ours.bpb = {0: 3.659406, STEPS: 3.647347 * 1.006}
    ours.result_hash = "other"
    judged = compare.judge("d4_t512", "cpu", "f32", 4096, 1, [(theirs, ours), (theirs, theirs)])["verdicts"]
    check(judged["reproducibility"]["verdict"] == "fail", "two result hashes pass for one")
    alone = compare.judge("d4_t512", "cpu", "f32", 4096, 1, [(theirs, ours)])["verdicts"]
    check(alone["quality"]["verdict"] == "fail", "0.6 % more bits per byte pass")
    check(alone["reproducibility"]["verdict"] == "undecided", "one run shows reproducibility")


def main(root: Path) -> int:
    with tempfile.TemporaryDirectory(prefix="nanorun-benchmark-selftest-") as scratch:
        parsing(root, Path(scratch))
        recording(root, Path(scratch))
    print("benchmark_upstream: self-test passed")
    return 0
