"""`dstack prune`: delete what only makes later runs faster, and say how much that freed."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from .. import text
from ..errors import StoreError
from ..paths import Home, find_home
from .project import cache_key, find_project

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
    add("-y", "--yes", action="store_true", help="answer every question with yes")


def run(args: argparse.Namespace) -> int:
    """Delete it. Exit code 1 when the user says no."""
    home = find_home()
    project = None if args.dir is None else find_project(args.dir, Path.cwd())[0]
    if args.kind == "builds":
        text.say("there are no builds yet; freed 0 B")
        return 0
    if args.kind == "code":
        return _prune_code(home, project)
    return _prune_cache(home, project, yes=args.yes)


def _prune_code(home: Home, project: Path | None) -> int:
    from ..snapshot import Snapshots

    freed = Snapshots(home).prune(project)
    text.say(f"freed {text.size(freed)}")
    return 0


def _prune_cache(home: Home, project: Path | None, *, yes: bool) -> int:
    from ..store.database import Database
    from ..store.runs import Runs

    _finish_earlier(home.cache)
    runs = Runs(Database(home))
    there = caches(home.cache)
    if project is not None:
        known = {s.run.plan.cache_key for s in runs.all() if s.run.plan.project == str(project)}
        there &= known | keys_of_files(project)
    busy = {stored.run.plan.cache_key for stored in runs.active()} & there
    if busy:
        text.say(f"kept {_counted(len(busy))} of active runs")
    there -= busy
    sizes = {key: folder_size(home.cache / key) for key in there}
    total = text.size(sum(sizes.values()))
    if sizes and not text.confirm(f"delete {_counted(len(sizes))}, {total}?", yes=yes):
        return 1
    for key in sorted(sizes):
        _delete(home.cache / key)
    text.say(f"freed {total}")
    return 0


def _counted(count: int) -> str:
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


def folder_size(folder: Path) -> int:
    """Bytes that deleting it frees: blocks, each file once however many links it has."""
    total, seen = 0, set()
    for place, folders, files in os.walk(folder):
        for name in (".", *files, *folders):
            try:
                found = os.lstat(f"{place}/{name}")
            except OSError:  # gone meanwhile
                continue
            if (found.st_dev, found.st_ino) not in seen:
                seen.add((found.st_dev, found.st_ino))
                total += found.st_blocks * 512
    return total


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
