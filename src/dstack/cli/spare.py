"""Making in advance what the next run needs, when a command has nothing else to do any more."""

from __future__ import annotations

import os
from pathlib import Path

from ..paths import Home
from ..run.model import Run
from ..snapshot import Snapshots

_NICENESS = 19  # whoever works now goes first


def leave_spare(home: Home, snapshots: Snapshots, run: Run) -> None:
    """Make the project's spare checkout and its build's spare environment.

    In a process that outlives this command, which returns at once.

    A forked child and not a new Python: it costs a millisecond. It touches nothing that the
    parent shares with it (the database, the terminal), and leaves by `_exit`.
    """
    if run.tree is None or run.plan.remote is not None or not hasattr(os, "fork"):
        return
    if run.build is None and not snapshots.wants_spare(run.tree):
        return  # as with all but one of many runs at once
    try:
        if os.fork() != 0:
            return
    except OSError:
        return
    try:
        os.setsid()
        os.nice(_NICENESS)
        # Whoever reads our output must see its end when the command ends.
        nothing = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nothing, descriptor)
        snapshots.prepare_spare(Path(run.plan.project), run.tree)
        if run.build is not None:
            from ..engines.builds import make_spare

            make_spare(home.build(run.build))
    finally:
        os._exit(0)
