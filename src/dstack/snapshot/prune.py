"""Deleting what no run needs. On no other command's path."""

from __future__ import annotations

import os
import time
from pathlib import Path

from .project import Project, repository_around
from .spare import Spares
from .store import GitFailed, ObjectStore, remove_folder


def prune(store: ObjectStore, folder: Path | None, older_than: float | None) -> int:
    """See Snapshots.prune."""
    if not store.git_dir.exists():
        return 0
    lock = store.exclusive()
    try:
        before = used(store.root)
        Spares(store).drop()
        wanted = _keys(store, folder)
        limit = time.time() - older_than if older_than is not None else None
        for state in list(store.projects.glob("*.state")):
            if state.stem in wanted and (limit is None or state.stat().st_mtime < limit):
                _forget(store, state.stem)
        for left in (*store.projects.glob("*.tmp-*"), *store.git_dir.glob("ref.tmp-*")):
            left.unlink(missing_ok=True)
        _collect(store)
        return max(0, before - used(store.root))
    except OSError as error:
        raise store.unusable(error) from None
    finally:
        os.close(lock)


def used(folder: Path) -> int:
    """Bytes that the files below a folder take on disk."""
    total = 0
    for where, _, files in os.walk(folder):
        for name in files:
            try:
                total += os.lstat(os.path.join(where, name)).st_blocks * 512
            except FileNotFoundError:
                continue
    return total


def _keys(store: ObjectStore, folder: Path | None) -> set[str]:
    if folder is None:
        return {path.stem for path in store.projects.glob("*.state")}
    folder = Path(os.path.realpath(folder))
    tops = {folder, repository_around(folder)}
    return {Project(store, folder, top).key for top in tops}


def _forget(store: ObjectStore, key: str) -> None:
    for suffix in ("", ".state", ".names", ".lock"):
        (store.projects / f"{key}{suffix}").unlink(missing_ok=True)
    store.drop_ref(f"projects/{key}")


def _collect(store: ObjectStore) -> None:
    """Drop the objects that no ref names any more."""
    objects = store.git_dir / "objects"
    for left in (*objects.glob("pack/tmp_*"), *objects.glob("??/tmp_obj_*")):
        left.unlink(missing_ok=True)
    if not any(any((store.git_dir / "refs" / kind).iterdir()) for kind in ("runs", "projects")):
        remove_folder(objects)
        for name in ("info", "pack"):
            (objects / name).mkdir(parents=True)
        return
    none = store.projects / "none"  # no index takes part
    try:
        for command in (("repack", "-a", "-d", "-q"), ("prune", "--expire=now")):
            store.git(*command, top=store.root, index=none)
    except GitFailed:
        # Something a ref names is damaged: git keeps everything, and so do we.
        return
