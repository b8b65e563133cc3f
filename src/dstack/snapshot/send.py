"""Sending a tree to another host: what changed since the last one there, and a copy for the run."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ..hosts.base import File, Host
from .assembly import assembly
from .differ import LEAST, WINDOWS, Copy, common_tail, copies
from .objects import Objects, Pieces
from .parts import (
    EXECUTABLE,
    LINK,
    Change,
    Part,
    Sending,
    gone_folders,
    is_large,
    parse_changes,
    plan_sending,
    with_parents,
)
from .project import FOLDERS_FILE
from .store import EMPTY_TREE, ObjectStore
from .tar import END, Headers, padding
from .update import Progress

_TIMEOUT = 600.0  # seconds to lay a tree out there
_BEGUN = time.time_ns()  # before anything was asked: this is imported for the first question


class There:
    """What a host has of a project: `tree` is the last one, `parts` are of the next."""

    def __init__(self, said: bytes) -> None:
        words = [line.partition(" ")[::2] for line in said.decode("ascii", "replace").splitlines()]
        self.laid = ("laid", "") in words
        self.tree = next((value for word, value in words if word == "tree"), None)
        self.parts = {value for word, value in words if word == "have"}


class Sender:
    """Sends the trees of one project to one host."""

    def __init__(self, store: ObjectStore, key: str, host: Host, folder: Path) -> None:
        """`key` is the project's here, `folder` where the host keeps its code."""
        self._store = store
        self._objects = Objects(store)
        self._key = key
        self._host = host
        self._folder = folder

    def lay(
        self,
        tree: str,
        target: Path,
        progress: Callable[[Progress], None] | None = None,
        *,
        fresh: bool = False,
    ) -> int:
        """Make the folder `target` there with the tree's content; the bytes of content sent.

        It appears complete or not at all; nothing is done when it is there, which it is not when
        `fresh`. In a batch of the host it is done when that ends. Raises HostError,
        StoreError when the tree is not in the store any more.
        """
        there = self._look("" if fresh else os.fspath(target))
        if there.laid:
            return 0
        with self._alone() as changed:
            if changed:
                there = self._look("" if fresh else os.fspath(target))
                if there.laid:
                    return 0
            sent = 0
            if there.tree != tree:
                sent = self._send(there, tree, progress)
            self._host.do(
                self._argv("lay", tree, os.fspath(target)), self._what(), timeout=_TIMEOUT
            )
        return sent

    def foresee(self) -> None:
        """`lay` comes soon, of a fresh run: the host may begin to say what it has."""
        self._host.foresee(self._argv("look", ""))

    @contextmanager
    def _alone(self) -> Iterator[bool]:
        """One process at a time sends a project to a host, until all that it asked is done.

        Whether another may have done so since this one began: what was seen before is stale then.
        """
        path = self._store.projects / f"{self._key}.sending-{self._host.name}"
        # A lock of the process's own kind: it may begin twice in one batch.
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

        def release() -> None:
            os.pwrite(lock, b"\n", 0)  # one that is empty was made by who looks at it
            now = time.time_ns()
            os.utime(lock, ns=(now, now))
            os.close(lock)

        try:
            fcntl.lockf(lock, fcntl.LOCK_EX)
            found = os.fstat(lock)
            yield found.st_size > 0 and found.st_mtime_ns > _BEGUN
        finally:
            self._host.afterwards(release)

    def _look(self, target: str) -> There:
        argv = self._argv("look", target)
        return There(self._host.query(argv, self._what(), timeout=_TIMEOUT))

    def _argv(self, *words: str) -> list[str]:
        return ["/bin/sh", "-c", _script(), "sh", os.fspath(self._folder), *words]

    def _what(self) -> str:
        return f"the code cannot be laid out on {self._host.name}"

    def _send(self, there: There, tree: str, progress: Callable[[Progress], None] | None) -> int:
        old = there.tree
        raw = self._objects.diff(old, tree) if old else None
        fresh = raw is None
        if raw is None:
            old = EMPTY_TREE
            raw = self._objects.diff(EMPTY_TREE, tree) or b""
        assert old is not None  # noqa: S101 - it is a tree by now
        changes = parse_changes(raw)
        sizes = self._objects.sizes(c.blob for c in changes if c.status != b"D")
        copied = {} if fresh else self._copies(changes, sizes)
        sending = plan_sending(changes, sizes, copied, self._gone(old, tree, changes))
        folders = self._folders(tree, changes)
        missing = [part for part in sending.parts() if part.name not in there.parts]
        total = sum(part.size for part in missing)
        meter = _Meter(total, progress)
        staging = self._folder / "staging"
        if missing:
            self._host.put_tree(self._tar(missing, meter), staging)
        self._host.put(staging, _orders(tree, sending, folders, fresh=fresh))
        return total

    def _gone(self, old: str, new: str, changes: list[Change]) -> list[bytes]:
        """The folders that are not there any more."""
        if all(c.status in (b"A", b"M") and c.name != FOLDERS_FILE for c in changes):
            return []
        folders = [with_parents(self._objects.folders(each)) for each in (old, new)]
        return gone_folders(*folders)

    def _folders(self, tree: str, changes: list[Change]) -> list[bytes]:
        """The empty folders, where they are not what they were."""
        if not any(change.name == FOLDERS_FILE for change in changes):
            return []
        return self._objects.empty_folders(tree)

    def _copies(self, changes: list[Change], sizes: Mapping[bytes, int]) -> dict[bytes, list[Copy]]:
        """What the host has of the large files that changed, by their names."""
        candidates = [c for c in changes if c.status == b"M" and is_large(c, sizes)]
        old_sizes = self._objects.sizes(c.old_blob for c in candidates)
        return {c.name: self._common(c, old_sizes[c.old_blob], sizes[c.blob]) for c in candidates}

    def _common(self, change: Change, old_size: int, size: int) -> list[Copy]:
        with self._both(change) as (old, new):
            found = copies(old, new)
        last = found[-1] if found else Copy(0, 0, 0)
        left = min(old_size - last.old, size - last.new) - last.size
        if left > WINDOWS[-1]:  # more may have been inserted, or deleted, than it could find
            with self._both(change) as (old, new):
                tail = common_tail(old, new, old_size, size, left)
            if tail >= LEAST:
                found.append(Copy(old_size - tail, size - tail, tail))
        return found

    @contextmanager
    def _both(
        self, change: Change
    ) -> Iterator[tuple[Callable[[int], bytes], Callable[[int], bytes]]]:
        with self._objects.reader(change.old_blob) as old, self._objects.reader(change.blob) as new:
            assert old.stdout is not None  # noqa: S101 - it is a pipe
            assert new.stdout is not None  # noqa: S101
            try:
                yield old.stdout.read, new.stdout.read
            finally:
                old.kill()
                new.kill()

    def _tar(self, parts: list[Part], meter: _Meter) -> Iterator[bytes]:
        """The parts as one tar, each followed by its mark."""
        headers = Headers(int(time.time()))
        files = [change for part in parts for change in part.files]
        contents = self._objects.contents([change.blob for change in files])
        with Pieces(self._objects) as pieces:
            for part in parts:
                name = part.name.encode()
                for change in part.files:
                    path = b"%b/files/%b" % (name, change.name)
                    yield _packed(headers, path, change, next(contents))
                if part.piece is not None:
                    yield headers.file(name + b"/piece", 0o600, part.size)
                    for data in pieces.read(part.piece.blob, part.piece.start, part.size):
                        yield data
                        meter.add(len(data))
                    yield padding(part.size)
                else:
                    meter.add(part.size)
                yield headers.file(name + b"/done", 0o600, 0)
        yield END


