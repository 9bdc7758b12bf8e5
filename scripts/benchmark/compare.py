"""Verdicts over the runs of one shape: losses, quality, speed, memory, reproducibility, and of its bench."""

from __future__ import annotations

from statistics import median

from .measure import Run, smoothed

# The goals: training tokens a second over the better of upstream compiled and eager.
SPEED_GOALS = {
    "d4_t512": 1.55, "d4_t2048": 3.0, "d6_t512": 1.45, "d12_t1024": 2.0, "d12_t2048": 1.1,
    "d4_t512_bf16": 1.8, "d4_t2048_bf16": 2.4, "d6_t512_bf16": 1.6, "d12_t1024_bf16": 1.5,
}
MEMORY_GOAL = 0.5  # of upstream's smaller peak; judged on the CPU
QUALITY_MARGIN = 0.005  # relative, of final val bpb; lower is always fine
NEARLY_ALL = 0.99  # of the way from upstream's first smoothed loss to its last
# A ratio of fewer pairs than this decides only where it clears, or misses, the goal by the machine's drift.
FEWEST_PAIRS = 3
DRIFT = 1.3
SGEMM_GOAL = 0.85  # share of the sgemm rate of the same moment, from this depth on
SGEMM_DEPTH = 6
START_GOAL = 1.0  # seconds from process start until the first step
DATA_WAIT_GOAL = 0.001  # of a step, waiting for rows

# When the losses of two implementations agree. The recipe starts from zero projections, from where Muon normalises
# rounding noise: upstream's own step losses move with a 1e-7 nudge, more with every step, until its eager and its
# compiled run of one seed have parted. Up to there every step is held, tightly or to a few times upstream's own
# movement; from there on there is no curve to be held to, and what is judged is how far the smoothed loss lies from
# upstream's, against how far upstream's lie from each other. scripts/whole_runs asks that question in earnest, with
# seeds and intervals.
EARLY_STEPS = 8  # held where upstream ran in one mode alone
APART = 1e-3  # of a step's loss: where two runs have parted
OWN_FACTOR = 4  # times upstream's own movement: that is the difference of only two runs
TOLERANCES = {
    # precision: val bpb before training, step loss while upstream holds still (absolute), smoothed loss anywhere (relative)
    "f32": {"initial_bpb": 1e-5, "early_loss": 2e-4, "smoothed_loss": 0.01},
    "bf16": {"initial_bpb": 2e-3, "early_loss": 2e-2, "smoothed_loss": 0.01},
}
# Runs of early steps alone hardly move; there the movement of val bpb must agree too (relative).
EARLY_BPB_CHANGE = {"f32": 0.02, "bf16": 0.1}


def largest(values: list[float]) -> float:
    """The largest, or NaN where there is one: max() alone may pass over it."""
    return max(values) if all(value == value for value in values) else float("nan")


def running_largest(values: list[float]) -> list[float]:
    """The largest of the values up to each."""
    return [largest(values[: index + 1]) for index in range(len(values))]


def movement(theirs: Run, others: list[Run]) -> list[float]:
    """How far upstream's other runs have been from this one, by step."""
    apart = [[abs(x - y) for x, y in zip(theirs.losses, other.losses)] for other in others]
    return running_largest([largest(list(step)) for step in zip(*apart)])


def steps_held(theirs: Run, others: list[Run]) -> int:
    """The steps before upstream parts from itself; the early ones where there is no other run to tell."""
    if not others:
        return min(len(theirs.losses), EARLY_STEPS)
    moved = movement(theirs, others)
    return next((step for step, value in enumerate(moved) if not value <= APART), len(moved))


def deviations(a: Run, b: Run, steps: int = EARLY_STEPS) -> dict[str, float]:
    """Largest differences between two runs of the same steps; `early_loss` is of the first `steps`."""
    early = largest([abs(x - y) for x, y in zip(a.losses, b.losses)][:steps] or [0.0])
    whole = largest([abs(x - y) / abs(x) for x, y in zip(smoothed(a.losses), smoothed(b.losses))])
    return {
        "initial_bpb": abs(a.initial_bpb - b.initial_bpb),
        "early_loss": early,
        "smoothed_loss": whole,
        "final_bpb": abs(a.final_bpb - b.final_bpb),
        "bpb_change": abs((b.final_bpb - b.initial_bpb) / ((a.final_bpb - a.initial_bpb) or 1e-9) - 1),
    }


