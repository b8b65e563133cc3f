"""Checkouts made in advance: a run takes one by renaming it.

```
HOME/code/spares/
  lock            held while a spare is made (git inherits it)
  TREE            a complete checkout; whoever renames it away has it for its own
  KEY.tmp         the project's next spare while it is made; what a killed one left is deleted
  KEY.index       git's index of the project's latest spare
  KEY.tree        the tree that it was made for
```
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from ..errors import StoreError
from .project import FOLDERS_FILE, FOLDERS_HEAD
from .store import EMPTY_TREE, GitFailed, ObjectStore, remove_folder

_LARGEST = 256_000_000  # bytes; a larger one would take more disk than it saves time
_MOST = 8  # spares


def make_folders(folder: Path) -> bool:
    """Make the empty folders that the tree checked out into `folder` names; whether there are."""
    named = folder / os.fsdecode(FOLDERS_FILE)
    try:
        text = named.read_bytes()
    except OSError:
        return False
    if not text.startswith(FOLDERS_HEAD):  # the user's own file
        return False
    for name in text[len(FOLDERS_HEAD) :].split(b"\0")[:-1]:
        (folder / os.fsdecode(name)).mkdir(parents=True, exist_ok=True)
    named.unlink()
    return True


class Spares:
    """One spare checkout a project, of the projects used last."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._root = store.spares

    def take(self, tree: str, target: Path) -> bool:
        """Rename the spare of this tree to `target`; False when there is none."""
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            (self._root / tree).rename(target)
        except OSError:  # none there, or another file system
            return False
        return True

    def wants(self, tree: str) -> bool:
        """Whether `prepare` would find something to do: it is not there, nor just being made."""
        if tree == EMPTY_TREE or (self._root / tree).exists():
            return False
        lock = self._lock()
        if lock is None:
            return False
        os.close(lock)
        return True

    def prepare(self, key: str, tree: str) -> None:
        """Make the project's spare, out of its older one where that is still there."""
        spare = self._root / tree
        if tree == EMPTY_TREE or spare.exists():
            return
        lock = self._lock()
        if lock is None:
            return
        try:
            if not spare.exists():
                self._make(key, tree, lock)
        except (OSError, GitFailed, StoreError):
            remove_folder(self._root / f"{key}.tmp")
        finally:
            os.close(lock)

    def _lock(self) -> int | None:
        """The lock's descriptor; None while somebody else has it."""
        try:
            lock = os.open(self._root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            return None
        return lock

    def _make(self, key: str, tree: str, lock: int) -> None:
        if self._size(tree) > _LARGEST:
            return
        aside, index = self._root / f"{key}.tmp", self._root / f"{key}.index"
        record = self._root / f"{key}.tree"
        remove_folder(aside)
        index.with_name(f"{index.name}.lock").unlink(missing_ok=True)
        move = ("read-tree", "-m", "-u", tree)
        try:
            old, _, folders = record.read_text().partition(" ")
            (self._root / old).rename(aside)
            if folders:  # git would not know which of them to take away
                remove_folder(aside)
        except OSError:
            pass
        if not aside.exists():
            aside.mkdir()
            index.unlink(missing_ok=True)
            move = ("read-tree", "-u", "--reset", tree)
        record.unlink(missing_ok=True)
        self._store.git(*move, top=aside, index=index, hold=(lock,))
        record.write_text(f"{tree} folders" if make_folders(aside) else tree)
        aside.rename(self._root / tree)
        self._drop_oldest()

    def _size(self, tree: str) -> int:
        """Bytes of all files of a tree."""
        arguments = ("ls-tree", "-r", "-z", "--format=%(objectsize)", tree)
        output = self._store.git(*arguments, top=self._root, index=self._root / "none")
        return sum(int(size) for size in output.split(b"\0") if size)

    def _drop_oldest(self) -> None:
        found = [path for path in self._root.iterdir() if path.is_dir()]
        found.sort(key=lambda path: path.stat().st_ctime_ns)  # when it was renamed to its name
        for old in found[:-_MOST]:
            remove_folder(old)

    def drop(self) -> None:
        """Delete all spares; the store is held alone."""
        remove_folder(self._root)
        self._root.mkdir(mode=0o700, exist_ok=True)
