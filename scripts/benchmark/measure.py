"""What one training run of either side yields, in the same terms."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from statistics import median

# Steps at the start that are no steady state: compilation, first touch of memory, caches.
WARM_UP_STEPS = 3


@dataclass
class Run:
    """One training run. Times in seconds, memory in bytes, losses in nats a token."""

    side: str  # "upstream" or "nanorun"
    mode: str  # "eager", "compiled" or nanorun's backend
    repetition: int
    load_average: float
    wall_seconds: float
    peak_memory_bytes: int
    step_seconds: list[float]
    losses: list[float]
    bpb: dict[int, float]
    first_step_at: float | None = None  # when the first optimizer step began, since process start
    compile_seconds: float | None = None
    result_hash: str | None = None
    attention: str | None = None
    mfu_percent: float | None = None
    extra: dict[str, object] = field(default_factory=dict)

    @property
    def steady(self) -> list[float]:
        """Step times after warm-up; at least the later half."""
        skip = min(WARM_UP_STEPS, len(self.step_seconds) // 2)
        return self.step_seconds[skip:]

    def tokens_per_second(self, tokens_per_step: int) -> float:
        """At the median steady step: one disturbed step does not count."""
        return tokens_per_step / median(self.steady)

    @property
    def initial_bpb(self) -> float:
        return self.bpb[min(self.bpb)]

    @property
    def final_bpb(self) -> float:
        return self.bpb[max(self.bpb)]

    def summary(self, tokens_per_step: int) -> dict[str, object]:
        """For the record."""
        values = {key: value for key, value in asdict(self).items() if value is not None and value != {}}
        values["tokens_per_second"] = round(self.tokens_per_second(tokens_per_step), 1)
        values["bpb"] = {str(step): value for step, value in self.bpb.items()}
        for key in ("step_seconds", "losses"):
            values[key] = [round(value, 6) for value in values[key]]
        for key in ("wall_seconds", "load_average", "compile_seconds", "first_step_at"):
            if key in values:
                values[key] = round(values[key], 3)
        return values


def smoothed(losses: list[float]) -> list[float]:
    """The debiased exponential mean (0.9) that upstream logs."""
    result, mean = [], 0.0
    for step, loss in enumerate(losses):
        mean = 0.9 * mean + 0.1 * loss
        result.append(mean / (1 - 0.9 ** (step + 1)))
    return result


def unsmoothed(logged: list[float]) -> list[float]:
    """The step losses behind upstream's logged means; six logged decimals leave errors up to 1e-5."""
    result, previous = [], 0.0
    for step, value in enumerate(logged):
        mean = value * (1 - 0.9 ** (step + 1))
        result.append((mean - 0.9 * previous) / 0.1)
        previous = mean
    return result