def agreement(ours: Run, theirs: Run, precision: str, others: list[Run]) -> dict[str, object]:
    """Whether the losses agree step by step while upstream agrees with itself, and are no further away than it is
    afterwards; of each step, the mean over its micro-batches. `others` are upstream's runs in its other mode."""
    tolerance = dict(TOLERANCES[precision])
    if len(theirs.losses) <= EARLY_STEPS:
        tolerance["bpb_change"] = EARLY_BPB_CHANGE[precision]
    held = steps_held(theirs, others)
    found = deviations(theirs, ours, held)
    own = [deviations(theirs, other)["smoothed_loss"] for other in others]
    tolerance["smoothed_loss"] = max([tolerance["smoothed_loss"], *(OWN_FACTOR * value for value in own)])
    # Of every step its own: a late movement of upstream's widens no earlier step.
    apart = [abs(x - y) for x, y in zip(theirs.losses, ours.losses)]
    moved = movement(theirs, others) if others else [0.0] * len(apart)
    limits = [max(tolerance["early_loss"], OWN_FACTOR * value) for value in moved]
    # Written so that a NaN agrees with nothing.
    steps = all(value <= limit for value, limit in zip(apart[:held], limits))
    agree = steps and all(found[key] <= limit for key, limit in tolerance.items() if key != "early_loss")
    # Where the chaos shows; none where the whole run stays together.
    step = next((s for s, (x, y) in enumerate(zip(theirs.losses, ours.losses)) if not abs(x - y) <= 1e-3), None)
    return {
        "agree": agree, "steps_compared": held, "largest": found,
        "tolerance": tolerance, "first_step_beyond_0.001": step,
    }


def seconds_to_loss(run: Run, target: float) -> float | None:
    """Training seconds, compilation included, until the smoothed loss is at most `target`; none if never."""
    for step, loss in enumerate(smoothed(run.losses)):
        if loss <= target:
            return sum(run.step_seconds[: step + 1])
    return None


def ratio(a: float | None, b: float | None) -> float | None:
    return a / b if a is not None and b else None


