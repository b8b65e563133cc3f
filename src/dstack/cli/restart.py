"""`dstack restart NAME`: again, in the same environment and the same folder."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..run.model import Run
    from ..store.runs import Stored
    from ..supervise.step import Supervisor

# Seconds until who looked after the run must have let go of it.
_PATIENCE = 5.0

HELP = "run a finished run again in the same environment"


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `dstack restart`."""
    add = parser.add_argument
    add("name", metavar="NAME", help="a finished run")
    add("-d", "--detach", action="store_true", help="print the run's name and return")
    add("-y", "--yes", action="store_true", help="answer every question with yes")


def run(args: argparse.Namespace) -> int:
    """Run it again; its exit code."""
    from ..errors import UsageError
    from ..run.events import Restarted
    from ..supervise.build import make_supervisor
    from .localports import choose_ports
    from .run import detach
    from .watch import watch

    supervisor = make_supervisor()
    stored = supervisor.runs.find(args.name)
    run_ = _ended(supervisor.look(stored))
    if run_.plan.stage == "build":
        message = f"{run_.name} is a build, which is not run again but made anew"
        raise UsageError(message, hint="dstack build DIR --force")
    _take(supervisor, stored)
    supervisor.reload(stored)
    run_ = _ended(stored.run)  # another command may have restarted it meanwhile
    with supervisor.leases.choosing_ports():
        ports = choose_ports(supervisor, run_.plan, run_.id) if run_.plan.ports else ()
        stored.run = supervisor.runs.record(run_, Restarted(supervisor.clock(), ports))
    if args.detach:
        return detach(supervisor, stored)
    return watch(supervisor, stored)


def _ended(run: Run) -> Run:
    """The run. Raises UsageError when it is active."""
    from ..errors import UsageError

    if run.active:
        message = f"{run.name} is {run.status}"
        raise UsageError(message, hint=f"stop it first: dstack stop {run.name}")
    return run


def _take(supervisor: Supervisor, stored: Stored) -> None:
    """Be the one who looks after it. Raises UsageError when somebody else still does."""
    import time

    from ..errors import UsageError

    # Who recorded the end, which everybody can see, lets go of the run a moment later.
    until = time.monotonic() + _PATIENCE
    while not supervisor.leases.take(stored.seq):
        if time.monotonic() > until:
            _ended(supervisor.reload(stored))
            message = f"another command is busy with {stored.run.name}"
            raise UsageError(message)
        time.sleep(0.01)
