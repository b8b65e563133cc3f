"""`dstack prune`: delete what only makes later runs faster, and say how much that freed."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from .. import text
from ..engines.builds import folder_size
from ..errors import HostRefused, HostUnreachable, StoreError
from ..paths import Home, find_home
from .project import cache_key, find_project

if TYPE_CHECKING:
    from ..store.runs import Stored

HELP = "delete what is not needed any more"
_KINDS = ("cache", "builds", "code")
_ASIDE = (
    ".pruned-"  # a cache that is being deleted; what a killed prune left is deleted by the next
)


def configure(parser: argparse.ArgumentParser) -> None:
    """What can be typed after `dstack prune`."""
    add = parser.add_argument
    add("kind", metavar="cache|builds|code", choices=_KINDS, help="what to delete")
    add("dir", metavar="DIR", nargs="?", help="only what belongs to the project that DIR lies in")
    add("--backend", metavar="B", help="on this backend's machine, not on this one")
    add("--older", metavar="AGE", help="only what was not used for so long: 12h, 7d, 2w")
    add("-y", "--yes", action="store_true", help="answer every question with yes")


def run(args: argparse.Namespace) -> int:
    """Delete it. Exit code 1 when the user says no."""
    home = find_home()
    project = None if args.dir is None else find_project(args.dir, Path.cwd())[0]
    older = _age(args.older)
    if args.backend is not None and args.kind != "builds":
        from .far_prune import prune_far

        return prune_far(args, home, project, older)
    if args.kind == "builds":
        return _prune_builds(home, project, older, args.backend, yes=args.yes)
    if args.kind == "code":
        return _prune_code(home, project, older)
    return _prune_cache(home, project, older, yes=args.yes)


def _age(given: str | None) -> float | None:
    if given is None:
        return None
    from ..config.quantities import parse_seconds
    from .overrides import read

    return read("--older", parse_seconds, given)


def _prune_code(home: Home, project: Path | None, older: float | None) -> int:
    from ..snapshot import Snapshots

    freed = Snapshots(home).prune(project, older)
    text.say(f"freed {text.size(freed)}")
    return 0


def _prune_builds(
    home: Home, project: Path | None, older: float | None, backend: str | None, *, yes: bool
) -> int:
    from ..store.builds import Builds
    from ..supervise.build import make_supervisor
    from .making import builds_in_use, discard

    supervisor, builds = make_supervisor(home), Builds(home)
    there = [each for each in builds.all() if project is None or each.project == str(project)]
    if backend is not None:
        there = [each for each in there if each.backend == backend]
    limit = time.time() - older if older is not None else None
    there = [each for each in there if limit is None or builds.used(each) < limit]
    chosen = [each for each in there if each.id not in builds_in_use(supervisor)]
    total = sum(each.size for each in chosen)
    question = f"delete {_builds(len(chosen))}, {text.size(total)}?"
    if chosen and not text.confirm(question, yes=yes):
        return 1
    freed = 0
    # A run that is given a build is kept before we look again.
    with builds.held(alone=True):
        busy = builds_in_use(supervisor)
        for each in chosen:
            if each.id in busy:
                continue
            try:
                discard(supervisor, builds, each)
            except (HostUnreachable, HostRefused) as error:
                text.warn(f"{each.name} is kept: {error.message}")
                continue
            freed += each.size
        builds.sweep({stored.run.id for stored in supervisor.runs.active()})
    kept = [each.name for each in there if each.id in busy]
    if kept:
        text.say(f"kept {', '.join(kept)}: of active runs")
    text.say(f"freed {text.size(freed)}")
    return 0


def _builds(count: int) -> str:
    return f"{count} build{'' if count == 1 else 's'}"


def _prune_cache(home: Home, project: Path | None, older: float | None, *, yes: bool) -> int:
    from ..store.database import Database
    from ..store.runs import Runs

    _finish_earlier(home.cache)
    runs = Runs(Database(home))
    there = caches(home.cache)
    if project is not None:
        known = {s.run.plan.cache_key for s in runs.all() if s.run.plan.project == str(project)}
        there &= known | keys_of_files(project)
    if older is not None:
        there -= _used_since(home.cache, there, runs.all(), time.time() - older)
    busy = {stored.run.plan.cache_key for stored in runs.active()} & there
    if busy:
        text.say(f"kept {counted(len(busy))} of active runs")
    there -= busy
    sizes = {key: folder_size(home.cache / key) for key in there}
    total = text.size(sum(sizes.values()))
    if sizes and not text.confirm(f"delete {counted(len(sizes))}, {total}?", yes=yes):
        return 1
    for key in sorted(sizes):
        _delete(home.cache / key)
    text.say(f"freed {total}")
    return 0


def counted(count: int) -> str:
    """So many caches, in words."""
    return f"the cache of {count} task file{'' if count == 1 else 's'}"


def caches(folder: Path) -> set[str]:
    """The keys of all caches there are. Raises StoreError."""
    try:
        return {entry.name for entry in folder.iterdir() if not entry.name.startswith(".")}
    except FileNotFoundError:
        return set()
    except OSError as error:
        raise StoreError(f"cannot read {folder}: {error.strerror}") from None


def keys_of_files(project: Path) -> set[str]:
    """The keys of the project's task files: its caches when no run tells of them any more."""
    found = set()
    for folder, folders, files in os.walk(project):
        folders[:] = [name for name in folders if name not in {".git", "node_modules", ".venv"}]
        for name in files:
            if name.endswith((".dstack.yml", ".dstack.yaml")):
                found.add(cache_key(project, os.path.relpath(f"{folder}/{name}", project)))
    return found


def _used_since(cache: Path, keys: set[str], runs: list[Stored], limit: float) -> set[str]:
    """The caches that a run had, or that were made or changed at their top, since `limit`."""
    recent = {
        stored.run.plan.cache_key
        for stored in runs
        if (stored.run.finished_at or stored.run.submitted_at) >= limit
    }
    return {key for key in keys if key in recent or _touched(cache / key) >= limit}


def _touched(folder: Path) -> float:
    try:
        return max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
    except OSError:
        return 0.0


def _delete(folder: Path) -> None:
    # Renamed first: a run that starts now finds no cache, and not half of one.
    aside = folder.with_name(f"{_ASIDE}{os.getpid()}-{folder.name}")
    try:
        folder.rename(aside)
    except FileNotFoundError:
        return
    except OSError as error:
        raise StoreError(f"cannot delete {folder}: {error.strerror}") from None
    _remove(aside)


def _finish_earlier(cache: Path) -> None:
    for left in cache.glob(f"{_ASIDE}*"):
        _remove(left)


def _remove(folder: Path) -> None:
    from ..errors import HostError
    from ..hosts.local import LocalHost

    try:
        LocalHost().delete(folder)
    except HostError as error:
        raise StoreError(error.message, hint="delete it with the rights of its owner") from None
