"""Runs kept in memory: the same promises as `runs.Runs`, for tests and for trying things out."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import UsageError
from ..run.events import Event
from ..run.model import Run
from ..run.states import apply
from .runs import Conflict, NameTaken, Stored


class MemoryRuns:
    """All runs, and what happened to them, in two dictionaries."""

    def __init__(self) -> None:
        self._runs: dict[int, Run] = {}
        self.history: dict[str, list[Event]] = {}
        self._next = 1

    def _name_is_free(self, run: Run) -> bool:
        return not any(
            other.name == run.name and other.active and other.id != run.id
            for other in self._runs.values()
        )

    def _seq(self, run_id: str) -> int | None:
        return next((seq for seq, run in self._runs.items() if run.id == run_id), None)

    def add(self, run: Run, claim: Callable[[int], object], *, unheard: bool = False) -> Stored:
        """See Runs.add."""
        heard = unheard and any(other.name == run.name for other in self._runs.values())
        if heard or not self._name_is_free(run):
            raise NameTaken(run.name)
        seq = self._next
        claim(seq)
        self._next += 1
        self._runs[seq] = run
        return Stored(seq, run)

    def record(self, run: Run, event: Event) -> Run:
        """See Runs.record."""
        after = apply(run, event)
        seq = self._seq(run.id)
        if seq is None or self._runs[seq].version != run.version:
            message = f"run {run.name} was changed by another command"
            raise Conflict(message)
        if after.active and not self._name_is_free(after):
            raise NameTaken(run.name)
        self._runs[seq] = after
        self.history.setdefault(run.id, []).append(event)
        return after

    def forget(self, run: Run) -> None:
        """See Runs.forget."""
        seq = self._seq(run.id)
        if seq is not None and not self._runs[seq].active:
            del self._runs[seq]
            self.history.pop(run.id, None)

    def get(self, run_id: str) -> Stored | None:
        """See Runs.get."""
        seq = self._seq(run_id)
        return None if seq is None else Stored(seq, self._runs[seq])

    def find(self, name: str) -> Stored:
        """See Runs.find."""
        found = [(run.active, seq) for seq, run in self._runs.items() if run.name == name]
        if found:
            seq = max(found)[1]
            return Stored(seq, self._runs[seq])
        by_id = self.get(name)
        if by_id is None:
            message = f"there is no run called {name}"
            raise UsageError(message, hint="`dstack ps -a` lists all runs")
        return by_id

    def active(self) -> list[Stored]:
        """See Runs.active."""
        return [stored for stored in self.all() if stored.run.active]

    def all(self) -> list[Stored]:
        """See Runs.all."""
        return [Stored(seq, run) for seq, run in sorted(self._runs.items())]

    def latest_finished(self) -> Stored | None:
        """See Runs.latest_finished."""
        ended = [stored for stored in self.all() if not stored.run.active]
        return max(ended, key=lambda stored: stored.run.finished_at or 0.0, default=None)

    def count_active(self) -> int:
        """See Runs.count_active."""
        return len(self.active())

    def names(self, prefix: str) -> list[str]:
        """See Runs.names."""
        return sorted({run.name for run in self._runs.values() if run.name.startswith(prefix)})[
            :500
        ]
