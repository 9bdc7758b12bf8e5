"""The record as text: a summary for the terminal, Markdown for the record and the README."""

from __future__ import annotations

from .compare import better

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


def verdict(entry: dict, name: str) -> str:
    return entry.get("verdicts", {}).get(name, {}).get("verdict", "-")


def rows(record: dict) -> list[list[str]]:
    """A row a shape: throughput, memory, quality."""
    result = []
    for name, entry in record["shapes"].items():
        if "upstream" not in entry:
            result.append([name, describe(entry["settings"])] + ["not measured"] + [""] * 6)
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
            f"{better(modes)['final_bpb']:.4f} / " + (f"{ours['final_bpb']:.4f}" if ours else "-"),
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
    """How far the step losses are apart, at most, over the steps that are held tightly."""
    if not agreement:
        return "-"
    return f"{agreement['largest']['early_loss']:.1e} in {agreement['steps_compared']} steps"


TIME_HEAD = [
    "shape", "upstream", "elapsed", "of it compiling", "nanorun elapsed", "upstream to 99 % of its way down",
    "nanorun to that loss", "step losses differ by at most",
]

WORK_HEAD = [
    "shape", "needed GFLOP a step", "GFLOP/s", "of large products", "of the most it does", "ops that move memory, GB/s",
    "of copying", "optimizer share, nanorun / upstream",
    "waiting for rows a step, nanorun / upstream", "start to first step, nanorun / upstream",
    "tensors allocated after the first step",
]


def percent(value: float | None) -> str:
    return "-" if value is None else f"{value * 100:.1f} %"


def part(value: float | None, of: float | None) -> float | None:
    """A share; none where either was not measured, as in older records."""
    return value / of if value is not None and of else None


def most(bench: dict) -> float | None:
    """What the CPU's arithmetic does at most, in the precision of the run; none where it was not measured."""
    rates = [bench.get("fma_gflops_per_second")]
    if bench.get("precision") == "bf16":
        rates.append(bench.get("bf16_pairs_gflops_per_second"))
    return max((rate for rate in rates if rate is not None), default=None)


def milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{value * 1e3:.2g} ms"


def work_rows(record: dict) -> list[list[str]]:
    """A row a shape: what `nanorun bench` measured, beside upstream's where it has the same."""
    result = []
    for name, entry in record["shapes"].items():
        bench = entry.get("bench")
        if not bench:
            continue
        theirs = better(entry["upstream"]) if entry.get("upstream") else {}
        moving, moved = part(bench.get("moving_seconds"), bench["step_seconds"]), bench.get("moved_gbytes_per_second")
        goal = " (goal 85 %)" if entry.get("bench_verdicts", {}).get("sgemm", {}).get("verdict") in ("pass", "fail") else ""
        result.append([
            name, count(bench["gflop_per_step"]), count(bench["gflops_per_second"]),
            percent(bench["share_of_sgemm"]) + goal,
            percent(part(bench["gflops_per_second"], most(bench))),
            "-" if moved is None else f"{percent(moving)}, {count(moved)}",
            percent(part(moved, bench.get("copied_gbytes_per_second"))),
            f"{percent(bench['optimizer_share'])} / {percent(theirs.get('optimizer_share'))}",
            f"{milliseconds(bench['data_wait_seconds'])} / {milliseconds(theirs.get('data_wait_seconds'))}",
            f"{count(bench['process_start_to_first_step_seconds'], ' s')} / {count(theirs.get('ready_seconds'), ' s')}",
            str(bench["allocations_after_first_step"]),
        ])
    return result


def scaling_rows(record: dict) -> list[list[str]]:
    """A row a depth and sequence length: time a token on each number of threads."""
    points = [
        (entry["settings"]["model.depth"], entry["settings"]["model.sequence_len"], entry["bench"])
        for entry in record["shapes"].values() if "bench" in entry
    ]
    points += [(point["depth"], point["sequence_len"], point) for point in record.get("scaling", [])]
    result = []
    for depth, length, point in sorted(points, key=lambda point: point[:2]):
        speeds = {at["threads"]: at["tokens_per_second"] for at in point["scaling"]}
        few, many = min(speeds), max(speeds)
        result.append([
            str(depth), str(length), f"{point['tokens_per_step']:,}",
            count(point["gflop_per_step"] / point["tokens_per_step"] * 1e3),
            *(count(1e6 / speeds[threads]) for threads in (few, many)),
            times(speeds[many] / speeds[few]),
        ])
    return result


