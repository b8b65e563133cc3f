"""What is sent to make one tree of another: parts that are named by their content. Pure.

A part that arrived need not be sent again, whatever became of the rest: an interrupted transfer
goes on, and so does one of a folder that changed a little meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from ..digest import digest
from .differ import Copy
from .project import FOLDERS_FILE

LINK = b"120000"
EXECUTABLE = b"100755"

_LARGE = 1 << 20  # bytes: from here on a file is sent in pieces of its own
_PIECE = 8 << 20
_PART = 4 << 20  # bytes of small files in one part, at most
_FILES = 512  # and how many of them
_ENDING = b"00"  # a blob that begins so ends its part: a change moves no later border


class Change(msgspec.Struct, frozen=True):
    """One line of git-diff-tree's raw output; blobs are in hexadecimal, `status` is A, M, T, D."""

    name: bytes
    old_mode: bytes
    mode: bytes
    old_blob: bytes
    blob: bytes
    status: bytes


class Piece(msgspec.Struct, frozen=True):
    """Bytes of one blob, from `start` on."""

    blob: bytes
    start: int
    size: int


class Part(msgspec.Struct, frozen=True):
    """What arrives as a whole: small files, or one piece of a large one. `size` is in bytes."""

    name: str
    size: int
    files: tuple[Change, ...] = ()
    piece: Piece | None = None


class Large(msgspec.Struct, frozen=True):
    """A large file, and what it is put together from: parts, and copies of the old one's bytes."""

    change: Change
    steps: tuple[Part | Copy, ...]

    @property
    def parts(self) -> tuple[Part, ...]:
        """Those that are sent."""
        return tuple(step for step in self.steps if isinstance(step, Part))


class Sending(msgspec.Struct, frozen=True):
    """All that makes the new tree of the old one."""

    small: tuple[Part, ...]
    large: tuple[Large, ...]
    gone: tuple[bytes, ...]

    def parts(self) -> list[Part]:
        """All parts, in the order sent, each once."""
        found = [*self.small, *(part for large in self.large for part in large.parts)]
        return list({part.name: part for part in found}.values())


def parse_changes(raw: bytes) -> list[Change]:
    """What `git diff-tree -r -z --raw --no-renames --no-abbrev` wrote."""
    words = raw.split(b"\0")[:-1]
    found = []
    for head, name in zip(words[::2], words[1::2], strict=True):
        old_mode, mode, old_blob, blob, status = head.lstrip(b":").split(b" ")
        found.append(Change(name, old_mode, mode, old_blob, blob, status[:1]))
    return found


def is_large(change: Change, sizes: Mapping[bytes, int]) -> bool:
    """Whether a file is sent in pieces."""
    return change.mode != LINK and sizes[change.blob] >= _LARGE


def plan_sending(
    changes: Iterable[Change],
    sizes: Mapping[bytes, int],
    copies: Mapping[bytes, Sequence[Copy]],
    gone_folders: Sequence[bytes] = (),
) -> Sending:
    """The parts that `changes` take; `copies` by name: what need not be sent of large files."""
    there = [c for c in changes if c.name != FOLDERS_FILE]
    new = [change for change in there if change.status != b"D"]
    small = [change for change in new if not is_large(change, sizes)]
    large = [change for change in new if is_large(change, sizes)]
    # What is replaced goes first, too: it may be a link, or another kind of thing.
    gone = [change.name for change in there if change.status != b"A"]
    return Sending(
        small=tuple(_small_parts(small, sizes)),
        large=tuple(
            Large(change, tuple(_steps(change, sizes[change.blob], copies.get(change.name, ()))))
            for change in large
        ),
        gone=(*gone, *gone_folders),
    )


def _small_parts(changes: Iterable[Change], sizes: Mapping[bytes, int]) -> Iterable[Part]:
    files: list[Change] = []
    size = 0
    for change in changes:
        files.append(change)
        size += sizes[change.blob]
        if size >= _PART or len(files) >= _FILES or change.blob.startswith(_ENDING):
            yield _part(files, size)
            files, size = [], 0
    if files:
        yield _part(files, size)


def _part(files: Sequence[Change], size: int) -> Part:
    text = b"".join(b"%b %b\t%b\0" % (c.mode, c.blob, c.name) for c in files)
    return Part(digest(text), size, tuple(files))


def _steps(change: Change, size: int, copies: Iterable[Copy]) -> Iterator[Part | Copy]:
    """How a file of `size` bytes is put together: the copies, and parts for what lies between."""
    at = 0
    for copy in copies:
        yield from _pieces(change, at, copy.new)
        yield copy
        at = copy.new + copy.size
    yield from _pieces(change, at, size)


def _pieces(change: Change, begin: int, end: int) -> Iterator[Part]:
    for start in range(begin, end, _PIECE):
        piece = Piece(change.blob, start, min(_PIECE, end - start))
        name = digest(b"piece %b %d %d" % (piece.blob, piece.start, piece.size))
        yield Part(name, piece.size, piece=piece)


def gone_folders(old: Iterable[bytes], new: Iterable[bytes]) -> list[bytes]:
    """The topmost folders of the old tree that the new one has not."""
    left = set(old) - set(new)
    return sorted(name for name in left if name.rpartition(b"/")[0] not in left)


def with_parents(folders: Iterable[bytes]) -> set[bytes]:
    """These folders, and those that they lie in."""
    found: set[bytes] = set()
    for folder in folders:
        name = folder
        while name and name not in found:
            found.add(name)
            name = name.rpartition(b"/")[0]
    return found
