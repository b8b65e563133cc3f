"""What an attached command is told of a run on another machine: its output, and its end."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ..errors import HostError
from ..hosts.base import Host, ProcessId, Watch
from ..output.far_times import fetch_times, knows_times
from ..output.mirror import Mirror
from ..run.model import Run
from ..run.observation import unknown_of
from .step import Supervisor

# Seconds that a run must last before its output gets a connection of its own.
_SHORT = 0.1
# Seconds before the next try after a connection broke.
_AGAIN = 1.0


class Link:
    """The connection to where one run is, through all of its attempts."""

    def __init__(self, supervisor: Supervisor, run: Run, came: Callable[[], object]) -> None:
        """`came` is called while much output is copied at once: it may be shown meanwhile."""
        site = supervisor.site_of(run.plan)
        host = site.host()
        assert host is not None  # noqa: S101 - it is another machine
        self._host: Host = host
        self._site = site
        self._supervisor = supervisor
        self._came = came
        self._engine = site.engine(run.plan.engine)
        self._place: Path | None = None  # the job folder there
        self._mirror: Mirror | None = None
        self._attempt = 0
        self._begun = 0.0
        self._again = 0.0
        self._keeper: str | None = None
        self._watch: Watch | None = None
        self._prints = False  # there may be more of its output
        self._ended = False  # we were told so, and nobody has looked since

    def descriptors(self) -> list[int]:
        """What poll(2) shall wait for."""
        self._notice()  # a connection that broke has no descriptor any more
        found = [self._watch.fileno()] if self._watch is not None else []
        stream = self._mirror.descriptor() if self._mirror is not None else None
        return found if stream is None else [*found, stream]

    def turn(self) -> bool:
        """Take in what has come; whether the job shall be looked at now."""
        if self._mirror is not None:
            streamed = self._mirror.descriptor() is not None
            self._mirror.pump()
            if streamed and self._mirror.descriptor() is None:
                self._again = time.monotonic() + _AGAIN  # it broke off
        self._notice()
        ended, self._ended = self._ended, False
        if ended:
            self._foresee()
        else:
            self._stream()
        return ended

    def looked(self, run: Run) -> None:
        """Go on after a look at the job. Raises StoreError."""
        number = len(run.attempts)
        if number and number != self._attempt:
            if self._mirror is not None and not self._finish():
                return  # the next one's output comes after that of the one before
            self._open(run, number)
        ended = run.attempt is not None and run.attempt.exit is not None
        # What is left of the output of one that has ended is asked for at once.
        self._prints = not ended and run.unknown_since is None
        if self._prints and self._mirror is not None:
            self._mirror.forget()
        if not self._prints or time.monotonic() < self._again:
            return
        try:
            self._connect(run)
        except HostError:
            self._again = time.monotonic() + _AGAIN
        self._stream()

    def finish(self) -> bool:
        """The run has ended: fetch what is missing of its output; whether nothing is now."""
        return self._mirror is None or self._finish()

    def close(self) -> None:
        """Let go of the connection."""
        self._unwatch()
        if self._mirror is not None:
            self._mirror.close()

    def _open(self, run: Run, number: int) -> None:
        if self._mirror is not None:
            self._mirror.close()
        self._place = there = self._site.home.job(run.id, number)
        here = self._supervisor.home.job(run.id, number)
        self._mirror = Mirror(self._host, there, here, self._came)
        self._attempt = number
        self._begun = time.monotonic()

    def _connect(self, run: Run) -> None:
        keeper = self._supervisor.keeper(run)
        if keeper is not None and (self._watch is None or keeper != self._keeper):
            self._unwatch()
            self._keeper = keeper
            self._watch = self._host.watch([ProcessId.parse(keeper)])

    def _stream(self) -> None:
        """Have the output sent, once the run has lasted a while: also between two looks at it."""
        now = time.monotonic()
        if self._mirror is None or not self._prints or self._mirror.descriptor() is not None:
            return
        if now - self._begun < _SHORT or now < self._again:
            return
        try:
            self._mirror.stream()
        except HostError:
            self._again = now + _AGAIN

    def _finish(self) -> bool:
        assert self._mirror is not None  # noqa: S101 - the callers look
        try:
            self._mirror.finish()
        except HostError:
            return False
        return True

    def _foresee(self) -> None:
        """It will be looked at, and where it has ended the rest of its output be fetched."""
        if self._mirror is None or self._place is None or self._site.away() is not None:
            return
        with suppress(HostError):
            # A connection that broke tells nothing of the job: it may still print.
            sure = self._host.ready()
            self._engine.foresee(self._place)
            if sure:
                self._mirror.foresee()

    def _notice(self) -> None:
        if self._watch is not None and self._watch.ended():
            self._ended = True
            self._unwatch()

    def _unwatch(self) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None


def fetch(supervisor: Supervisor, run: Run, *, times: bool = False) -> str | None:
    """Copy what there is of the output of a run on another machine; why not, where it cannot be.

    `times`: and what is known there of when it was printed. Raises StoreError.
    """
    site = supervisor.site_of(run.plan)
    host = site.host()
    if host is None:
        return None
    for attempt in run.attempts:
        there = site.home.job(run.id, attempt.number)
        here = supervisor.home.job(run.id, attempt.number)
        mirror = Mirror(host, there, here)
        try:
            late = times and not knows_times(here)
            if mirror.whole and not late:
                continue
            if (away := site.away()) is not None:
                return away.why
            if attempt.exit is not None:
                mirror.finish()
            else:
                mirror.catch_up()
            if late:
                # Last, so that it covers all that was copied.
                fetch_times(host, there, here)
        except HostError as error:
            site.told(unknown_of(error))
            return error.message
        finally:
            mirror.close()
    return None
