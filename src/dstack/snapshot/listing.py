"""What differs between a project's folder and its index, as several git commands at once tell it.

Facts that this rests on, from git's documentation (git-ls-files(1), git-diff-files(1)) and tests:
`ls-files --others` names a repository inside the folder as `name/` unless the index already holds
a file below it; `diff-files` compares stat data in several threads, and content where stat data
may be too young to be trusted ("racily clean").
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from ..digest import digest
from ..errors import DstackError
from .project import FOLDERS_FILE, Project, State
from .store import clean_environ, start

_GIT_IGNORE = "--exclude-per-directory=.gitignore"
_OWN_IGNORE = "--exclude-per-directory=.dstackignore"
_FOLDERS = ("ls-files", "-z", "--others", "--directory")
_NESTED = "nested:"
_UNREADABLE_HINT = "make it readable, or exclude it in .dstackignore"


class Listing:
    """The names of what must change in the index, relative to the project's folder.

    `changed` may be modified, gone or new; `dropped` are in the index but excluded now. `unseen`
    are repositories inside the folder of which the index holds nothing yet, and `tracked` is a
    fingerprint of what the other ones track. `folders` are the empty ones. `hidden` says that there
    are others of which git named nothing but the folder, and `vague` that something in them may
    have to be sent.
    """

    __slots__ = ("changed", "dropped", "folders", "hidden", "tracked", "unseen", "vague")

    def __init__(
        self, changed: list[bytes], dropped: list[bytes], unseen: list[bytes], tracked: str
    ) -> None:
        self.changed = changed
        self.dropped = dropped
        self.unseen = unseen
        self.tracked = tracked
        self.folders: tuple[bytes, ...] = ()
        self.hidden = False
        self.vague = False


class Question:
    """The git commands that have been asked, and what they answer. All of them only read."""

    def __init__(self, project: Project, state: State, *, thorough: bool = False) -> None:
        self._thorough = thorough
        self._project = project
        self._state = state
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._ignore = (_GIT_IGNORE, *project.excludes())
        self._own = state.ignore_files or (project.folder / ".dstackignore").exists()
        try:
            self._start()
        except BaseException:
            self.cancel()
            raise

    def _start(self) -> None:
        # The slowest first.
        self._ask("modified", "diff-files", "--name-only", "--relative", "-z")
        self._ask("folders", *_FOLDERS, *self._ignore)
        if self._thorough or self._own or self._state.hidden:
            self._ask("new", "ls-files", "-z", "--others", *self._ignore)
        self._ask("excluded", "ls-files", "-z", "--cached", "--ignored", *self._ignore)
        if (self._project.top / ".git").exists():
            self._ask_user("tracked", b".", "--ignored", _GIT_IGNORE)
        for name in self._state.nested:
            self._ask_user(_NESTED + os.fsdecode(name), name)
        if self._own:
            self._ask("folders-own", *_FOLDERS, _OWN_IGNORE)
            self._ask("new-own", "ls-files", "-z", "--others", _OWN_IGNORE)
            self._ask("excluded-own", "ls-files", "-z", "--cached", "--ignored", _OWN_IGNORE)

    def _ask(self, label: str, *arguments: str) -> None:
        project = self._project
        environ = project.store.environ(project.top, project.index)
        self._running[label] = start(arguments, project.folder, environ)

    def _ask_user(self, label: str, inside: bytes, *arguments: str) -> None:
        """Ask the user's own repository what it tracks: that is code, whatever ignores it."""
        folder = self._project.folder / os.fsdecode(inside)
        if not (folder / ".git").exists() and inside != b".":
            return
        # The answer holds whoever owns the repository, and no program of its configuration runs.
        options = ("-c", "safe.directory=*", "-c", "core.fsmonitor=false")
        command = (*options, "ls-files", "-z", "--cached", *arguments)
        self._running[label] = start(command, folder, clean_environ())

    def cancel(self) -> None:
        """End the commands that still run."""
        for process in self._running.values():
            process.kill()
            process.communicate()
        self._running.clear()

    def answer(self) -> Listing:
        """Wait for the commands.

        Raises GitFailed when the index is damaged, DstackError naming a folder that cannot be
        read.
        """
        try:
            return self._answer()
        finally:
            self.cancel()

    def _answer(self) -> Listing:
        modified = [name for name in self._names("modified") if name != FOLDERS_FILE]
        shown = self._names("folders")
        full = "new" in self._running
        new = self._names("new") if full else [name for name in shown if name[-1:] != b"/"]
        excluded, dropped = set(self._names("excluded")) - {FOLDERS_FILE}, set[bytes]()
        forced = self._user_names("tracked")
        nested, fingerprint = self._nested_names()
        tracked = {*forced, *nested}
        if fingerprint != self._state.tracked:
            forced += nested  # else the index holds them already
        forced = [name for name in forced if name not in excluded]
        dropped.update(name for name in excluded if name not in tracked)
        if self._own:
            wanted = set(self._names("new-own"))
            new = [name for name in new if name in wanted]
            forced = [name for name in forced if name in wanted]
            dropped.update(self._names("excluded-own"))
            dropped.discard(FOLDERS_FILE)
            also = set(self._names("folders-own"))
            shown = [name for name in shown if name in also]
        changed = {name: None for name in modified if name not in dropped}
        changed.update((name, None) for name in new if not name.endswith(b"/"))
        unseen = [name[:-1] for name in new if name.endswith(b"/")]
        for name in forced:
            self._sort_forced(name, changed, unseen)
        listing = Listing(list(changed), list(dropped), unseen, fingerprint)
        self._sort_folders(listing, [name for name in shown if name[-1:] == b"/"], new, full)
        return listing

    def _sort_folders(
        self, listing: Listing, shown: list[bytes], new: list[bytes], full: bool
    ) -> None:
        folders: list[bytes] = []
        for name in shown:
            path = os.path.join(os.fsencode(self._project.folder), name)
            bare = _bare_folders(path)
            if bare is not None:
                folders += [(name + below).rstrip(b"/") for below in bare]
            elif not _excludes_all(path):
                listing.hidden = True
                if not full or any(other.startswith(name) for other in new):
                    listing.vague = True
        listing.folders = tuple(sorted(folders))
        if not full and any(map(self._is_folder, listing.changed)):
            listing.vague = True  # git shows no folder that has the name of a file in the index

    def _is_folder(self, name: bytes) -> bool:
        path = os.path.join(os.fsencode(self._project.folder), name)
        return os.path.isdir(path) and not os.path.islink(path)

    def _sort_forced(self, name: bytes, changed: dict[bytes, None], unseen: list[bytes]) -> None:
        path = os.path.join(os.fsencode(self._project.folder), name)
        if not self._is_folder(name):
            if os.path.lexists(path):
                changed[name] = None
        elif name not in self._state.nested and os.path.lexists(path + b"/.git"):
            unseen.append(name)

    def _nested_names(self) -> tuple[list[bytes], str]:
        """What the repositories inside the folder track, and a fingerprint of it."""
        names: list[bytes] = []
        for label in [label for label in self._running if label.startswith(_NESTED)]:
            inside = os.fsencode(label[len(_NESTED) :]) + b"/"
            names += [inside + name for name in self._user_names(label)]
        fingerprint = digest(b"\0".join(names))
        return names, fingerprint

    def _names(self, label: str) -> list[bytes]:
        process = self._running.pop(label)
        output, complaint = process.communicate()
        self._project.store.checked(label, process.returncode, output, complaint)
        _refuse_unreadable(self._project.folder, complaint)
        return [name for name in output.split(b"\0") if name]

    def _user_names(self, label: str) -> list[bytes]:
        process = self._running.pop(label, None)
        if process is None:
            return []
        output, _ = process.communicate()
        # A repository that git cannot read (broken, a version too new) is a folder as any other.
        if process.returncode != 0:
            return []
        return [name for name in output.split(b"\0") if name]


