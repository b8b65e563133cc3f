"""The connection to a host: made when it is needed, kept, and made anew when it broke."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from ..errors import HostError, HostRefused, HostUnreachable
from .channel import REMOTE, Answer, Broken, Channel, Silent
from .known import recall, remember
from .ssh_errors import ssh_error
from .ssh_master import Master, can_ask
from .ssh_options import SshOptions
from .ssh_requests import Hello, parse_hello, reason, words

CONNECT = 45.0  # seconds until a host must have said who it is
_LATE = 2.0  # ... also when it was not looked at for so long
ANSWER = 20.0  # ... and must have answered what is done at once there


class SshConnection:
    """Asks one host, as one process. Not for several threads at once."""

    def __init__(self, name: str, options: SshOptions, state: Path) -> None:
        """`name` is what the user calls it; `state` dstack's folder on this machine."""
        self.name = name
        self.options = options
        self.asks = True  # whether a person may be asked, where one is there
        self._state = state
        self._master_: Master | None = None
        self._channel: Channel | None = None
        self._hello: Hello | None = None
        self._assumed: Hello | None = None  # what it said the last time, until it says so again
        self._foreseen: dict[bytes, int] = {}  # requests that were sent before they are needed
        self._channel_of_foreseen: Channel | None = None
        self._greeting: int | None = None
        self._until = 0.0  # when it must have said who it is
        self._quiet = False  # nobody was asked, though somebody could be
        self._shared = False  # the connection was there before: it may be dead, and not know
        self._stale = 0  # how often in a row such a one has not led to the host
        self._batch = 0
        self._deferred: list[tuple[int, str, float]] = []  # answers that nobody waited for
        self._afterwards: list[Callable[[], None]] = []  # what waits for the batch's end

    # The connection

    @property
    def root(self) -> Path:
        """See Host: as it was the last time; a host that says otherwise now is not used so."""
        known = self._known()
        return Path(known.root if known is not None else self.hello.root)

    def _known(self) -> Hello | None:
        if self._hello is None and self._assumed is None:
            self._assumed = recall(self.options, self._state)
        return self._hello or self._assumed

    @property
    def hello(self) -> Hello:
        """Who and where we are there. Raises HostError."""
        if self._hello is None:
            self._open()
        assert self._hello is not None  # noqa: S101 - or it has raised
        return self._hello

    @property
    def master(self) -> Master:
        """The shared connection. Raises HostError when its socket can lie nowhere."""
        if self._master_ is None:
            self._master_ = Master(self.options, self._state)
        return self._master_

    def connect(self, *, quiet: bool = False) -> None:
        """See Host. `quiet`: ask nobody yet; that is done when it is used, should it be needed."""
        if self._channel is not None and self._channel.broken is None:
            return
        self.close()
        known = self._known()
        self._quiet = quiet and self.asks and can_ask()
        self._shared = self.master.there()
        if not self._shared:
            if known is not None and known.aes:
                self.master.prefer_aes()
            if self.asks and not quiet:
                self.master.open()
        try:
            self._channel = Channel(self.master.argv([REMOTE]), self.master.env)
        except OSError as error:
            message = f"cannot run ssh: {error.strerror}"
            raise HostError(message, hint="install OpenSSH's client") from None
        self._deferred.clear()
        self._until = time.monotonic() + CONNECT
        everything = ["all"] if known is None or known.aes is None else []
        self._greeting = self._channel.ask(words("hello", self.options.root, everything))

    def settled(self, seconds: float) -> bool:
        """Whether there is nothing left to wait for, at most so much later: it answers or fails."""
        until = time.monotonic() + seconds
        channel, greeting = self._channel, self._greeting
        while channel is not None and greeting is not None and not channel.has(greeting):
            if channel.broken is not None:
                break
            if not channel.pump(until):
                return False
        return True

    def ready(self) -> bool:
        """See Host."""
        channel = self._channel
        if channel is None:
            return False
        channel.receive()
        if channel.broken is not None:
            if self._greeting is not None and (error := self._not_greeted(channel.broken)):
                raise error
            return False
        return self._greeting is None or channel.has(self._greeting)

    def shares(self) -> bool:
        """See Host."""
        return self.master.there()

    def close(self) -> None:
        """See Host. The shared connection stays for the next process."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
            self._greeting = None
            self._foreseen.clear()

    def disconnect(self) -> None:
        """End the shared connection, too."""
        self.close()
        self.master.close()

    def _open(self) -> Channel:
        self.connect()
        channel = self._channel
        assert channel is not None  # noqa: S101 - connect made it, or has raised
        if self._greeting is not None:
            try:
                # Of several that are connected to at once, the first may have taken all the time.
                until = max(self._until, time.monotonic() + _LATE)
                answer = channel.wait(self._greeting, until)
            except Broken as broken:
                error = self._not_greeted(broken)
                if error is None:
                    return self._open()
                if self._quiet and isinstance(error, HostRefused) and error.asks:
                    self._quiet = False
                    return self._open()
                raise error from None
            except Silent:
                self.close()
                # Where not even a shell starts, the connection itself is stuck.
                self.master.close()
                message = f"{self.options.host} cannot be reached: it does not answer"
                raise HostUnreachable(message) from None
            self._greeting = None
            self._stale = 0
            channel.forget_err()
            before = self._known()
            try:
                hello = parse_hello(answer.frames)
            except HostError as error:
                self.close()
                message = f"{self.options.host} cannot be used: {error.message}"
                raise HostError(message, hint=error.hint) from None
            if hello.aes is None and before is not None:
                hello = msgspec.structs.replace(hello, aes=before.aes)
            self._hello = hello
            self._agree(hello)
        return channel

    def _agree(self, hello: Hello) -> None:
        """Whether it is as it was the last time."""
        assumed, self._assumed = self._assumed, None
        if assumed is None or msgspec.structs.replace(hello, env={}) != assumed:
            remember(self.options, self._state, hello)
        if assumed is not None and assumed.root != hello.root:
            self.close()
            message = f"{assumed.root} is at {hello.root} now on {self.name}"
            raise HostUnreachable(message, hint="try again")

    def _foresee(self, text: bytes) -> None:
        """Send what will be asked next, without waiting for anything. Raises HostError."""
        self.connect()
        if self._channel is not None and not self._batch:
            self._channel_of_foreseen = self._channel
            self._foreseen[text] = self._channel.ask(text)

    def _not_greeted(self, broken: Broken) -> HostError | None:
        """Why it did not say who it is; None: over a dead connection, and it is asked anew.

        ssh itself ends a connection that leads nowhere once somebody uses it. One that still leads
        there is others' too, and stays.
        """
        quiet = self._quiet
        error = self._lost(broken)
        if not self._shared or not error.transient or self._stale > 1:
            self._stale = 0
            return error
        self._stale += 1
        self.connect(quiet=quiet)
        return None

    def _lost(self, broken: Broken) -> HostError:
        self.close()
        return ssh_error(self.options.host, broken.said)

    def _ask(self, text: bytes, *, timeout: float | None = None, again: bool = True) -> Answer:
        """The answer to a request. `again`: it may be sent twice. Raises HostError."""
        timeout = ANSWER if timeout is None else timeout
        fresh = self._channel is None or self._greeting is not None
        foreseen = self._foreseen.pop(text, None)
        channel = self._open()
        tied = bool(self._deferred)
        if foreseen is None or self._channel_of_foreseen is not channel:
            self._foreseen.clear()
            foreseen = channel.ask(self._guarded(text))
        number = foreseen
        try:
            self._settle(channel)
            return done_or_skipped(channel.wait(number, time.monotonic() + timeout))
        except Broken as broken:
            error = self._lost(broken)
            # An old connection breaks when the machine slept or changed networks: one more try.
            if fresh or tied or not again or not error.transient:
                raise error from None
        except Silent:
            self.close()
            message = f"{self.options.host} did not answer within {timeout:g} s"
            raise HostUnreachable(message) from None
        return self._ask(text, timeout=timeout, again=False)

    def _do(self, text: bytes, what: str, *, timeout: float | None = None) -> None:
        """What is only done; later, in a batch. `what` could not be done when it fails."""
        if self._batch:
            channel = self._open()
            self._foreseen.clear()
            number = channel.ask(self._guarded(text))
            self._deferred.append((number, what, ANSWER if timeout is None else timeout))
            return
        check_done(self._ask(text, timeout=timeout), what)

    def _guarded(self, text: bytes) -> bytes:
        if not self._batch:
            return text
        return b'if [ -z "$d_bad" ]; then ' + text + b"\nelse mark skipped; finish 1; fi"

    def _settle(self, channel: Channel) -> None:
        """The answers that nobody has waited for. Raises what the first failed one says."""
        first: HostError | None = None
        while self._deferred:
            number, what, timeout = self._deferred.pop(0)
            answer = channel.wait(number, time.monotonic() + timeout)
            try:
                check_done(answer, what)
            except HostError as error:
                first = first or error
        if first is not None:
            raise first

    @contextmanager
    def batch(self) -> Iterator[None]:
        """See Host."""
        if self._batch == 0:
            self._open().tell(b"d_bad=")
        self._batch += 1
        try:
            yield
            if self._batch == 1 and self._deferred:
                self._flush()
        finally:
            self._batch -= 1
            if self._batch == 0:
                self._deferred.clear()
                while self._afterwards:
                    self._afterwards.pop()()

    def afterwards(self, act: Callable[[], None]) -> None:
        """See Host."""
        if self._batch:
            self._afterwards.append(act)
        else:
            act()

    def _flush(self) -> None:
        channel = self._open()
        try:
            self._settle(channel)
        except Broken as broken:
            raise self._lost(broken) from None
        except Silent:
            self.close()
            raise HostUnreachable(f"{self.options.host} did not answer") from None


def check_done(answer: Answer, what: str) -> None:
    """Raises HostError, `what` first, unless it was done."""
    if answer.code != 0:
        raise HostError(f"{what}: {reason(answer.error or '')}")


def done_or_skipped(answer: Answer) -> Answer:
    """The answer. Raises HostError when it was not asked, since something before it failed."""
    if any(frame.tag == "skipped" for frame in answer.frames):
        raise HostError("nothing more was done, since something before it failed")
    return answer
