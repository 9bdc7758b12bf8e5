"""What whole runs show: whether there is a bias, and whether the spread is upstream's own."""

from __future__ import annotations

from . import stats

# Of val bpb: what a bias must stay below. Upstream's own runs of one recipe on GPUs differ by 0.0007.
BOUND = 0.002
CONFIDENCE = 0.95
# A false alarm of the cold runs should be rare, for they are looked at in several ways.
ALARM = 0.99
APART = 1e-3  # of a step's loss: where two runs have parted
Line = dict[str, object]


def named(lines: list[Line], kind: str, depth: int, steps: int, side: str, variant: str = "") -> dict[int, Line]:
    """Runs by seed."""
    wanted = {"kind": kind, "depth": depth, "steps": steps, "side": side, "variant": variant}
    return {line["seed"]: line for line in lines if all(line[key] == value for key, value in wanted.items())}


def parted(a: Line, b: Line) -> int | None:
    """The first step at which the losses are apart."""
    pairs = enumerate(zip(a["losses"], b["losses"]))
    return next((step for step, (x, y) in pairs if not abs(x - y) <= APART), None)


def pairs(first: dict[int, Line], second: dict[int, Line]) -> list[tuple[int, Line, Line]]:
    return [(seed, first[seed], second[seed]) for seed in sorted(first.keys() & second.keys())]


def bias_verdict(differences: list[float]) -> tuple[str, bool]:
    """What five starts say, and whether that is no bias."""
    low, high = stats.interval(differences, CONFIDENCE)
    if -BOUND <= low and high <= BOUND:
        return f"no bias beyond {BOUND} bpb", True
    if low > BOUND or high < -BOUND:
        return f"**a bias beyond {BOUND} bpb**", False
    return f"undecided: more starts would narrow the interval to {BOUND} bpb", True


def difference(values: list[float], confidence: float = CONFIDENCE) -> str:
    low, high = stats.interval(values, confidence)
    if len(values) < 2:
        return f"{small(values[0])} (one pair: no interval)"
    return f"{small(stats.mean(values))} [{small(low)}, {small(high)}]"


def small(value: float) -> str:
    """Five decimals, or two digits of what would vanish in them."""
    return f"{value:+.5f}" if abs(value) >= 5e-5 else f"{value:+.1e}"


def largest(a: Line, b: Line) -> float:
    """Of the differences of the losses, step by step; NaN where there is one."""
    values = [abs(x - y) for x, y in zip(a["losses"], b["losses"])]
    return max(values) if all(value == value for value in values) else float("nan")


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(cells) + " |" for cells in lines]


def step(value: int | None, offset: int = 0) -> str:
    return "never" if value is None else str(value + offset)


def warm(lines: list[Line], depth: int, steps: int) -> tuple[list[str], bool]:
    """Both sides from the same checkpoints."""
    theirs = named(lines, "warm", depth, steps, "upstream")
    found = pairs(theirs, named(lines, "warm", depth, steps, "nanorun"))
    if not found:
        return [], True
    nudged = named(lines, "warm", depth, steps, "upstream", "nudged")
    differences = [b["bpb"] - a["bpb"] for _, a, b in found]
    own = [b["bpb"] - a["bpb"] for _, a, b in pairs(theirs, nudged)]
    first = found[0][1]["first_step"]
    rows = [
        [
            str(seed), f"{a['bpb']:.6f}", f"{b['bpb']:.6f}", small(b["bpb"] - a["bpb"]),
            f"{largest(a, b):.1e}, {step(parted(a, b), first)}",
            f"{small(nudged[seed]['bpb'] - a['bpb'])}; {largest(a, nudged[seed]):.1e}, {step(parted(a, nudged[seed]), first)}"
            if seed in nudged else "-",
        ]
        for seed, a, b in found
    ]
    verdict, fine = bias_verdict(differences)
    text = [f"### Depth {depth}: {steps} steps from upstream's step {first}", ""]
    head = ["seed", "upstream", "nanorun", "difference", "losses: largest difference, part at step"]
    text += table([*head, "upstream nudged by 1e-7: the same of it"], rows)
    text += ["", f"Mean difference {difference(differences)} bpb: {verdict}."]
    if own:
        text[-1] += f" Upstream against itself, its weights moved by 1e-7 before it goes on: {difference(own)}."
    return [*text, ""], fine


