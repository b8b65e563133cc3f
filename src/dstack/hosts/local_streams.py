"""Following files, watching processes and unpacking archives on this machine."""

from __future__ import annotations

import os
import select
import subprocess
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from ..errors import HostError
from .base import ProcessId
from .pipes import move

_CHUNK = 1 << 20


class LocalWatch:
    """See Watch. The kernel tells (Linux 5.3); elsewhere whoever asks is told by looking."""

    def __init__(
        self,
        processes: Sequence[ProcessId],
        alive: Callable[[Sequence[ProcessId]], list[bool]],
    ) -> None:
        self._processes = list(processes)
        self._alive = alive
        self._pidfds: list[int] = []
        self._wake: tuple[int, int] | None = None
        self._epoll = select.epoll() if hasattr(select, "epoll") else None
        for process in processes if hasattr(os, "pidfd_open") and self._epoll else ():
            try:
                self._pidfds.append(os.pidfd_open(process.pid))
            except OSError:
                continue
        for fd in self._pidfds:
            if self._epoll is not None:
                self._epoll.register(fd, select.EPOLLIN)
        if not all(self._alive(self._processes)) or self._epoll is None:
            # Somebody has ended before, or cannot be watched: a pipe that is readable at once.
            self._wake = os.pipe()
            os.close(self._wake[1])

    def fileno(self) -> int:
        """See Watch."""
        if self._wake is not None:
            return self._wake[0]
        assert self._epoll is not None  # noqa: S101 - or there is `_wake`
        return self._epoll.fileno()

    def ended(self) -> set[ProcessId]:
        """See Watch."""
        alive = self._alive(self._processes)
        return {each for each, lives in zip(self._processes, alive, strict=True) if not lives}

    def close(self) -> None:
        """See Watch."""
        for fd in self._pidfds:
            os.close(fd)
        self._pidfds.clear()
        if self._epoll is not None:
            self._epoll.close()
        if self._wake is not None:
            os.close(self._wake[0])
            self._wake = None


class LocalStream:
    """See Stream: a `tail`, for what shall not be read where it lies."""

    def __init__(self, path: Path, offset: int) -> None:
        script = 'until [ -e "$1" ]; do sleep 0.1; done; exec tail -c "+$2" -f "$1" 2>/dev/null'
        try:
            self._child = subprocess.Popen(
                ["/bin/sh", "-c", script, "sh", os.fspath(path), str(offset + 1)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise HostError(f"cannot follow {path}: {error.strerror}") from None
        assert self._child.stdout is not None  # noqa: S101 - made a pipe
        self._fd = self._child.stdout.fileno()
        os.set_blocking(self._fd, False)

    def fileno(self) -> int:
        """See Stream."""
        return self._fd

    def read(self, limit: int = _CHUNK) -> bytes | None:
        """See Stream."""
        try:
            return os.read(self._fd, limit)
        except BlockingIOError:
            return None

    def move(self, fd: int, at: int, limit: int = _CHUNK) -> int | None:
        """See Stream."""
        return move(self._fd, fd, at, limit)

    def close(self) -> None:
        """See Stream."""
        if self._child.stdout is not None:
            self._child.stdout.close()
        self._child.kill()
        self._child.wait()


def unpack(archive: Iterable[bytes], folder: Path) -> None:
    """Unpack a tar archive into a folder. Raises HostError."""
    try:
        folder.mkdir(0o700, parents=True, exist_ok=True)
        child = subprocess.Popen(
            ["tar", "-xopf", "-", "-C", os.fspath(folder)],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    except OSError as error:
        message = f"cannot write to {folder}: {error.strerror}"
        raise HostError(message) from None
    assert child.stdin is not None  # noqa: S101 - made a pipe
    assert child.stderr is not None  # noqa: S101
    # Leaving closes what is left open; a tar that gets no more ends by itself.
    with child:
        try:
            for part in archive:
                child.stdin.write(part)
            child.stdin.close()
        except BrokenPipeError:
            pass  # it says why
        except BaseException:
            child.kill()
            with suppress(BrokenPipeError):
                child.stdin.close()
            raise
        said = child.stderr.read().decode("utf-8", "replace").strip().splitlines()
    if child.returncode != 0:
        raise HostError(f"cannot write to {folder}: {said[0] if said else 'tar failed'}")
