"""A run's output on this terminal: secrets masked, addresses made local, byte for byte else."""

from __future__ import annotations

import sys

from ..output.filter import Filter, make_filter
from ..output.follow import write_all
from ..output.runlog import Position, RunLog, RunReader
from ..run.model import Run
from ..supervise.step import Supervisor
from ..text import warn
from .prepare import sensitive


def filter_for(supervisor: Supervisor, run: Run, *, ports: bool) -> Filter | None:
    """What must be changed in the run's output before it is shown; None: nothing."""
    names = sensitive(run.plan)[0]
    known = set(supervisor.vault.names()) if names else set()
    # One that was deleted meanwhile is known to nobody, so not to us either.
    values = supervisor.vault.get_many([n for n in names if n in known]) if names else {}
    return make_filter(values.values(), run.ports if ports else ())


class Screen:
    """Copies the logs of a run's attempts to stdout as they grow."""

    def __init__(
        self, supervisor: Supervisor, run: Run, *, first: int, ports: bool, fd: int | None = None
    ) -> None:
        """`first` is the attempt to begin with; `fd` is where it goes instead of to stdout."""
        self.filter = filter_for(supervisor, run, ports=ports)
        log = RunLog(supervisor.home.run(run.id))
        self.reader = RunReader(log, Position(first, 0) if first > 1 else None)
        self.fd = sys.stdout.fileno() if fd is None else fd
        self.clock = supervisor.clock
        self._told = 0

    def pump(self) -> int:
        """Show what is there now. Raises BrokenPipeError."""
        copied = self.reader.copy_to(self.fd, self.filter)
        if copied:
            self.reader.sample(self.clock())
        if self.reader.truncated > self._told:
            self._told = self.reader.truncated
            warn("the run emptied its own output; what was not shown yet is gone")
        return copied

    def idle(self) -> None:
        """Show what was only held back because an address might have gone on."""
        if self.filter is not None and self.filter.holding:
            write_all(self.fd, self.filter.idle())

    def finish(self) -> None:
        """Show all that is left."""
        while self.pump():
            pass
        if self.filter is not None:
            write_all(self.fd, self.filter.flush())

    def end_line(self) -> None:
        """Begin a new line for what dstack says, where the output's last one is still open."""
        log, offset = self.reader.log, self.reader.position.offset
        if log is None or not offset or not (sys.stdout.isatty() and sys.stderr.isatty()):
            return
        try:
            with log.open("rb") as file:
                file.seek(offset - 1)
                last = file.read(1)
        except OSError:
            return
        if last != b"\n":
            sys.stderr.write("\n")
