"""Keeping what a build stage made: the step between its end and the record of it."""

from __future__ import annotations

import os
from pathlib import Path

from ..engines.base import Engine
from ..engines.builds import make_spare, read_made, take_result
from ..errors import DstackError
from ..paths import Home
from ..run.builds import Build, all_inputs, inputs_of, parts_of
from ..run.model import Exit, Run
from ..snapshot import Snapshots
from ..store.builds import Builds


def platform() -> str:
    """Where builds of this machine run."""
    found = os.uname()
    return f"{found.sysname}-{found.machine}".lower()


def keep_build(home: Home, snapshots: Snapshots, engine: Engine, run: Run, end: Exit) -> Exit:
    """Keep it, before anybody is told that the stage is done; doing it twice does no harm.

    `end` is how the stage ended: well. What cannot be kept is a build that failed.
    """
    builds = Builds(home)
    try:
        if builds.get(run.id) is None:
            _keep(home, builds, snapshots, engine, run, end)
    except DstackError as error:
        if error.transient:
            raise
        hint = f" ({error.hint})" if error.hint else ""
        return Exit(code=125, reason="start_failed", detail=error.message + hint, at=end.at)
    # What is left of the checkout is of no use; the logs stay, as any run's.
    engine.clear(home.run(run.id))
    make_spare(home.build(run.id))
    return end


def _keep(
    home: Home, builds: Builds, snapshots: Snapshots, engine: Engine, run: Run, end: Exit
) -> None:
    plan, tree = run.plan, run.tree or ""
    attempt = run.attempt.number if run.attempt is not None else 1
    directory = home.job(run.id, attempt)
    made, whole = read_made(plan, directory)
    engine.take_back(home.run(run.id), directory)
    aside = builds.aside(run.id)
    take_result(home.run(run.id), directory, aside, made)
    entries = snapshots.entries(tree)
    started = run.started_at or run.submitted_at
    image = engine.build_image(directory)
    build = Build(
        id=run.id,
        name=run.name,
        parts=parts_of(plan, engine.base(directory), platform()),
        engine=plan.engine,
        project=plan.project,
        workdir=plan.workdir,
        file=plan.file,
        tree=tree,
        created=end.at or started,
        size=folder_size(aside) + (image[1] if image else 0),
        took=max((end.at or started) - started, 0.0),
        whole=whole,
        image=image[0] if image else None,
        client=plan.client,
        base_env=plan.base_env if image else (),
    )
    builds.keep(build, all_inputs(entries) if whole else inputs_of(entries, made.read))


def folder_size(folder: Path) -> int:
    """Bytes that deleting it frees: blocks, each file once however many links it has."""
    total, seen = 0, set()
    for place, folders, files in os.walk(folder):
        for name in (".", *files, *folders):
            try:
                found = os.lstat(f"{place}/{name}")
            except OSError:  # gone meanwhile
                continue
            if (found.st_dev, found.st_ino) not in seen:
                seen.add((found.st_dev, found.st_ino))
                total += found.st_blocks * 512
    return total
