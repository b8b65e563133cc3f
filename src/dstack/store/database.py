"""The SQLite database: how it is opened, migrated, locked, and how its errors are told."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import DstackError, StoreBusy, StoreError
from ..paths import Home

_HERE = Path(__file__).parent
# Seconds to wait for another command; thirty submissions at once need a fraction of one.
_BUSY = 15.0
# Bytes of the smallest page, and so of the smallest database (sqlite.org/fileformat.html).
_SMALLEST = 512


def _read_queries(text: str) -> dict[str, str]:
    """`-- name: NAME` blocks of `queries.sql`, by name."""
    found: dict[str, str] = {}
    for block in text.split("-- name: ")[1:]:
        name, _, body = block.partition("\n")
        found[name.strip()] = body.strip()
    return found


def explain(error: Exception, path: Path) -> DstackError:
    """What an SQLite error means to the person at the terminal."""
    text = str(error)
    if "locked" in text or "busy" in text:
        return StoreBusy(
            f"the database {path} is locked by another program",
            hint="try again when it is done; `fuser` names who holds it",
        )
    if "full" in text:
        return StoreError(f"the disk that holds {path} is full", hint="make room, then try again")
    if "readonly" in text or "unable to open" in text:
        return StoreError(
            f"the database {path} cannot be written: {text}",
            hint="set DSTACK_HOME to a folder that you can write to",
        )
    if "not a database" in text or "malformed" in text:
        return StoreError(
            f"{path} is damaged or not dstack's database",
            hint="move it away to start anew; the runs' folders beside it are kept",
        )
    return StoreError(f"the database {path} cannot be used: {text}")


class Database:
    """One connection, made and migrated on first use. Raises StoreError, StoreBusy."""

    def __init__(self, home: Home) -> None:
        self.path = home.database
        self.queries = _read_queries((_HERE / "queries.sql").read_text())
        try:
            size = os.stat(self.path).st_size if self.path.exists() else None
            if size is not None and 0 < size < _SMALLEST:
                # sqlite takes what is so short for empty, and would write over it.
                raise explain(sqlite3.DatabaseError("not a database"), self.path)
            if size is None:
                # sqlite would make it with the umask's mode.
                os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
            self.connection = sqlite3.connect(self.path, timeout=_BUSY, isolation_level=None)
            self._prepare()
        except sqlite3.Error as error:
            raise explain(error, self.path) from None
        except OSError as error:
            message = f"the database {self.path} cannot be opened: {error.strerror}"
            hint = "set DSTACK_HOME to a folder that you can write to"
            raise StoreError(message, hint=hint) from None

    def _prepare(self) -> None:
        run = self.connection.execute
        version = run("PRAGMA user_version").fetchone()[0]
        # NORMAL keeps the database whole through a power cut; only the last moments may be lost.
        run("PRAGMA synchronous = NORMAL")
        steps = sorted((_HERE / "migrations").glob("*.sql")) if version == 0 else []
        latest = 1
        if version > latest:
            message = f"the database {self.path} was written by a newer dstack"
            raise StoreError(message, hint="upgrade dstack")
        if steps:
            run("PRAGMA journal_mode = WAL")
            with self.transaction():
                # Another command may have migrated it between our look and our lock.
                done = run("PRAGMA user_version").fetchone()[0]
                for step in steps[done:]:
                    for statement in step.read_text().split(";\n"):
                        if statement.strip():
                            run(statement)
                run(f"PRAGMA user_version = {len(steps)}")

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Everything inside is written, or nothing is. Takes the write lock at once."""
        try:
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                yield self.connection
            except BaseException:
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")
                raise
            self.connection.execute("COMMIT")
        except sqlite3.IntegrityError:
            raise
        except sqlite3.Error as error:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            raise explain(error, self.path) from None

    def rows(self, query: str, **values: object) -> list[tuple[object, ...]]:
        """The rows of a query of `queries.sql`."""
        try:
            return self.connection.execute(self.queries[query], values).fetchall()
        except sqlite3.Error as error:
            raise explain(error, self.path) from None

    def changes(self) -> int:
        """A number that moves when another connection has written."""
        try:
            found = self.connection.execute("PRAGMA data_version").fetchone()
        except sqlite3.Error as error:
            raise explain(error, self.path) from None
        return int(found[0])

    def close(self) -> None:
        """Give the connection back."""
        self.connection.close()
