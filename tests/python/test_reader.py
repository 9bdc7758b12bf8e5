"""The Python reader against a real run of the program (NANORUN_PROGRAM)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import nanorun

ROOT = Path(__file__).resolve().parent.parent.parent
MANIFEST = ROOT / "experiments/ci.toml"


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> nanorun.Results:
    place = tmp_path_factory.mktemp("results")
    return nanorun.run(MANIFEST, results=place, quiet=True)


def test_a_run_leaves_what_the_program_says(results: nanorun.Results) -> None:
    said = results.summary
    assert said is not None and results.exit_code == 0
    runs = {row["run_key"]: row for row in results.runs.to_dicts()}
    assert len(runs) == len(said["runs"]) == 5
    for run in said["runs"]:
        assert runs[run["run_key"]]["result_hash"] == run["result_hash"]
    # Every bit of every loss comes through.
    one = said["runs"][0]
    steps = results.steps.filter(results.steps["run_key"] == one["run_key"]).sort("step")
    assert steps["loss"].to_list() == [step["loss"] for step in one["steps"]]
    assert results.report.read_text().startswith("<!")


def test_both_libraries_read_the_same(results: nanorun.Results) -> None:
    ours, theirs = (nanorun.load(results.directory, library) for library in ("polars", "pandas"))
    for name in ("runs", "steps", "evals", "scorecard"):
        polars, pandas = getattr(ours, name), getattr(theirs, name)
        assert polars.columns == list(pandas.columns)
        assert (polars.height, polars.width) == pandas.shape and polars.height > 0, name
    assert ours.steps["loss"].to_list() == theirs.steps["loss"].to_list()
    assert nanorun.load(results.directory).library == "polars"


def test_verdicts_are_those_of_the_card(results: nanorun.Results) -> None:
    verdicts = [verdict for verdict in nanorun.verdict(results.directory) if verdict.kind == "quality"]
    assert {verdict.arm for verdict in verdicts} >= {"warmdown=sqrt"}
    sqrt = next(verdict for verdict in verdicts if verdict.arm == "warmdown=sqrt")
    assert sqrt.control == "warmdown=linear" and sqrt.metric == "val_bpb" and sqrt.outcome == "pass"
    assert sqrt.interval is not None and sqrt.difference is not None
    assert sqrt.interval[0] < sqrt.difference < sqrt.interval[1]
    assert sqrt.raw["difference"] == sqrt.difference


def test_a_plan_takes_fields_and_cells() -> None:
    whole = nanorun.plan(MANIFEST)
    part = nanorun.plan(MANIFEST, set={"budget.steps": 3, "train.total_batch_size": 384}, only={"run.seed": [1]})
    assert len(whole["runs"]) == 5
    assert part["selected"] == "selected by run.seed = 1: 3 of 5 runs"
    assert all(run["sizes"]["steps"] == 3 for run in part["runs"])


def test_what_cannot_be_used_is_told_in_the_programs_words(tmp_path: Path) -> None:
    with pytest.raises(nanorun.InvalidInput) as told:
        nanorun.plan(tmp_path / "nowhere.toml")
    assert told.value.exit_code == 2 and "nowhere.toml" in str(told.value)
    bad = tmp_path / "bad.toml"
    bad.write_text("name = 'bad'\nbudgets.steps = 3\n")
    with pytest.raises(nanorun.InvalidInput, match="budgets"):
        nanorun.plan(bad)
    with pytest.raises(TypeError, match="no value of a manifest field"):
        nanorun.plan(MANIFEST, set={"budget.steps": object()})


def test_directories_without_results_are_named(results: nanorun.Results, tmp_path: Path) -> None:
    with pytest.raises(nanorun.InvalidInput, match="has ci: expected"):
        nanorun.load(results.directory.parent / "cii")
    with pytest.raises(nanorun.InvalidInput, match="holds no results"):
        nanorun.load(tmp_path)
    with pytest.raises(ValueError, match="expected 'polars' or 'pandas'"):
        nanorun.load(results.directory, "arrow")  # type: ignore[arg-type]


def test_without_a_table_library_the_way_to_one_is_told(results: nanorun.Results, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'nanorun\[polars\]'"):
        nanorun.load(results.directory)


def test_the_module_is_the_program(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "nanorun", "plan", "nowhere.toml"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2 and "nowhere.toml" in done.stderr
    done = subprocess.run([sys.executable, "-m", "nanorun", "plan", str(MANIFEST), "--json"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0 and json.loads(done.stdout)["name"] == "ci"
    assert nanorun.version().count(".") == 2


def test_a_program_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from nanorun import _program

    monkeypatch.setenv("NANORUN_PROGRAM", str(tmp_path / "none"))
    with pytest.raises(FileNotFoundError, match="NANORUN_PROGRAM"):
        _program.find()
    monkeypatch.delenv("NANORUN_PROGRAM")
    monkeypatch.setenv("PATH", os.fspath(tmp_path))
    monkeypatch.setattr(_program, "_places", lambda: [tmp_path / "bin" / "nanorun"])
    with pytest.raises(FileNotFoundError, match="pip install nanorun"):
        _program.find()


def test_values_are_written_as_toml() -> None:
    from nanorun._call import options

    assert options(set={"a.b": {"x y": [1, True, "ü"]}, "c": 0.5}) == ["--set", 'a.b={ "x y" = [1, true, "ü"] }', "--set", "c=0.5"]
    assert options(only={"run.seed": [1, 2]}, profile="p", results=Path("r")) == [
        "--only", "run.seed=1", "--only", "run.seed=2", "--profile", "p", "--results", "r",
    ]
