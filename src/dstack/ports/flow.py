"""Moving bytes from one socket to another without looking at them."""

from __future__ import annotations

import os
import socket

_PIPE = 1 << 20  # the most that a user may ask for, as Linux comes
_TURN = 8 << 20  # what one direction may move before the others have their turn
_SMALL = 16 << 10  # a request or an answer, more likely than a part of much
_OWN_FILES = 48  # what a program has open that has nothing to do with ports
_FLAGS = os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE


class Pipes:
    """Kernel pipes for splice(2); only directions whose reader is slow hold one for long."""

    def __init__(self) -> None:
        self._spare: list[tuple[int, int]] = []

    def take(self) -> tuple[int, int]:
        """An empty pipe. Raises OSError when there are too many open files."""
        if self._spare:
            return self._spare.pop()
        pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        _widen(pipe[1])
        return pipe

    def give(self, pipe: tuple[int, int], *, empty: bool) -> None:
        """Take a pipe back; one that still holds bytes is closed."""
        if empty and len(self._spare) < 4:
            self._spare.append(pipe)
        else:
            os.close(pipe[0])
            os.close(pipe[1])

    def close(self) -> None:
        """Close what is spare."""
        while self._spare:
            self.give(self._spare.pop(), empty=False)


def _widen(fd: int) -> None:
    import fcntl

    try:
        fcntl.fcntl(fd, 1031, _PIPE)  # F_SETPIPE_SZ, which `fcntl` only names since 3.10
    except OSError:
        return  # a narrow pipe is slower, not wrong


class Flow:
    """One direction of a connection. `finished`: its end was passed on."""

    __slots__ = ("_eof", "_pending", "_pipe", "finished", "source", "target")

    def __init__(self, source: socket.socket, target: socket.socket) -> None:
        self.source = source
        self.target = target
        self.finished = False
        self._eof = False
        self._pending = 0
        self._pipe: tuple[int, int] | None = None

    @property
    def wants_input(self) -> bool:
        """Whether it waits for the source to have something."""
        return not self._eof and not self._pending

    @property
    def wants_room(self) -> bool:
        """Whether it waits for the target to take something."""
        return self._pending > 0

    def pump(self, pipes: Pipes) -> None:
        """Move what can be moved now. Raises OSError when either side has gone."""
        moved = 0
        while not self.finished:
            if not self._pending:
                if self._eof:
                    self._finish(pipes)
                    return
                # After a small piece there is hardly more: epoll tells, at no further cost.
                if 0 < moved < _SMALL or moved >= _TURN or not self._fill(pipes):
                    self._release(pipes)
                    return
                moved += self._pending
            if self._pending and not self._drain():
                return

    def drop(self, pipes: Pipes) -> None:
        """Give back what it holds."""
        self._release(pipes)

    def _fill(self, pipes: Pipes) -> bool:
        """Take from the source; whether there was something, be it the end."""
        if self._pipe is None:
            self._pipe = pipes.take()
        try:
            count = os.splice(self.source.fileno(), self._pipe[1], _PIPE, flags=_FLAGS)
        except BlockingIOError:
            return False
        self._pending = count
        self._eof = count == 0
        return True

    def _drain(self) -> bool:
        """Hand on to the target; whether it took everything."""
        assert self._pipe is not None  # noqa: S101 - it holds what is pending
        while self._pending:
            try:
                count = os.splice(self._pipe[0], self.target.fileno(), self._pending, flags=_FLAGS)
            except BlockingIOError:
                return False
            self._pending -= count
        return True

    def _finish(self, pipes: Pipes) -> None:
        self.finished = True
        self._release(pipes)
        self.target.shutdown(socket.SHUT_WR)

    def _release(self, pipes: Pipes) -> None:
        if self._pipe is not None:
            pipes.give(self._pipe, empty=not self._pending)
            self._pipe = None


def room_for(files: int) -> bool:
    """Whether `files` may be open besides this program's own; the limit is raised if need be.

    Only if need be: programs started later inherit it.
    """
    import resource

    files += _OWN_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files <= soft:
        return True
    # RLIM_INFINITY is -1 here.
    if 0 <= hard < files:
        return False
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):
        return False
    return True
