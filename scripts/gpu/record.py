"""What a session leaves: record.json and summary.txt, written anew whenever there is more to say."""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

from benchmark import host

ROOT = Path(__file__).resolve().parent.parent.parent


def write(session):
    """All there is so far. What cannot be written is said, and ends nothing."""
    record = {
        "format": 1,
        "kind": "gpu_session",
        "taken": f"{datetime.now(timezone.utc):%Y-%m-%dT%H:%M:%SZ}",
        "device": session.args.device,
        "machine": session.machine,
        "software": session.software,
        "seconds": round(time.monotonic() - session.begin, 1),
        "stages": session.stages,
        "findings": session.findings,
    }
    try:
        lines = summary(session, record["seconds"])
    except Exception as error:
        # An answer in another form than expected: the record has it as it is.
        lines = [*map(line_of, session.stages), f"no summary of more: {type(error).__name__}: {one_line(error)}"]
    texts = {"record.json": json.dumps(record, indent=1), "summary.txt": "\n".join(lines)}
    for name, text in texts.items():
        partial = session.out / f".{name}.partial"
        try:
            partial.write_text(host.without_paths(text, {ROOT: "."}) + "\n", encoding="utf-8")
            os.replace(partial, session.out / name)
        except OSError as error:
            say(f"{name} cannot be written: {error}")


def summary(session, seconds):
    """What a reader wants to know first, line by line."""
    binary = session.software["nanorun"]
    gpu = session.machine.get("gpu", "no GPU")
    lines = [f"{binary['version']}, SHA-256 {binary['binary_sha256'][:12]}, on {gpu}", ""]
    lines += map(line_of, session.stages)
    lines.append(f"{'all':14} {seconds:6.1f} s")
    lines += [f"remark: {one_line(remark)}" for remark in remarks(session)]
    if found := session.findings.get("upstream"):
        lines.append(f"\nbeside upstream, window pattern {found['window_pattern']}:")
        lines += found.get("summary", ["no result"])
    if runs := session.findings.get("d12"):
        lines.append(f"\nd12{' in small' if session.small else ''}:")
        for run in runs:
            mfu = f", {run['mfu_percent']:.1f} % MFU" if run["mfu_percent"] is not None else ""
            speed = f"{run['tokens_per_second']:,.0f} tok/s{mfu}"
            lines.append(f"  {run['label']}: {speed}; {run['environment_class']}")
    if bench := session.findings.get("bench"):
        what = "a small shape" if session.small else "d12, T 2048"
        lines.append(f"\n{what}: {bench['tokens_per_second']:,.0f} tok/s; a step by operation, in ms:")
        ops = sorted(bench["ops"], key=lambda op: -op["seconds"])
        lines += [f"  {op['phase']:10} {op['op']:28} {op['calls']:6.0f} {op['seconds'] * 1e3:9.2f}" for op in ops]
    return lines


def remarks(session):
    """What the doctor found of the GPUs."""
    devices = session.findings.get("doctor", {}).get("cuda", {}).get("devices", [])
    return [remark for gpu in devices for remark in gpu.get("remarks", [])]


def line_of(entry):
    return f"{entry['stage']:14} {entry['seconds']:6.1f} s  {entry['verdict']}"


def one_line(text):
    return " ".join(str(text).split())


def say(text):
    print(f"gpu_session: {text}", file=sys.stderr, flush=True)
