"""`dstack rm NAME…`: forget finished runs and delete their folders."""

from __future__ import annotations

import argparse

HELP = "forget finished runs and delete their folders"


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `dstack rm`."""
    add = parser.add_argument
    add("names", metavar="NAME", nargs="*", help="finished runs")
    add("-a", "--all", action="store_true", help="all finished runs")
    add("-y", "--yes", action="store_true", help="answer every question with yes")


def run(args: argparse.Namespace) -> int:
    """Delete them. An active run is an error, and then nothing is deleted."""
    from ..errors import HostRefused, HostUnreachable, UsageError
    from ..supervise.build import make_supervisor
    from ..text import confirm, say, warn
    from .named import find_all

    if args.all == bool(args.names):
        message = "say which runs to delete, or -a for all" if not args.all else "NAME or -a"
        raise UsageError(message)
    supervisor = make_supervisor()
    runs = supervisor.runs
    found = runs.all() if args.all else find_all(runs, args.names, "deleted")
    supervisor.glance(found)
    for stored in found:
        supervisor.look(stored)
    active = [stored.run.name for stored in found if stored.run.active]
    if active and not args.all:
        message = f"{', '.join(active)} has not ended"
        raise UsageError(message, hint=f"stop it first: dstack stop {' '.join(active)}")
    found = [stored for stored in found if not stored.run.active]
    if args.all and found and not confirm(f"delete {len(found)} runs?", yes=args.yes):
        return 1
    kept: dict[str, list[str]] = {}
    for stored in found:
        try:
            supervisor.remove(stored.run)
        except (HostUnreachable, HostRefused) as error:
            kept.setdefault(error.message, []).append(stored.run.name)
            continue
        if not args.all:
            say(f"{stored.run.name} is deleted")
    for why, names in kept.items():
        warn(f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} kept: {why}")
    if args.all:
        say(f"{len(found) - sum(map(len, kept.values()))} runs deleted")
    return 1 if kept else 0
