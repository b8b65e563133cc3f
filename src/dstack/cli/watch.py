"""Watching a run from a terminal: `dstack run`, `attach` and `restart` are this."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from ..errors import CannotStart, DstackError, HostError
from ..run.events import StartFailed
from ..run.model import Run
from ..store.runs import Stored
from ..supervise.attached import Detached, Watch
from ..supervise.spawn import ensure_background
from ..supervise.step import Supervisor
from ..text import say, warn
from .show import Screen

if TYPE_CHECKING:
    from .progress import PullBar

# What a shell reports for a program that wrote into a pipe nobody reads any more.
_CLOSED_PIPE = 141
# Seconds for which it holds that the run's app listens on a port of this machine.
_KNOWN = 1.0


class _Person:
    """What signals mean, and what the person at the terminal decides."""

    def __init__(self, supervisor: Supervisor, stored: Stored) -> None:
        self.supervisor = supervisor
        self.stored = stored
        self.asks = sys.stdin is not None and sys.stdin.isatty()
        self.stopping = False
        self.code = 0  # what is reported when the run is left to be stopped later
        self.signals: list[int] = []  # the watch's: what came and was not handed on yet

    def on_signal(self, number: int) -> None:
        """SIGHUP leaves, SIGTERM stops, SIGINT asks where there is somebody to ask."""
        if number == signal.SIGHUP:
            raise Detached
        if number == signal.SIGTERM:
            self.stop(128 + signal.SIGTERM)
            return
        if self.stopping:
            warn("killing it")
            self.stop(130, kill=True)
            return
        answer = self._ask() if self.asks else "stop"
        if answer == "stop":
            self.stop(130)
        elif answer == "detach":
            raise Detached

    def stop(self, code: int, *, kill: bool = False) -> None:
        """Stop the run, and report `code`."""
        if not self.stopping:
            say(f"stopping {self.stored.run.name}")
        self.stopping = True
        run = self.supervisor.request_stop(self.stored, kill=kill, code=code)
        if run.active and run.unknown_since is not None and run.plan.remote is not None:
            self.code = code
            raise Detached

    def _ask(self) -> str:
        """`stop`, `detach` or `go on`. A second Ctrl-C means stop."""
        name = self.stored.run.name
        # First of all, so that a second one is heard however quick it is.
        old = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            if signal.SIGINT in self.signals:
                return "stop"
            sys.stderr.write(f"\n{name} is running: [s]top it, [d]etach from it, or [g]o on? ")
            sys.stderr.flush()
            answer = _read_line().strip().lower()
        except KeyboardInterrupt:
            sys.stderr.write("\n")
            return "stop"
        finally:
            signal.signal(signal.SIGINT, old)
        if answer in ("s", "stop"):
            return "stop"
        if answer in ("d", "detach"):
            return "detach"
        return "go on"


def _read_line() -> str:
    """A line of the terminal; EINTR and end of input are an empty one."""
    data = os.read(sys.stdin.fileno(), 1024)
    return data.decode(errors="replace")


class _Story:
    """Says on stderr what happens to the run."""

    def __init__(self, supervisor: Supervisor, screen: Screen, notices: list[str]) -> None:
        """`notices` is what others have to say; another thread adds to it."""
        self._supervisor = supervisor
        self._screen = screen
        self._notices = notices
        self._pull: PullBar | None = None
        self._waiting: str | None = None
        self._unknown: float | None = None
        self._noted = 0  # the attempt whose start was told of

    def _show_note(self, run: Run) -> None:
        number = len(run.attempts)
        if number == self._noted or run.status in ("submitted", "preparing"):
            return
        with suppress(HostError):  # it is asked again
            note = self._supervisor.note(run)
            self._noted = number
            if note:
                self._screen.end_line()
                say(note)

    def _when(self, run: Run) -> str:
        left = (run.retry_at or 0.0) - self._supervisor.clock()
        return f" in {left:.0f}s" if left >= 2 else ""

    def _show_step(self, run: Run) -> None:
        step = self._supervisor.doing(run)
        if step is not None and step.startswith("pulling"):
            if self._pull is None:
                from .progress import PullBar

                self._pull = PullBar(run.plan.image or "")
            self._pull.update(step)
        elif self._pull is not None:
            self._pull.close()
            self._pull = None

    def __call__(self, run: Run) -> None:
        if run.status == "submitted" and run.waiting and run.waiting != self._waiting:
            # What the attempt printed comes before the news of its end.
            self._screen.finish()
            self._screen.end_line()
            say(f"{run.waiting}; trying again{self._when(run)}")
        self._waiting = run.waiting
        self._show_step(run)
        self._show_note(run)
        while self._notices:
            self._screen.end_line()
            warn(self._notices.pop(0))
        if run.unknown_since is not None and self._unknown is None:
            doing = "waiting for it" if run.plan.remote is None else "reconnecting"
            warn(f"{run.plan.backend} does not answer; {doing}")
        elif run.unknown_since is None and self._unknown is not None:
            say(f"{run.plan.backend} answers again")
        self._unknown = run.unknown_since


def watch(supervisor: Supervisor, stored: Stored, fd: int | None = None) -> int:
    """Stream the output (to `fd`, else stdout), forward the ports, until the run ends.

    The run's exit code.
    """
    person = _Person(supervisor, stored)
    run = stored.run
    screen = Screen(supervisor, run, first=run.first, ports=True, fd=fd)
    notices: list[str] = []
    story = _Story(supervisor, screen, notices)
    loop = Watch(supervisor, stored, screen, person.on_signal, story)
    person.signals = loop.signals
    with ExitStack() as stack:
        if run.plan.remote is not None:
            from .progress import SendingBar

            supervisor.progress = stack.enter_context(SendingBar())
        if run.ports and run.active:
            try:
                _forward(supervisor, stored, notices, stack)
            except CannotStart as problem:
                if _refuse(supervisor, stored, problem):
                    return report(stored.run)
                # It was started before: its output is worth more than its ports.
                warn(f"{problem.message}: no port of {run.name} is forwarded")
        try:
            run = loop.run()
        except Detached:
            return _leave(supervisor, stored, person.code)
        except BrokenPipeError:
            return _closed(supervisor, stored)
        except (OSError, DstackError):
            # The output cannot be written, or the run not be recorded: it goes on without us.
            with suppress(OSError, DstackError):
                if supervisor.look(stored, unsaved=True).active:
                    _leave(supervisor, stored)
            raise
    if run.active:
        return _leave(supervisor, stored)
    if run.status != "done":
        screen.end_line()
    return report(run)


def _forward(supervisor: Supervisor, stored: Stored, notices: list[str], stack: ExitStack) -> None:
    from ..ports.forward import Forwarder
    from .localports import shares_ports

    run = stored.run
    if run.plan.remote is None:
        from ..supervise.ways import Ways

        ways = Ways(lambda: stored.run, supervisor.address, notices, hold=_KNOWN)
        forwarder = Forwarder(run.ports, shared=shares_ports(run.plan), where=ways.find)
    else:
        from ..supervise.tunnels import Tunnels

        tunnels = Tunnels(supervisor.sites, lambda: stored.run, notices)
        stack.callback(tunnels.close)
        forwarder = Forwarder(run.ports, shared=False, where=tunnels.where)
    forwarder.start()
    stack.callback(forwarder.close)


def _refuse(supervisor: Supervisor, stored: Stored, problem: CannotStart) -> bool:
    """End a run of ours that was not started yet; False when there is no such run."""
    run = stored.run
    untried = run.status == "submitted" and len(run.attempts) < run.first
    if not untried or not supervisor.leases.take(stored.seq):
        return False
    hint = f" ({problem.hint})" if problem.hint else ""
    failed = StartFailed(supervisor.clock(), "start_failed", problem.message + hint)
    stored.run = supervisor.runs.record(run, failed)
    supervisor.leases.drop(stored.seq)
    return True


def report(run: Run) -> int:
    """Say how a finished run ended, unless all went well; its exit code."""
    from ..text import error

    if run.status == "stopped":
        say(f"{run.name} was stopped")
    elif run.status == "failed":
        error(run.message or "it failed", None)
    return run.exit_code if run.exit_code is not None else 1


def _leave(supervisor: Supervisor, stored: Stored, code: int = 0) -> int:
    """Leave the run to the background supervisor; `code` is not 0 when that is to stop it."""
    supervisor.leases.drop(stored.seq)
    ensure_background(supervisor.home, supervisor.leases)
    name = stored.run.name
    try:
        if code:
            why = stored.run.unknown_why or f"{stored.run.plan.backend} does not answer"
            warn(f"{why}; {name} is stopped as soon as it answers")
        else:
            say(f"detached; {name} goes on. Come back with: dstack attach {name}")
    except OSError:
        pass  # the terminal has gone
    return code


def _closed(supervisor: Supervisor, stored: Stored) -> int:
    """Nobody reads the output any more: end the run, as a shell would."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    warn(f"the output was closed; stopping {stored.run.name}")
    supervisor.request_stop(stored, kill=False, code=_CLOSED_PIPE)
    from .stopping import wait_ended

    wait_ended(supervisor, [stored])
    return _CLOSED_PIPE
