"""The GPUs of a host: what nvidia-smi says of them, and which run has which."""

from __future__ import annotations

import os
import re

import msgspec

from ..hosts.base import Host, ProcessId
from ..paths import Home
from .base import GpuFact

_MIB = 1 << 20
# How a driver says that there is no such GPU any more; nvidia-smi's manual page calls the values
# of a GPU that it cannot ask by the name of NVML's error.
_BROKEN = frozenset({"[GPU is lost]", "[GPU requires reset]", "[Unknown Error]"})
# One row of `--query-gpu=index,name,uuid,memory.total,memory.used,pstate` (nvidia.sh); what is not
# known stands in brackets, or, of some drivers, without.
_VALUE = r"(\d+|\[[^\]]*\]|N/A)"
_ROW = re.compile(rf"(\d+), *(.+?), *([^,]+?), *{_VALUE}, *{_VALUE}, *([^,]+)")


class Gpus(msgspec.Struct, frozen=True):
    """The GPUs that work, by their numbers; `problem` is what nvidia-smi said besides."""

    found: tuple[GpuFact, ...] = ()
    problem: str | None = None


def parse_gpus(text: str, shared_memory: int = 0) -> Gpus:
    """What `nvidia-smi --query-gpu=...` printed, stderr included. Pure.

    `shared_memory`, in bytes, is what the machine has: a GPU that has no memory of its own, but
    the processor's (GB10, Tegra), says `[N/A]`. Memory that is not told for another reason is 0.
    """
    found: dict[int, GpuFact] = {}
    problem = None
    for line in map(str.strip, text.splitlines()):
        row = _ROW.fullmatch(line)
        if row is None:
            problem = problem or (line or None)
            continue
        number, name, uuid, total, used, state = row.groups()
        if not _BROKEN.isdisjoint((name, total, used, state)):
            problem = problem or f"GPU {number}: {state.strip('[]')}"
            continue
        memory = int(total) * _MIB if total.isdigit() else 0
        if total.strip("[]") == "N/A":
            memory = shared_memory
        in_use = int(used) * _MIB if used.isdigit() else None
        found[int(number)] = GpuFact(name, memory, int(number), uuid, in_use)
    return Gpus(tuple(found[number] for number in sorted(found)), problem)


def leases(host: Host, home: Home) -> dict[int, str]:
    """The job (RUN-ATTEMPT) that has each GPU of a host, by the GPU's number. Raises HostError.

    Two round trips, where any GPU is leased. See gpus.sh for what the links say.
    """
    names = [name for name in host.list_folder(home.gpus) if name.isdigit()]
    if not names:
        return {}
    links = host.read_many([home.gpus / name for name in names])
    jobs: dict[int, str] = {}
    keepers: dict[int, ProcessId] = {}
    for name, link in zip(names, links, strict=True):
        keeper, _, job = os.fsdecode(link.data).partition(" ") if link is not None else ("", "", "")
        try:
            keepers[int(name)] = ProcessId.parse(keeper)
        except ValueError:
            continue
        jobs[int(name)] = job
    alive = host.alive(list(keepers.values()))
    return {gpu: jobs[gpu] for gpu, lives in zip(keepers, alive, strict=True) if lives}
