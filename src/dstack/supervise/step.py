"""One step of looking after a run: derive the next action, do it, record what happened.

Every effect may have been done before by somebody who died before the record, so each is safe to
do again; every record is guarded by the run's version, so a loser loads the run and derives anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from ..engines.base import Engine, Reach, StopReason
from ..errors import (
    CannotStart,
    DstackError,
    HostRefused,
    HostUnreachable,
    NoCapacity,
    StoreError,
)
from ..paths import Home
from ..run.events import Ended, Event, Started, StartFailed, StopRequested
from ..run.model import Exit, Plan, Reason, Run
from ..run.next import Action, Poll, Start, Stop, Wait, next_action
from ..run.observation import (
    Absent,
    Exited,
    Observation,
    Preparing,
    Running,
    Unknown,
    event_of,
    unknown_of,
    unreachable,
)
from ..run.states import apply
from ..snapshot import Progress, Snapshots
from ..store.runs import Conflict, Runs, Stored
from ..store.secrets import Vault
from .lease import Leases
from .sites import Site, Sites

# Seconds that a job's keeper may take to claim its folder before it is started again.
_CLAIM = 3.0
# Seconds before an order to stop is given again to a job that has not ended.
_REPEAT = 5.0
# Seconds before a start is tried again whose host does not answer.
_AGAIN = 1.0


def _settled(seen: Observation) -> bool:
    """Whether there is nothing to stop."""
    return isinstance(seen, Exited) or (isinstance(seen, Absent) and not seen.folder)


def _built(run: Run, event: Event) -> Exit | None:
    """How a build stage ended, where it ended well: then what it made is still to be kept."""
    if run.plan.stage != "build" or not isinstance(event, Ended):
        return None
    return event.exit if event.exit.reason == "completed" else None


class Supervisor:
    """Looks after runs of one dstack folder."""

    def __init__(
        self,
        home: Home,
        runs: Runs,
        leases: Leases,
        vault: Vault,
        sites: Sites,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.home = home
        self.runs = runs
        self.leases = leases
        self.vault = vault
        self.sites = sites
        self.clock = clock
        self.snapshots = Snapshots(home)
        self.fresh: set[str] = set()  # runs that nobody can have started yet
        self.progress: Callable[[Progress], None] | None = None  # of code that is being sent
        self._told: dict[tuple[str, int, bool], float] = {}
        self._launched: dict[tuple[str, int], float] = {}
        self._keepers: dict[str, str] = {}
        self._seen: dict[tuple[str, int], Observation] = {}  # by run and attempt, until it is used
        self._steps: dict[str, str] = {}

    # Looking

    def site_of(self, plan: Plan) -> Site:
        """Where the runs of a plan are."""
        return self.sites.of(plan)

    def engine_of(self, plan: Plan) -> Engine:
        """The engine of a plan, where its runs are."""
        return self.site_of(plan).engine(plan.engine)

    def keeper(self, run: Run) -> str | None:
        """The keeper as it was last seen: `PID:STARTED:BOOT`, on the machine where the run is."""
        return self._keepers.get(run.id)

    def pid(self, run: Run) -> int | None:
        """The keeper's process id as it was last seen, where it is a process of this machine."""
        keeper = self._keepers.get(run.id)
        if keeper is None or run.plan.remote is not None:
            return None
        return int(keeper.partition(":")[0])

    def doing(self, run: Run) -> str | None:
        """What its engine last said that it prepares; None once it does not any more."""
        return self._steps.get(run.id) if run.status == "preparing" else None

    def note(self, run: Run) -> str | None:
        """What its engine has to say of the start of the latest attempt. Raises HostError."""
        # Only the choice of GPUs leaves a note: all others need not be asked, over a network maybe.
        if not run.plan.gpus or run.attempt is None:
            return None
        directory = self._directory(run, run.attempt.number)
        return self.engine_of(run.plan).note(directory)

    def address(self, run: Run, port: int) -> Reach:
        """Where a port of the attempt under way is reached, where the run is. Raises HostError."""
        if run.attempt is None:
            return Reach()
        directory = self._directory(run, run.attempt.number)
        return self.engine_of(run.plan).address(directory, port)

    def _directory(self, run: Run, attempt: int) -> Path:
        """The job folder, where the run is."""
        return self.site_of(run.plan).home.job(run.id, attempt)

    def _observe(self, run: Run, attempt: int) -> Observation:
        directory = self._directory(run, attempt)
        seen = (
            self._seen.pop((run.id, attempt), None) or self._poll(run.plan, [directory])[directory]
        )
        if run.plan.remote is not None:
            from .clocks import in_our_time

            seen = in_our_time(seen, run, self.site_of(run.plan).host(), self.clock())
        if isinstance(seen, Running | Preparing) and seen.keeper is not None:
            self._keepers[run.id] = seen.keeper
        if isinstance(seen, Preparing):
            self._steps[run.id] = seen.step
        return seen

    def _poll(self, plan: Plan, directories: Sequence[Path]) -> Mapping[Path, Observation]:
        """What is to be seen there; a host that did not answer just before is not asked again."""
        site = self.site_of(plan)
        away = site.away()
        if away is not None:
            return dict.fromkeys(directories, away)
        seen = site.engine(plan.engine).poll(directories)
        aways = (each for each in seen.values() if isinstance(each, Unknown) and each.away)
        site.told(next(aways, None))
        return seen

    def glance(self, found: Iterable[Stored]) -> None:
        """Look at all runs on other machines, with one question for each machine.

        What is seen is what the next `look` or `step` of each goes by.
        """
        groups: dict[tuple[int, str], list[Run]] = {}
        for stored in found:
            run = stored.run
            if run.plan.remote is None or not run.active:
                continue
            if run.attempt is not None and run.attempt.exit is None:
                site = self.site_of(run.plan)
                groups.setdefault((id(site), run.plan.engine), []).append(run)
        for runs in groups.values():
            self.site_of(runs[0].plan).begin()
        for runs in groups.values():
            places = {self._directory(run, len(run.attempts)): run for run in runs}
            for directory, seen in self._poll(runs[0].plan, list(places)).items():
                run = places[directory]
                self._seen[(run.id, len(run.attempts))] = seen

    def _record(self, stored: Stored, event: Event) -> bool:
        """Save the event; False when somebody else was faster, and `stored` is fresh again."""
        try:
            stored.run = self.runs.record(stored.run, event)
        except Conflict:
            self.reload(stored)
            return False
        return True

    def reload(self, stored: Stored) -> Run:
        """What is stored now. A run that was forgotten meanwhile stays as it was."""
        found = self.runs.get(stored.run.id)
        if found is not None:
            stored.run = found.run
        return stored.run

    def look(self, stored: Stored, *, unsaved: bool = False) -> Run:
        """Record what is plain to see, without the lease: it runs, it has ended, it is unknown.

        `unsaved`: when it cannot be recorded now (a full disk, a locked database), `stored` tells
        it all the same. For commands that only show it.
        """
        saves = True
        for _ in range(8):
            run = stored.run
            if not run.active or run.attempt is None or run.attempt.exit is not None:
                break
            seen = self._observe(run, run.attempt.number)
            event = event_of(run, run.attempt.number, seen, self.clock(), held=False)
            if event is None or _built(run, event) is not None:
                break  # a build is done when it is kept, which is an effect
            try:
                if saves:
                    self._record(stored, event)
                    continue
            except StoreError:
                if not unsaved:
                    raise
                saves = False
            stored.run = apply(run, event)
        return stored.run

    # Acting, with the lease

    def step(self, stored: Stored) -> Action:
        """Do all that can be done now; the action that is left: Wait, Poll, Stop, or None."""
        # A run goes through a handful of states; the bound only keeps a fault from spinning.
        for _ in range(50):
            run = stored.run
            action = next_action(run, self.clock())
            if isinstance(action, Start):
                if not self._start(stored, action.attempt):
                    return Wait(self.clock() + _AGAIN)
                if self.site_of(run.plan).far and stored.run.status == "preparing":
                    return Poll(action.attempt)  # it has only just begun, and an answer takes time
                continue
            if not isinstance(action, Stop | Poll):
                return action
            seen = self._observe(run, action.attempt)
            if isinstance(action, Stop) and not _settled(seen):
                self._stop(run, action)
                seen = self._observe(run, action.attempt)
            event = event_of(run, action.attempt, seen, self.clock(), held=True)
            if event is not None:
                self._record(stored, self._kept(run, event))
                continue
            if isinstance(seen, Absent) and seen.folder:
                self._relaunch(run, action.attempt)
            return action
        return next_action(stored.run, self.clock())

    def _kept(self, run: Run, event: Event) -> Event:
        end = _built(run, event)
        if end is None:
            return event
        from .keep import keep_build

        site = self.site_of(run.plan)
        return Ended(event.at, keep_build(self.home, self.snapshots, site, run, end))

    def _relaunch(self, run: Run, attempt: int) -> None:
        """Start again what was started, but of which nothing is to be seen."""
        launched = self._launched.get((run.id, attempt), -_CLAIM)
        if time.monotonic() >= launched + _CLAIM:
            self._launch(run, attempt)

    def _launch(self, run: Run, attempt: int) -> None:
        """Hand the job to its engine; doing it twice starts it once."""
        site = self.site_of(run.plan)
        away = site.away()
        if away is not None:
            raise HostUnreachable(away.why)
        engine = site.engine(run.plan.engine)
        fresh = run.id in self.fresh and attempt == 1
        self.fresh.discard(run.id)
        with site.at_once():
            site.lay_code(self.snapshots, run, self.progress, fresh=fresh)
            job = engine.plan(run, site.home.run(run.id), attempt)
            self._launched[(run.id, attempt)] = time.monotonic()
            pid = engine.start(job, self._values(run, (*job.needs, *job.keys)), fresh=fresh)
        if pid is not None:
            self._keepers[run.id] = f"{pid}::"

    def _start(self, stored: Stored, attempt: int) -> bool:
        """Start it; False while its host does not answer."""
        run = stored.run
        event: Event
        try:
            self._launch(run, attempt)
            event = Started(self.clock(), attempt)
        except (HostUnreachable, HostRefused) as error:
            site = self.site_of(run.plan)
            site.told(unknown_of(error))
            lost = unreachable(run, site.away() or unknown_of(error), self.clock())
            if lost is not None:
                self._record(stored, lost)
            return False
        except DstackError as error:
            if error.transient:
                raise
            reason: Reason = "no_capacity" if isinstance(error, NoCapacity) else "start_failed"
            message = error.message + (f" ({error.hint})" if error.hint else "")
            event = StartFailed(self.clock(), reason, message)
        self._record(stored, event)
        return True

    def _values(self, run: Run, needs: tuple[str, ...]) -> dict[str, str]:
        """The values behind `secret:NAME` and `env:NAME`. Raises CannotStart for a missing one."""
        if not needs:
            return {}
        names = [need.partition(":")[2] for need in needs if need.startswith("secret:")]
        secrets = self.vault.get_many(names) if names else {}
        taken = self.vault.open(run.sealed) if run.sealed else {}
        values: dict[str, str] = {}
        for need in needs:
            kind, _, name = need.partition(":")
            source = secrets if kind == "secret" else taken
            if name not in source:
                noun = "secret" if kind == "secret" else "environment variable"
                message = f"the {noun} {name} is not there any more"
                hint = f"dstack secrets set {name}" if kind == "secret" else None
                raise CannotStart(message, hint=hint)
            values[need] = source[name]
        return values

    def _stop(self, run: Run, action: Stop) -> None:
        key = (run.id, action.attempt, action.kill)
        now = time.monotonic()
        if now < self._told.get(key, -_REPEAT) + _REPEAT:
            return
        self._told[key] = now
        self.stop_job(run, action.attempt, kill=action.kill, overrun=action.overrun)

    def stop_job(self, run: Run, attempt: int, *, kill: bool, overrun: bool = False) -> None:
        """Tell the engine to end an attempt."""
        directory = self._directory(run, attempt)
        reason: StopReason = "max_duration" if overrun else "stopped"
        site = self.site_of(run.plan)
        if site.away() is not None:
            return  # it is told when it answers
        try:
            site.engine(run.plan.engine).stop(directory, kill=kill, reason=reason)
        except (HostUnreachable, HostRefused) as error:
            site.told(unknown_of(error))
            self._told.pop((run.id, attempt, kill), None)

    def request_stop(self, stored: Stored, *, kill: bool, code: int | None = None) -> Run:
        """Record that the run shall end and tell its job. A run that has ended is no error.

        Needs no lease: the order is safe to give twice, and only the lease's holder concludes
        that there was nothing to stop.
        """
        for _ in range(20):
            run = stored.run
            if not run.active:
                return run
            if run.status == "stopping" and (run.stop_kill or not kill):
                break
            if self._record(stored, StopRequested(self.clock(), kill=kill, code=code)):
                break
        run = stored.run
        if run.attempt is not None and run.attempt.exit is None:
            self._told[(run.id, run.attempt.number, run.stop_kill)] = time.monotonic()
            self.stop_job(run, run.attempt.number, kill=run.stop_kill)
        return run

    def remove(self, run: Run) -> None:
        """Delete all that is left of a finished run, then forget it."""
        site = self.site_of(run.plan)
        site.engine(run.plan.engine).remove(site.home.run(run.id))
        site.forget(run)
        self.snapshots.release(run.id)
        self.runs.forget(run)
