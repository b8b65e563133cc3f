"""Brings a project's index up to date with its folder, and writes the tree it stands for."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Callable

from ..errors import DstackError
from ..text import size
from .listing import Listing, Question
from .project import FOLDERS_FILE, FOLDERS_HEAD, Project, State
from .store import EMPTY_TREE

_MARK = b".dstack-nested"  # makes git look into a nested repository; gone when the update is done
_EMPTY_BLOB = b"e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
_LARGE = 100_000_000  # bytes of new content that are worth a sentence
_PACK_FILES, _PACK_BYTES = 200, 32_000_000  # from here on one pack is faster than loose objects
_PACK_GIT = (2, 36)  # the first git whose update-index writes one pack for all files
_DEPTH = 20  # repositories inside repositories inside ...


class Progress:
    """How far the sending of new content is: bytes."""

    __slots__ = ("done", "total")

    def __init__(self, done: int, total: int) -> None:
        self.done = done
        self.total = total


class Update:
    """One attempt to bring the index up to date, with the index locked by `lock`."""

    def __init__(
        self,
        project: Project,
        lock: int,
        progress: Callable[[Progress], None] | None,
        notice: Callable[[str], None] | None,
    ) -> None:
        self._project = project
        self._lock = lock
        self._progress = progress
        self._notice = notice or (lambda _: None)
        self._folder = os.fsencode(project.folder) + b"/"
        prefix = os.fsencode(os.path.relpath(project.folder, project.top))
        self._prefix = b"" if prefix == b"." else prefix + b"/"
        self.sent = 0  # bytes of content that the store may not have had

    def run(self, state: State, listing: Listing | None) -> State:
        """Make the index as the folder is; `listing` is what differs, None where it must be asked.

        Raises GitFailed when a file changed under our hands or the index is damaged, DstackError
        naming a file that cannot be read, StoreError when the disk is full.
        """
        project = self._project
        sound = project.checksum() == state.checksum
        listing, asked = self._look(state, listing)
        gone = listing.dropped
        files: list[bytes] = []
        sizes: dict[bytes, int] = {}
        skipped: list[bytes] = []
        for name in sorted(listing.changed):
            amount = self._size(name)
            if amount is not None and _git_refuses(name, os.path.islink(self._folder + name)):
                skipped.append(name)
            elif amount is None:
                gone.append(name)
            else:
                files.append(name)
                sizes[name] = amount
        if skipped:
            self._notice(f"not sent, the names are git's own: {_few(skipped)}")
        if gone:
            self._git("update-index", "--force-remove", "-z", "--stdin", stdin=_lines(gone))
        if files:
            self._add(files, sizes)
        if gone or listing.vague:  # what is left may be empty folders
            listing = Question(project, asked, thorough=True).answer()
        if not sound or listing.folders != state.folders:
            self._set_folders(listing.folders)
        return State(
            tree=self._write_tree(),
            checksum=project.checksum(),
            files=project.entries() - bool(listing.folders),
            folders=listing.folders,
            hidden=listing.hidden,
            nested=asked.nested,
            tracked=listing.tracked,
            ignore_files=asked.ignore_files,
        )

    def _look(self, state: State, listing: Listing | None) -> tuple[Listing, State]:
        """What differs, and what was known when it was asked for the last time.

        Repositories inside the folder are looked into, and ignore files that came to light
        are honoured, which takes another round.
        """
        nested = {name: None for name in state.nested if os.path.lexists(self._folder + name)}
        asked = State(nested=tuple(nested), ignore_files=state.ignore_files)
        for _ in range(_DEPTH):
            if listing is None or listing.vague:
                listing = Question(self._project, asked, thorough=True).answer()
            fresh = [name for name in listing.unseen if not _git_refuses(name, link=False)]
            ignored = asked.ignore_files or _holds_ignore_file(listing.changed)
            if not fresh and ignored == asked.ignore_files:
                return listing, asked
            nested.update((name, None) for name in fresh)
            asked = State(nested=tuple(nested), ignore_files=ignored)
            marks = (b"100644 %b\t%b%b/%b" % (_EMPTY_BLOB, self._prefix, n, _MARK) for n in fresh)
            self._git("update-index", "-z", "--index-info", stdin=_lines(list(marks)))
            listing = None
        message = f"{self._project.folder} holds repositories nested too deeply"
        raise DstackError(message, hint="exclude them in .dstackignore")

    def _size(self, name: bytes) -> int | None:
        """Bytes of a file or link; None for what is gone or is something else now."""
        try:
            found = os.lstat(self._folder + name)
        except OSError:
            return None
        if stat.S_ISREG(found.st_mode) or stat.S_ISLNK(found.st_mode):
            return found.st_size
        if not stat.S_ISDIR(found.st_mode):
            self._notice(f"not sent, it is neither a file nor a link: {_few([name])}")
        return None

    def _git(self, *arguments: str, stdin: bytes = b"") -> bytes:
        project = self._project
        return project.store.git(
            *arguments,
            top=project.top,
            index=project.index,
            cwd=project.folder,
            hold=(self._lock,),
            stdin=stdin,
        )

    def _set_folders(self, folders: tuple[bytes, ...]) -> None:
        if not folders:
            self._git("update-index", "--force-remove", "--", os.fsdecode(FOLDERS_FILE))
            return
        text = FOLDERS_HEAD + _lines(list(folders))
        blob = self._git("hash-object", "-w", "--stdin", stdin=text).strip()
        entry = b"100644 %b\t%b%b" % (blob, self._prefix, FOLDERS_FILE)
        self._git("update-index", "-z", "--index-info", stdin=_lines([entry]))

    def _write_tree(self) -> str:
        if self._project.entries() == 0:
            return EMPTY_TREE
        options = [f"--prefix={os.fsdecode(self._prefix)}"] if self._prefix else []
        return self._git("write-tree", *options).decode("ascii").strip()

    def _add(self, files: list[bytes], sizes: dict[bytes, int]) -> None:
        total = sum(sizes.values())
        self.sent += total
        if total >= _LARGE:
            self._notice(_large(sizes, total))
        options: list[str] = []
        if (len(files) > _PACK_FILES or total > _PACK_BYTES) and self._version() >= _PACK_GIT:
            # Content larger than this goes into a pack, read piece by piece.
            options = ["-c", "core.bigFileThreshold=1"]
        process = self._start_add(options, files)
        reported = 0
        while True:
            try:
                output, complaint = process.communicate(timeout=0.1)
                break
            except subprocess.TimeoutExpired:
                done = min(_read_by(process.pid), total)
                if self._progress and done > reported:
                    reported = done
                    self._progress(Progress(done, total))
        if process.returncode:
            self._refuse_unreadable(files)
        self._project.store.checked("update-index", process.returncode, output, complaint)
        if self._progress and 0 < reported < total:
            self._progress(Progress(total, total))

    def _start_add(self, options: list[str], files: list[bytes]) -> subprocess.Popen[bytes]:
        project = self._project
        # A file, not a pipe: nobody has to feed it while progress is shown.
        names = project.store.projects / f"{project.key}.names"
        try:
            names.write_bytes(_lines(files))
            source = os.open(names, os.O_RDONLY | os.O_CLOEXEC)
            names.unlink()
        except OSError as error:
            raise project.store.unusable(error) from None
        try:
            return project.store.start(
                (*options, "update-index", "--add", "--remove", "--replace", "-z", "--stdin"),
                project.folder,
                project.top,
                project.index,
                hold=(self._lock,),
                stdin=source,
            )
        finally:
            os.close(source)

    def _version(self) -> tuple[int, ...]:
        words = self._git("version").split()
        return tuple(int(part) for part in words[2].split(b".")[:2])

    def _refuse_unreadable(self, files: list[bytes]) -> None:
        for name in files:
            path = self._folder + name
            if os.path.islink(path):
                continue
            try:
                os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
            except FileNotFoundError:
                continue
            except OSError as error:
                message = f"cannot read {os.fsdecode(path)}: {error.strerror}"
                hint = "make it readable, or exclude it in .dstackignore"
                raise DstackError(message, hint=hint) from None


def _git_refuses(name: bytes, link: bool) -> bool:
    """Whether git takes no such path into an index: its own names (verify_path in git's source)."""
    parts = name.lower().split(b"/")
    return b".git" in parts or (link and parts[-1] == b".gitmodules")


def _holds_ignore_file(names: list[bytes]) -> bool:
    return any(name.rpartition(b"/")[2] == b".dstackignore" for name in names)


def _lines(names: list[bytes]) -> bytes:
    return b"".join(name + b"\0" for name in names)


def _few(names: list[bytes]) -> str:
    shown = ", ".join(ascii(os.fsdecode(name))[1:-1] for name in names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown


def _large(sizes: dict[bytes, int], total: int) -> str:
    """What is large: a file, or where no single file matters, the largest of the folders."""
    from collections import Counter

    name = max(sizes, key=sizes.__getitem__)
    largest = sizes[name]
    if largest < total / 10:
        folders: Counter[bytes] = Counter()
        for path, amount in sizes.items():
            folders[path.partition(b"/")[0] + b"/" if b"/" in path else path] += amount
        name, largest = folders.most_common(1)[0]
    return (
        f"uploading {size(total)}; largest: {_few([name])} {size(largest)}"
        " — add it to .gitignore if the run does not need it"
    )


def _read_by(pid: int) -> int:
    """Bytes that a process has read so far (`rchar` of proc(5)); 0 where that is not told."""
    try:
        with open(f"/proc/{pid}/io", "rb") as file:
            return int(file.readline().split()[1])
    except (OSError, IndexError, ValueError):
        return 0