def _bare_folders(folder: bytes) -> list[bytes] | None:
    """The innermost folders of one that holds only folders, relative; else None."""
    found: list[bytes] = []
    for where, folders, files in os.walk(folder, onerror=_unreadable):
        folders[:] = [name for name in folders if name != b".git"]
        if set(files) - {b".git"} or any(
            os.path.islink(os.path.join(where, name)) for name in folders
        ):
            return None
        if not folders:
            found.append(os.path.relpath(where, folder) if where != folder else b"")
    return found


def _unreadable(error: OSError) -> None:
    if isinstance(error, FileNotFoundError):
        return
    name = os.fsdecode(error.filename).rstrip("/")
    message = f"cannot read the folder {name}: {error.strerror}"
    raise DstackError(message, hint=_UNREADABLE_HINT)


def _excludes_all(folder: bytes) -> bool:
    """Whether the folder's own .gitignore says `*` alone, as those of environments and caches."""
    try:
        with open(os.path.join(folder, b".gitignore"), "rb") as file:
            lines = file.read(500).splitlines()
    except OSError:
        return False
    return [line for line in lines if line and not line.startswith(b"#")] == [b"*"]


def _refuse_unreadable(folder: Path, complaint: bytes) -> None:
    """Git leaves a folder that it cannot read out, with a warning: for us that is an error."""
    for line in os.fsdecode(complaint).splitlines():
        head, _, rest = line.partition("could not open directory '")
        name, _, why = rest.rpartition("': ")
        if head.startswith("warning: ") and name:
            message = f"cannot read the folder {folder / name}: {why}"
            raise DstackError(message, hint=_UNREADABLE_HINT)