def _packed(headers: Headers, name: bytes, change: Change, content: bytes) -> bytes:
    if change.mode == LINK:
        return headers.link(name, content)
    mode = 0o755 if change.mode == EXECUTABLE else 0o644
    return headers.file(name, mode, len(content)) + content + padding(len(content))


def _orders(tree: str, sending: Sending, folders: list[bytes], *, fresh: bool) -> dict[str, File]:
    """What lay.sh is told; `ready` comes last."""
    order = [part.name for part in sending.small]
    if sending.large:
        order.append("large")
    files = {
        "gone": File(b"".join(b"./%b\0" % name for name in sending.gone)),
        "folders": File(b"".join(b"./%b\0" % name for name in folders)),
        "order": File("".join(f"{name}\n" for name in order).encode()),
        "assemble.sh": File(assembly(sending.large)),
    }
    if fresh:
        files["fresh"] = File(b"")
    files["ready"] = File(f"{tree}\n".encode())
    return files


class _Meter:
    """Counts what was sent."""

    def __init__(self, total: int, progress: Callable[[Progress], None] | None) -> None:
        self._progress = progress
        self._total = total
        self._done = 0

    def add(self, count: int) -> None:
        self._done += count
        if self._progress is not None:
            self._progress(Progress(self._done, self._total))


def _script() -> str:
    return (Path(__file__).parent / "lay.sh").read_text(encoding="utf-8")
