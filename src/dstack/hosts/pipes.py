"""Moving what comes through a pipe into a file."""

from __future__ import annotations

import errno
import os

_SPLICE = getattr(os, "splice", None)  # Linux
_NONBLOCK = 2  # SPLICE_F_NONBLOCK of splice(2)
# What splice answers for a file, or a file system, that it cannot write to.
_NO_SPLICE = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP}


def move(pipe: int, fd: int, at: int, limit: int) -> int | None:
    """Write what is in the pipe to the file at byte `at`, by the kernel alone where it can.

    None: nothing now; 0: the pipe has ended. Raises OSError when the file cannot be written.
    """
    if _SPLICE is not None:
        try:
            moved: int = _SPLICE(pipe, fd, limit, offset_dst=at, flags=_NONBLOCK)
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno not in _NO_SPLICE:
                raise
        else:
            return moved
    try:
        data = os.read(pipe, limit)
    except BlockingIOError:
        return None
    write_at(fd, data, at)
    return len(data)


def write_at(fd: int, data: bytes, at: int) -> None:
    """Write all of it to a file from byte `at` on. Raises OSError."""
    rest = memoryview(data)
    while rest:
        count = os.pwrite(fd, rest, at)
        rest, at = rest[count:], at + count
