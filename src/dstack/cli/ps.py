"""`dstack ps`: what runs, and what ran."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING

from ..text import ago, duration, say, show, table, terminal_columns, timestamp

if TYPE_CHECKING:
    from ..run.model import Run
    from ..store.runs import Stored
    from ..supervise.step import Supervisor

HELP = "list runs"


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `dstack ps`."""
    add = parser.add_argument
    add("name", metavar="NAME", nargs="?", help="this run only")
    add("-a", "--all", action="store_true", help="all runs, not only active ones and the latest")
    add("-v", "--verbose", action="store_true", help="say more about each")
    add("-w", "--watch", action="store_true", help="keep watching")
    add("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print the table, or JSON."""
    from ..supervise.build import make_supervisor

    supervisor = make_supervisor()
    if not args.watch:
        page = _page(supervisor, args)
        if page:
            show(page)
        else:
            say("no runs yet; `dstack run DIR` starts one")
        return 0
    try:
        _watch(supervisor, args)
    except KeyboardInterrupt:
        return 130
    return 0


def _watch(supervisor: Supervisor, args: argparse.Namespace) -> None:
    """Print again whenever something has changed, on a terminal in place."""
    # A question now and then, on a page that is drawn anew every second, would be no good.
    supervisor.sites.ask_nobody()
    terminal = sys.stdout.isatty()
    last = ""
    while True:
        page = _page(supervisor, args)
        if page != last or (terminal and not args.json):
            show(("\x1b[H\x1b[2J" if terminal else "") + page)
            sys.stdout.flush()
            last = page
        time.sleep(1.0)


def _page(supervisor: Supervisor, args: argparse.Namespace) -> str:
    runs = [stored.run for stored in _find(supervisor, args)]
    if args.json:
        import msgspec

        return msgspec.json.format(msgspec.json.encode([as_json(r) for r in runs])).decode()
    if args.verbose or not (runs or args.watch):
        return "\n".join(_details(run) for run in runs)
    return _table(runs)


def _find(supervisor: Supervisor, args: argparse.Namespace) -> list[Stored]:
    """The runs to show, looked at, newest first; a run that nobody looks after finds somebody."""
    if args.name is not None:
        found = [supervisor.runs.find(args.name)]
    elif args.all:
        found = supervisor.runs.all()
    else:
        found = supervisor.runs.active()
    supervisor.glance(found)
    for stored in found:
        if stored.run.active:
            supervisor.look(stored, unsaved=True)
    if args.name is None and not args.all:
        latest = supervisor.runs.latest_finished()
        seen = {stored.seq for stored in found}
        if latest is not None and latest.seq not in seen:
            found.append(latest)
    from .care import care_for

    care_for(supervisor, found)
    return sorted(found, key=lambda stored: stored.seq, reverse=True)


def as_json(run: Run) -> dict[str, object]:
    """The fields of `ps --json`, as docs/reference/runs.md lists them."""
    attempt = run.attempt
    return {
        "name": run.name,
        "id": run.id,
        "status": "unknown" if run.active and run.unknown_since is not None else run.status,
        "reason": run.reason,
        "message": _message(run),
        "exit_code": run.exit_code,
        "signal": run.signal,
        "oom": run.oom,
        "stage": run.plan.stage,
        "build": run.build,
        "backend": run.plan.backend,
        "engine": run.plan.engine,
        "image": run.plan.image,
        "image_id": _image_id(run),
        "python": run.plan.python,
        "ports": [{"run": inside, "local": local} for inside, local in run.ports],
        "attempt": attempt.number if attempt is not None else None,
        "project": run.plan.project,
        "dir": run.plan.workdir,
        "file": run.plan.file,
        "submitted_at": _time(run.submitted_at),
        "started_at": _time(run.started_at),
        "finished_at": _time(run.finished_at),
        "unknown_since": _time(run.unknown_since),
    }


def _message(run: Run) -> str | None:
    """How it ended, or why it does not go on, or why nobody knows."""
    return run.message or run.unknown_why or run.waiting


def _image_id(run: Run) -> str | None:
    for attempt in reversed(run.attempts):
        found = attempt.image_id or (attempt.exit.image_id if attempt.exit is not None else None)
        if found is not None:
            return found
    return None


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else timestamp(seconds)


def _status(run: Run) -> str:
    if run.active and run.unknown_since is not None:
        return "unknown"
    if run.status == "failed" and run.exit_code is not None:
        return f"failed ({run.exit_code})"
    return run.status


def _took(run: Run, now: float) -> str:
    if run.started_at is None:
        return "-"
    return duration(max((run.finished_at or now) - run.started_at, 0))


def _table(runs: list[Run]) -> str:
    now = time.time()
    rows = [
        [
            run.name,
            _status(run),
            run.plan.backend,
            ago(run.submitted_at, now),
            _took(run, now),
            _message(run) or _ports(run) or "",
        ]
        for run in runs
    ]
    headers = ["NAME", "STATUS", "BACKEND", "SUBMITTED", "TOOK", "NOTE"]
    return table(headers, rows, columns=terminal_columns(sys.stdout))


def _ports(run: Run) -> str:
    return ", ".join(f"127.0.0.1:{local}->{inside}" for inside, local in run.ports)


def _details(run: Run) -> str:
    from ..text import plain

    lines = [f"{run.name}  {_status(run)}"]
    for key, value in as_json(run).items():
        if value is None or value is False or value == [] or key in ("name", "status"):
            continue
        text = _ports(run) if key == "ports" else str(value)
        lines.append(f"  {key.replace('_', ' '):<14}{plain(text)}")
    return "\n".join(lines)
