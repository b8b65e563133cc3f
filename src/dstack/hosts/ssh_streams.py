"""What takes a channel of its own: following a file, and sending much."""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections.abc import Iterable, Sequence

from ..errors import HostError, HostUnreachable
from .base import ProcessId
from .channel import BEAT, REMOTE, Channel, end_ssh, start_ssh
from .pipes import move, write_at
from .ssh_errors import ssh_error
from .ssh_master import Master
from .ssh_requests import quote, reason, say_if_full, unpack_text

_STALLED = 60.0  # seconds without a byte going through, after which the host counts as unreachable
_SSH_FAILED = 255
# In the background there, on stderr: what makes `sshd` find out that nobody is here any more.
_BEAT = (
    b"( trap 'kill $d_s; exit' TERM; while kill -0 $$ 2>/dev/null; do sleep %d >/dev/null & d_s=$!;"
    b" wait $d_s; echo >&2; done ) </dev/null >/dev/null & d_b=$!; " % BEAT
)
_CHUNK = 1 << 20


def start_line(master: Master, line: bytes) -> subprocess.Popen[bytes]:
    """Run one line of shell there; its stdin is what comes behind. Raises HostError."""
    try:
        child = start_ssh(master.argv([REMOTE]), master.env)
    except OSError as error:
        raise HostError(f"cannot run ssh: {error.strerror}") from None
    assert child.stdin is not None  # noqa: S101 - start_ssh made a pipe
    os.set_blocking(child.stdin.fileno(), True)
    try:
        os.write(child.stdin.fileno(), line + b"\n")  # shorter than a pipe: it never blocks
    except BrokenPipeError:
        pass  # why is on stderr, and whoever reads the output finds out
    return child


def run_line(master: Master, line: bytes, *, timeout: float) -> bytes:
    """Run one line of shell to its end; what it printed. Raises HostError."""
    child = start_line(master, line)
    for pipe in (child.stdout, child.stderr):
        assert pipe is not None  # noqa: S101
        os.set_blocking(pipe.fileno(), True)
    try:
        out, err = child.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        raise HostUnreachable(f"{master.options.host} does not answer") from None
    finally:
        end_ssh(child)
    if child.returncode == _SSH_FAILED:
        raise ssh_error(master.options.host, err.decode("utf-8", "replace"))
    return out


class SshWatch:
    """See Watch. The end of a process is told over the channel that requests are answered on."""

    def __init__(self, channel: Channel, processes: Sequence[ProcessId]) -> None:
        self._channel = channel
        self._processes = frozenset(processes)

    def fileno(self) -> int:
        """See Watch."""
        return self._channel.fileno()

    def ended(self) -> set[ProcessId]:
        """See Watch."""
        self._channel.receive()
        if self._channel.broken is not None:
            return set(self._processes)
        return {each for each in self._processes if each.pid in self._channel.ended}

    def close(self) -> None:
        """See Watch. What waits there ends with its process, or with the channel."""


def _follow(name: bytes, offset: int) -> bytes:
    """Print a file from there on, and what is appended to it."""
    # `tail` reads 8 kB at a time: as long as there is much, it takes two thirds longer than dd,
    # which not everywhere can begin at any byte.
    return (
        b"d_o=%d; d_f=iflag=skip_bytes,count_bytes;"
        b" if dd if=/dev/null $d_f count=0; then"
        b" while d_s=$(stat -c %%s %s) && [ $((d_s - d_o)) -gt %d ]; do"
        b" dd if=%s bs=131072 $d_f skip=$d_o count=$((d_s - d_o)) || exit; d_o=$d_s; done; fi;"
        b" exec tail -c +$((d_o + 1)) -f %s" % (offset, name, _CHUNK, name, name)
    )