def scaling_head(record: dict) -> list[str]:
    many = record["threads"]
    return [
        "depth", "T", "tokens a step", "needed MFLOP a token", "us a token on 1 thread",
        f"us a token on {many} threads", "faster by",
    ]


def token_rows(record: dict) -> list[list[str]]:
    ours, theirs = record["tokens"]["nanorun"], record["tokens"]["upstream"]
    found = record["tokens"]["verdicts"]

    def megabytes(side: dict) -> str:
        return f"{side['bytes'] / side['encode_seconds'] / 1e6:.1f} MB/s"

    return [
        ["tokenizer training (rustbpe)", count(theirs["tokenizer_train_seconds"], " s"),
         count(ours["tokenizer_train_seconds"], " s"), times(found["training"]["ratio"])],
        ["encoding (tiktoken)", megabytes(theirs), megabytes(ours), times(found["encoding"]["ratio"])],
        ["reading, encoding, packing", count(theirs["packed_tokens_per_second"], " tok/s"),
         count(ours["packed_tokens_per_second"], " tok/s"), times(found["packing"]["ratio"])],
    ]


def processor(record: dict) -> str:
    """What computed: the GPU, or the CPU."""
    return str(record["machine"].get("gpu" if record["device"] == "cuda" else "cpu"))


def machine(record: dict) -> str:
    facts, software = record["machine"], record["software"]
    ours = software.get("nanorun") or {}
    where = processor(record) + ("" if record["device"] == "cuda" else f", {facts['cores']} cores")
    return (
        f"{where}, {record['threads']} threads, {facts.get('memory_gib', '?')} GiB, {facts['system']}; "
        f"upstream {software['upstream']['commit'][:7] or '-'}, Python {software['python']['python']}, "
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
    work = work_rows(record)
    if work:
        parts.append(grid(WORK_HEAD, work))
    if "tokens" in record:
        parts.append(
            f"Text to rows, {record['tokens']['nanorun']['bytes'] / 1e6:.1f} MB, vocabulary "
            f"{record['tokens']['vocab_size']:,}, {record['threads']} threads:\n"
        )
        parts.append(grid(["", "upstream", "nanorun", "faster by"], token_rows(record)))
    scaling = scaling_rows(record)
    if scaling:
        parts.append("Scaling of nanorun's step:\n")
        parts.append(grid(scaling_head(record), scaling))
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
        both = entry.get("verdicts", {}) | entry.get("bench_verdicts", {})
        for key, found in both.items():
            if found["verdict"] == "fail":
                figures = ", ".join(
                    f"{what} {value:.4g}" for what, value in found.items() if isinstance(value, float)
                )
                lines.append(f"{name}: {key}" + (f" ({figures})" if figures else ""))
        lines += [f"{name}: {message.splitlines()[0]}" for message in entry.get("errors", [])]
    for key, found in record.get("tokens", {}).get("verdicts", {}).items():
        if found["verdict"] == "fail":
            lines.append(f"tokenizer: {key}" + (f" ({found['ratio']:.2f}x)" if "ratio" in found else ""))
    lines += [message.splitlines()[0] for message in record.get("errors", [])]
    if record.get("left_out"):
        lines.append(f"not measured for lack of time: {', '.join(record['left_out'])}")
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
        found = entry.get("bench_verdicts")
        if found:
            lines.append(f"{name:10} " + ", ".join(f"{key} {each['verdict']}" for key, each in found.items()))
        lines += [f"{name:10} failed: {message.splitlines()[0]}" for message in entry.get("errors", [])]
    found = record.get("tokens", {}).get("verdicts", {})
    if found:
        lines.append("tokenizer  " + ", ".join(f"{key} {each['verdict']}" for key, each in found.items()))
    return "\n".join(lines) + "\n"
