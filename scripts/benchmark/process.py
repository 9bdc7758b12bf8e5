"""Child processes: every line with the time it came, and the peak memory of the process itself."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable


@dataclass
class Finished:
    """How a child ended. Times in seconds since its start."""

    status: int
    wall_seconds: float
    peak_rss_bytes: int
    lines: list[tuple[float, str]] = field(default_factory=list)
    errors: str = ""
    cpu_seconds: float = 0.0

    @property
    def text(self) -> str:
        return "\n".join(line for _, line in self.lines)


def ends_with_parent(number: signal.Signals) -> Callable[[], object] | None:
    """For `preexec_fn`: where the system can (Linux), the child gets this signal as soon as its parent is gone.

    So that not even a SIGKILL leaves a training behind on the GPU that the next one is to be measured on.
    """
    if sys.platform != "linux":
        return None
    set_death_signal = 1
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(set_death_signal, int(number))


def run(command: list[str], *, cwd: Path, env: dict[str, str], errors: Path | None = None) -> Finished:
    """Run `command` to its end. stderr goes to the file `errors`, or among the lines without one.

    The peak is `ru_maxrss` of this one child as wait4 gives it, so it is the same measure for both sides.
    """
    stderr = open(errors, "wb") if errors else subprocess.STDOUT
    start = time.monotonic()
    child = subprocess.Popen(
        command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr,
        start_new_session=True, preexec_fn=ends_with_parent(signal.SIGKILL),
    )
    lines: list[tuple[float, str]] = []
    try:
        assert child.stdout is not None
        for raw in child.stdout:
            lines.append((time.monotonic() - start, raw.decode("utf-8", "replace").rstrip("\n")))
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    except BaseException:
        # Its own session: upstream's compile workers go with it.
        if child.returncode is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        raise
    finally:
        if errors:
            stderr.close()
    scale = 1 if sys.platform == "darwin" else 1024
    said = errors.read_text(encoding="utf-8", errors="replace") if errors else ""
    cpu = usage.ru_utime + usage.ru_stime
    return Finished(child.returncode, time.monotonic() - start, usage.ru_maxrss * scale, lines, said, cpu)
