"""Commands in the namespaces of another process, and what runs in them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import NamedTuple

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Process(NamedTuple):
    """One process; `pid` as it is known outside of its namespaces."""

    pid: int
    uid: int
    command: str


def inside(pid: int, *command: str | Path, only_network: bool = False) -> list[str]:
    """The command line that runs `command` in the namespaces of process `pid`, or in its network.

    With 0 for `pid` it is run here.
    """
    if pid == 0:
        return [*map(str, command)]
    kinds = ["-n"] if only_network else ["-m", "-u", "-i", "-n", "-p"]
    # What `dstack` or pytest have set must not be known there.
    clean = [] if only_network else ["env", "-i", f"PATH={PATH}", "HOME=/root", "LANG=C.UTF-8"]
    return ["nsenter", "-t", str(pid), *kinds, "--", *clean, *map(str, command)]


def call(pid: int, *command: str | Path, input: str = "", only_network: bool = False) -> str:
    """What `command`, which must succeed, says in the namespaces of process `pid`."""
    done = subprocess.run(
        inside(pid, *command, only_network=only_network),
        input=input,
        capture_output=True,
        text=True,
        check=False,
        timeout=60.0,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{done.args} exited with {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def processes(pid: int) -> list[Process]:
    """All living processes in the process namespace of process `pid`, but for that one."""
    found = []
    try:
        space = os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == pid:
            continue
        try:
            # A zombie has no namespace left, and nothing to be ended.
            if os.readlink(entry / "ns/pid") != space:
                continue
            words = (entry / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
            command = b" ".join(words).decode(errors="replace")
            if not command:
                continue  # it is about to be a zombie: its memory is gone already
            found.append(Process(int(entry.name), entry.stat().st_uid, command))
        except OSError:
            continue
    return found
