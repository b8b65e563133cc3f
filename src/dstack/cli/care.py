"""Every command that looks at runs makes sure that somebody looks after them."""

from __future__ import annotations

from collections.abc import Iterable

from ..store.runs import Stored
from ..supervise.spawn import ensure_background
from ..supervise.step import Supervisor


def care_for(supervisor: Supervisor, found: Iterable[Stored]) -> None:
    """Start the background supervisor when an active run has no one: its watcher was killed."""
    for stored in found:
        if stored.run.active and supervisor.leases.take(stored.seq):
            supervisor.leases.drop(stored.seq)
            ensure_background(supervisor.home, supervisor.leases)
            return
