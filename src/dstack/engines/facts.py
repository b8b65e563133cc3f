"""What a host offers."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ..errors import HostError
from ..hosts.base import Host
from ..paths import Home
from .base import Facts, GpuFact
from .interpreters import parse_pythons

_TIMEOUT = 20.0


def find_facts(
    host: Host, home: Home, *, pythons: bool, limits: bool, gpus: bool | None = None
) -> Facts:
    """See Engine.facts. GPUs are asked for together with `limits`, unless `gpus` says otherwise."""
    allowed, why = _limits(host) if limits else (False, None)
    return Facts(
        cpus=_cpus(host),
        memory=_memory(host),
        disk=_disk(home.root),
        gpus=_gpus(host) if (limits if gpus is None else gpus) else (),
        pythons=_pythons(host) if pythons else _own_python(),
        fetch=_may_fetch(),
        limits=allowed,
        limits_why=why,
    )


def _own_python() -> dict[str, str]:
    # A virtual environment's interpreter would take the run into that environment.
    base = getattr(sys, "_base_executable", None) or sys.executable
    real = os.path.realpath(base)
    minor = f"{sys.version_info[0]}.{sys.version_info[1]}"
    return {minor: real} if os.access(real, os.X_OK) else {}


def _pythons(host: Host) -> dict[str, str]:
    script = Path(__file__).parent / "find_python.sh"
    found = host.run(["/bin/sh", os.fspath(script)], timeout=_TIMEOUT)
    there = parse_pythons(found.out.decode("utf-8", "surrogateescape"))
    return {**there, **_own_python()}


def _may_fetch() -> bool:
    if os.environ.get("UV_PYTHON_DOWNLOADS", "").lower() in ("never", "manual", "false", "0"):
        return False
    return os.environ.get("UV_OFFLINE", "").lower() not in ("1", "true", "yes", "on")


def _cpus(host: Host) -> int:
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:
        count = os.cpu_count() or 1
    for path in _cgroup_files(host, "cpu", "cpu.max", "cpu.cfs_quota_us"):
        words = (_text(host, path) or "max").split()
        period = _text(host, str(path).replace("quota", "period")) if len(words) == 1 else words[1]
        if words[0].isdigit() and period and period.strip().isdigit():
            count = min(count, max(1, int(words[0]) // int(period)))
    return count


def _memory(host: Host) -> int:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in _cgroup_files(host, "memory", "memory.max", "memory.limit_in_bytes"):
        text = (_text(host, path) or "").strip()
        if text.isdigit():
            total = min(total, int(text))
    return total


def _cgroup_files(host: Host, controller: str, v2: str, v1: str) -> list[str]:
    """The limit's files from our own cgroup up to the root."""
    files = []
    for line in (_text(host, "/proc/self/cgroup") or "").splitlines():
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


def _text(host: Host, path: str) -> str | None:
    (found,) = host.read_many([Path(path)])
    return found.data.decode("utf-8", "replace") if found else None


def _disk(root: Path) -> int:
    try:
        found = os.statvfs(root)
    except OSError:
        return 0
    return found.f_bavail * found.f_frsize


def _gpus(host: Host) -> tuple[GpuFact, ...]:
    from shutil import which

    tool = which("nvidia-smi")
    if tool is None:
        return ()
    query = ["--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        done = host.run([tool, *query], timeout=_TIMEOUT)
    except HostError:
        return ()
    return parse_gpus(done.out.decode("utf-8", "replace")) if done.code == 0 else ()


def parse_gpus(text: str) -> tuple[GpuFact, ...]:
    """`NAME, MIB` lines of nvidia-smi's csv. Pure."""
    gpus = []
    for line in text.splitlines():
        name, _, memory = line.rpartition(",")
        if name and memory.strip().isdigit():
            gpus.append(GpuFact(name.strip(), int(memory) << 20))
    return tuple(gpus)


def _limits(host: Host) -> tuple[bool, str | None]:
    """Whether cpu and memory limits can be set: really makes a group, sets both, and drops it."""
    from .process import process_body

    done = host.run(["/bin/sh", "-c", process_body(), "sh", "probe"], timeout=_TIMEOUT)
    if done.code == 0:
        return True, None
    return False, "this machine does not let us make control groups (it takes root)"