def cold(lines: list[Line], depth: int, steps: int) -> tuple[list[str], bool]:
    """Both sides from the same initial weights, and each against itself."""
    theirs = named(lines, "cold", depth, steps, "upstream")
    found = pairs(theirs, named(lines, "cold", depth, steps, "nanorun"))
    if not found:
        return [], True
    sides = {side: varied(lines, depth, steps, side) for side in ("upstream", "nanorun")}
    differences, rows = [], []
    for seed, base, _ in found:
        row, means = [str(seed)], []
        for runs in sides.values():
            of_seed = [of.get(seed) for of in runs.values()]
            row += [cell(run, base) for run in of_seed]
            means.append(stats.mean([run["bpb"] for run in of_seed if run]))
        differences.append(means[1] - means[0])
        rows.append([*row, f"{differences[-1]:+.5f}"])
    several = any(len(runs) > 1 for runs in sides.values())
    text = [f"### Depth {depth}: {steps} steps from the initial weights", ""]
    names = [f"{side}, {variant}" if variant else side for side, runs in sides.items() for variant in runs]
    text += table(["seed", *names, "nanorun - upstream"], rows)
    text += [
        "", "In brackets the step at which the losses part from upstream's first."
        + (" Of several runs of a side and seed, the mean counts." if several else "")
        + f" Mean difference {difference(differences)} bpb.",
    ]
    fine = True
    low, high = stats.interval(differences, ALARM)
    if low > 0 or high < 0:
        text.append(f"**Zero is outside the {ALARM:.0%} interval [{low:+.5f}, {high:+.5f}].**")
        fine = False
    distances = {
        side: [b["bpb"] - a["bpb"] for runs in of.values() for _, a, b in pairs(theirs, runs) if a is not b]
        for side, of in sides.items()
    }
    if distances["upstream"] and not any(distances["upstream"]):
        equal = not any(distances["nanorun"])
        text.append("Upstream ends where it ends, whatever it is varied by" + ("." if equal else ": **nanorun does not.**"))
        fine = fine and equal
    elif distances["upstream"] and len(found) > 1:
        ours, own = (stats.mean([value**2 for value in distances[side]]) for side in ("nanorun", "upstream"))
        limit = stats.f_quantile(ALARM, len(distances["nanorun"]), len(distances["upstream"])) ** 0.5
        ratio = (ours / own) ** 0.5
        text.append(
            f"Root mean square of the differences: {ours**0.5:.5f} of nanorun from upstream, {own**0.5:.5f} of upstream "
            f"from itself; a ratio of {ratio:.2f}, where chance alone stays below {limit:.2f} in {ALARM:.0%} of cases"
            + (": the spread is upstream's own." if ratio <= limit else ": **more than upstream's own spread.**")
        )
        fine = fine and ratio <= limit
    return [*text, ""], fine


def varied(lines: list[Line], depth: int, steps: int, side: str) -> dict[str, dict[int, Line]]:
    """The cold runs of a side by variant and seed; as it is comes first."""
    wanted = {"kind": "cold", "depth": depth, "steps": steps, "side": side}
    variants = {line["variant"] for line in lines if all(line[key] == value for key, value in wanted.items())}
    return {variant: named(lines, "cold", depth, steps, side, variant) for variant in sorted(variants)}


def cell(run: Line | None, base: Line) -> str:
    """Where a run ended, and where it parted from the one it is compared with."""
    if run is None:
        return "-"
    return f"{run['bpb']:.5f}" + ("" if run is base else f" ({step(parted(base, run))})")


def markdown(about: dict[str, object], lines: list[Line], missing: list[str]) -> tuple[str, bool]:
    """The summary, and whether nothing in it is amiss."""
    machine, python, settings = about["machine"], about["python"], about["settings"]
    nanorun, upstream = about["nanorun"], about["upstream"]
    text = [
        "# Whole runs of nanorun and upstream", "",
        f"{machine['cpu']}" + (f" (family/model {machine['cpu_family_model']})" if "cpu_family_model" in machine else "")
        + f", {machine['cores']} cores, {machine.get('memory_gib', '?')} GiB; {about['threads']} threads on both sides. "
        f"Upstream {str(upstream['commit'])[:7] or 'of no commit'}{' with changes' if upstream['modified'] else ''}, eager unless "
        f"said, float32, torch {python['torch']}, Python {python['python']}. nanorun {nanorun['version'].removeprefix('nanorun ')}"
        f" {str(nanorun['commit'])[:7]}{' with changes' if nanorun['modified'] else ''}, backend cpu unless said. T {settings['model.sequence_len']}, "
        f"{settings['train.total_batch_size']:,} tokens a step, vocabulary {settings['data.tokenizer.vocab_size']:,}, val bpb over "
        f"{settings['eval.tokens']:,} tokens of the embedded corpus's validation split.", "",
    ]
    fine = True
    for title, kind, part in (
        ("## Bias: the same checkpoint, continued", "warm", warm), ("## Chaos: from the initial weights", "cold", cold),
    ):
        shapes = sorted({(line["depth"], line["steps"]) for line in lines if line["kind"] == kind})
        of_kind: list[str] = []
        for depth, steps in shapes:
            said, good = part(lines, depth, steps)
            of_kind += said
            fine = fine and good
        if of_kind:
            text += [title, "", *of_kind]
    text += [f"{sum(line['seconds'] for line in lines) / 3600:.1f} hours of {len(lines)} runs."]
    if missing:
        # By kind and depth: a list of runs would be longer than what it is about.
        kinds: dict[str, int] = {}
        for key in missing:
            kind, depth, *_ = key.split()
            kinds[f"{kind} {depth}"] = kinds.get(f"{kind} {depth}", 0) + 1
        text += ["", f"Still to be run: {', '.join(f'{count} of {name}' for name, count in kinds.items())}."]
    return "\n".join(text) + "\n", fine
