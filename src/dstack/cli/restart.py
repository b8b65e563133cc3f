"""`dstack restart NAME`: again, in the same environment and the same folder."""

from __future__ import annotations

import argparse

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
    run_ = supervisor.look(stored)
    if run_.active:
        message = f"{run_.name} is {run_.status}"
        raise UsageError(message, hint=f"stop it first: dstack stop {run_.name}")
    if run_.plan.stage == "build":
        message = f"{run_.name} is a build, which is not run again but made anew"
        raise UsageError(message, hint="dstack build DIR --force")
    if not supervisor.leases.take(stored.seq):
        message = f"another command is busy with {run_.name}"
        raise UsageError(message)
    with supervisor.leases.choosing_ports():
        ports = choose_ports(supervisor, run_.plan, run_.id) if run_.plan.ports else ()
        stored.run = supervisor.runs.record(run_, Restarted(supervisor.clock(), ports))
    if args.detach:
        return detach(supervisor, stored)
    return watch(supervisor, stored)
