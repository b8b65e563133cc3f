"""`dstack attach NAME`: as if the run had not been detached."""

from __future__ import annotations

import argparse

HELP = "watch a run as if it had not been detached"


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `dstack attach`."""
    parser.add_argument("name", metavar="NAME", help="the run")


def run(args: argparse.Namespace) -> int:
    """Output from its beginning, ports, exit code."""
    from ..supervise.build import make_supervisor
    from .watch import watch

    supervisor = make_supervisor()
    stored = supervisor.runs.find(args.name)
    supervisor.look(stored)
    return watch(supervisor, stored)
