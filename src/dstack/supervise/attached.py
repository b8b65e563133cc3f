"""Watching one run from a terminal: its output, its end, and what the person there decides.

Whoever holds the run's lease also looks after it; without the lease this only watches. One thread:
it sleeps in poll(2) until the keeper ends, a signal arrives or it is time to look at the log.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from ..errors import DstackError
from ..run.model import Run
from ..run.next import Wait
from ..store.runs import Stored
from .step import Supervisor

if TYPE_CHECKING:
    from .link import Link

# Seconds between looks at the log: while output comes, and when none came for a while.
_BUSY, _QUIET = 0.02, 0.1
# In between it is looked at again when that much longer was quiet: of many runs at once, those that
# have nothing to show should leave the processors to those that do.
_PATIENCE = 0.125
# Bytes at once that tell of more to come; of so many that there is no need to wait for more; and
# the seconds that it is waited for otherwise.
_MUCH, _FLOOD, _GATHER = 1 << 16, 4 << 20, 0.003
# Seconds between looks at the job's folder: before the commands run, at first and later; and after.
_PREPARING, _PATIENT, _RUNNING = 0.1, 0.5, 2.0
_FIRST = 1.0  # seconds of watching
# Seconds between looks at the database for what other commands did.
_CHANGES = 0.25


class Output(Protocol):
    """Where the run's output goes."""

    def pump(self) -> int:
        """Show what is there now; how many bytes that was. Raises BrokenPipeError."""
        ...

    def idle(self) -> None:
        """Nothing came for a while: show what was held back."""
        ...

    def finish(self) -> None:
        """Show all that is left."""
        ...


class Detached(Exception):
    """The watcher leaves; the run goes on."""