def middle(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known and len(known) == len(values) else None


def judge(name: str, device: str, precision: str, tokens: int, pairs: list[tuple[Run, Run | None]]) -> dict[str, object]:
    """Everything said about one shape. `pairs` are neighbours in time: an upstream run, then nanorun's."""
    modes: dict[str, dict[str, object]] = {}
    first = {theirs.mode: theirs for theirs, _ in reversed(pairs)}
    for mode in dict.fromkeys(theirs.mode for theirs, _ in pairs):
        of_mode = [(theirs, ours) for theirs, ours in pairs if theirs.mode == mode]
        curve = smoothed(of_mode[0][0].losses)
        # Both sides race to the same loss: nearly all of upstream's way down, so that rounding decides nothing.
        target = curve[0] - NEARLY_ALL * (curve[0] - curve[-1])
        entry: dict[str, object] = {
            "tokens_per_second": middle([theirs.tokens_per_second(tokens) for theirs, _ in of_mode]),
            "elapsed_seconds": middle([theirs.wall_seconds for theirs, _ in of_mode]),
            "peak_memory_bytes": max(theirs.peak_memory_bytes for theirs, _ in of_mode),
            "final_bpb": middle([theirs.final_bpb for theirs, _ in of_mode]),
            "optimizer_share": middle([theirs.optimizer_share() for theirs, _ in of_mode]),
            "data_wait_seconds": middle([theirs.data_wait_seconds() for theirs, _ in of_mode]),
            "ready_seconds": middle([theirs.ready_seconds for theirs, _ in of_mode]),
            "compile_seconds": [round(t.compile_seconds, 1) for t, _ in of_mode if t.compile_seconds is not None],
            "loss_target": target,
            "seconds_to_loss": middle([seconds_to_loss(theirs, target) for theirs, _ in of_mode]),
        }
        with_ours = [(theirs, ours) for theirs, ours in of_mode if ours is not None]
        if with_ours:
            speed = [o.tokens_per_second(tokens) / t.tokens_per_second(tokens) for t, o in with_ours]
            entry |= {
                "speed_ratios": [round(value, 3) for value in speed],
                "speed_ratio": median(speed),
                "nanorun_seconds_to_loss": middle([seconds_to_loss(o, target) for _, o in with_ours]),
                "elapsed_ratio": middle([ratio(t.wall_seconds, o.wall_seconds) for t, o in with_ours]),
                "agreement": agreement(
                    with_ours[0][1], with_ours[0][0], precision, [run for other, run in first.items() if other != mode]
                ),
            }
        modes[mode] = entry
    result: dict[str, object] = {"upstream": modes}
    if len(first) == 2:
        # Upstream against itself: the yardstick for the differences above.
        result["upstream_eager_against_compiled"] = deviations(first["eager"], first["compiled"])
    ours = [run for _, run in pairs if run is not None]
    if ours:
        result["nanorun"] = {
            "tokens_per_second": middle([run.tokens_per_second(tokens) for run in ours]),
            "elapsed_seconds": middle([run.wall_seconds for run in ours]),
            "peak_memory_bytes": max(run.peak_memory_bytes for run in ours),
            "final_bpb": middle([run.final_bpb for run in ours]),
            "first_step_at": middle([run.first_step_at for run in ours]),
        }
        result["verdicts"] = verdicts(name, device, modes, ours, result["nanorun"])
    return result


def verdicts(name: str, device: str, modes: dict, ours: list[Run], mine: dict) -> dict[str, dict[str, object]]:
    """pass, fail or undecided, each with its figure and limit."""
    bpbs = [entry["final_bpb"] for entry in modes.values()]
    best = min(bpbs)
    excess = mine["final_bpb"] / best - 1
    # Where upstream's modes end far apart, its own runs tell no better.
    margin = max(QUALITY_MARGIN, OWN_FACTOR * (max(bpbs) / best - 1))
    speed = min(entry["speed_ratio"] for entry in modes.values() if "speed_ratio" in entry)
    repeats = min(len(entry.get("speed_ratios", [])) for entry in modes.values())
    memory = mine["peak_memory_bytes"] / min(entry["peak_memory_bytes"] for entry in modes.values())
    hashes = [run.result_hash for run in ours]
    agree = all(entry["agreement"]["agree"] for entry in modes.values() if "agreement" in entry)
    goal = SPEED_GOALS.get(name)
    return {
        "losses": {"verdict": said(agree)},
        "quality": {"verdict": said(excess <= margin), "bpb_excess": excess, "margin": margin},
        "speed": {
            "verdict": speed_verdict(speed, goal, repeats),
            "ratio_to_better": speed, "goal": goal, "pairs": repeats,
        },
        "memory": {
            "verdict": "undecided" if device != "cpu" else said(memory <= MEMORY_GOAL),
            "ratio_to_smaller": memory, "goal": MEMORY_GOAL,
        },
        "reproducibility": {
            "verdict": "undecided" if len(hashes) < 2 else said(len(set(hashes)) == 1),
            "runs": len(hashes), "result_hashes": sorted({str(value) for value in hashes}),
        },
    }


def said(condition: bool) -> str:
    return "pass" if condition else "fail"


def speed_verdict(ratio_to_better: float, goal: float | None, pairs: int) -> str:
    if goal is None or pairs < 1:
        return "undecided"
    if pairs < FEWEST_PAIRS and goal / DRIFT < ratio_to_better < goal * DRIFT:
        return "undecided"
    return said(ratio_to_better >= goal)


def judge_bench(depth: int, device: str, modes: dict, bench: dict) -> dict[str, dict[str, object]]:
    """What `nanorun bench` shows of the goals; upstream's optimizer share is that of its better mode."""
    found: dict[str, dict[str, object]] = {}
    share = bench.get("share_of_sgemm")
    if device == "cpu" and share is not None:
        verdict = said(share >= SGEMM_GOAL) if depth >= SGEMM_DEPTH else "no goal"
        found["sgemm"] = {"verdict": verdict, "share": share, "goal": SGEMM_GOAL}
    theirs = better(modes).get("optimizer_share") if modes else None
    if theirs is not None:
        ours = bench["optimizer_share"]
        found["optimizer"] = {"verdict": said(ours <= theirs), "share": ours, "upstream_share": theirs}
    start = bench.get("process_start_to_first_step_seconds")
    if start is not None:
        found["start"] = {"verdict": said(start < START_GOAL), "seconds": start, "goal": START_GOAL}
    wait = bench["data_wait_seconds"] / bench["step_seconds"]
    found["data"] = {"verdict": said(wait <= DATA_WAIT_GOAL), "share_of_step": wait, "goal": DATA_WAIT_GOAL}
    count = bench.get("allocations_after_first_step")
    if count is not None:
        found["allocations"] = {"verdict": said(count == 0), "tensors_after_first_step": count}
    return found


def better(modes: dict) -> dict:
    """Upstream's faster mode: what a goal is measured against."""
    return max(modes.values(), key=lambda mode: mode["tokens_per_second"] or 0)


def judge_tokens(ours: dict, theirs: dict) -> dict[str, dict[str, object]]:
    """Tokenizer training, encoding and packing, as ratios of upstream's seconds to ours."""
    result: dict[str, dict[str, object]] = {"same_tokens": {"verdict": said(ours["tokens"] == theirs["tokens"])}}
    for name, key in (("training", "tokenizer_train_seconds"), ("encoding", "encode_seconds")):
        times = theirs[key] / ours[key]
        result[name] = {"verdict": said(times >= 1), "ratio": times}
    times = ours["packed_tokens_per_second"] / theirs["packed_tokens_per_second"]
    result["packing"] = {"verdict": said(times >= 1), "ratio": times}
    return result
