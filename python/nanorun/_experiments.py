"""Experiments: planned, run and judged by the program."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ._call import PathLike, call, options
from ._results import Library, Results, _library


@dataclass(frozen=True)
class Verdict:
    """What the scorecard says of one arm.

    Attributes:
        kind: "quality", "speed" or "reproducibility".
        arm: the arm that is judged.
        control: what it is compared with, if anything.
        metric: what is compared, such as "val_bpb".
        outcome: "pass", "fail", "undecided" or "not judged".
        finding: of quality: "better", "equivalent", "no worse", "worse, within the margin", "worse" or "undecided".
        difference: the mean difference from the control.
        interval: its confidence interval, adjusted for all arms together; None where there is none.
        confidence: that of all intervals together, such as 0.95.
        pairs: seeds that both have.
        detail: the rest in words.
        raw: everything that the program said of it.
    """

    kind: str
    arm: str
    control: str | None
    metric: str | None
    outcome: str
    finding: str | None
    difference: float | None
    interval: tuple[float, float] | None
    confidence: float | None
    pairs: int | None
    detail: str
    raw: Mapping[str, Any]

    @classmethod
    def _of(cls, said: Mapping[str, Any]) -> Verdict:
        low, high = said.get("lower"), said.get("upper")
        return cls(
            kind=said["verdict"],
            arm=said["arm"],
            control=said.get("control"),
            metric=said.get("metric"),
            outcome=said["outcome"],
            finding=said.get("finding"),
            difference=said.get("difference"),
            interval=None if low is None or high is None else (low, high),
            confidence=said.get("confidence"),
            pairs=said.get("pairs"),
            detail=said.get("detail") or "",
            raw=said,
        )


def verdict(experiment: PathLike, *, results: PathLike | None = None) -> list[Verdict]:
    """The verdicts on what is on disk; nothing is trained.

    Args:
        experiment: a manifest or a results directory.
        results: where results are kept, if not in `results`.

    Raises:
        InvalidInput: there is no such experiment.
    """
    said, _ = call(["report", os.fspath(experiment), *options(results=results)])
    return [Verdict._of(one) for one in said["verdicts"]]


def plan(
    manifest: PathLike,
    *,
    set: Mapping[str, Any] | None = None,
    only: Mapping[str, Any] | None = None,
    profile: str | None = None,
    results: PathLike | None = None,
) -> dict[str, Any]:
    """What would be run and why: arms, runs with their sizes and keys, memory, disk. Nothing is trained.

    Args:
        manifest: the experiment's manifest.
        set: manifest fields that are overridden, by path: `{"model.depth": 6}`.
        only: cells that have these values; a list holds alternatives.
        profile: a `[profile.NAME]` of the manifest.
        results: where results are kept, if not in `results`.

    Raises:
        InvalidInput: a manifest that cannot be used; the message says where.
    """
    said, _ = call(["plan", os.fspath(manifest), *options(set=set, only=only, profile=profile, results=results)])
    return dict(said)


def run(
    manifest: PathLike,
    *,
    set: Mapping[str, Any] | None = None,
    only: Mapping[str, Any] | None = None,
    profile: str | None = None,
    results: PathLike | None = None,
    threads: int | None = None,
    quiet: bool = False,
    library: Library | None = None,
) -> Results:
    """Trains what is not done yet and returns the results. Stopped at any moment, the same call carries on.

    A verdict that failed is an answer, not an error: see `Results.exit_code`.

    Args:
        manifest, set, only, profile, results: as in `plan`.
        threads: threads of the CPU backend; never changes a result.
        quiet: no progress on stderr.
        library: whose frames are wanted, as in `load`.

    Raises:
        InvalidInput: a manifest or data that cannot be used.
        RunFailed: a run failed.
        Interrupted: it was stopped.
    """
    chosen = _library(library)
    more = [] if threads is None else ["--threads", str(threads)]
    arguments = ["run", os.fspath(manifest), *options(set=set, only=only, profile=profile, results=results), *more]
    said, code = call(arguments, quiet=quiet)
    return Results(Path(said["directory"]), chosen, said, code)
