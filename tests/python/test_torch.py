"""What starts the program of nanorun[torch]: a torch is found by its files, and every other case is one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "python_torch" / "nanorun_torch"


class Environment:
    """An environment with a copy of the package, a program that says how it was started, and whatever torch is put there."""

    def __init__(self, place: Path) -> None:
        self.packages = place / "site-packages"
        package = self.packages / "nanorun_torch"
        (package / "bin").mkdir(parents=True)
        for file in SOURCE.glob("*.py"):
            (package / file.name).write_text(file.read_text())
        self.program = package / "bin" / "nanorun"
        self.program.write_text('#!/bin/sh\necho "$LD_LIBRARY_PATH|$*"\nexit 4\n')
        self.program.chmod(0o755)

    def torch(self, version: str | None, libraries: bool = True) -> Path:
        place = self.packages / "torch"
        (place / "lib").mkdir(parents=True)
        # Never imported: that would take seconds.
        (place / "__init__.py").write_text("raise SystemExit('torch was imported')\n")
        if version is not None:
            (place / "version.py").write_text(f"from typing import Optional\n__version__ = '{version}'\ncuda = None\n")
        if libraries:
            (place / "lib" / "libtorch_cpu.so").write_text("")
        return place / "lib"

    def metadata(self, version: str) -> None:
        place = self.packages / f"torch-{version}.dist-info"
        place.mkdir(parents=True)
        (place / "METADATA").write_text(f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n")

    def start(self, *arguments: str, library_path: str | None = None) -> subprocess.CompletedProcess[str]:
        variables = {"PATH": os.environ["PATH"], "PYTHONPATH": str(self.packages), "PYTHONDONTWRITEBYTECODE": "1"}
        if library_path is not None:
            variables["LD_LIBRARY_PATH"] = library_path
        code = "import nanorun_torch; nanorun_torch.main()"
        # -S: no packages of the environment that runs the tests.
        command = [sys.executable, "-S", "-c", code, *arguments]
        return subprocess.run(command, env=variables, capture_output=True, text=True, check=False)


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return Environment(tmp_path)


@pytest.mark.parametrize("version", ["2.11.0", "2.11.1+cu130", "2.11.0a0+git1"])
def test_the_program_takes_over_with_the_libraries_of_torch(environment: Environment, version: str) -> None:
    libraries = environment.torch(version)
    done = environment.start("run", "a b.toml")
    assert (done.returncode, done.stderr) == (4, "")
    assert done.stdout == f"{libraries}|run a b.toml\n"


def test_a_library_path_of_before_comes_after(environment: Environment) -> None:
    libraries = environment.torch("2.11.0")
    assert environment.start(library_path="/opt/lib").stdout == f"{libraries}:/opt/lib|\n"


def test_metadata_tell_where_the_package_does_not(environment: Environment) -> None:
    environment.torch(None)
    environment.metadata("2.11.0")
    assert environment.start().returncode == 4


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    assert (done.returncode, done.stdout) == (3, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    return line


def test_no_torch(environment: Environment) -> None:
    line = one_line(environment.start())
    assert line == 'error: the tch backend needs PyTorch 2.11, and this environment has none: pip install "torch==2.11.*"'


@pytest.mark.parametrize("version", ["2.10.0", "2.1.1", "2.12.0+cpu", "3.11.0", "2.110.0"])
def test_another_torch(environment: Environment, version: str) -> None:
    environment.torch(version)
    assert f"this environment has {version}: pip install" in one_line(environment.start())


def test_a_torch_that_does_not_say_which(environment: Environment) -> None:
    environment.torch(None)
    assert "one of unknown version" in one_line(environment.start())


def test_a_torch_without_its_libraries(environment: Environment) -> None:
    environment.torch("2.11.0", libraries=False)
    assert "has lost its libraries" in one_line(environment.start())


def test_a_program_that_is_gone(environment: Environment) -> None:
    environment.torch("2.11.0")
    environment.program.unlink()
    assert "No such file or directory; pip install --force-reinstall nanorun-torch" in one_line(environment.start())
