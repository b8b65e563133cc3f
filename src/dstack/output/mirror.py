"""The output of a job on another machine, copied to where that of this machine's jobs lies.

```
runs/RUN_ID/ATTEMPT/
  log       as much of it as has come, from its beginning
  whole     the job has ended, and all of its output is here
  far.idx   when what was printed, once somebody has asked (far_times.py)
```
The file itself says how far the copy is, so whoever goes on neither misses a byte nor doubles one.
Several may copy at once, each what the others have not yet: nobody waits for one that is stopped.
"""

from __future__ import annotations

import fcntl
import os
import select
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import HostUnreachable, StoreError
from ..hosts.base import Host, Stream
from ..hosts.pipes import write_at

WHOLE = "whole"

_ASKED = 256 << 10  # bytes asked for at once
_PATIENCE = 20  # how often in a row nothing may come though there is something
_QUIET = 0.1  # seconds without a byte after which the end is asked for


class Mirror:
    """Copies one job's output. Raises StoreError when this machine's disk does not let it."""

    def __init__(
        self,
        host: Host,
        there: Path,
        here: Path,
        came: Callable[[], object] = lambda: None,
    ) -> None:
        """`there` is the job folder on the host, `here` this machine's, which is made.

        `came` is called now and then while much is copied at once: what came may be shown then.
        """
        self._host = host
        self._there = there / "log"
        self._here = here / "log"
        self._whole = here / WHOLE
        self._came = came
        self._stream: Stream | None = None
        self._idle = False  # nothing has come through the stream yet
        self._limit = _ASKED  # bytes that are asked for at once
        self._at = 0  # where the next byte belongs that comes
        self._file: int | None = None
        try:
            os.makedirs(here, 0o700, exist_ok=True)
        except OSError as error:
            raise self._unusable(error) from None

    @property
    def whole(self) -> bool:
        """Whether nothing is missing any more."""
        return self._whole.exists()

    def stream(self) -> int | None:
        """Have the output sent as it comes: a descriptor for poll(2). None: all is here.

        Raises HostError.
        """
        if self._stream is None and not self.whole:
            self._at = self._size()
            self._idle = True
            self._stream = self._host.follow(self._there, self._at)
        return self._stream.fileno() if self._stream is not None else None

    def descriptor(self) -> int | None:
        """The descriptor that `stream` gave, as long as it lives."""
        return self._stream.fileno() if self._stream is not None else None

    def pump(self) -> int:
        """Take in what has come, without waiting; the bytes."""
        taken = 0
        while self._stream is not None:
            came = self._take()
            if came is None:
                break
            if not came:
                self._drop()  # it broke off; the next one goes on
                break
            self._idle = False
            taken += came
            if taken > _ASKED:
                break
        return taken

    def foresee(self) -> None:
        """`ask` comes soon: the host may begin to answer. Raises HostError."""
        self._drop_idle()
        if self._stream is None and not self.whole:
            self.forget()
            self._host.foresee_read(self._there, self._size(), self._limit)

    def forget(self) -> None:
        """The job goes on: what was foreseen will not be all of it.

        An answer is found again by its question, so the next one asks for another number of bytes.
        """
        self._limit = _ASKED + (self._limit + 1) % _ASKED

    def ask(self) -> int:
        """Ask for what there is beyond what has come; the bytes. Raises HostError."""
        if self._stream is not None or self.whole:
            return 0
        self._at = self._size()
        return self._append(self._host.read_from(self._there, self._at, self._limit) or b"")

    def catch_up(self) -> None:
        """Copy all that there is now. Raises HostError."""
        idle = 0
        while not self.whole:
            if self._stream is None:
                taken = self.ask()
                if taken < _ASKED:
                    return
                self.stream()  # there may be much of it
            idle = 0 if self._take_until_quiet() else idle + 1
            if not self._host.read_from(self._there, self._size(), 1):
                return
            if idle > _PATIENCE:
                self._drop()  # it is stuck, and the host is not

    def finish(self) -> None:
        """The job has ended: copy the rest of its output. Raises HostError."""
        if not self.whole:
            self._drop_idle()
            self.catch_up()
            try:
                self._whole.touch(0o600)
            except OSError as error:
                raise self._unusable(error) from None

    def close(self) -> None:
        """Copy no more."""
        self._drop()
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _drop_idle(self) -> None:
        """A stream that is only just being made: asking is faster."""
        if self._idle:
            self._drop()

    def _drop(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _take_until_quiet(self) -> int:
        taken = 0
        until = time.monotonic() + _QUIET
        while self._stream is not None and time.monotonic() < until:
            waiter = select.poll()
            waiter.register(self._stream.fileno(), select.POLLIN)
            if waiter.poll(int(_QUIET * 1000)) and (came := self.pump()):
                taken += came
                self._came()
                until = time.monotonic() + _QUIET
        if self._stream is None:
            raise HostUnreachable(f"{self._host.name} does not answer")
        return taken

    def _size(self) -> int:
        return os.fstat(self._open()).st_size

    def _take(self) -> int | None:
        """Move on what came through the stream; the bytes, None: nothing now, 0: it has ended."""
        assert self._stream is not None  # noqa: S101 - the caller looks
        with self._alone() as (file, size):
            if size == self._at:
                came = self._stream.move(file, size)
                self._at += came or 0
                return came
        # Others have written some of it.
        data = self._stream.read()
        return data if data is None else self._append(data)

    def _append(self, data: bytes) -> int:
        """Write what nobody else has written yet; the bytes that came."""
        with self._alone() as (file, size):
            write_at(file, data[size - self._at :], size)
        self._at += len(data)
        return len(data)

    @contextmanager
    def _alone(self) -> Iterator[tuple[int, int]]:
        """The copy, which nobody else writes to meanwhile, and its size. Raises StoreError."""
        file = self._open()
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file, os.fstat(file).st_size
        except OSError as error:
            raise self._unusable(error) from None
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)

    def _open(self) -> int:
        if self._file is None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
            try:
                self._file = os.open(self._here, flags, 0o600)
            except OSError as error:
                raise self._unusable(error) from None
        return self._file

    def _unusable(self, error: OSError) -> StoreError:
        message = f"cannot write the output to {self._here}: {error.strerror}"
        return StoreError(message, hint="free some space; the output is still on the host")
