"""The builds that are kept, and which of them a run can start from.

```
HOME/builds/
  lock          shared: a run is being given a build; exclusive: one is made known, or deleted
  RUN_ID/       one build, by the id of the run that made it
    build.json  what it is
    inputs      the files that it read, and their content (run/builds.py)
    env/, files/, gone, spare/      what it left (engines/builds.py)
    used        touched by every run that starts from it
  .new-RUN_ID/  one that is being kept; .old-RUN_ID/ one that is being deleted
```
A build appears by a rename, whole or not at all.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

import msgspec

from ..errors import StoreError
from ..paths import Home
from ..run.builds import Build, Entries, Inputs, changed_input, changed_part, untouched

_NEW, _OLD = ".new-", ".old-"
_decode = msgspec.json.Decoder(Build).decode


class Found(msgspec.Struct, frozen=True):
    """The build that fits, or why none does: `why` is about the one that is nearest."""

    build: Build | None
    why: str | None = None


class Code(Protocol):
    """What is to be known of the code that a run would have."""

    tree: str

    def entries(self) -> Entries:
        """Its files."""
        ...

    def changes(self, old: str) -> list[tuple[bytes, bytes]] | None:
        """What differs from another tree; None where that is not known any more."""
        ...


class Builds:
    """All builds of one dstack folder."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._root = home.builds

    @contextlib.contextmanager
    def held(self, *, alone: bool = False) -> Iterator[None]:
        """Nobody deletes a build meanwhile; `alone`: nobody else does anything with builds."""
        try:
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(self._root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        except OSError as error:
            raise self._unusable(error) from None
        try:
            yield
        finally:
            os.close(lock)

    def all(self) -> list[Build]:
        """All that are whole, oldest first."""
        try:
            names = [name for name in os.listdir(self._root) if not name.startswith(".")]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self._unusable(error) from None
        found = [build for name in names if (build := self.get(name)) is not None]
        return sorted(found, key=lambda build: build.created)

    def get(self, build_id: str) -> Build | None:
        """One of them; None where it is not there, or its record is damaged."""
        try:
            return _decode((self._home.build(build_id) / "build.json").read_bytes())
        except (OSError, msgspec.DecodeError):
            return None

    def find(
        self,
        parts: Mapping[str, str],
        code: Code,
        near: Callable[[Build], bool],
    ) -> Found:
        """The newest build with this fixed part whose files are what they are in `code`.

        `near` says which builds the user may have expected to fit.
        """
        why: str | None = None
        for build in reversed(self.all()):
            changed = changed_part(build.parts, parts)
            if changed is None:
                changed = self._changed(build, code)
            if changed is None:
                return Found(build)
            if why is None and near(build):
                why = changed
        return Found(None, why)

    def why_not(self, build: Build, parts: Mapping[str, str], code: Code) -> str | None:
        """What keeps this build from being used; None: nothing does."""
        return changed_part(build.parts, parts) or self._changed(build, code)

    def _changed(self, build: Build, code: Code) -> str | None:
        folder = self._home.build(build.id)
        env = folder / "env"
        if env.is_dir() and not (env / "bin" / "python").exists():
            return "its Python is not there any more"
        if build.tree == code.tree:
            return None
        inputs = self.inputs(build.id)
        if inputs is None:
            return "its record is damaged"
        changes = code.changes(build.tree)
        if changes is not None and untouched(inputs, changes):
            return None
        return changed_input(inputs, code.entries())

    def inputs(self, build_id: str) -> Inputs | None:
        """What a build read; None where that cannot be told."""
        try:
            return Inputs.decode((self._home.build(build_id) / "inputs").read_bytes())
        except (OSError, ValueError):
            return None

    def aside(self, build_id: str) -> Path:
        """Where a build is put together before `keep`."""
        return self._root / f"{_NEW}{build_id}"

    def keep(self, build: Build, inputs: Inputs) -> None:
        """Make known what was put together aside. Raises StoreError."""
        aside = self.aside(build.id)
        try:
            (aside / "inputs").write_bytes(inputs.encode())
            (aside / "used").touch()
            (aside / "build.json").write_bytes(msgspec.json.encode(build))
            aside.rename(self._home.build(build.id))
        except OSError as error:
            raise self._unusable(error) from None

    def touch(self, build_id: str) -> None:
        """Note that it was used now."""
        with contextlib.suppress(OSError):
            os.utime(self._home.build(build_id) / "used")

    def used(self, build: Build) -> float:
        """When it was used last, in seconds since the epoch."""
        try:
            return (self._home.build(build.id) / "used").stat().st_mtime
        except OSError:
            return build.created

    def discard(self, build_id: str) -> None:
        """Delete a build: from the first moment on nobody finds it. Raises StoreError."""
        folder, aside = self._home.build(build_id), self._root / f"{_OLD}{build_id}"
        try:
            folder.rename(aside)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise self._unusable(error) from None
        self._remove(aside)

    def sweep(self, active: set[str]) -> None:
        """Delete what killed commands left half-made, and what is damaged.

        `active` are the runs that may be making one.
        """
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(self._root):
                made_by = name.removeprefix(_NEW)
                left = made_by not in active if name.startswith(_NEW) else name.startswith(_OLD)
                damaged = not name.startswith(".") and name != "lock" and self.get(name) is None
                if left or damaged:
                    self._remove(self._root / name)

    def _remove(self, folder: Path) -> None:
        from ..errors import HostError
        from ..hosts.local import LocalHost

        try:
            LocalHost().delete(folder)
        except HostError as error:
            raise StoreError(error.message, hint="delete it with the rights of its owner") from None

    def _unusable(self, error: OSError) -> StoreError:
        message = f"cannot use the builds in {self._root}: {error.strerror}"
        return StoreError(message, hint="free some space, or set DSTACK_HOME to another folder")
