"""`dstack run DIR`: plan, snapshot, start, watch."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ..paths import find_home
from ..snapshot import Pending, Snapshots
from .options import add_task_options, split_args
from .project import find_project

if TYPE_CHECKING:
    from ..engines.base import Engine
    from ..run.builds import Build
    from ..run.model import Plan, Run
    from ..store.runs import Stored
    from ..supervise.step import Supervisor
    from .prepare import Request

HELP = "run a task and stream its output"

_NAMES_TRIED = 20


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `dstack run`."""
    add_task_options(parser)
    add = parser.add_argument
    build = parser.add_mutually_exclusive_group()
    build.add_argument("--build", action="store_true", help="make the build if it is missing")
    build.add_argument("--force-build", action="store_true", help="make the build anew")
    add("-d", "--detach", action="store_true", help="print the run's name and return")
    add("-y", "--yes", action="store_true", help="answer every question with yes")
    add("-v", "--verbose", action="store_true", help="say why a build is or is not used")
    add("--dry-run", action="store_true", help="print what would be executed; start nothing")
    parser.usage = "dstack run DIR [options] [ARGS ...]"
    parser.epilog = (
        "What dstack does not know, or stands behind --, is ${{ run.args }} of the file."
    )


def parse(parser: argparse.ArgumentParser, argv: list[str]) -> argparse.Namespace:
    """The options; what is unknown goes to the run."""
    args, rest = split_args(parser, argv)
    args.rest = rest
    return args


def run(args: argparse.Namespace) -> int:
    """Run it; the run's exit code."""
    project = find_project(args.dir, Path.cwd())
    home = find_home()
    # git looks at the folder, and ssh connects, while Python imports the rest and reads the file.
    pending = None if args.dry_run else Snapshots(home).begin(project[0])
    try:
        from ..store.parsed import ParsedFiles
        from .places import hasten

        sites = hasten(args.backend, home, None if args.dry_run else ParsedFiles(home))
        from ..supervise.build import make_supervisor
        from .prepare import Request

        supervisor = make_supervisor(home, sites)
        request = Request(
            home, supervisor.vault, supervisor.sites, supervisor.snapshots, args, args.rest, project
        )
        if pending is None:
            return _dry_run(request, supervisor)
        submitted = _submit(request, supervisor, pending)
        if isinstance(submitted, int):
            return submitted
        stored, files = submitted
    finally:
        if pending is not None:
            pending.cancel()
    old = signal.signal(signal.SIGTERM, _terminated)
    try:
        _show_plan(stored.run, files, watched=not args.detach)
        if args.detach:
            code = detach(supervisor, stored)
        else:
            from .watch import watch

            code = watch(supervisor, stored)
    except (KeyboardInterrupt, SystemExit) as end:
        # Before anybody was there to ask; a run that is left would be started by the next command.
        from .stopping import wait_ended

        code = 130 if isinstance(end, KeyboardInterrupt) else 143
        supervisor.request_stop(stored, kill=False, code=code)
        wait_ended(supervisor, [stored])
        raise
    finally:
        signal.signal(signal.SIGTERM, old)
    from .spare import leave_spare

    leave_spare(supervisor.home, supervisor.snapshots, stored.run)
    return code


def _terminated(number: int, frame: object) -> None:
    del frame
    raise SystemExit(128 + number)


def fallback_name(supervisor: Supervisor) -> str:
    """A name that no run has yet."""
    from ..run.names import two_words

    for _ in range(_NAMES_TRIED):
        name = two_words(int.from_bytes(os.urandom(4), "big"))
        if not supervisor.runs.database.rows("run_by_name", name=name):
            return name
    return f"{name}-{os.urandom(3).hex()}"


def _check_build(args: argparse.Namespace, plan: Plan) -> None:
    if (args.build or args.force_build) and not plan.build:
        from ..errors import UsageError

        message = f"{plan.file} has no `build`"
        raise UsageError(message, hint="leave out --build and --force-build, or add `build`")


def _build_of(
    request: Request,
    supervisor: Supervisor,
    plan: Plan,
    engine: Engine,
    tree: str,
    sealed: bytes | None,
) -> Build | int | None:
    """The build that the run starts from, an exit code where it failed; None: it needs none."""
    if not plan.build:
        return None
    from .making import Maker, ready_build

    args = request.args
    file = f" -f {args.file}" if args.file else ""
    file += "".join(f" --backend {name}" for name in args.backend)
    return ready_build(
        Maker(supervisor, engine, plan, tree, sealed),
        make=args.build,
        force=args.force_build,
        verbose=args.verbose,
        how=f"`dstack build {args.dir}{file}`",
    )


