"""A tar stream, as GNU, BSD and busybox `tar` read it. Pure.

The format is ustar with GNU's extensions for long names and large files:
https://www.gnu.org/software/tar/manual/html_node/Standard.html
"""

from __future__ import annotations

BLOCK = 512
END = b"\0" * (2 * BLOCK)

_LONG_NAME, _LONG_LINK = b"L", b"K"
_NAME = 100  # bytes of a name that need no block of their own
_OCTAL = 8**11  # the size from which on a number is written in base 256


class Headers:
    """What stands before each content; all files get the time `at`, in seconds since the epoch."""

    def __init__(self, at: int) -> None:
        self._at = at

    def folder(self, name: bytes) -> bytes:
        """The entry of a folder."""
        return self._entry(name + b"/", b"5", 0o755, 0)

    def link(self, name: bytes, target: bytes) -> bytes:
        """The entry of a symbolic link."""
        long = self._long(_LONG_LINK, target) if len(target) > _NAME else b""
        return long + self._entry(name, b"2", 0o777, 0, target[:_NAME])

    def file(self, name: bytes, mode: int, size: int) -> bytes:
        """What stands before the content of a file; `padding(size)` stands behind it."""
        return self._entry(name, b"0", mode, size)

    def _long(self, kind: bytes, text: bytes) -> bytes:
        size = len(text) + 1
        head = self._header(b"././@LongLink", kind, 0o644, size)
        return head + text + b"\0" + padding(size)

    def _entry(self, name: bytes, kind: bytes, mode: int, size: int, target: bytes = b"") -> bytes:
        long = self._long(_LONG_NAME, name) if len(name) > _NAME else b""
        return long + self._header(name[:_NAME], kind, mode, size, target)

    def _header(self, name: bytes, kind: bytes, mode: int, size: int, target: bytes = b"") -> bytes:
        head = b"".join(
            (
                name.ljust(_NAME, b"\0"),
                b"%07o\0" % mode,
                b"0000000\0" * 2,  # owner and group: whoever unpacks it
                _number(size),
                _number(self._at),
                b" " * 8,
                kind,
                target.ljust(_NAME, b"\0"),
                b"ustar  \0",
            )
        ).ljust(BLOCK, b"\0")
        return b"%b%06o\0 %b" % (head[:148], sum(head), head[156:])


def padding(size: int) -> bytes:
    """What fills the last block of a content of `size` bytes."""
    return b"\0" * (-size % BLOCK)


def _number(value: int) -> bytes:
    if value < _OCTAL:
        return b"%011o\0" % value
    return b"\x80" + value.to_bytes(11, "big")
