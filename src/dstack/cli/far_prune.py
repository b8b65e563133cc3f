"""`dstack prune cache|code --backend B`: what a host keeps only to make later runs faster."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from .. import text
from ..errors import HostError
from ..hosts.base import Host
from ..paths import Home
from ..snapshot import Snapshots
from ..supervise.build import make_supervisor
from ..supervise.step import Supervisor
from .backend import read_backends
from .prune import counted, keys_of_files

_TIMEOUT = 600.0
# What lies in the folder $1: kilobytes, when it or what is in it was changed last, and its name.
_LIST = """
cd "$1" 2>/dev/null || exit 0
for name in *; do
    [ -d "$name" ] || continue
    size=$(du -sk "$name") at=0
    for inner in "$name" "$name"/*; do
        when=$(stat -c %Y "$inner" 2>/dev/null) && [ "$when" -gt "$at" ] && at=$when
    done
    echo "${size%%[!0-9]*} $at $name"
done
"""


class _Kept:
    """One folder of a host."""

    def __init__(self, line: str) -> None:
        size, at, self.name = line.split(" ", 2)
        self.size = int(size) << 10
        self.changed = int(at)


def prune_far(
    args: argparse.Namespace, home: Home, project: Path | None, older: float | None
) -> int:
    """Delete it, and say how much that freed. Raises UsageError, HostError."""
    from ..errors import UsageError

    known = {each.name: each for each in read_backends(home)}
    if args.backend not in known:
        message = f"there is no backend {args.backend}"
        raise UsageError(message, hint=f"backends: {', '.join(known)}")
    supervisor = make_supervisor(home)
    site = supervisor.sites.reach(known[args.backend])
    host = site.host()
    if host is None:
        message = f"{args.backend} is this machine"
        raise UsageError(message, hint="leave out --backend")
    folder = site.home.cache if args.kind == "cache" else site.home.code
    there = _list(host, folder)
    chosen = _choose(args.kind, there, home, supervisor, project)
    limit = time.time() - older if older is not None else None
    chosen = [each for each in chosen if limit is None or each.changed < limit]
    total = text.size(sum(each.size for each in chosen))
    what = counted(len(chosen)) if args.kind == "cache" else "what was sent of the code"
    if chosen and not text.confirm(f"delete {what} on {host.name}, {total}?", yes=args.yes):
        return 1
    for each in chosen:
        host.delete(folder / each.name)
    text.say(f"freed {total}")
    return 0


def _choose(
    kind: str, there: list[_Kept], home: Home, supervisor: Supervisor, project: Path | None
) -> list[_Kept]:
    if kind == "code":
        begin, end = Snapshots(home).sent_as(project)
        return [n for n in there if n.name.startswith(begin) and n.name.endswith(end)]
    runs = supervisor.runs
    busy = {stored.run.plan.cache_key for stored in runs.active()}
    wanted = {each.name for each in there}
    if project is not None:
        known = {s.run.plan.cache_key for s in runs.all() if s.run.plan.project == str(project)}
        wanted &= known | keys_of_files(project)
    kept = wanted & busy
    if kept:
        text.say(f"kept {counted(len(kept))} of active runs")
    return [each for each in there if each.name in wanted - busy]


def _list(host: Host, folder: Path) -> list[_Kept]:
    done = host.run(["/bin/sh", "-c", _LIST, "sh", str(folder)], timeout=_TIMEOUT)
    if done.code != 0:
        said = done.err.decode("utf-8", "replace").strip()
        raise HostError(f"cannot look into {folder} on {host.name}: {said}")
    lines = done.out.decode("utf-8", "surrogateescape").splitlines()
    return [_Kept(line) for line in lines]
