"""`dstack build DIR`: the build stage, whose result later runs start from."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from ..paths import find_home
from ..snapshot import Snapshots
from .options import add_task_options, split_args
from .project import find_project

HELP = "make the build that later runs start from"


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `dstack build`."""
    add_task_options(parser)
    add = parser.add_argument
    add("--force", action="store_true", help="make it even if there is one that fits")
    add("-y", "--yes", action="store_true", help="answer every question with yes")
    parser.usage = "dstack build DIR [options] [ARGS ...]"


def parse(parser: argparse.ArgumentParser, argv: list[str]) -> argparse.Namespace:
    """The options; what is unknown is `run.args` of the file, as with `dstack run`."""
    args, rest = split_args(parser, argv)
    args.rest = rest
    return args


def run(args: argparse.Namespace) -> int:
    """Make it; the exit code of the command that failed."""
    from ..errors import UsageError
    from ..run.builds import Build
    from ..supervise.build import make_supervisor
    from ..text import ago, say, size
    from .making import Maker
    from .prepare import Request, taken_values
    from .progress import SendingBar
    from .run import fallback_name

    project = find_project(args.dir, Path.cwd())
    home = find_home()
    pending = Snapshots(home).begin(project[0])
    try:
        supervisor = make_supervisor(home)
        request = Request(
            home, supervisor.vault, supervisor.sites, supervisor.snapshots, args, args.rest, project
        )
        plan, engine = request.plan(fallback_name(supervisor))
        if not plan.build:
            message = f"{plan.file} has no `build`"
            raise UsageError(message, hint="add `build`, a list of commands")
        taken = taken_values(plan)
        sealed = supervisor.vault.seal(taken) if taken else None
        with SendingBar() as bar:
            snapshot = pending.finish(bar, say)
        maker = Maker(supervisor, engine, plan, snapshot.tree, sealed, request.name)
        begun = time.time()
        found = maker.make(force=args.force, fd=sys.stdout.fileno())
    finally:
        pending.cancel()
    if not isinstance(found, Build):
        return found
    if found.created < begun and found.name != request.name:
        made = ago(found.created, begun)
        say(f"{found.name}, made {made}, fits; --force makes another one")
    else:
        from .builds import dependencies

        inputs = dependencies(maker.builds, found)
        say(f"{found.name} is kept: {size(found.size)}; it depends on {inputs}")
    return 0
