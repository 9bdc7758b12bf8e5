"""The record as text: a summary for the terminal, Markdown for the record and the README."""

from __future__ import annotations

VERDICTS = ("losses", "quality", "speed", "memory", "reproducibility")


def count(value: float | None, unit: str = "") -> str:
    if value is None:
        return "-"
    return (f"{value:,.0f}" if value >= 100 else f"{value:.3g}") + unit


def times(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}x"


def mebibytes(value: float | None) -> str:
    return "-" if value is None else f"{value / 2**20:,.0f}"


def describe(settings: dict) -> str:
    return (
        f"depth {settings['model.depth']}, T {settings['model.sequence_len']}, "
        f"{settings['train.device_batch_size']} rows"
    )


def better(entry: dict) -> dict:
    """Upstream's faster mode; the better of the two is what a goal is measured against."""
    return max(entry["upstream"].values(), key=lambda mode: mode["tokens_per_second"] or 0)


def verdict(entry: dict, name: str) -> str:
    return entry.get("verdicts", {}).get(name, {}).get("verdict", "-")


def rows(record: dict) -> list[list[str]]:
    """A row a shape: throughput, memory, quality."""
    result = []
    for name, entry in record["shapes"].items():
        if "upstream" not in entry:
            result.append([name, describe(entry["settings"])] + ["failed"] + [""] * 6)
            continue
        ours, found = entry.get("nanorun", {}), entry.get("verdicts", {})
        modes = entry["upstream"]
        speed = found.get("speed", {})
        goal = f" (goal {speed['goal']}x)" if speed.get("goal") else ""
        result.append([
            name,
            describe(entry["settings"]),
            count(modes.get("eager", {}).get("tokens_per_second")),
            count(modes.get("compiled", {}).get("tokens_per_second")),
            count(ours.get("tokens_per_second")),
            times(speed.get("ratio_to_better")) + goal,
            mebibytes(min(mode["peak_memory_bytes"] for mode in modes.values())),
            mebibytes(ours.get("peak_memory_bytes")),
            f"{better(entry)['final_bpb']:.4f} / {ours['final_bpb']:.4f}" if ours else f"{better(entry)['final_bpb']:.4f} / -",
        ])
    return result


HEAD = [
    "shape", "sizes", "upstream eager tok/s", "upstream compiled tok/s", "nanorun tok/s", "against the better",
    "upstream MiB", "nanorun MiB", "val bpb, upstream / nanorun",
]


def grid(head: list[str], body: list[list[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(row) + " |" for row in body]
    return "\n".join(lines) + "\n"


def time_rows(record: dict) -> list[list[str]]:
    """A row a shape and upstream mode: whole runs from process start to end."""
    result = []
    for name, entry in record["shapes"].items():
        ours = entry.get("nanorun", {})
        for mode, theirs in entry.get("upstream", {}).items():
            compiling = " + ".join(f"{value:.0f}" for value in theirs["compile_seconds"][:1])
            result.append([
                name, mode, count(theirs["elapsed_seconds"], " s"), compiling + " s" if compiling else "-",
                count(ours.get("elapsed_seconds"), " s"), count(theirs["seconds_to_loss"], " s"),
                count(theirs.get("nanorun_seconds_to_loss"), " s"),
                apart(theirs.get("agreement")),
            ])
    return result


def apart(agreement: dict | None) -> str:
    """How far the early step losses are apart, where both sides log the same quantity."""
    if not agreement or "early_loss" not in agreement["tolerance"]:
        return "-"
    return f"{agreement['largest']['early_loss']:.1e}"


TIME_HEAD = [
    "shape", "upstream", "elapsed", "of it compiling", "nanorun elapsed", "upstream to 99 % of its way down",
    "nanorun to that loss", "early step losses differ by",
]


def machine(record: dict) -> str:
    facts, software = record["machine"], record["software"]
    ours = software.get("nanorun") or {}
    where = facts.get("gpu") if record["device"] == "cuda" else f"{facts['cpu']}, {facts['cores']} cores"
    return (
        f"{where}, {record['threads']} threads, {facts.get('memory_gib', '?')} GiB, {facts['system']}; "
        f"upstream {software['upstream']['commit'][:7]}, Python {software['python']['python']}, "
        f"torch {software['python']['torch']}; {ours.get('version', 'no nanorun')} "
        f"at {ours.get('commit', '')[:7] or '-'}{' with changes' if ours.get('modified') else ''}; {record['taken'][:10]}"
    )


def markdown(record: dict, where: str) -> str:
    """Tables and verdicts of a record."""
    parts = [f"{machine(record)}.\n"]
    if record["quick"]:
        parts.append("A quick session: too few steps and pairs for a speed verdict.\n")
    parts.append(record["method"] + "\n")
    parts.append(grid(HEAD, rows(record)))
    parts.append(grid(TIME_HEAD, time_rows(record)))
    judged = [[name, *(verdict(entry, key) for key in VERDICTS)] for name, entry in record["shapes"].items()]
    parts.append(grid(["shape", *VERDICTS], judged))
    short = shortfalls(record)
    if short:
        parts.append("What falls short:\n\n" + "\n".join(f"* {line}" for line in short) + "\n")
    parts.append(f"Record: `results/benchmarks/{where}/`.\n")
    return "\n".join(parts)


def shortfalls(record: dict) -> list[str]:
    """Every verdict that failed, and every run that did, in a line."""
    lines = []
    for name, entry in record["shapes"].items():
        for key, found in entry.get("verdicts", {}).items():
            if found["verdict"] == "fail":
                figures = ", ".join(
                    f"{what} {value:.4g}" for what, value in found.items() if isinstance(value, float)
                )
                lines.append(f"{name}: {key}" + (f" ({figures})" if figures else ""))
        lines += [f"{name}: {message.splitlines()[0]}" for message in entry.get("errors", [])]
    return lines


def summary(record: dict) -> str:
    """For the terminal."""
    lines = [machine(record)]
    for name, entry in record["shapes"].items():
        for mode, theirs in entry.get("upstream", {}).items():
            lines.append(
                f"{name:10} upstream {mode:9}{count(theirs['tokens_per_second']):>9} tok/s "
                f"{mebibytes(theirs['peak_memory_bytes']):>7} MiB  bpb {theirs['final_bpb']:.4f}"
            )
        ours = entry.get("nanorun")
        if ours:
            speed = entry["verdicts"]["speed"]
            lines.append(
                f"{name:10} nanorun           {count(ours['tokens_per_second']):>9} tok/s "
                f"{mebibytes(ours['peak_memory_bytes']):>7} MiB  bpb {ours['final_bpb']:.4f}  "
                f"{times(speed['ratio_to_better'])} of the better"
            )
            lines.append(f"{name:10} " + ", ".join(f"{key} {verdict(entry, key)}" for key in VERDICTS))
        lines += [f"{name:10} failed: {message.splitlines()[0]}" for message in entry.get("errors", [])]
    return "\n".join(lines) + "\n"
