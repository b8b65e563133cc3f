"""Taking snapshots, and giving them back as folders."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import DstackError, StoreError
from ..paths import Home
from .listing import Listing, Question
from .project import FOLDERS_FILE, Project, repository_around
from .spare import Spares, make_folders
from .store import EMPTY_TREE, GitFailed, ObjectStore, remove_folder
from .update import Progress, Update

if TYPE_CHECKING:
    from ..hosts.base import Host
    from .send import Sender

_NEARLY_FULL = 64_000_000  # bytes
_KEY = 24  # of a project's key, in the names of folders on hosts
_ATTEMPTS = 4  # a file that changes while it is read is read again


class Snapshot:
    """What a folder held: `tree` names its content, `files` counts its files.

    `sent` is how many bytes of new or changed content were looked at: 0 when nothing changed.
    """

    __slots__ = ("files", "sent", "tree")

    def __init__(self, tree: str, files: int, sent: int) -> None:
        self.tree = tree
        self.files = files
        self.sent = sent


class Pending:
    """A snapshot being taken: the git commands run while the caller does something else."""

    def __init__(self, store: ObjectStore, folder: Path) -> None:
        self._store = store
        self._open(folder, repository_around(folder))

    def _open(self, folder: Path, top: Path) -> None:
        self._project = Project(self._store, folder, top)
        self._state = self._project.load()
        self._checksum = self._project.checksum()
        self._question = Question(self._project, self._state)

    def cancel(self) -> None:
        """Nothing is left running, and `prune` may delete what was not kept.

        To be called in any case, after `keep` where the snapshot is needed.
        """
        self._question.cancel()
        self._store.close()

    def finish(
        self,
        progress: Callable[[Progress], None] | None = None,
        notice: Callable[[str], None] | None = None,
    ) -> Snapshot:
        """The snapshot. `notice` gets sentences for people: what is large, what is not sent.

        Raises DstackError naming a file or folder that cannot be read, StoreError when the disk
        is full or cannot be written to.
        """
        snapshot = self._finish(progress, notice)
        project = self._project
        if snapshot.files == 0 and project.top != project.folder:
            # The repository around it ignores the whole folder: then its rules are not meant.
            self._open(project.folder, project.folder)
            snapshot = self._finish(progress, notice)
        return snapshot

    def _finish(
        self,
        progress: Callable[[Progress], None] | None,
        notice: Callable[[str], None] | None,
    ) -> Snapshot:
        project, state = self._project, self._state
        listing: Listing | None = None
        try:
            listing = self._question.answer()
        except GitFailed:
            pass  # a damaged index; below it is made anew
        else:
            if self._unchanged(listing):
                project.touch()
                return Snapshot(state.tree, state.files, 0)
        lock = project.lock()
        try:
            if project.checksum() != self._checksum:
                listing = None  # another command was here meanwhile
            return self._update(Update(project, lock, progress, notice), listing)
        finally:
            os.close(lock)

    def _unchanged(self, listing: Listing) -> bool:
        state, checksum = self._state, self._project.checksum()
        return (
            bool(checksum)
            and checksum == self._checksum == state.checksum
            and listing.tracked == state.tracked
            and listing.folders == state.folders
            and not (listing.changed or listing.dropped or listing.unseen or listing.vague)
        )

    def _update(self, update: Update, listing: Listing | None) -> Snapshot:
        project = self._project
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                state = update.run(project.load(), listing)
            except GitFailed as error:
                listing = None
                if attempt == _ATTEMPTS:
                    raise _given_up(project.folder, error) from None
                if attempt > 1:
                    project.forget()
            else:
                project.save(state)
                return Snapshot(state.tree, state.files, update.sent)
        raise AssertionError  # pragma: no cover - the loop returns or raises


def _given_up(folder: Path, error: GitFailed) -> DstackError:
    lines = os.fsdecode(error.stderr).strip().splitlines()
    message = f"cannot take a snapshot of {folder}: {lines[-1] if lines else error}"
    return DstackError(message, hint="does another program write there? try again when it is done")


class Snapshots:
    """The snapshots kept under one dstack folder."""

    def __init__(self, home: Home) -> None:
        self._store = ObjectStore(home.code)
        self._spares = Spares(self._store)

    def begin(self, project: Path) -> Pending:
        """Start taking a snapshot of the folder as it is now, and return at once.

        Raises DstackError when the folder or git is missing, StoreError for a store that cannot
        be made or is being pruned.
        """
        self._store.open()
        return Pending(self._store, Path(os.path.realpath(project)))

    def checkout(self, tree: str, target: Path) -> None:
        """Make the folder `target` with the tree's content; nothing when it is there already.

        It appears complete or not at all. Raises StoreError when the disk is full or the tree is
        not in the store.
        """
        if target.exists():
            return
        with self._store.opened():
            if not self._spares.take(tree, target):
                self._checkout(tree, target)

    def _checkout(self, tree: str, target: Path) -> None:
        aside = target.with_name(f"{target.name}.tmp-{os.getpid()}")
        try:
            aside.mkdir(parents=True)
            if tree != EMPTY_TREE:
                index = aside.with_name(f"{aside.name}.index")
                self._store.git("read-tree", "-u", "--reset", tree, top=aside, index=index)
                make_folders(aside)
            aside.rename(target)
        except OSError as error:
            if not target.exists():
                raise self._store.unusable(error) from None
        except GitFailed as error:
            if not target.exists():
                raise _not_checked_out(tree, target, error) from None
        finally:
            _clear(target)

    def send(
        self,
        project: Path,
        tree: str,
        host: Host,
        places: tuple[Path, Path],
        progress: Callable[[Progress], None] | None = None,
        *,
        fresh: bool = False,
    ) -> int:
        """Make a folder on another host with the tree's content; the bytes of content sent.

        `places` there are where the host keeps the code of projects, and the folder, which
        appears complete or not at all; `fresh`: it was never there. Raises HostError, StoreError.
        """
        with self._store.opened():
            sender = self._sender(project, host, places[0])
            try:
                return sender.lay(tree, places[1], progress, fresh=fresh)
            except GitFailed as error:
                raise _not_checked_out(tree, places[1], error) from None

    def foresee_send(self, project: Path, host: Host, code: Path) -> None:
        """A fresh run of the project will be sent there: the host may say what it has of it."""
        with self._store.opened():
            self._sender(project, host, code).foresee()

    def _sender(self, project: Path, host: Host, code: Path) -> Sender:
        from .send import Sender

        key = self._key(project)
        return Sender(self._store, key, host, code / f"{key[:_KEY]}-{self._store.name()}")

    def sent_as(self, project: Path | None) -> tuple[str, str]:
        """How the folders begin and end in which hosts keep the code of a project, or of all."""
        with self._store.opened():
            return (self._key(project)[:_KEY] if project else "", f"-{self._store.name()}")

    def _key(self, project: Path) -> str:
        folder = Path(os.path.realpath(project))
        return Project(self._store, folder, repository_around(folder)).key

    def entries(self, tree: str) -> dict[bytes, bytes]:
        """The files of a tree: name, and one word for mode and content.

        Raises StoreError when the tree is not in the store.
        """
        if tree == EMPTY_TREE:
            return {}
        with self._store.opened():
            top = self._store.root
            try:
                output = self._store.git("ls-tree", "-r", "-z", tree, top=top, index=top / "none")
            except GitFailed as error:
                raise _not_checked_out(tree, top, error) from None
        found = dict(line.split(b"\t", 1)[::-1] for line in output.split(b"\0")[:-1])
        found.pop(FOLDERS_FILE, None)
        return found

    def changes(self, old: str, new: str) -> list[tuple[bytes, bytes]] | None:
        """What differs between two trees: git-diff-tree's status letter and the file's name.

        None where one of them is not in the store any more.
        """
        with self._store.opened():
            top = self._store.root
            command = ("diff-tree", "-r", "-z", "--no-renames", "--name-status", old, new)
            try:
                output = self._store.git(*command, top=top, index=top / "none")
            except GitFailed:
                return None
        words = output.split(b"\0")[:-1]
        pairs = zip(words[::2], words[1::2], strict=True)
        return [(status, name) for status, name in pairs if name != FOLDERS_FILE]

    def keep(self, run_id: str, tree: str) -> None:
        """The run needs the tree: `prune` leaves it until `release`."""
        with self._store.opened():
            self._store.set_ref(f"runs/{run_id}", tree)

    def release(self, run_id: str) -> None:
        """The run needs its tree no longer. Doing it twice does no harm."""
        self._store.drop_ref(f"runs/{run_id}")

    def wants_spare(self, tree: str) -> bool:
        """Whether `prepare_spare` would find something to do; asked in microseconds."""
        return self._spares.wants(tree)

    def prepare_spare(self, project: Path, tree: str) -> None:
        """Check the tree out in advance: the next run of the project most likely needs it.

        For whoever has time: it takes as long as a checkout. Failures are silent.
        """
        project_key = self._key(project)
        with self._store.opened():
            self._spares.prepare(project_key, tree)

    def prune(self, project: Path | None = None, older_than: float | None = None) -> int:
        """Drop what no run needs: of one project or of all; the bytes freed.

        `older_than`: only of projects that were not used for so many seconds. Raises StoreBusy
        while a snapshot is being taken.
        """
        from .prune import prune

        return prune(self._store, project, older_than)

    def close(self) -> None:
        """What Pending.cancel does, for all snapshots that were begun."""
        self._store.close()


def _clear(target: Path) -> None:
    """Delete what this checkout and killed ones before it left beside the target."""
    names = os.listdir(target.parent) if target.parent.exists() else []
    for left in (target.with_name(n) for n in names if n.startswith(f"{target.name}.tmp-")):
        if left.is_dir():
            remove_folder(left)
        else:
            left.unlink(missing_ok=True)


def _not_checked_out(tree: str, target: Path, error: GitFailed) -> StoreError:
    lines = os.fsdecode(error.stderr).strip().splitlines()
    if b"unable to write file" in error.stderr:  # git does not say why
        space = os.statvfs(target.parent)
        if space.f_bavail * space.f_frsize < _NEARLY_FULL:
            message = f"cannot write the code to {target}: {os.strerror(errno.ENOSPC)}"
            return StoreError(message, hint="free some space, or set DSTACK_HOME to another folder")
    message = f"cannot check out {tree[:12]}: {lines[0] if lines else error}"
    return StoreError(message, hint="`dstack prune code` makes the store anew")
