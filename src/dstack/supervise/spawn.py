"""Starting the background supervisor, when nobody looks after an active run."""

from __future__ import annotations

import os
import subprocess
import sys

from ..paths import Home
from .lease import BACKGROUND, Leases


def ensure_background(home: Home, leases: Leases) -> None:
    """Start it, unless it is there. Returns at once; two at once end up as one."""
    if not leases.take(BACKGROUND):
        return
    leases.drop(BACKGROUND)
    log = os.open(home.supervisor_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        subprocess.Popen(
            [sys.executable, "-m", "dstack.supervise"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env={**os.environ, "DSTACK_HOME": str(home.root)},
            start_new_session=True,
        )
    finally:
        os.close(log)
