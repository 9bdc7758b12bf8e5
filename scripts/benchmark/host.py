"""What the record says about the machine: kinds and sizes, never names or addresses."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path


def facts() -> dict[str, object]:
    """CPU, memory, system, and the GPU where nvidia-smi names one."""
    info = _read("/proc/cpuinfo")
    model = re.search(r"model name\s*:\s*(.+)", info)
    family = re.search(r"cpu family\s*:\s*(\d+)", info)
    number = re.search(r"^model\s*:\s*(\d+)", info, re.MULTILINE)
    flags = (re.search(r"flags\s*:\s*(.+)", info) or [""])[0].split()
    memory = re.search(r"MemTotal:\s*(\d+) kB", _read("/proc/meminfo"))
    result: dict[str, object] = {
        "cpu": model[1].strip() if model else platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "features": [flag for flag in ("fma", "avx2", "avx512f", "avx512_bf16") if flag in flags],
        "virtual": "hypervisor" in flags,
        "system": f"{platform.system()} {platform.machine()}",
        "kernel": platform.release().split("-")[0],
    }
    if family and number:
        result["cpu_family_model"] = f"{family[1]}/{number[1]}"
    if memory:
        result["memory_gib"] = round(int(memory[1]) / 2**20, 1)
    gpu = _ask("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader")
    if gpu:
        result["gpu"] = gpu.splitlines()[0]
    return result


def label(machine: dict[str, object], device: str) -> str:
    """A short name for the record's directory."""
    words = str(machine.get("gpu", "gpu")).split(",")[0] if device == "cuda" else f"{machine['cpu']} {machine['cores']} cores"
    return re.sub(r"[^a-z0-9]+", "-", re.sub(r"\((r|tm)\)", "", words.lower())).strip("-")


def without_paths(text: str, places: dict[Path, str]) -> str:
    """The text with names for places of this machine and `~` for the home directory, if there is one."""
    try:
        places = places | {Path.home(): "~"}
    except RuntimeError:
        pass
    for place, name in places.items():
        # A service's HOME may be / or empty: that is no name to look for.
        if str(place) not in ("/", "."):
            text = text.replace(str(place), name)
    return text


def rustc() -> str:
    return _ask("rustc", "--version")


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _ask(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
