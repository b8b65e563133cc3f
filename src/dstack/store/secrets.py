"""Secrets: encrypted in the database, with a key that lies in a file of its own beside it.

A sealed blob is libsodium's `crypto_secretbox` (XSalsa20-Poly1305: nonce, tag, text) over names and
values, each ended by NUL, which neither can hold because environment variables cannot.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

from ..errors import CannotStart, StoreError, UsageError
from ..paths import Home
from .database import Database, explain

if TYPE_CHECKING:
    from nacl.secret import SecretBox

LARGEST = 64 * 1024  # bytes of one value; Linux gives 128 KiB to one environment variable
_KEY_SIZE = 32  # crypto_secretbox_KEYBYTES


class Vault:
    """The user's secrets, and the sealing of other values that must not lie about in the clear.

    Every method raises StoreError when the database or the key cannot be read or written.
    """

    def __init__(self, home: Home, database: Database) -> None:
        self._path = home.key
        self._database = database
        self._box: SecretBox | None = None

    def set(self, name: str, value: str) -> None:
        """Keep a secret, in place of the one of that name. Raises UsageError for a bad one."""
        check_name(name)
        _check_value(name, value)
        blob = self.seal({name: value})
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT INTO secrets (name, blob, updated_at) VALUES (?, ?, ?)"
                " ON CONFLICT (name) DO UPDATE"
                " SET blob = excluded.blob, updated_at = excluded.updated_at",
                (name, blob, time.time()),
            )

    def names(self) -> list[str]:
        """The names of all secrets, sorted."""
        return [cast(str, row[0]) for row in self._rows("SELECT name FROM secrets ORDER BY name")]

    def delete(self, name: str) -> bool:
        """Forget a secret; whether there was one. Needs no key."""
        with self._database.transaction() as connection:
            done = connection.execute("DELETE FROM secrets WHERE name = ?", (name,))
            return done.rowcount > 0

    def get_many(self, names: Iterable[str]) -> dict[str, str]:
        """The values of these secrets. Raises CannotStart when one does not exist (any more)."""
        found = {}
        for name in names:
            rows = self._rows("SELECT blob FROM secrets WHERE name = ?", name)
            if not rows:
                message = f"there is no secret called {name}"
                raise CannotStart(message, hint=f"set it with `dstack secrets set {name}`")
            opened = self._unseal(cast(bytes, rows[0][0]), f"the secret {name}")
            if name not in opened:
                raise _unreadable(f"the secret {name}", self._path)
            found[name] = opened[name]
        return found

    def seal(self, values: Mapping[str, str]) -> bytes:
        """Names and values, encrypted. Raises UsageError for what no variable can hold."""
        box = self._open_box(create=True)
        text = b"".join(_encode(name) + b"\0" + _encode(values[name]) + b"\0" for name in values)
        return bytes(box.encrypt(text))

    def open(self, blob: bytes) -> dict[str, str]:
        """What `seal` was given."""
        return self._unseal(blob, "what was taken from the submitting shell")

    def _unseal(self, blob: bytes, what: str) -> dict[str, str]:
        from nacl.exceptions import CryptoError

        box = self._open_box(create=False)
        try:
            *parts, last = box.decrypt(bytes(blob)).split(b"\0")
        # ValueError: shorter than a nonce. TypeError: the column holds no bytes.
        except (CryptoError, ValueError, TypeError):
            raise _unreadable(what, self._path) from None
        if last or len(parts) % 2:
            raise _unreadable(what, self._path)
        texts = [part.decode("utf-8", "surrogateescape") for part in parts]
        return dict(zip(texts[::2], texts[1::2], strict=True))

    def _open_box(self, *, create: bool) -> SecretBox:
        if self._box is None:
            from nacl.secret import SecretBox

            self._box = SecretBox(self._key(create=create))
        return self._box

    def _key(self, *, create: bool) -> bytes:
        key = _read_key(self._path)
        if key is None and create and not self._rows("SELECT 1 FROM secrets LIMIT 1"):
            _make_key(self._path)
        # Read again in any case: another command may have made key and secret since the first look.
        key = key or _read_key(self._path)
        if key is None:
            message = f"the key that opens the secrets is missing: {self._path}"
            hint = "put it back from a copy, or delete every secret and set it again"
            raise StoreError(message, hint=hint)
        return key

    def _rows(self, query: str, *values: object) -> list[tuple[object, ...]]:
        try:
            return self._database.connection.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise explain(error, self._database.path) from None


def check_name(name: str) -> None:
    """Raise UsageError unless a secret can be called that."""
    if not (name.isascii() and name.isidentifier()):
        hint = "use letters, digits and underscores, with no digit first"
        raise UsageError(f"{name!r} cannot be a secret's name", hint=hint)


def _check_value(name: str, value: str) -> None:
    if not value:
        raise UsageError(
            f"the value of {name} is empty",
            hint=f"`dstack secrets delete {name}` removes a secret",
        )
    if len(_encode(value)) > LARGEST:
        raise UsageError(
            f"the value of {name} is larger than {LARGEST // 1024} KB",
            hint="put a file that large where the run can fetch it, and keep its password here",
        )


def _encode(text: str) -> bytes:
    """The bytes that the shell gave. Raises UsageError where no environment can hold them."""
    if "\0" in text:
        raise UsageError("a value holds a NUL byte, which no environment variable can")
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise UsageError("a value holds half a surrogate pair, which is no text") from None


def _unreadable(what: str, key: Path) -> StoreError:
    return StoreError(
        f"{what} cannot be decrypted: it is damaged, or {key} is another key",
        hint="put the right key back from a copy, or set the secret again",
    )


def _read_key(path: Path) -> bytes | None:
    """The key; None where there is none."""
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            if found.st_uid == os.geteuid() and stat.S_IMODE(found.st_mode) & 0o077:
                os.fchmod(file.fileno(), 0o600)
            key = file.read(_KEY_SIZE + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        message = f"the key that opens the secrets cannot be read: {path}: {error.strerror}"
        raise StoreError(message) from None
    if len(key) != _KEY_SIZE:
        message = f"the key that opens the secrets is damaged: {path}"
        hint = "put it back from a copy, or remove it, delete every secret and set it again"
        raise StoreError(message, hint=hint)
    return key


def _make_key(path: Path) -> None:
    """Put a new key there, whole or not at all; a key that is there already stays."""
    aside = f"{path}.{os.getpid()}.{os.urandom(4).hex()}"
    try:
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(os.urandom(_KEY_SIZE))
                file.flush()
                os.fsync(file.fileno())
            # Unlike a rename, a link fails where another command was faster.
            os.link(aside, path)
        except FileExistsError:
            pass
        finally:
            os.unlink(aside)
    except OSError as error:
        message = f"the key for secrets cannot be written: {path}: {error.strerror}"
        raise StoreError(message, hint="make room, or set DSTACK_HOME to another folder") from None
