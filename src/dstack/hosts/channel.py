"""A channel: one `ssh` process, and at its other end a shell that answers requests one by one.

Opening it costs two round trips and the start of a login shell; a request costs one, and those
whose answers nobody waits for cost none of their own.
"""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from .ssh_requests import Frame

# Login shells of any kind (fish, csh, ...) understand this; the rest is read by a POSIX shell.
# `read` takes one byte at a time, so that what follows the line is left for what the line starts.
REMOTE = "exec /bin/sh -c 'IFS= read -r d_line && eval \"$d_line\"'"
BEAT = 10  # seconds between what the other end says when nothing else is to be said
_PIPE = 1 << 20
_CHUNK = 1 << 16
_KILL_WAIT = 2.0


class Broken(Exception):
    """The channel has ended; `said` is what ssh printed, `code` how it exited, if it did."""

    def __init__(self, said: str, code: int | None) -> None:
        super().__init__(said)
        self.said = said
        self.code = code


class Silent(Exception):
    """No answer came in time."""


class Answer(msgspec.Struct, frozen=True):
    """What a request brought: its parts, and the code that it ended with."""

    frames: tuple[Frame, ...]
    code: int

    def data(self, tag: str) -> bytes:
        """What stands behind the first `tag`."""
        return next((frame.data for frame in self.frames if frame.tag == tag), b"")

    @property
    def error(self) -> str | None:
        """What went wrong, when it did."""
        for frame in self.frames:
            if frame.tag.startswith("error"):
                rest = b"\n" + frame.data if frame.data else b""
                whole = frame.tag[len("error ") :] + rest.decode("utf-8", "replace")
                return whole.strip()
        return None


def start_ssh(
    argv: Sequence[str], env: Mapping[str, str], *, stdin: int = subprocess.PIPE
) -> subprocess.Popen[bytes]:
    """Start `ssh` in a session of its own: Ctrl-C on the terminal is not for it."""
    child = subprocess.Popen(
        argv,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=env,
        start_new_session=True,
    )
    for pipe in (child.stdin, child.stdout, child.stderr):
        if pipe is not None:
            os.set_blocking(pipe.fileno(), False)
    return child


def end_ssh(child: subprocess.Popen[bytes]) -> None:
    """Close it; what runs at the other end sees the end of its input."""
    for pipe in (child.stdin, child.stdout, child.stderr):
        if pipe is not None:
            try:
                pipe.close()
            except OSError:
                pass
    if child.poll() is None:
        child.kill()
    try:
        child.wait(_KILL_WAIT)
    except subprocess.TimeoutExpired:
        pass  # it hangs in the kernel; who starts us collects it


def script() -> bytes:
    """What the shell at the other end is given first, without comments and empty lines."""
    text = (Path(__file__).parent / "channel.sh").read_bytes()
    lines = [line.strip() for line in text.splitlines()]
    return b"\n".join(line for line in lines if line and not line.startswith(b"#")) + b"\n"


