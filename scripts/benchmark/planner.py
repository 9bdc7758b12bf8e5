"""What there is to do, in the order of its worth, and how long it will take."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median

from .manifest import Shape

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


def tasks(shapes: list[Shape], modes: list[str], repeats: int, benches: bool, scaling: list[Shape]) -> list[Task]:
    """All tasks. A first pair of everything comes before any second one: what time is left for decides nothing else."""
    result = [Task("tokens", shapes[0])] if benches else []
    for repetition in range(1, repeats + 1):
        result += [Task("pair", shape, mode, repetition) for shape in shapes for mode in modes]
        if repetition == 1 and benches:
            result += [Task("bench", shape) for shape in shapes] + [Task("scaling", shape) for shape in scaling]
    return result


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


def guess(task: Task) -> float:
    """Seconds on two cores of 2021."""
    shape = task.shape
    if task.kind == "tokens":
        return 15.0
    depth, length, tokens = shape.number("model.depth"), shape.number("model.sequence_len"), shape.tokens_per_step
    width = depth * shape.number("model.aspect_ratio")
    # FLOPs: the linear layers and lm_head, attention over the whole square as upstream computes it, Muon.
    token = 6 * (12 * depth * width**2 + shape.vocab_size * width) + 12 * depth * width * length
    step = (token * tokens + 300 * depth * width**3) / 70e9
    if task.kind != "pair":
        # Ours at twice the speed; warm-up, five steps, and three on one thread.
        return 3 + step / 2 * (4 if step > 20 else 14)
    validation = 2 * token / 3 * shape.number("eval.tokens") / 70e9
    theirs = 8 + shape.steps * step + validation
    compiling = 60 + 8 * (depth - 4) if task.mode == "compiled" and task.repetition == 1 else 0
    return theirs + compiling + theirs / 2
