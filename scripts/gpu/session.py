"""How stages and their commands run: to their end or their limit, and nothing outlives them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
import traceback
from pathlib import Path

from benchmark.process import ends_with_parent

from . import record

GRACE = 10.0  # seconds that a command has to end in when it is told to


class Failed(Exception):
    """A stage did not do what it should."""


class Session:
    """What runs the stages, one after another, each to its own limit or the session's."""

    def __init__(self, args, binary, software, environment, machine, out, scratch):
        self.args, self.binary, self.software, self.environment = args, binary, software, environment
        # Asked once: nvidia-smi takes a second or two.
        self.machine, self.out, self.scratch = machine, out, scratch
        self.small = args.device == "cpu"
        self.begin = time.monotonic()
        self.stages, self.findings, self.hashes = [], {}, {}
        self.log, self.begun_at, self.deadline, self.ending = None, 0, 0.0, ""

    def stage(self, name, limit, body, *arguments):
        # What overruns has the grace to end in, and once more when it is killed: the session's time too.
        left = self.args.seconds - 2 * GRACE - (time.monotonic() - self.begin)
        entry = {"stage": name, "verdict": "no time", "seconds": 0.0}
        self.stages.append(entry)
        if left < 3:
            return self.note(entry)
        # The limits are a GPU's: on the CPU device a stage may take what is left.
        self.deadline = time.monotonic() + (left if self.small else min(limit, left))
        started = time.monotonic()
        # On disk before anything runs: if all is killed from outside, the record says when.
        entry["verdict"] = "running"
        record.write(self)
        try:
            with open(self.out / "logs" / f"{name}.log", "w", encoding="utf-8") as self.log:
                entry["verdict"] = self.verdict(name, body, arguments)
        except OSError as error:
            entry["verdict"] = f"FAILED: no log: {error}"
        except KeyboardInterrupt:
            entry["verdict"] = "interrupted"
            raise
        finally:
            entry["seconds"] = round(time.monotonic() - started, 1)
            self.note(entry)

    def verdict(self, name, body, arguments):
        try:
            found = body(self, *arguments)
            if found is not None:
                self.findings[name] = found
            return "passed"
        except Failed as error:
            print(f"\n{error}", file=self.log)
            return f"FAILED: {record.one_line(error)}"
        except Exception as error:
            # Whatever it is, an answer that is not as expected say: the other stages are worth having.
            traceback.print_exc(file=self.log)
            return f"FAILED: {type(error).__name__}: {record.one_line(error)}"

    def note(self, entry):
        with contextlib.suppress(OSError):  # nobody may be reading any more
            print(record.line_of(entry), flush=True)
        record.write(self)

    def left(self):
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise Failed("out of time")
        return left

    def start(self, command, log=True):
        print("$", *map(str, command), file=self.log, flush=True)
        self.begun_at = os.path.getsize(self.log.name)
        output, errors = (subprocess.PIPE, self.log) if log else (subprocess.DEVNULL, subprocess.DEVNULL)
        return subprocess.Popen(
            [str(part) for part in command], cwd=record.ROOT, env=self.environment, encoding="utf-8", errors="replace",
            stdin=subprocess.DEVNULL, stdout=output, stderr=errors, start_new_session=True,
            preexec_fn=ends_with_parent(signal.SIGINT),
        )

    def run(self, command, expected=(0,)):
        """Standard output of a command that ends in time with an expected exit code."""
        process = self.start(command)
        try:
            output, _ = process.communicate(timeout=self.left())
        except BaseException as error:
            print(self.stop(process), file=self.log, flush=True)
            if isinstance(error, subprocess.TimeoutExpired):
                raise Failed("out of time") from None
            raise
        # How it ended: the code, and the end of what it said on stderr, which alone is in the log so far.
        said = Path(self.log.name).read_bytes()[self.begun_at:].decode("utf-8", "replace").split("\n")
        words = record.one_line(" ".join([line for line in said if line.strip()][-3:]))[-300:]
        self.ending = f"exit code {process.returncode}" + (f": {words}" if words else "")
        print(output, file=self.log, flush=True)
        # A document may come with other codes than 0; a code without one is a failure.
        if process.returncode not in expected or (process.returncode != 0 and not output.strip()):
            raise Failed(self.ending)
        return output

    @classmethod
    def stop(cls, process):
        """Ends a command that overran; what it had printed.

        It is asked first, by SIGINT: the benchmark's children are in sessions of their own, and only it ends them.
        """
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGINT)
        try:
            output = process.communicate(timeout=GRACE)[0] or ""
        except subprocess.TimeoutExpired:
            output = ""
        cls.kill(process)
        return output

    @staticmethod
    def kill(process):
        # The group, and whether or not its first process lives: a script's children must not outlive it.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        # A process that hangs in the driver does not even die: then without it.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=GRACE)