class Channel:
    """Requests and their answers, in order. Not for several threads at once."""

    def __init__(self, argv: Sequence[str], env: Mapping[str, str]) -> None:
        self._nonce = os.urandom(16).hex().encode()
        self._child = start_ssh(argv, env)
        start = b"exec /bin/sh\nd_n=%s\n%sbeat %d\n" % (self._nonce, script(), BEAT)
        self._unsent = bytearray(start)
        self._raw = bytearray()
        self._scanned = 0
        self._frame: tuple[str, bytearray] | None = None
        self._frames: list[Frame] = []
        self._err = bytearray()
        self._asked = 0
        self._answers: dict[int, Answer] = {}
        self._answered = 0
        self._poll = select.poll()
        self._broken: Broken | None = None
        self.watched: set[int] = set()  # pids whose end will be told
        self.ended: set[int] = set()  # pids of watched processes that have ended
        self.pid: int | None = None  # of the command that runs there, or was the last
        out, err = self._out(), self._err_fd()
        self._poll.register(out, select.POLLIN)
        self._poll.register(err, select.POLLIN)

    def fileno(self) -> int:
        """Readable when something came: an answer, or that a watched process has ended."""
        return self._out()

    @property
    def broken(self) -> Broken | None:
        """Why nothing can be asked any more, once that is so."""
        return self._broken

    def ask(self, text: bytes) -> int:
        """Send a request; what `wait` is given for its answer. Never blocks, never raises."""
        self._asked += 1
        self.tell(text)
        return self._asked

    def has(self, number: int) -> bool:
        """Whether the answer to a request has come."""
        return number in self._answers

    def tell(self, text: bytes) -> None:
        """Send what has no answer."""
        self._unsent += text + b"\n"
        self._write()

    def wait(
        self, number: int, until: float | None, meanwhile: Callable[[], None] | None = None
    ) -> Answer:
        """The answer to a request; each can be had once. Raises Broken; Silent after `until`.

        `until` is of the monotonic clock; `meanwhile` is called whenever something came.
        """
        while number not in self._answers:
            if self._broken is not None:
                raise self._broken
            if not self.pump(until):
                raise Silent
            if meanwhile is not None:
                meanwhile()
        return self._answers.pop(number)

    def take_err(self, until: float | None) -> bytes:
        """What came on stderr up to the mark that a request prints there. Raises as `wait` does."""
        mark = self._nonce + b"\n"
        while (at := self._err.find(mark)) < 0:
            if self._broken is not None:
                raise self._broken
            if not self.pump(until):
                raise Silent
        err = bytes(self._err[:at])
        del self._err[: at + len(mark)]
        return err

    def forget_err(self) -> None:
        """What the login session printed is not of interest."""
        self._err.clear()

    def pump(self, until: float | None = None) -> bool:
        """Send and receive what can be; waits for something until then. False: nothing came."""
        self._write()
        wait = None if until is None else max(0, int((until - time.monotonic()) * 1000))
        ready = dict(self._poll.poll(wait))
        if not ready:
            return False
        if self._err_fd() in ready:
            self._read_err()
        if self._child.stdin is not None and self._child.stdin.fileno() in ready:
            self._write()
        if self._out() in ready:
            self._read_out()
        return True

    def receive(self) -> None:
        """Take in what has come, without waiting."""
        while self._broken is None and self.pump(0.0):
            pass

    @property
    def under_way(self) -> str:
        """The tag of what is being received."""
        return self._frame[0] if self._frame else ""

    def close(self) -> None:
        """End it; what is not answered never will be."""
        if self._broken is None:
            self._broken = Broken("it was closed", None)
        end_ssh(self._child)

    # Bytes

    def _out(self) -> int:
        assert self._child.stdout is not None  # noqa: S101 - start_ssh made a pipe
        return self._child.stdout.fileno()

    def _err_fd(self) -> int:
        assert self._child.stderr is not None  # noqa: S101
        return self._child.stderr.fileno()

    def _write(self) -> None:
        stdin = self._child.stdin
        if stdin is None or self._broken is not None:
            return
        while self._unsent:
            try:
                sent = os.write(stdin.fileno(), memoryview(self._unsent)[:_PIPE])
            except BlockingIOError:
                self._poll.register(stdin.fileno(), select.POLLOUT)
                return
            except OSError:
                # Why it went is on stderr, and comes with the end of its output.
                self._unsent.clear()
                break
            del self._unsent[:sent]
        try:
            self._poll.unregister(stdin.fileno())
        except KeyError:
            pass

    def _read_err(self) -> None:
        while True:
            try:
                data = os.read(self._err_fd(), _CHUNK)
            except BlockingIOError:
                return
            if not data:
                try:
                    self._poll.unregister(self._err_fd())
                except KeyError:
                    pass
                return
            self._err += data

    def _read_out(self) -> None:
        try:
            data = os.read(self._out(), _CHUNK)
        except BlockingIOError:
            return
        if data:
            self._raw += data
            self._parse()
            return
        try:
            code: int | None = self._child.wait(_KILL_WAIT)
        except subprocess.TimeoutExpired:
            code = None
        self._read_err()
        self._broken = Broken(self._err.decode("utf-8", "replace"), code)

    # Frames

    def _parse(self) -> None:
        nonce = self._nonce
        while True:
            at = self._raw.find(nonce, self._scanned)
            if at < 0:
                self._keep(max(0, len(self._raw) - len(nonce)))
                return
            end = self._raw.find(b"\n", at)
            if end < 0:
                self._keep(at)
                return
            tag = self._raw[at + len(nonce) + 1 : end].decode("utf-8", "replace")
            self._keep(at)
            del self._raw[: end + 1 - at]
            self._scanned = 0
            self._mark(tag)

    def _keep(self, upto: int) -> None:
        """The first bytes belong to the part that is being received."""
        if self._frame is not None:
            self._frame[1].extend(self._raw[:upto])
        del self._raw[:upto]
        self._scanned = 0

    def _mark(self, tag: str) -> None:
        kind, _, rest = tag.partition(" ")
        if kind == "ended":
            # It comes when it comes, also in the middle of another part.
            if rest.isdigit():
                self.ended.add(int(rest))
            return
        if kind == "beat":
            return
        if kind == "pid":
            self.pid = int(rest) if rest.isdigit() else None
            return
        if self._frame is not None:
            self._frames.append(Frame(self._frame[0], bytes(self._frame[1])))
        self._frame = (tag, bytearray())
        if kind != "end":
            return
        self._frame = None
        self._answered += 1
        code = int(rest) if rest.isdigit() else 1
        self._answers[self._answered] = Answer(tuple(self._frames), code)
        self._frames.clear()