class Watch:
    """One run, watched until it ends or the watcher leaves."""

    def __init__(
        self,
        supervisor: Supervisor,
        stored: Stored,
        output: Output,
        on_signal: Callable[[int], None],
        on_change: Callable[[Run], None],
    ) -> None:
        """`on_signal` decides what a signal means (it may raise Detached)."""
        self.supervisor = supervisor
        self.stored = stored
        self.output = output
        self.on_signal = on_signal
        self.on_change = on_change
        self.signals: list[int] = []  # that came, and that nobody decided about yet
        self._poll = select.poll()
        self._pidfd: tuple[int, int] | None = None  # (pid, descriptor)
        self._ended: int | None = None  # the keeper whose end we were told of
        self._wake: tuple[int, int] | None = None
        self._old: dict[int, object] = {}
        self._held = False
        self._link: Link | None = None  # where the run is on another machine
        self._linked: list[int] = []
        self._begun = time.monotonic()

    def run(self) -> Run:
        """Watch until the run has ended. Raises Detached, BrokenPipeError, DstackError."""
        self._catch()
        if self.stored.run.plan.remote is not None:
            from .link import Link

            self._link = Link(self.supervisor, self.stored.run, self._show)
        try:
            self._loop()
            self._fetch()
            self.output.finish()
        finally:
            self._release()
        return self.stored.run

    # Signals

    def _catch(self) -> None:
        read, write = os.pipe()
        os.set_blocking(read, False)
        os.set_blocking(write, False)
        self._wake = (read, write)
        self._poll.register(read, select.POLLIN)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # What the caller ignores (nohup) stays ignored.
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._old[number] = signal.signal(number, self._caught)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)

    def _caught(self, number: int, frame: object) -> None:
        del frame
        self.signals.append(number)

    def _release(self) -> None:
        signal.set_wakeup_fd(-1)
        for number, handler in self._old.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal() itself gave
        self._old.clear()
        if self._wake is not None:
            os.close(self._wake[0])
            os.close(self._wake[1])
            self._wake = None
        self._forget_pid()
        if self._link is not None:
            self._unlink()
            self._link.close()

    # Another machine

    def _fetch(self) -> None:
        """The run has ended on another machine: all of its output has to be here."""
        if self._link is None:
            return
        self._link.looked(self.stored.run)
        pause = _PREPARING
        while not self._link.finish():
            self.output.pump()
            self._unlink()
            self._sleep(pause)
            pause = min(pause * 2, _RUNNING)
            self._link.looked(self.stored.run)

    def _show(self) -> None:
        """There may be gigabytes of it: each part is shown as it comes, and signals are heeded."""
        self.output.pump()
        self._heed()

    def _unlink(self) -> None:
        for descriptor in self._linked:
            self._poll.unregister(descriptor)
        self._linked = []

    def _relink(self) -> None:
        """Wait for what the connection has to say; its descriptors come and go."""
        self._unlink()
        if self._link is not None:
            self._linked = self._link.descriptors()
        for descriptor in self._linked:
            self._poll.register(descriptor, select.POLLIN)

    # Waiting

    def _watch_pid(self) -> None:
        """Be told by the kernel when the keeper ends (Linux 5.3); elsewhere looking must do."""
        pid = self.supervisor.pid(self.stored.run)
        if pid is None or pid == self._ended or (self._pidfd and self._pidfd[0] == pid):
            # A keeper that ended is told of once: as a zombie it would be told of on and on.
            return
        self._forget_pid()
        opener = getattr(os, "pidfd_open", None)
        if opener is None:
            return
        try:
            descriptor = opener(pid)
        except OSError:
            return
        self._pidfd = (pid, descriptor)
        self._poll.register(descriptor, select.POLLIN)

    def _forget_pid(self) -> None:
        if self._pidfd is not None:
            self._poll.unregister(self._pidfd[1])
            os.close(self._pidfd[1])
            self._pidfd = None

    def _sleep(self, seconds: float) -> bool:
        """Wait; whether there is a reason to look at the job at once."""
        if self._link is not None:
            self._relink()
        ready = {descriptor for descriptor, _ in self._poll.poll(max(1, int(seconds * 1000)))}
        ended = self._pidfd is not None and self._pidfd[1] in ready
        if ended and self._pidfd is not None:
            self._ended = self._pidfd[0]
            self._forget_pid()
        if self._wake is not None and self._wake[0] in ready:
            os.read(self._wake[0], 4096)
        if self._link is not None:
            # Before anything else may close them.
            self._unlink()
            ended = self._link.turn() or ended
        return self._heed() or ended

    def _heed(self) -> bool:
        """Decide about the signals that came; whether there were any."""
        came = bool(self.signals)
        while self.signals:
            self.on_signal(self.signals.pop(0))
        return came

    # The loop

    def _loop(self) -> None:
        last_output = time.monotonic()
        next_look = 0.0
        next_change = 0.0
        changes = -1
        while True:
            now = time.monotonic()
            if now >= next_change:
                next_change = now + _CHANGES
                seen = self.supervisor.runs.database.changes()
                if seen != changes:
                    changes = seen
                    version = self.stored.run.version
                    if self.supervisor.reload(self.stored).version != version:
                        next_look = now
            if now >= next_look:
                wait = self._look()
                self.on_change(self.stored.run)
                if not self.stored.run.active:
                    return
                next_look = time.monotonic() + wait
                # A keeper that ended before it could be watched must not wait for the next look.
                told = self._pidfd is not None or self._link is not None
                if not told and self.stored.run.status != "submitted":
                    next_look = min(next_look, time.monotonic() + _PREPARING)
            copied = self.output.pump()
            now = time.monotonic()
            if copied:
                last_output = now
            elif now - last_output > _QUIET:
                self.output.idle()
            pause = min(max((now - last_output) * _PATIENCE, _BUSY), _QUIET)
            if copied > _MUCH:
                # Pieces of a few kilobytes would cost more than they are worth.
                pause = 0.0 if copied > _FLOOD else _GATHER
            if self._sleep(pause):
                next_look = 0.0

    def _look(self) -> float:
        """Step (with the lease) or look (without); seconds until the next time."""
        self._held = self._held or self.supervisor.leases.take(self.stored.seq)
        wait = _RUNNING
        try:
            if self._held:
                action = self.supervisor.step(self.stored)
                if isinstance(action, Wait):
                    wait = min(max(action.until - self.supervisor.clock(), 0.0), 1.0)
            else:
                self.supervisor.look(self.stored)
        except DstackError as error:
            if not error.transient:
                raise
            return _PREPARING
        self._watch_pid()
        if self._link is not None:
            self._link.looked(self.stored.run)
        if self.stored.run.status == "preparing":
            early = time.monotonic() < self._begun + _FIRST
            # A bar shows how far a pull is; for the rest it is early enough to be told of its end.
            pulls = (self.supervisor.doing(self.stored.run) or "").startswith("pulling")
            wait = _PREPARING if early or pulls else _PATIENT
        elif self.stored.run.status == "stopping":
            wait = 0.5
        return wait
