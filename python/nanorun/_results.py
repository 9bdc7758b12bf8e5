"""The tables that an experiment leaves, as frames."""

from __future__ import annotations

import importlib.util
import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Union

from ._call import InvalidInput, PathLike

if TYPE_CHECKING:
    import pandas
    import polars

    Frame = Union[polars.DataFrame, pandas.DataFrame]

Library = Literal["polars", "pandas"]


class Results:
    """An experiment's results directory.

    Tables are read when they are first asked for. Their columns are described in the documentation of file formats.

    Attributes:
        directory: where the results are.
        library: what the frames are of, "polars" or "pandas".
        summary: what `nanorun run --json` said, if these results come from `nanorun.run`.
        exit_code: what that call ended with: 0, 4 (a hash differs) or 5 (a verdict failed).
    """

    def __init__(self, directory: Path, library: Library, summary: dict[str, Any] | None = None, exit_code: int = 0):
        self.directory = directory
        self.library: Library = library
        self.summary = summary
        self.exit_code = exit_code

    def __repr__(self) -> str:
        return f"Results({str(self.directory)!r}, library={self.library!r})"

    @cached_property
    def runs(self) -> Frame:
        """A row a run: arm, seed, key, result hash, sizes, final values, environment."""
        return self._table("runs")

    @cached_property
    def steps(self) -> Frame:
        """A row a step of every run: loss, schedule values, seconds."""
        return self._table("steps")

    @cached_property
    def evals(self) -> Frame:
        """A row an evaluation and metric of every run."""
        return self._table("evals")

    @cached_property
    def scorecard(self) -> Frame:
        """A row a verdict: arm, control, metric, difference, interval, finding, outcome."""
        return self._table("scorecard")

    @property
    def report(self) -> Path:
        """The page about the experiment, one HTML file."""
        return self.directory / "report.html"

    def _table(self, name: str) -> Frame:
        path = self.directory / f"{name}.parquet"
        if not path.is_file():
            raise InvalidInput(f"{path} is not there: `nanorun report {self.directory}` writes the tables of what has been run", 2)
        if self.library == "polars":
            import polars

            return polars.read_parquet(path)
        import pandas

        return pandas.read_parquet(path)


def load(directory: PathLike, library: Library | None = None) -> Results:
    """Reads a results directory, such as `results/quickstart`.

    Args:
        directory: the directory of one experiment.
        library: whose frames are wanted; polars if it is installed, else pandas.

    Raises:
        InvalidInput: there are no results.
        ImportError: the library, or either, is not installed.
    """
    place = Path(os.fspath(directory))
    if not (place / "plan.toml").is_file():
        raise InvalidInput(_nothing(place), 2)
    return Results(place, _library(library))


def _nothing(place: Path) -> str:
    """Why there are no results, with what is near."""
    if not place.exists():
        near = place.parent
        there = sorted(found.parent.name for found in near.glob("*/plan.toml")) if near.is_dir() else []
        known = f"; {near} has {', '.join(there[:8])}" if there else ""
        return f"there is no {place}{known}: expected the results directory of an experiment, such as results/quickstart"
    return f"{place} holds no results of nanorun (no plan.toml): expected the results directory of an experiment, such as results/quickstart"


def _library(wanted: Library | None) -> Library:
    known: tuple[Library, ...] = ("polars", "pandas")
    if wanted is not None and wanted not in known:
        raise ValueError(f"library={wanted!r}: expected 'polars' or 'pandas'")
    for library in (wanted,) if wanted else known:
        needs = ("polars",) if library == "polars" else ("pandas", "pyarrow")
        if all(importlib.util.find_spec(name) for name in needs):
            return library
    extra = wanted or "polars"
    raise ImportError(f"tables are read with polars, or with pandas and pyarrow, and neither is here: pip install 'nanorun[{extra}]'")
