"""Trees of files that were read before, a few hundred of them: see config/packed.py."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from ..digest import digest
from ..paths import Home

_SLOT = 2  # hexadecimal digits: as many files as there are such names, each one the latest


class ParsedFiles:
    """The folder `parsed`. A file of it: the key, the digest of the data, and the data."""

    def __init__(self, home: Home) -> None:
        self._folder = home.parsed

    def _slot(self, key: str) -> Path:
        return self._folder / key[:_SLOT]

    def recall(self, key: str) -> bytes | None:
        """See config.packed.Memory."""
        try:
            head, _, data = self._slot(key).read_bytes().partition(b"\n")
        except OSError:
            return None
        return data if head == _head(key, data) else None

    def keep(self, key: str, data: bytes) -> None:
        """See config.packed.Memory."""
        slot = self._slot(key)
        aside = slot.with_name(f"{slot.name}.{os.getpid()}")
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            aside.write_bytes(_head(key, data) + b"\n" + data)
            aside.rename(slot)
        except OSError:
            with suppress(OSError):
                aside.unlink(missing_ok=True)


def _head(key: str, data: bytes) -> bytes:
    return f"{key} {digest(data)}".encode()
