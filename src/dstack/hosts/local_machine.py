"""What this machine has, told by system calls: on the path of every run, so nothing is started."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from .base import Machine


def look_at_machine(root: Path) -> Machine:
    """CPUs, memory and disk; `root` is dstack's folder."""
    return Machine(_cpus(), _memory(), _disk(root), _own_python())


def _own_python() -> dict[str, str]:
    # A virtual environment's interpreter would take the run into that environment.
    base = getattr(sys, "_base_executable", None) or sys.executable
    real = os.path.realpath(base)
    minor = f"{sys.version_info[0]}.{sys.version_info[1]}"
    return {minor: real} if os.access(real, os.X_OK) else {}


def _cpus() -> int:
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:
        count = os.cpu_count() or 1
    for path in _cgroup_files("cpu", "cpu.max", "cpu.cfs_quota_us"):
        words = (_text(path) or "max").split()
        period = _text(str(path).replace("quota", "period")) if len(words) == 1 else words[1]
        if words[0].isdigit() and period and period.strip().isdigit():
            count = min(count, max(1, int(words[0]) // int(period)))
    return count


def _memory() -> int:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in _cgroup_files("memory", "memory.max", "memory.limit_in_bytes"):
        text = (_text(path) or "").strip()
        if text.isdigit():
            total = min(total, int(text))
    return total


def _cgroup_files(controller: str, v2: str, v1: str) -> list[str]:
    """The limit's files from our own cgroup up to the root."""
    files = []
    for line in (_text("/proc/self/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            mount, name = "/sys/fs/cgroup", v2
        elif controller in controllers.split(","):
            mount, name = f"/sys/fs/cgroup/{controller}", v1
        else:
            continue
        while True:
            files.append(f"{mount}{path.rstrip('/')}/{name}")
            if path in ("/", ""):
                break
            path = os.path.dirname(path)
    return files


def _text(path: str) -> str | None:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read(4096).decode("utf-8", "replace")
    except OSError:
        return None


def _disk(root: Path) -> int:
    try:
        found = os.statvfs(root)
    except OSError:
        return 0
    return found.f_bavail * found.f_frsize
