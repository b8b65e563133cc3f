"""What is known of one project folder: git's index, and what it stood for when it was written.

```
HOME/code/projects/KEY          git's index: every file's stat data and blob
HOME/code/projects/KEY.held     held by whoever changes the index (its git commands inherit it)
HOME/code/projects/KEY.state    the tree that the index stands for, and what git cannot tell
```

No empty folders are known to git: a file of ours in the tree's root names them, and is gone when
the tree has been checked out.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from pathlib import Path

from ..digest import digest
from .store import ObjectStore

FOLDERS_FILE = b".dstack-empty-folders"
FOLDERS_HEAD = b"dstack: empty folders\0"
_BETWEEN = b"/"  # no name: they are relative
_CHECKSUM = 20  # the last bytes of an index file, gitformat-index(5)


class State:
    """What the index with this checksum stood for.

    `tree` is the project's tree; `files` counts its files; `nested` are the repositories inside
    it (relative paths) and `tracked` a fingerprint of what they track; `ignore_files` says whether
    it holds a `.dstackignore`, `hidden` whether there are folders of which nothing is sent, though
    they are not empty; `folders` are the empty ones.
    """

    __slots__ = (
        "checksum",
        "files",
        "folders",
        "hidden",
        "ignore_files",
        "nested",
        "tracked",
        "tree",
    )

    def __init__(
        self,
        checksum: bytes = b"",
        tree: str = "",
        files: int = 0,
        nested: tuple[bytes, ...] = (),
        tracked: str = "-",
        ignore_files: bool = False,
        folders: tuple[bytes, ...] = (),
        hidden: bool = False,
    ) -> None:
        self.checksum = checksum
        self.tree = tree
        self.files = files
        self.nested = nested
        self.tracked = tracked
        self.ignore_files = ignore_files
        self.folders = folders
        self.hidden = hidden


class Project:
    """A project folder and its index in the store."""

    def __init__(self, store: ObjectStore, folder: Path, top: Path) -> None:
        self.store = store
        self.folder = folder
        self.top = top  # of the repository around it: its ignore rules count too
        name = os.fsencode(top) + b"\0" + os.fsencode(folder)
        self.key = digest(name)
        self.index = store.projects / self.key
        self._state = store.projects / f"{self.key}.state"

    def excludes(self) -> list[str]:
        """The options of git that leave dstack's own folder out, where the project holds it."""
        home = os.path.relpath(os.path.realpath(self.store.root.parent), self.top)
        if home == os.curdir or home.split(os.sep)[0] == os.pardir:
            return []
        return ["--exclude=/" + re.sub(r"([\\*?\[ ])", r"\\\1", home) + "/"]

    def checksum(self) -> bytes:
        """What changes with every change of the index; empty when there is none."""
        try:
            with self.index.open("rb") as file:
                file.seek(-_CHECKSUM, os.SEEK_END)
                return file.read()
        except OSError:
            return b""

    def entries(self) -> int:
        """How many files the index holds."""
        try:
            with self.index.open("rb") as file:
                return int.from_bytes(file.read(12)[8:], "big")
        except OSError:
            return 0

    def load(self) -> State:
        """The state as last saved; an empty one where there is none that makes sense."""
        try:
            head, *names = self._state.read_bytes().split(b"\0")
            checksum, tree, files, tracked, ignored, hidden = head.decode("ascii").split()
            middle = names.index(_BETWEEN)
            return State(
                bytes.fromhex(checksum),
                tree,
                int(files),
                tuple(names[:middle]),
                tracked,
                ignored == "1",
                tuple(names[middle + 1 :]),
                hidden == "1",
            )
        except (OSError, ValueError):
            return State()

    def save(self, state: State) -> None:
        """Write the state aside, then rename; the tree is needed from now on."""
        self.store.set_ref(f"projects/{self.key}", state.tree)
        head = f"{state.checksum.hex()} {state.tree} {state.files} {state.tracked} "
        head += f"{int(state.ignore_files)} {int(state.hidden)}"
        words = (head.encode("ascii"), *state.nested, _BETWEEN, *state.folders)
        aside = self._state.with_name(f"{self.key}.state.tmp-{os.getpid()}")
        try:
            aside.write_bytes(b"\0".join(words))
            aside.replace(self._state)
        except OSError as error:
            raise self.store.unusable(error) from None

    def touch(self) -> None:
        """Note that the project was used now: `prune` looks at the time."""
        with contextlib.suppress(OSError):
            os.utime(self._state)

    def lock(self) -> int:
        """Wait until nobody changes the index, and hold it so: a descriptor to be closed."""
        path = self.store.projects / f"{self.key}.held"
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            raise self.store.unusable(error) from None
        # git's own lock file, if there is one, was left by a git that was killed: a living one
        # would hold the descriptor above.
        self.index.with_name(f"{self.key}.lock").unlink(missing_ok=True)
        return descriptor

    def forget(self) -> None:
        """Drop the index and what is known of it; the next snapshot starts from nothing."""
        self.index.unlink(missing_ok=True)
        self._state.unlink(missing_ok=True)
        self.store.drop_ref(f"projects/{self.key}")


def repository_around(folder: Path) -> Path:
    """The top of the work tree of the git repository that `folder` lies in, or `folder` itself."""
    for top in (folder, *folder.parents):
        marker = top / ".git"
        if (marker / "HEAD").is_file() or marker.is_file():
            return top
    return folder
