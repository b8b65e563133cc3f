"""What a host offers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from ..errors import HostError
from ..hosts.base import Host, Machine
from ..paths import Home
from .base import Facts
from .gpus import Gpus, parse_gpus
from .interpreters import parse_pythons

_TIMEOUT = 20.0
# What each host has said, and about what: it is asked once by a process, and for all together.
_said: dict[Host, tuple[frozenset[str], str]] = {}


def find_facts(
    host: Host, home: Home, *, pythons: bool, limits: bool, gpus: bool | None = None
) -> Facts:
    """See Engine.facts. GPUs are asked for together with `limits`, unless `gpus` says otherwise."""
    with_gpus = limits if gpus is None else gpus
    machine = host.machine()
    if machine is None:
        # Interpreters cost next to nothing there, and asking again would cost a round trip.
        asked = {"pythons"} | ({"gpus"} if with_gpus else set())
        said = _ask(host, home, frozenset(asked))
        machine = parse_machine(said)
        found_gpus, found_pythons = _lines(said, "gpu"), _lines(said, "python")
    else:
        found_gpus = _gpus(host) if with_gpus else ""
        found_pythons = _pythons(host) if pythons else ""
    allowed, why = _limits(host) if limits else (False, None)
    there = parse_gpus(found_gpus, machine.memory) if with_gpus else Gpus()
    return Facts(
        cpus=machine.cpus,
        memory=machine.memory,
        disk=machine.disk,
        gpus=there.found,
        gpus_why=there.problem,
        pythons={**parse_pythons(found_pythons), **machine.pythons},
        fetch=may_fetch(host.environ),
        limits=allowed,
        limits_why=why,
    )


def _ask(host: Host, home: Home, asked: frozenset[str]) -> str:
    """What facts.sh says of these; in one round trip, where that is needed at all."""
    known, said = _said.get(host, (frozenset(), ""))
    if not said or not asked <= known:
        told = host.query(_argv(home, asked), "what is there cannot be told", timeout=_TIMEOUT)
        said = told.decode("utf-8", "surrogateescape")
        _said[host] = (asked, said)
    return said


def _argv(home: Home, asked: frozenset[str]) -> list[str]:
    return ["/bin/sh", "-c", facts_script(), "sh", os.fspath(home.root), *sorted(asked)]


def foresee_facts(host: Host, home: Home, *, gpus: bool) -> None:
    """`find_facts` will be asked: a host that is far away may begin to answer."""
    host.foresee(_argv(home, frozenset({"pythons"} | ({"gpus"} if gpus else set()))))


def facts_script() -> str:
    """facts.sh, with what it calls of other files."""
    pythons = f"find_pythons() {{\n{_part('find_python.sh')}\n}}"
    return "\n".join((pythons, _part("nvidia.sh"), _part("find_gpus.sh"), _part("facts.sh")))


def _part(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def parse_machine(said: str) -> Machine:
    """CPUs, memory and free disk of what facts.sh said: the smallest of each is what holds. Pure.

    Raises HostError when one is missing.
    """
    cpus = [int(line) for line in _lines(said, "cpus").splitlines() if line.isdigit()]
    for line in _lines(said, "quota").splitlines():
        quota, _, period = line.partition(" ")
        if quota.isdigit() and period.isdigit() and int(period):
            cpus.append(max(1, int(quota) // int(period)))
    memory = [int(line) for line in _lines(said, "memory").splitlines() if line.isdigit()]
    # The first line of df is its heading.
    disk = [int(line) << 10 for line in _lines(said, "disk").splitlines() if line.isdigit()]
    if not cpus or not memory or not disk:
        raise HostError("the host does not say what it has: /proc and df are needed there")
    return Machine(min(cpus), min(memory), disk[0])


def _lines(said: str, name: str) -> str:
    """The values of one fact, a line each."""
    start = f"{name} "
    return "\n".join(
        line.removeprefix(start) for line in said.splitlines() if line.startswith(start)
    )


def _pythons(host: Host) -> str:
    script = Path(__file__).parent / "find_python.sh"
    found = host.run(["/bin/sh", os.fspath(script)], timeout=_TIMEOUT)
    return found.out.decode("utf-8", "surrogateescape")


def may_fetch(environ: Mapping[str, str]) -> bool:
    """Whether uv may download a Python where this is the environment. Pure."""
    if environ.get("UV_PYTHON_DOWNLOADS", "").lower() in ("never", "manual", "false", "0"):
        return False
    return environ.get("UV_OFFLINE", "").lower() not in ("1", "true", "yes", "on")


def _gpus(host: Host) -> str:
    """What nvidia-smi says; nothing where it is not there, which costs nothing to find out."""
    if "nvidia-smi" not in host.commands(["nvidia-smi"]):
        return ""
    script = f"{_part('nvidia.sh')}\n{_part('find_gpus.sh')}\nfind_gpus"
    try:
        done = host.run(["/bin/sh", "-c", script], timeout=_TIMEOUT)
    except HostError as error:
        return error.message
    return done.out.decode("utf-8", "replace")


def _limits(host: Host) -> tuple[bool, str | None]:
    """Whether cpu and memory limits can be set: really makes a group, sets both, and drops it."""
    from .process import process_body

    done = host.run(["/bin/sh", "-c", process_body(), "sh", "probe"], timeout=_TIMEOUT)
    if done.code == 0:
        return True, None
    return False, "the machine does not let us make control groups (it takes root)"
