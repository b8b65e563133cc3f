"""Keeping what a build stage made: the step between its end and the record of it."""

from __future__ import annotations

from ..engines.builds import make_spare
from ..errors import DstackError
from ..paths import Home
from ..run.builds import Build, all_inputs, inputs_of, parts_of
from ..run.model import Exit, Run
from ..snapshot import Snapshots
from ..store.builds import Builds
from .sites import Site


def keep_build(home: Home, snapshots: Snapshots, site: Site, run: Run, end: Exit) -> Exit:
    """Keep it, before anybody is told that the stage is done; doing it twice does no harm.

    `end` is how the stage ended: well. What cannot be kept is a build that failed.
    """
    builds = Builds(home)
    engine = site.engine(run.plan.engine)
    try:
        if builds.get(run.id) is None:
            _keep(builds, snapshots, site, run, end)
    except DstackError as error:
        if error.transient:
            raise
        hint = f" ({error.hint})" if error.hint else ""
        return Exit(code=125, reason="start_failed", detail=error.message + hint, at=end.at)
    # What is left of the checkout is of no use; the logs stay, as any run's.
    engine.clear(site.home.run(run.id))
    if not site.far:
        make_spare(site.home.build(run.id))
    return end


def _keep(builds: Builds, snapshots: Snapshots, site: Site, run: Run, end: Exit) -> None:
    plan, tree = run.plan, run.tree or ""
    engine = site.engine(plan.engine)
    attempt = run.attempt.number if run.attempt is not None else 1
    directory = site.home.job(run.id, attempt)
    made, whole = site.read_made(plan, directory)
    engine.take_back(site.home.run(run.id), directory)
    size = site.take_result(run.id, directory, builds.aside(run.id), made)
    entries = snapshots.entries(tree)
    started = run.started_at or run.submitted_at
    image = engine.build_image(directory)
    build = Build(
        id=run.id,
        name=run.name,
        parts=parts_of(plan, engine.base(directory), site.platform()),
        engine=plan.engine,
        project=plan.project,
        workdir=plan.workdir,
        file=plan.file,
        tree=tree,
        created=end.at or started,
        size=size + (image[1] if image else 0),
        took=max((end.at or started) - started, 0.0),
        whole=whole,
        image=image[0] if image else None,
        client=plan.client,
        base_env=plan.base_env if image else (),
        backend=plan.backend,
        remote=plan.remote,
    )
    builds.keep(build, all_inputs(entries) if whole else inputs_of(entries, made.read))
