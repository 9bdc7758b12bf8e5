"""Where the program is."""

from __future__ import annotations

import os
import shutil
import sysconfig
from pathlib import Path


class ProgramMissing(FileNotFoundError):
    """No program was found; the message says where it was looked for."""


def find() -> str:
    """The path of the `nanorun` program.

    `NANORUN_PROGRAM` if it is set; else the one that this package's wheel installed; else the one on `PATH`.

    Raises:
        ProgramMissing: there is none.
    """
    named = os.environ.get("NANORUN_PROGRAM")
    if named:
        if not os.access(named, os.X_OK):
            raise ProgramMissing(f"NANORUN_PROGRAM={named} is not a program: unset it, or name one that can be executed")
        return os.path.abspath(named)
    for place in _places():
        if os.access(place, os.X_OK):
            return str(place)
    found = shutil.which("nanorun")
    if found is None:
        looked = ", ".join(str(place.parent) for place in _places())
        raise ProgramMissing(f"the nanorun program is neither in {looked} nor on PATH: reinstall it with `pip install nanorun`")
    return found


def _places() -> list[Path]:
    """Where installers put the programs of wheels: those of this environment, then those of this user."""
    schemes = [sysconfig.get_default_scheme(), sysconfig.get_preferred_scheme("user")]
    folders = [Path(sysconfig.get_path("scripts", scheme)) for scheme in schemes]
    # `pip install --target DIR` puts them beside the packages.
    folders.append(Path(__file__).resolve().parent.parent / "bin")
    return [folder / "nanorun" for folder in folders]