class FollowStream:
    """See Stream: a `tail` there, which ends when nobody listens here any more."""

    def __init__(self, master: Master, path: str, offset: int) -> None:
        self._nonce = os.urandom(16).hex().encode() + b"\n"
        self._head: bytearray | None = bytearray()  # what the login session prints first
        name = quote(path)
        self._child = start_line(
            master,
            b"{ until [ -e %s ]; do sleep 0.1 2>/dev/null || sleep 1; done; echo %s; %s; }"
            b" 2>/dev/null & d_t=$!; %sexec >/dev/null; IFS= read -r d_x; kill $d_t $d_b"
            % (name, self._nonce.strip(), _follow(name, offset), _BEAT),
        )
        assert self._child.stdout is not None  # noqa: S101
        assert self._child.stderr is not None  # noqa: S101
        self._fd, self._err = self._child.stdout.fileno(), self._child.stderr.fileno()
        _widen(self._fd)

    def fileno(self) -> int:
        """See Stream."""
        return self._fd

    def read(self, limit: int = _CHUNK) -> bytes | None:
        """See Stream."""
        while True:
            try:
                data = os.read(self._fd, limit)
            except BlockingIOError:
                # A pipe that nobody empties stops ssh one day; what is in it are beats.
                _read_into(self._err, bytearray())
                return None
            if self._head is None or not data:
                return data
            self._head += data
            found = self._head.find(self._nonce)
            if found < 0:
                continue
            rest = bytes(self._head[found + len(self._nonce) :])
            self._head = None
            if rest:
                return rest

    def move(self, fd: int, at: int, limit: int = _CHUNK) -> int | None:
        """See Stream."""
        if self._head is not None:
            data = self.read(limit)
            if data:
                write_at(fd, data, at)
            return None if data is None else len(data)
        moved = move(self._fd, fd, at, limit)
        if moved is None:
            _read_into(self._err, bytearray())  # as above
        return moved

    def close(self) -> None:
        """See Stream."""
        end_ssh(self._child)


def send_tree(master: Master, folder: str, archive: Iterable[bytes], what: str) -> None:
    """Unpack an archive into a folder there. Raises HostError, whose message begins with `what`."""
    nonce = os.urandom(16).hex().encode()
    line = b"%s{ %s%s && echo %s; }; d_c=$?; kill $d_b; exit $d_c" % (
        _BEAT,
        unpack_text(folder, b"", b"-xopf"),
        say_if_full(folder),
        nonce,
    )
    child = start_line(master, line)
    assert child.stdin is not None and child.stdout is not None and child.stderr is not None  # noqa: S101, PT018
    fds = (child.stdin.fileno(), child.stdout.fileno(), child.stderr.fileno())
    os.set_blocking(fds[0], False)
    _widen(fds[0])
    said = (bytearray(), bytearray())
    try:
        for part in archive:
            if not _send(fds, part, said):
                break
        child.stdin.close()
        _drain(fds[1:], said)
        code = child.wait(_STALLED)
    except (TimeoutError, subprocess.TimeoutExpired):
        message = f"{master.options.host} did not take anything for {_STALLED:g} s"
        raise HostUnreachable(message) from None
    finally:
        end_ssh(child)
    err = said[1].decode("utf-8", "replace")
    if nonce in said[0] and code == 0:
        return
    if code == _SSH_FAILED:
        raise ssh_error(master.options.host, err)
    raise HostError(f"{what}: {reason(err)}")


def _send(fds: tuple[int, int, int], part: bytes, said: tuple[bytearray, bytearray]) -> bool:
    """Send a part; False when the other end takes no more. Raises TimeoutError."""
    poll = select.poll()
    poll.register(fds[0], select.POLLOUT)
    for fd in fds[1:]:
        poll.register(fd, select.POLLIN)
    view = memoryview(part)
    while view:
        ready = dict(poll.poll(int(_STALLED * 1000)))
        if not ready:
            raise TimeoutError
        for fd, into in zip(fds[1:], said, strict=True):
            if fd in ready and not _read_into(fd, into):
                poll.unregister(fd)
        if fds[0] in ready:
            try:
                view = view[os.write(fds[0], view) :]
            except BlockingIOError:
                continue
            except BrokenPipeError:
                return False
    return True


def _drain(fds: tuple[int, ...], said: tuple[bytearray, bytearray]) -> None:
    poll = select.poll()
    left = dict(zip(fds, said, strict=True))
    for fd in left:
        poll.register(fd, select.POLLIN)
    until = time.monotonic() + _STALLED
    while left:
        ready = poll.poll(max(0, int((until - time.monotonic()) * 1000)))
        if not ready:
            raise TimeoutError
        for fd, _ in ready:
            if not _read_into(fd, left[fd]):
                poll.unregister(fd)
                del left[fd]


def _read_into(fd: int, into: bytearray) -> bool:
    """Read what is there; False at its end."""
    try:
        data = os.read(fd, _CHUNK)
    except BlockingIOError:
        return True
    into += data
    return bool(data)


def _widen(fd: int) -> None:
    """A pipe of 1 MB instead of 64 kB, where that can be had: fewer turns of the wheel."""
    import fcntl

    try:
        fcntl.fcntl(fd, getattr(fcntl, "F_SETPIPE_SZ", 1031), _CHUNK)
    except OSError:
        pass
