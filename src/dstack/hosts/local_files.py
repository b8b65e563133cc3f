"""Files of this machine, by system calls."""

from __future__ import annotations

import errno
import os
import stat
from _thread import get_ident
from pathlib import Path

from ..errors import HostError
from .base import Content, File

# ESRCH: a process that ended while its file in /proc was open, proc(5).
MISSING = (errno.ENOENT, errno.ENOTDIR, errno.ESRCH)


def write_aside(path: str, file: File) -> None:
    """Write a file aside, then give it its name. Raises OSError that names the file."""
    if file.keep and os.path.lexists(path):
        return
    aside = f"{path}.{os.getpid()}-{get_ident()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    try:
        fd = os.open(aside, flags, file.mode)
        try:
            view = memoryview(file.data)
            while view:
                view = view[os.write(fd, view) :]
        finally:
            os.close(fd)
        if file.keep:
            # A link never replaces: of two that write at once, the first one stays.
            try:
                os.link(aside, path)
            except FileExistsError:
                pass
            os.unlink(aside)
        else:
            os.rename(aside, path)
    except OSError as error:
        try:
            os.unlink(aside)
        except OSError:
            pass
        error.filename = path
        raise


def read_small(path: str) -> Content | None:
    """The file, or where the link leads; None when there is none. Raises HostError.

    What cannot be read for another reason must not pass for missing: a job whose folder is
    missing has ended.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno in MISSING:
            return None
        return _read_link(path, error)
    try:
        found = os.fstat(fd)
        if stat.S_ISDIR(found.st_mode):
            return Content(b"", found.st_mtime)
        return Content(os.read(fd, 65536), found.st_mtime)
    except OSError as error:
        if error.errno in MISSING:
            return None
        message = f"cannot read {path}: {error.strerror}"
        raise HostError(message) from None
    finally:
        os.close(fd)


def _read_link(path: str, error: OSError) -> Content | None:
    try:
        return Content(os.fsencode(os.readlink(path)), os.lstat(path).st_mtime)
    except OSError as other:
        if other.errno in MISSING:
            return None
    message = f"cannot read {path}: {error.strerror}"
    raise HostError(message)


def delete_tree(path: Path) -> None:
    """Delete a folder with all that is in it, write bits or not. Raises OSError, shutil.Error."""
    import shutil

    def unlock(_function: object, name: str, _error: object) -> None:
        # A folder without the write bit is the usual reason; what is gone already is no error.
        if not os.path.lexists(name):
            return
        os.chmod(os.path.dirname(name), 0o700)
        if os.path.islink(name) or not os.path.isdir(name):
            os.unlink(name)
        else:
            os.chmod(name, 0o700)
            shutil.rmtree(name)

    shutil.rmtree(path, onerror=unlock)
