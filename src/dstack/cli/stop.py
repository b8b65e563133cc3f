"""`dstack stop NAME…`: end runs, and wait until they have ended."""

from __future__ import annotations

import argparse

HELP = "stop runs"


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `dstack stop`."""
    add = parser.add_argument
    add("names", metavar="NAME", nargs="*", help="runs to stop")
    add("-a", "--all", action="store_true", help="all active runs")
    add("-x", "--abort", action="store_true", help="with SIGKILL, at once")
    add("-y", "--yes", action="store_true", help="answer every question with yes")


def run(args: argparse.Namespace) -> int:
    """Stop them; a run that has ended is no error."""
    from ..errors import UsageError
    from ..supervise.build import make_supervisor
    from ..text import confirm, say, warn
    from .named import find_all
    from .stopping import wait_ended

    if args.all == bool(args.names):
        message = (
            "say which runs to stop, or -a for all" if not args.all else "NAME or -a, not both"
        )
        raise UsageError(message)
    supervisor = make_supervisor()
    runs = supervisor.runs
    found = runs.active() if args.all else find_all(runs, args.names, "stopped")
    supervisor.glance(found)
    if args.all and found and not confirm(f"stop {len(found)} runs?", yes=args.yes):
        return 1
    for stored in found:
        if not supervisor.look(stored).active:
            say(f"{stored.run.name} has ended already")
    waiting = [stored for stored in found if stored.run.active]
    for stored in waiting:
        supervisor.request_stop(stored, kill=args.abort)
    left = wait_ended(supervisor, waiting)
    for stored in waiting:
        if stored not in left:
            say(f"{stored.run.name} {_how(stored.run.status)}")
    for stored in left:
        if stored.run.unknown_since is not None:
            why = stored.run.unknown_why or f"{stored.run.plan.backend} does not answer"
            warn(f"{why}; {stored.run.name} is stopped as soon as it answers")
            continue
        warn(f"{stored.run.name} has not ended yet; it is stopped in the background")
    return 1 if left else 0


def _how(status: str) -> str:
    return "was stopped" if status == "stopped" else f"ended by itself ({status})"
