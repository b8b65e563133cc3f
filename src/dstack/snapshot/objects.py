"""Reading what the store holds: sizes, contents one after the other, and single large ones."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Iterator, Sequence

from .project import FOLDERS_FILE, FOLDERS_HEAD
from .store import EMPTY_TREE, GitFailed, ObjectStore, start

PIECE = 1 << 20


class Objects:
    """The objects of a store that is open."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._none = store.root / "none"  # no index takes part

    def diff(self, old: str, new: str) -> bytes | None:
        """`git diff-tree` of two trees, as `parts.parse_changes` takes it.

        None where the old one is not in the store any more.
        """
        options = ("-r", "-z", "--raw", "--no-renames", "--no-abbrev")
        try:
            return self._git("diff-tree", *options, old, new)
        except GitFailed:
            self._git("cat-file", "-e", f"{new}^{{tree}}")
            return None

    def folders(self, tree: str) -> list[bytes]:
        """The folders that hold files, and the empty ones that the tree names."""
        if tree == EMPTY_TREE:
            return []
        listed = self._git("ls-tree", "-r", "-d", "-z", "--name-only", tree)
        return [*listed.split(b"\0")[:-1], *self.empty_folders(tree)]

    def empty_folders(self, tree: str) -> list[bytes]:
        """The empty folders that the tree names."""
        name = FOLDERS_FILE.decode()
        try:
            text = self._git("cat-file", "blob", f"{tree}:{name}")
        except GitFailed:
            return []
        if not text.startswith(FOLDERS_HEAD):  # the user's own file
            return []
        return text[len(FOLDERS_HEAD) :].split(b"\0")[:-1]

    def sizes(self, blobs: Iterable[bytes]) -> dict[bytes, int]:
        """Bytes of each blob."""
        asked = list(dict.fromkeys(blobs))
        if not asked:
            return {}
        told = self._git(
            "cat-file", "--batch-check=%(objectsize)", stdin=b"".join(b"%b\n" % b for b in asked)
        )
        return dict(zip(asked, map(int, told.split()), strict=True))

    def contents(self, blobs: Sequence[bytes]) -> Iterator[bytes]:
        """What small blobs hold, one after the other."""
        if not blobs:
            return
        # What is asked for is in a file: nobody has to feed git while its answers are read.
        from tempfile import TemporaryFile

        with TemporaryFile() as asked:
            asked.write(b"".join(b"%b\n" % blob for blob in blobs))
            asked.seek(0)
            with self._start("cat-file", "--batch", "--buffer", stdin=asked.fileno()) as process:
                assert process.stdout is not None  # noqa: S101 - it is a pipe
                for blob in blobs:
                    head = process.stdout.readline().split()
                    if len(head) != 3:
                        raise GitFailed("cat-file", 1, b"%b is missing" % blob)
                    yield process.stdout.read(int(head[2]))
                    process.stdout.read(1)

    def reader(self, blob: bytes) -> subprocess.Popen[bytes]:
        """A git that writes a blob to its stdout; the caller ends it."""
        return self._start("cat-file", "blob", blob.decode())

    def _git(self, *arguments: str, stdin: bytes = b"") -> bytes:
        return self._store.git(*arguments, top=self._store.root, index=self._none, stdin=stdin)

    def _start(self, *arguments: str, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
        environ = self._store.environ(self._store.root, self._none)
        return start(arguments, self._store.root, environ, stdin=stdin)


class Pieces:
    """Reads pieces of large blobs; those of one, in their order, by one git that goes through it.

    To be used in a `with`.
    """

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._process: subprocess.Popen[bytes] | None = None
        self._blob = b""
        self._at = 0  # how far it was read

    def __enter__(self) -> Pieces:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def read(self, blob: bytes, begin: int, size: int) -> Iterator[bytes]:
        """`size` bytes of the blob from `begin` on. Raises GitFailed when it is shorter."""
        if self._process is None or blob != self._blob or begin < self._at:
            self._end()
            self._process = self._objects.reader(blob)
            self._blob, self._at = blob, 0
        while self._at < begin:
            self._next(begin)
        while self._at < begin + size:
            yield self._next(begin + size)

    def _next(self, end: int) -> bytes:
        assert self._process is not None  # noqa: S101 - `read` started it
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        data = self._process.stdout.read(min(end - self._at, PIECE))
        if not data:
            raise GitFailed("cat-file", 1, b"%b is shorter than it was" % self._blob)
        self._at += len(data)
        return data

    def _end(self) -> None:
        if self._process is not None:
            with self._process as process:
                process.kill()
            self._process = None
