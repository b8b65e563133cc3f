"""`dstack builds`: what builds there are, what each was made from, and which of them fit now."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ..run.builds import Build, Inputs
from ..text import ago, say, show, size, table, terminal_columns, timestamp

if TYPE_CHECKING:
    from ..engines.base import Engine
    from ..run.model import Plan
    from ..store.builds import Builds
    from ..supervise.step import Supervisor

HELP = "list builds and what they were made from"
_SHOWN = 3  # names of files in a line of the table
_UNKNOWN = "?"


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `dstack builds`."""
    add = parser.add_argument
    add("dir", metavar="DIR", nargs="?", help="those of the project that DIR lies in: do they fit?")
    add("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print the table, or JSON."""
    from ..paths import find_home
    from ..store.builds import Builds
    from ..supervise.build import make_supervisor

    home = find_home()
    builds, supervisor = Builds(home), make_supervisor(home)
    found = list(reversed(builds.all()))
    fits: dict[str, str | None] = {}
    if args.dir is not None:
        from .project import find_project

        project = find_project(args.dir, Path.cwd())[0]
        found = [build for build in found if build.project == str(project)]
        fits = _judge(supervisor, builds, project, found)
    if args.json:
        import msgspec

        items = [as_json(builds, build, fits) for build in found]
        show(msgspec.json.format(msgspec.json.encode(items)).decode())
    elif found:
        show(_table(builds, found, fits))
    else:
        say("no builds yet; `dstack build DIR` makes one")
    return 0


def as_json(builds: Builds, build: Build, fits: dict[str, str | None]) -> dict[str, object]:
    """The fields of `builds --json`, as docs/reference/commands.md lists them."""
    inputs = builds.inputs(build.id) or Inputs({}, {})
    judged = build.id in fits
    return {
        "name": build.name,
        "id": build.id,
        "project": build.project,
        "dir": build.workdir,
        "file": build.file,
        "engine": build.engine,
        "image": build.image,
        "files": [os.fsdecode(name).encode("utf-8", "replace").decode() for name in inputs.files],
        "folders": [
            os.fsdecode(name or b".").encode("utf-8", "replace").decode() for name in inputs.folders
        ],
        "whole": build.whole,
        "size": build.size,
        "seconds": round(build.took, 3),
        "made_at": timestamp(build.created),
        "used_at": timestamp(builds.used(build)),
        "fits": fits[build.id] is None if judged else None,
        "why_not": fits[build.id] if judged else None,
    }


def dependencies(builds: Builds, build: Build) -> str:
    """What a build was made from, in a few words."""
    inputs = builds.inputs(build.id)
    if inputs is None:
        return _UNKNOWN
    if build.whole:
        return f"all {len(inputs.files):,} files"
    names = [ascii(os.fsdecode(name))[1:-1] for name in sorted(inputs.files)]
    names += [ascii(os.fsdecode(name or b"."))[1:-1] + "/" for name in sorted(inputs.folders)]
    if len(names) > _SHOWN + 1:
        names = [*names[:_SHOWN], f"{len(names) - _SHOWN} more"]
    return ", ".join(names) or "no file"


def _table(builds: Builds, found: list[Build], fits: dict[str, str | None]) -> str:
    now = time.time()
    rows = [
        [
            build.name,
            os.path.join(os.path.basename(build.project), build.file),
            size(build.size),
            ago(build.created, now),
            ago(builds.used(build), now),
            *([fits[build.id] or "yes"] if build.id in fits else []),
            dependencies(builds, build),
        ]
        for build in found
    ]
    last = ["FITS NOW"] if fits else []
    headers = ["NAME", "FILE", "SIZE", "MADE", "USED", *last, "DEPENDS ON"]
    return table(headers, rows, columns=terminal_columns(sys.stdout))


def _judge(
    supervisor: Supervisor, builds: Builds, project: Path, found: list[Build]
) -> dict[str, str | None]:
    """Why each of a project's builds cannot be used now; None where it can."""
    if not found:
        return {}
    from ..errors import DstackError
    from .making import Maker

    pending = supervisor.snapshots.begin(project)
    try:
        tree = pending.finish().tree
        judged: dict[str, str | None] = {}
        for build in found:
            try:
                plan, engine = _plan(supervisor, project, build)
            except DstackError as error:
                judged[build.id] = error.message.splitlines()[0]
                continue
            maker = Maker(supervisor, engine, plan, tree, None)
            judged[build.id] = builds.why_not(build, maker.parts, maker.code)
        return judged
    finally:
        pending.cancel()


def _plan(supervisor: Supervisor, project: Path, build: Build) -> tuple[Plan, Engine]:
    """The plan of the task file that a build was made for, as it is now."""
    from .options import add_task_options
    from .parser import Parser
    from .prepare import Request

    parser = Parser(prog="dstack run")
    add_task_options(parser)
    args = parser.parse_args([str(project / build.workdir), "-f", str(project / build.file)])
    place = (project, build.workdir)
    parts = (supervisor.home, supervisor.vault, supervisor.sites, supervisor.snapshots)
    request = Request(*parts, args, (), place)
    return request.plan(build.name)