def _submit(request: Request, supervisor: Supervisor, pending: Pending) -> tuple[Stored, int] | int:
    """Everything up to a run that is kept and whose lease is ours; its number of files.

    The exit code of its build where that failed. Raises DstackError.
    """
    from ..store.runs import NameTaken
    from ..text import say
    from .prepare import taken_values
    from .progress import SendingBar

    plan, engine = request.plan(fallback_name(supervisor))
    _check_build(request.args, plan)
    taken = taken_values(plan)
    _check_name(supervisor, plan.name)
    sealed = supervisor.vault.seal(taken) if taken else None
    with SendingBar() as bar:
        snapshot = pending.finish(bar, say)
    build = _build_of(request, supervisor, plan, engine, snapshot.tree, sealed)
    if isinstance(build, int):
        return build
    for _ in range(_NAMES_TRIED):
        new = _new_run(plan, snapshot.tree, sealed, build)
        supervisor.snapshots.keep(new.id, snapshot.tree)
        try:
            unheard = not request.named
            if build is None:
                stored = _add(supervisor, new, unheard=unheard)
            else:
                stored = _add_to(supervisor, new, build, unheard=unheard)
            supervisor.fresh.add(new.id)
        except NameTaken:
            supervisor.snapshots.release(new.id)
            if request.named:
                raise
            plan, _ = request.plan(fallback_name(supervisor))
            continue
        except BaseException:
            supervisor.snapshots.release(new.id)
            raise
        return stored, snapshot.files
    raise NameTaken(plan.name)


def _check_name(supervisor: Supervisor, name: str) -> None:
    """Say that a name is taken before anything is sent; the database has the last word."""
    from ..errors import UsageError
    from ..store.runs import NameTaken

    try:
        found = supervisor.runs.find(name)
    except UsageError:
        return
    if found.run.active and supervisor.look(found).active:
        raise NameTaken(name)


def _new_run(plan: Plan, tree: str, sealed: bytes | None, build: Build | None = None) -> Run:
    from ..run.model import Run

    return Run(
        id=os.urandom(6).hex(),
        name=plan.name,
        plan=plan,
        status="submitted",
        submitted_at=time.time(),
        tree=tree,
        build=build.id if build is not None else None,
        sealed=sealed,
    )


def _add_to(supervisor: Supervisor, new: Run, build: Build, *, unheard: bool) -> Stored:
    """Keep a run that starts from a build, which is not deleted from then on."""
    from ..errors import CannotStart
    from ..store.builds import Builds

    builds = Builds(supervisor.home)
    with builds.held():
        if builds.get(build.id) is None:
            message = f"the build {build.name} was deleted just now"
            raise CannotStart(message, hint="make it again with --build")
        builds.touch(build.id)
        return _add(supervisor, new, unheard=unheard)


def _add(supervisor: Supervisor, new: Run, *, unheard: bool) -> Stored:
    """Keep the run, with its local ports where it has any."""
    if not new.plan.ports:
        return supervisor.runs.add(new, supervisor.leases.take, unheard=unheard)
    import msgspec

    from .localports import choose_ports

    with supervisor.leases.choosing_ports():
        chosen = choose_ports(supervisor, new.plan, None)
        new = msgspec.structs.replace(new, ports=chosen)
        return supervisor.runs.add(new, supervisor.leases.take, unheard=unheard)


def _show_plan(run: Run, files: int, *, watched: bool) -> None:
    from ..run.story import duration
    from ..text import say, size

    plan = run.plan
    limit = f"at most {duration(plan.max_duration)}" if plan.max_duration else "no time limit"
    count = f"{files:,} file{'' if files == 1 else 's'}"
    what = plan.image or f"Python {plan.python}"
    say(f"{run.name}: {plan.backend} ({plan.engine}), {what}, {count}, {limit}")
    asked = plan.resources
    if (asked.cpu or asked.memory) and not plan.enforce:
        say(f"cpu and memory are not enforced: {plan.backend} does not allow it")
    elif asked.memory is not None and asked.memory.most is not None:
        say(f"memory is limited to {size(asked.memory.most)}")
    if not run.ports:
        return
    from .localports import shares_ports

    for inside, local in run.ports:
        at = f"port {inside} of the run is at http://127.0.0.1:{local}"
        # What the app itself does not listen on leads nowhere when nobody is there to forward it.
        there = watched or (shares_ports(plan) and inside == local)
        say(at if there else f"{at} while you watch it: dstack attach {run.name}")


def _dry_run(request: Request, supervisor: Supervisor) -> int:
    """Print the literal job.sh; nothing is started, and nothing is kept."""
    from .prepare import taken_values

    plan, engine = request.plan(fallback_name(supervisor))
    _check_build(request.args, plan)
    taken_values(plan)
    _check_name(supervisor, plan.name)
    if plan.ports:
        from .localports import choose_ports

        choose_ports(supervisor, plan, None)
    new = _new_run(plan, "", None)
    job = engine.plan(new, supervisor.site_of(plan).home.run(new.id), 1)
    sys.stdout.write(job.script)
    if "box.sh" in job.files:
        sys.stdout.write(f"\n# ==== box.sh, in the container ====\n{job.files['box.sh']}")
    return 0


def detach(supervisor: Supervisor, stored: Stored) -> int:
    """Start the job, leave it to the background supervisor, print the name."""
    from ..supervise.spawn import ensure_background
    from ..text import error, say

    supervisor.step(stored)
    supervisor.leases.drop(stored.seq)
    run = stored.run
    if run.active:
        ensure_background(supervisor.home, supervisor.leases)
    elif run.reason in ("start_failed", "no_capacity"):
        error(run.message or "the run could not be started", None)
        return run.exit_code or 125
    sys.stdout.write(run.name + "\n")
    sys.stdout.flush()
    if run.active:
        say(f"it goes on in the background; watch it with: dstack attach {run.name}")
    return 0
