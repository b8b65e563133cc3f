"""From lists of a build's folder, before and after, to what it read and what it left. Pure.

Names are relative to the run's folder of code, in bytes, with `/` between.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec


class Seen(msgspec.Struct, frozen=True):
    """What `find` listed: all names before the stage and after it, and those that were used.

    `read` had their access time moved, `changed` their status (content, mode, name).
    """

    folders: frozenset[bytes]
    files: frozenset[bytes]
    after_folders: frozenset[bytes]
    after_files: frozenset[bytes]
    read: frozenset[bytes]
    changed: frozenset[bytes]


class Made(msgspec.Struct, frozen=True):
    """What a build is: what it left, and what it was made from.

    `moves` are what it left, whole folders where they are new; `gone` is what must be deleted
    before they are laid into a fresh checkout; `read` is what was read, changed or deleted.
    """

    moves: tuple[bytes, ...]
    gone: tuple[bytes, ...]
    read: frozenset[bytes]


def names(data: bytes) -> frozenset[bytes]:
    """What `find . -print0` wrote; the folder itself is b""."""
    found = (name[2:] if name.startswith(b"./") else name for name in data.split(b"\0")[:-1])
    return frozenset(b"" if name == b"." else name for name in found)


def made_of(seen: Seen, ignored: Iterable[bytes] = ()) -> Made:
    """What the stage made; `ignored` are folders that are not part of it (caches)."""
    outside = tuple(ignored)
    before = seen.folders | seen.files
    after = seen.after_folders | seen.after_files
    # What was a folder and is a file now, or a file that is another one, or was written to.
    replaced = (seen.files & seen.changed & after) | (seen.folders & seen.after_files)
    lost = before - after
    moves: list[bytes] = []
    top: bytes | None = None
    # In the order of their parts, so that a folder comes right before what is in it.
    for path in sorted(after, key=lambda name: name.split(b"/")):
        if not path or _within(path, outside):
            continue
        if top is not None and path.startswith(top):
            continue
        if path in before and path not in replaced:
            continue
        moves.append(path)
        top = path + b"/"
    gone = [path for path in sorted(lost | replaced) if not _within(path, outside)]
    read = (path for path in seen.read | lost | replaced if not _within(path, outside))
    return Made(tuple(moves), tuple(gone), frozenset(read))


def _within(path: bytes, folders: tuple[bytes, ...]) -> bool:
    return any(path == folder or path.startswith(folder + b"/") for folder in folders)
