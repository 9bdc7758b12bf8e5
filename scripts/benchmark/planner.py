"""What there is to do, in the order of its worth, and how long it will take."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median

from .manifest import Shape

SPEED = 70e9  # FLOP/s of upstream's step
# Depth and sequence length at 4,096 tokens a step, besides what the shapes themselves show.
SCALING = ((2, 512), (4, 256), (4, 1024), (8, 512))


@dataclass(frozen=True)
class Task:
    """One thing to measure: a `pair` of runs, a `bench` of a shape, the `tokens` or a `scaling` point."""

    kind: str
    shape: Shape
    mode: str = ""
    repetition: int = 0

    @property
    def key(self) -> str:
        return f"{self.shape.name} {self.kind}" + (f" {self.mode}-{self.repetition}" if self.kind == "pair" else "")


# Steps longer than this, in seconds, are drawn out less by a disturbance, and cost most of the time there is.
LONG_STEP = 20.0


def tasks(shapes: list[Shape], modes: list[str], repeats: int, benches: bool, scaling: list[Shape]) -> list[Task]:
    """All tasks, in the order in which they are worth the time: a first pair of everything before any second one."""
    short = [shape for shape in shapes if step_seconds(shape) <= LONG_STEP]
    long = [shape for shape in shapes if shape not in short]

    def pairs(of: list[Shape], repetition: int) -> list[Task]:
        return [Task("pair", shape, mode, repetition) for shape in of for mode in modes]

    def bench(of: list[Shape], kind: str = "bench") -> list[Task]:
        return [Task(kind, shape) for shape in of] if benches else []

    result = bench(shapes[:1], "tokens") + pairs(short, 1) + pairs(long, 1) + bench(short)
    result += pairs(short, 2) if repeats > 1 else []
    result += bench(long) + bench(scaling, "scaling")
    result += [task for repetition in range(3, repeats + 1) for task in pairs(short, repetition)]
    return result + [task for repetition in range(2, repeats + 1) for task in pairs(long, repetition)]


class Clock:
    """The time there is, and estimates that learn from what was measured."""

    def __init__(self, minutes: float | None):
        self.started = time.monotonic()
        self.seconds = minutes * 60 if minutes else None
        self.factors: list[float] = []
        self.seen: dict[str, float] = {}

    def left(self) -> float | None:
        return None if self.seconds is None else self.seconds - (time.monotonic() - self.started)

    def estimate(self, task: Task) -> float:
        """Seconds: those of the same pair before, or a guess from the arithmetic, corrected by how guesses went."""
        before = self.seen.get(name(task))
        return before if before is not None else guess(task) * (median(self.factors) if self.factors else 1.0)

    def learn(self, task: Task, seconds: float, compiling: float = 0.0) -> None:
        """`compiling` seconds do not come again."""
        self.seen[name(task)] = seconds - compiling
        if task.kind == "pair":
            self.factors.append(seconds / guess(task))


def name(task: Task) -> str:
    return f"{task.shape.name} {task.kind} {task.mode}"


def token_flops(shape: Shape) -> float:
    """The linear layers and lm_head, and attention over the whole square, as upstream computes it."""
    depth, length = shape.number("model.depth"), shape.number("model.sequence_len")
    width = depth * shape.number("model.aspect_ratio")
    return 6 * (12 * depth * width**2 + shape.vocab_size * width) + 12 * depth * width * length


def step_seconds(shape: Shape) -> float:
    """Of upstream, on two cores of 2021; Muon is in it."""
    depth = shape.number("model.depth")
    width = depth * shape.number("model.aspect_ratio")
    return (token_flops(shape) * shape.tokens_per_step + 300 * depth * width**3) / SPEED


def guess(task: Task) -> float:
    """Seconds, where nothing was measured yet."""
    shape = task.shape
    if task.kind == "tokens":
        return 15.0
    step = step_seconds(shape)
    if task.kind != "pair":
        # Ours at twice the speed; warm-up, five steps, and three on one thread.
        return 3 + step / 2 * (4 if step > LONG_STEP else 14)
    validation = 2 * token_flops(shape) / 3 * shape.number("eval.tokens") / SPEED
    theirs = 8 + shape.steps * step + validation
    compiling = 60 + 8 * (shape.number("model.depth") - 4) if task.mode == "compiled" and task.repetition == 1 else 0
    return theirs + compiling + theirs / 2
