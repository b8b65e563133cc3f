"""Reading a log by byte offset, and copying what is new in it to where it is shown."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from .filter import Filter
from .times import Stamper

PIECE = 256 << 10  # what is read at once: all that is ever in memory, some copies aside
_SENT = 8 << 20  # what the kernel is asked to copy at once

# What sendfile answers where it cannot write: a file opened for appending, some terminals.
_NO_SENDFILE = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EBADF, errno.ESPIPE}


def write_all(fd: int, data: bytes) -> None:
    """Write all of `data`, waiting where `fd` does not block.

    Raises BrokenPipeError when the reader has gone, OSError for anything else (a full disk).
    """
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(fd, rest) :]
        except BlockingIOError:
            wait_writable(fd)


def wait_writable(fd: int) -> None:
    """Wait until something can be written to `fd`, or its reader has gone."""
    import select

    waiter = select.poll()
    waiter.register(fd, select.POLLOUT)
    waiter.poll()


class LogReader:
    """A log file, read from `offset` on; a file that is not there yet is an empty one.

    `offset` is where the next byte is read. `truncated` counts how often the file was found
    shorter than that (the run emptied its own log): reading then goes on from its new end.
    """

    def __init__(self, path: Path, offset: int = 0) -> None:
        self.path = path
        self.offset = offset
        self.truncated = 0
        self._fd: int | None = None
        self._sendfile = True

    def close(self) -> None:
        """Close the file; the reader can be used again."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def available(self) -> int:
        """How many bytes there are to read now."""
        if self._fd is None:
            try:
                self._fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return 0
        size = os.fstat(self._fd).st_size
        if size < self.offset:
            self.truncated += 1
            self.offset = size
        return size - self.offset

    def read(self, limit: int = PIECE) -> bytes:
        """The next bytes, at most `limit`; none at the end."""
        if not self.available() or self._fd is None:
            return b""
        data = os.pread(self._fd, min(limit, PIECE), self.offset)
        self.offset += len(data)
        return data

    def copy_to(self, fd: int, shown: Filter | None = None, stamper: Stamper | None = None) -> int:
        """Write what the log holds now to `fd`; how many bytes of the log that was.

        What is appended meanwhile is left for the next call, so that a busy run does not keep the
        caller here. Blocks for as long as `fd` takes nothing. Raises BrokenPipeError when its
        reader has gone, OSError when it cannot be written. What was read through a filter and not
        written then is lost to `fd`: a signal's handler must therefore not raise in here.
        """
        there = self.available()
        if not there:
            return 0
        if shown is None and stamper is None:
            return self._copy_plain(fd, there)
        return self._copy_shown(fd, there, shown, stamper)

    def _copy_plain(self, fd: int, there: int) -> int:
        assert self._fd is not None  # noqa: S101 - available() opened it
        end = self.offset + there
        begin = self.offset
        while self.offset < end:
            rest = end - self.offset
            if self._sendfile:
                sent = self._send(fd, self._fd, min(rest, _SENT))
                if sent is None:
                    continue
                self.offset += sent
                if not sent:
                    break
            else:
                data = os.pread(self._fd, min(rest, PIECE), self.offset)
                if not data:
                    break
                write_all(fd, data)
                self.offset += len(data)
        return self.offset - begin

    def _send(self, fd: int, source: int, count: int) -> int | None:
        """What the kernel copied; None: nothing yet, try again."""
        try:
            return os.sendfile(fd, source, self.offset, count)
        except BlockingIOError:
            wait_writable(fd)
        except OSError as error:
            if error.errno not in _NO_SENDFILE:
                raise
            self._sendfile = False
        return None

    def _copy_shown(
        self, fd: int, there: int, shown: Filter | None, stamper: Stamper | None
    ) -> int:
        begin, end = self.offset, self.offset + there
        while self.offset < end:
            stop = end if stamper is None else min(end, stamper.boundary(self.offset))
            begun = self.offset
            data = self.read(stop - begun)
            if not data:
                break
            if shown is not None:
                data = shown.feed(data)
            if stamper is not None:
                data = stamper.stamp(data, begun)
            write_all(fd, data)
        return self.offset - begin
