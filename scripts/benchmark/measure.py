"""What one training run of either side yields, in the same terms."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
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
    pair: str = ""  # its upstream mode and repetition: the runs of a pair are neighbours in time
    first_step_at: float | None = None  # when the first step began, since process start; a validation is before it
    ready_seconds: float | None = None  # from process start until it could train, no validation in it
    optimizer_seconds: list[float] | None = None  # of each step
    data_seconds: list[float] | None = None  # of each step, waiting for rows
    compile_seconds: float | None = None
    result_hash: str | None = None
    attention: str | None = None
    mfu_percent: float | None = None
    extra: dict[str, object] = field(default_factory=dict)

    @classmethod
    def from_summary(cls, values: dict[str, object]) -> Run:
        """The inverse of `summary`, but for rounding."""
        known = {item.name for item in fields(cls)}
        run = cls(**{key: value for key, value in values.items() if key in known})
        run.bpb = {int(step): value for step, value in run.bpb.items()}
        return run

    def _steady(self, values: list[float]) -> list[float]:
        return values[min(WARM_UP_STEPS, len(values) // 2):]

    @property
    def steady(self) -> list[float]:
        """Step times after warm-up; at least the later half."""
        return self._steady(self.step_seconds)

    def optimizer_share(self) -> float | None:
        """Share of the steady steps that the optimizer takes."""
        if not self.optimizer_seconds:
            return None
        return sum(self._steady(self.optimizer_seconds)) / sum(self.steady)

    def data_wait_seconds(self) -> float | None:
        """Of a steady step."""
        return median(self._steady(self.data_seconds)) if self.data_seconds else None

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
        for key in ("step_seconds", "losses", "optimizer_seconds", "data_seconds"):
            if key in values:
                values[key] = [round(value, 7) for value in values[key]]
        for key in ("wall_seconds", "load_average", "compile_seconds", "first_step_at", "ready_seconds"):
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
