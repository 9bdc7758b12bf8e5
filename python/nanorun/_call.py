"""Calls of the program, and what its exit codes mean."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable, Mapping
from typing import Any, Union

from ._program import find

PathLike = Union[str, "os.PathLike[str]"]


class Error(Exception):
    """The program did not do what it was asked; the message is its own.

    Attributes:
        exit_code: what it ended with.
    """

    def __init__(self, message: str, exit_code: int):
        super().__init__(message)
        self.exit_code = exit_code


class InvalidInput(Error):
    """A manifest, an argument or data that cannot be used (exit code 2)."""


class RunFailed(Error):
    """A run failed (exit code 3): it ran out of memory, diverged or could not be written."""


class Interrupted(Error):
    """It was stopped (exit code 130). Nothing is lost: the same call carries on."""


_ERRORS = {2: InvalidInput, 3: RunFailed, 130: Interrupted}

# Results are there, and a hash (4) or a verdict (5) is not as it should be: an answer, not an error.
ANSWERS = frozenset({0, 4, 5})


def call(arguments: Iterable[str], *, quiet: bool = True) -> tuple[Any, int]:
    """What `nanorun ARGUMENTS --json` prints, and its exit code, which is 0, 4 or 5.

    Progress and notes go to this process's stderr unless `quiet`.

    Raises:
        Error: any other exit code.
    """
    command = [find(), *arguments, "--json"]
    if quiet:
        command.append("--quiet")
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE if quiet else None, text=True, check=False)
    code = done.returncode if done.returncode >= 0 else 128 - done.returncode
    if code not in ANSWERS:
        told = (done.stderr or "").strip() or f"nanorun ended with {code}; what it said is on stderr"
        raise _ERRORS.get(code, Error)(told, code)
    return json.loads(done.stdout), code


def options(
    *,
    set: Mapping[str, Any] | None = None,
    only: Mapping[str, Any] | None = None,
    profile: str | None = None,
    results: PathLike | None = None,
) -> list[str]:
    """The options that choose what of a manifest is meant."""
    found: list[str] = []
    for name, fields in (("--set", set), ("--only", only)):
        for path, value in (fields or {}).items():
            # Several values of one field are alternatives of `--only`.
            several = name == "--only" and isinstance(value, (list, tuple))
            for one in value if several else [value]:
                found += [name, f"{path}={_toml(one)}"]
    if profile is not None:
        found += ["--profile", profile]
    if results is not None:
        found += ["--results", os.fspath(results)]
    return found


def _toml(value: Any) -> str:
    """A value as TOML writes it."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{json.dumps(str(key))} = {_toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, (bool, int)):
        return json.dumps(value)
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, (str, os.PathLike)):
        # JSON's strings are TOML's, but for characters beyond the first plane, which are better left as they are.
        return json.dumps(os.fspath(value), ensure_ascii=False)
    raise TypeError(f"{value!r} is no value of a manifest field: expected str, int, float, bool, list or dict")


def version() -> str:
    """The program's version, such as `0.1.0`."""
    done = subprocess.run([find(), "--version"], capture_output=True, text=True, check=True)
    return done.stdout.split()[1]
