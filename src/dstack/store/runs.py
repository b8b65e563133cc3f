"""Runs as they are kept: every save is guarded by its version and writes its history."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import cast

import msgspec

from ..errors import DstackError, UsageError
from ..run.events import Event
from ..run.model import Run
from ..run.states import apply
from .database import Database

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Run).decode


class Conflict(DstackError):
    """Somebody else saved the run in between: load it again and derive anew."""

    transient = True


class NameTaken(UsageError):
    """An active run has this name."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"a run called {name} is active",
            hint=f"choose another name with -n, or stop it first: dstack stop {name}",
        )


class Stored:
    """A run and its place in the database (`seq`, from 1: the byte of its lease)."""

    __slots__ = ("run", "seq")

    def __init__(self, seq: int, run: Run) -> None:
        self.seq = seq
        self.run = run


class Runs:
    """All runs of one dstack folder."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def _many(self, query: str, **values: object) -> list[Stored]:
        rows = self.database.rows(query, **values)
        return [Stored(cast(int, seq), _decode(cast(str, doc))) for seq, doc in rows]

    def add(self, run: Run, claim: Callable[[int], object], *, unheard: bool = False) -> Stored:
        """Keep a new run. Raises NameTaken.

        `claim(seq)` is called before anybody else can see the run: it takes the lease. `unheard`:
        the name was made up, so that not even a finished run may have it.
        """
        values = self._values(run)
        try:
            with self.database.transaction() as connection:
                if unheard and self.database.rows("run_by_name", name=run.name):
                    raise NameTaken(run.name)
                cursor = connection.execute(self.database.queries["insert_run"], values)
                seq = cast(int, cursor.lastrowid)
                claim(seq)
                return Stored(seq, run)
        except sqlite3.IntegrityError:
            raise NameTaken(run.name) from None

    @staticmethod
    def _values(run: Run) -> dict[str, object]:
        return {
            "id": run.id,
            "name": run.name,
            "active": int(run.active),
            "version": run.version,
            "submitted_at": run.submitted_at,
            "finished_at": run.finished_at,
            "doc": _encode(run).decode(),
        }

    def record(self, run: Run, event: Event) -> Run:
        """Apply the event to `run` and save both.

        Raises IllegalEvent, Conflict (the stored version is another), NameTaken (a restart).
        """
        after = apply(run, event)
        values = self._values(after)
        happened = {
            "run_id": run.id,
            "version": after.version,
            "at": event.at,
            "event": _encode(event).decode(),
        }
        try:
            with self.database.transaction() as connection:
                done = connection.execute(self.database.queries["update_run"], values)
                if done.rowcount != 1:
                    message = f"run {run.name} was changed by another command"
                    raise Conflict(message)
                connection.execute(self.database.queries["insert_history"], happened)
        except sqlite3.IntegrityError:
            raise NameTaken(run.name) from None
        return after

    def forget(self, run: Run) -> None:
        """Delete a finished run and its history."""
        with self.database.transaction() as connection:
            done = connection.execute(self.database.queries["delete_run"], {"id": run.id})
            if done.rowcount:
                connection.execute(self.database.queries["delete_history"], {"id": run.id})

    def get(self, run_id: str) -> Stored | None:
        """The run with this id."""
        found = self._many("run_by_id", id=run_id)
        return found[0] if found else None

    def find(self, name: str) -> Stored:
        """The active run of this name, else the newest; an id is a name too. Raises UsageError."""
        found = self._many("run_by_name", name=name) or self._many("run_by_id", id=name)
        if not found:
            message = f"there is no run called {name}"
            raise UsageError(message, hint="`dstack ps -a` lists all runs")
        return found[0]

    def active(self) -> list[Stored]:
        """All that have not ended, oldest first."""
        return self._many("runs_active")

    def all(self) -> list[Stored]:
        """All runs, oldest first."""
        return self._many("runs_all")

    def latest_finished(self) -> Stored | None:
        """The run that ended last."""
        found = self._many("run_latest_finished")
        return found[0] if found else None

    def count_active(self) -> int:
        """How many have not ended."""
        return cast(int, self.database.rows("count_active")[0][0])

    def names(self, prefix: str) -> list[str]:
        """Names that begin with `prefix`, at most 500."""
        rows = self.database.rows("names", prefix=prefix, end=prefix + "\U0010ffff")
        return [cast(str, row[0]) for row in rows]
