"""The background supervisor: one process per user, there only while a run is active.

It takes the lease of every active run that nobody watches, is told by the kernel when a job ends,
and starts the next attempt where one is due. It may be killed at any moment: the jobs go on, and
the next dstack command starts it again.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable

from ..errors import DstackError, HostError
from ..hosts.base import ProcessId, Watch
from ..output.times import INDEX, Sampler
from ..run.next import Wait
from ..store.runs import Stored
from .lease import BACKGROUND
from .step import Supervisor

# Seconds between rounds when nothing happens, and between looks at every run. Of a run whose end
# the kernel tells us a look is only the net below.
_ROUND, _LOOK, _LOOK_WATCHED = 2.0, 5.0, 60.0
# Seconds between looks at a connection that is being made.
_CONNECTING = 0.2
# Seconds until a run is looked at again that a fault of ours kept us from looking after.
_FAULT = 60.0
# Seconds to stay when nothing is active: the next `dstack run -d` may be about to come.
_LINGER = 1.0


class _Ward:
    """A run in our care."""

    __slots__ = ("attempt", "due", "ended", "pidfd", "sampler", "stored", "watch")

    def __init__(self, stored: Stored) -> None:
        self.stored = stored
        self.pidfd: int | None = None
        self.ended: int | None = None  # the keeper whose end we were told of
        self.due = 0.0
        self.attempt = 0
        self.sampler: Sampler | None = None
        self.watch: Watch | None = None  # of the keeper, where that is on another machine

    @property
    def far(self) -> bool:
        """Whether the run is on another machine."""
        return self.stored.run.plan.remote is not None


class Background:
    """The loop. `supervisor` is used by this process alone."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor
        self.wards: dict[int, _Ward] = {}
        self.poll = select.poll()
        self.by_fd: dict[int, _Ward] = {}
        self.ending = False
        self.idle_since: float | None = None  # when it was seen that no run is active
        self.dropped = False  # whether a run left our care since we looked for more

    def serve(self) -> None:
        """Look after runs until none is active."""
        changes = -1
        next_find = 0.0
        while not self.ending:
            now = time.monotonic()
            seen = self.supervisor.runs.database.changes()
            # `changes` does not see our own records: without wards, look whether all is over.
            over = not self.wards and self.idle_since is None
            if seen != changes or now >= next_find or over or self.dropped:
                changes = seen
                next_find = now + _LOOK
                active = self._find()
                self.idle_since = None if active else (self.idle_since or now)
            if self.idle_since is not None and now - self.idle_since >= _LINGER:
                return
            due = [w for w in self.wards.values() if now >= w.due and self._reached(w, now)]
            due += self._company(due, now)
            self.supervisor.glance(ward.stored for ward in due)
            for ward in due:
                self._look(ward)
            for ward in list(self.wards.values()):
                if ward.sampler is not None:
                    ward.sampler.sample(self.supervisor.clock())
            self._wait()

    def end(self, *_: object) -> None:
        """End the loop; the runs go on, and whoever looks next finds them."""
        self.ending = True

    def _find(self) -> int:
        """Take what nobody watches; the number of active runs."""
        found = self.supervisor.runs.active()
        there = {stored.seq for stored in found}
        for seq in [seq for seq in self.wards if seq not in there]:
            self._drop(seq)
        for stored in found:
            ward = self.wards.get(stored.seq)
            if ward is not None:
                if ward.stored.run.version != stored.run.version:
                    ward.stored.run = stored.run
                    ward.due = 0.0
            elif self.supervisor.leases.take(stored.seq):
                self.wards[stored.seq] = _Ward(stored)
        self.dropped = False
        return len(found)

    def _reached(self, ward: _Ward, now: float) -> bool:
        """Whether the run can be looked at without waiting for a connection.

        A machine that does not answer must not keep the others waiting.
        """
        if not ward.far or self.supervisor.site_of(ward.stored.run.plan).begin():
            return True
        ward.due = now + _CONNECTING
        return False

    def _company(self, due: list[_Ward], now: float) -> list[_Ward]:
        """The other runs on the machines that are asked now: that is no question more."""
        chosen = {id(ward) for ward in due}
        sites = {ward.stored.run.plan.remote for ward in due if ward.far}
        return [
            ward
            for ward in self.wards.values()
            if sites
            and id(ward) not in chosen
            and ward.stored.run.plan.remote in sites
            and ward.due < now + _LOOK_WATCHED / 2
        ]

    def _drop(self, seq: int) -> None:
        ward = self.wards.pop(seq)
        self.dropped = True
        self._unwatch(ward)
        self.supervisor.leases.drop(seq)

    def _unwatch(self, ward: _Ward) -> None:
        if ward.pidfd is not None:
            self.poll.unregister(ward.pidfd)
            del self.by_fd[ward.pidfd]
            os.close(ward.pidfd)
            ward.pidfd = None
        if ward.watch is not None:
            ward.watch.close()
            ward.watch = None

    def _watch_far(self, ward: _Ward) -> None:
        """Be told by the host, over the connection that is there in any case."""
        run = ward.stored.run
        keeper = self.supervisor.keeper(run)
        host = self.supervisor.site_of(run.plan).host()
        if keeper is None or host is None or ward.watch is not None:
            return
        if run.unknown_since is None:
            ward.watch = host.watch([ProcessId.parse(keeper)])

    def _watch(self, ward: _Ward) -> None:
        pid = self.supervisor.pid(ward.stored.run)
        opener = getattr(os, "pidfd_open", None)
        if pid is None or opener is None or ward.pidfd is not None or pid == ward.ended:
            # A keeper that ended is told of once: as a zombie it would be told of on and on.
            return
        try:
            descriptor: int = opener(pid)
        except OSError:
            return
        ward.pidfd = descriptor
        self.by_fd[descriptor] = ward
        self.poll.register(descriptor, select.POLLIN)

    def _look(self, ward: _Ward) -> None:
        now = time.monotonic()
        ward.due = now + _LOOK
        try:
            action = self.supervisor.step(ward.stored)
        except DstackError as error:
            # Said once a look, in the log: the run itself is not touched by our trouble.
            print(f"{ward.stored.run.name}: {error.message}", file=sys.stderr, flush=True)
            return
        except Exception:
            # What goes wrong with one run must not end the care for all others.
            import traceback

            traceback.print_exc()
            ward.due = now + _FAULT
            return
        run = ward.stored.run
        if not run.active:
            self._drop(ward.stored.seq)
            return
        if isinstance(action, Wait):
            ward.due = now + min(max(action.until - self.supervisor.clock(), 0.05), _LOOK)
        elif run.status != "running":
            ward.due = now + 0.5
        number = len(run.attempts)
        if number and number != ward.attempt:
            self._unwatch(ward)
            ward.attempt, ward.sampler = number, None
        if number and ward.far:
            self._look_far(ward, now)
            return
        if number and ward.sampler is None:
            folder = self.supervisor.home.job(run.id, number)
            ward.sampler = Sampler(folder / "log", folder / INDEX)
        self._watch(ward)
        if ward.pidfd is not None and run.status == "running":
            ward.due = now + _LOOK_WATCHED

    def _look_far(self, ward: _Ward, now: float) -> None:
        try:
            self._watch_far(ward)
        except HostError:
            return  # the next look says that it does not answer
        run = ward.stored.run
        if ward.watch is not None and run.status == "running" and run.unknown_since is None:
            ward.due = now + _LOOK_WATCHED

    def _hear(self) -> None:
        """Whose keeper has ended on another machine; also what came with another answer."""
        for ward in self.wards.values():
            if ward.watch is not None and ward.watch.ended():
                self._unwatch(ward)
                ward.due = 0.0

    def _wait(self) -> None:
        now = time.monotonic()
        soonest = min((ward.due for ward in self.wards.values()), default=now + _ROUND)
        if self.dropped and not self.wards:
            # That may have been the last one: look at once whether anything is active.
            return
        if self.idle_since is not None:
            soonest = min(soonest, self.idle_since + _LINGER)
        pause = min(max(soonest - now, 0.0), _ROUND)
        self._hear()
        watches = [ward.watch for ward in self.wards.values() if ward.watch is not None]
        connections = {watch.fileno() for watch in watches}
        if any(ward.due == 0.0 for ward in self.wards.values()):
            pause = 0.0
        for descriptor in connections:
            self.poll.register(descriptor, select.POLLIN)
        ready = self.poll.poll(int(pause * 1000) + 1)
        for descriptor in connections:
            self.poll.unregister(descriptor)
        self._hear()
        for descriptor, _ in ready:
            told = self.by_fd.get(descriptor)
            if told is not None:
                self._unwatch(told)
                told.ended = self.supervisor.pid(told.stored.run)
                told.due = 0.0


def _more_descriptors() -> None:
    """Each run in our care costs one descriptor; the usual soft limit of 1,024 is not ours."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    want = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
    if soft != resource.RLIM_INFINITY and soft < want:
        os.environ.setdefault("DSTACK_SOFT_NOFILE", str(soft))
        resource.setrlimit(resource.RLIMIT_NOFILE, (want, hard))


def main(make: Callable[[], Supervisor]) -> int:
    """Run until nothing is active. Another one that runs already is no error."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    supervisor = make()
    _more_descriptors()
    while supervisor.leases.take(BACKGROUND):
        loop = Background(supervisor)
        signal.signal(signal.SIGTERM, loop.end)
        loop.serve()
        supervisor.leases.drop(BACKGROUND)
        # Whoever came between our last look and this line found us there and started nobody.
        if loop.ending or not supervisor.runs.count_active():
            break
        free = [s for s in supervisor.runs.active() if supervisor.leases.take(s.seq)]
        for stored in free:
            supervisor.leases.drop(stored.seq)
        if not free:
            break
    return 0
