"""Finds torch without importing it, and becomes the program with its libraries."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

# What the program is built against; another minor version has other symbols.
NEEDED = "2.11"
HOW = f'pip install "torch=={NEEDED}.*"'
# nanorun's exit code of a backend that is not there.
NOT_THERE = 3


class NoTorch(RuntimeError):
    """There is no torch that the program can use; the message says what to do, in one line."""


@dataclass(frozen=True)
class Torch:
    """An installed torch."""

    version: str
    libraries: Path


def find() -> Torch:
    """The torch of this environment, by its files alone: importing it takes seconds.

    Raises:
        NoTorch: it is not installed, another version, or has lost its libraries.
    """
    try:
        spec = importlib.util.find_spec("torch")
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.origin:
        raise NoTorch(f"the tch backend needs PyTorch {NEEDED}, and this environment has none: {HOW}")
    place = Path(spec.origin).resolve().parent
    version = _version(place)
    if version.split("+")[0].split(".")[:2] != NEEDED.split("."):
        raise NoTorch(f"the tch backend needs PyTorch {NEEDED}, and this environment has {version or 'one of unknown version'}: {HOW}")
    libraries = place / "lib"
    if not any((libraries / name).is_file() for name in ("libtorch_cpu.so", "libtorch_cpu.dylib")):
        raise NoTorch(f"PyTorch {version} in {place} has lost its libraries: {HOW} --force-reinstall")
    return Torch(version, libraries)


def _version(place: Path) -> str:
    """What the package beside its own files says; else what its metadata do."""
    try:
        for line in (place / "version.py").read_text(encoding="utf-8").splitlines():
            if line.startswith("__version__ = "):
                return line.removeprefix("__version__ = ").strip().strip("'\"")
    except OSError:
        pass
    try:
        return importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return ""


def program() -> Path:
    """The program that this package holds."""
    return Path(__file__).resolve().parent / "bin" / "nanorun"


def environment(torch: Torch) -> dict[str, str]:
    """This process's environment, with torch's libraries before all others."""
    before = os.environ.get("LD_LIBRARY_PATH")
    path = os.pathsep.join([str(torch.libraries), *([before] if before else [])])
    return {**os.environ, "LD_LIBRARY_PATH": path}


def main() -> NoReturn:
    """Becomes the program, with the arguments of this process."""
    try:
        torch = find()
    except NoTorch as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(NOT_THERE)
    place = program()
    try:
        # In place of this process, so that signals reach the program and its exit code is that of the call.
        os.execve(place, ["nanorun", *sys.argv[1:]], environment(torch))
    except OSError as error:
        print(f"error: {place} cannot be started: {error.strerror}; pip install --force-reinstall nanorun-torch", file=sys.stderr)
        sys.exit(NOT_THERE)
