"""The object store: a bare git repository under dstack's folder, and git commands run on it.

```
HOME/code/
  name               this store's, for hosts that several machines send code to
  lock               shared: a snapshot is being taken or checked out; exclusive: prune
  store.git/         objects; refs/runs/RUN_ID and refs/projects/KEY name the trees that are needed
  projects/KEY       what is known of a project: see project.py
  spares/            checkouts made in advance: see spare.py
```
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import subprocess
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..errors import DstackError, StoreBusy, StoreError

EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"  # built into git
_PRUNE_WAIT = 10.0  # seconds
_GIT_FULL = b"Out of diskspace"  # what git's csum-file.c says of ENOSPC
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)

# core.fsync=none: after a power cut a damaged object is noticed and sent again, while fsync of
# every first snapshot would cost more than the snapshot itself.
_CONFIG = """\
[core]
\trepositoryFormatVersion = 0
\tfileMode = true
\tsymlinks = true
\tignoreCase = false
\tprecomposeUnicode = false
\tautocrlf = false
\tsafecrlf = false
\teol = lf
\tprotectNTFS = false
\tprotectHFS = false
\tlongpaths = true
\tcompression = 0
\tlooseCompression = 0
\tfsync = none
\tfsyncObjectFiles = false
\tlogAllRefUpdates = false
\thooksPath = /dev/null
\tfsmonitor = false
\tuntrackedCache = false
[pack]
\tcompression = 0
\twindow = 0
\twriteReverseIndex = false
[index]
\tversion = 2
\tsparse = false
[gc]
\tauto = 0
[maintenance]
\tauto = false
[checkout]
\tworkers = 2
\tthresholdForParallelism = 200
[advice]
\tobjectNameWarning = false
"""

# $GIT_DIR/info/attributes wins over every .gitattributes (gitattributes(5)).
_ATTRIBUTES = "* -text -eol -ident -filter -working-tree-encoding -merge -diff\n"


class GitFailed(Exception):
    """A git command exited with an error; `stderr` is what it said."""

    def __init__(self, command: str, code: int, stderr: bytes) -> None:
        super().__init__(f"git {command} exited with code {code}")
        self.command = command
        self.code = code
        self.stderr = stderr


def clean_environ() -> dict[str, str]:
    """The environment for git: nothing of the user's git settings, messages in English."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environ.update(
        GIT_CONFIG_GLOBAL=os.devnull,
        GIT_CONFIG_NOSYSTEM="1",
        GIT_ATTR_NOSYSTEM="1",
        GIT_OPTIONAL_LOCKS="0",
        GIT_TERMINAL_PROMPT="0",
        LC_ALL="C",
    )
    return environ


class ObjectStore:
    """`HOME/code`: made when it is first used."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.git_dir = root / "store.git"
        self.projects = root / "projects"
        self.spares = root / "spares"
        self._lock: int | None = None

    def open(self) -> None:
        """Make what is missing, and keep `prune` away until `close`."""
        try:
            if not (self.git_dir / "HEAD").exists():
                self._create()
            if self._lock is None:
                self._lock = self._locked(fcntl.LOCK_SH)
        except OSError as error:
            raise self.unusable(error) from None

    def close(self) -> None:
        """Let `prune` in again."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """Open for as long as it takes; a store that is open already stays so."""
        already = self._lock is not None
        self.open()
        try:
            yield
        finally:
            if not already:
                self.close()

    def name(self) -> str:
        """What tells this store from those of other machines, on a host that serves several."""
        path = self.root / "name"
        try:
            return path.read_text()
        except FileNotFoundError:
            pass
        aside = self.root / f"name.tmp-{os.getpid()}"
        try:
            aside.write_text(os.urandom(6).hex())
            with contextlib.suppress(FileExistsError):
                os.link(aside, path)  # of two at once the first one stays
            aside.unlink()
            return path.read_text()
        except OSError as error:
            raise self.unusable(error) from None

    def exclusive(self) -> int:
        """Hold the store alone: the lock's descriptor, to be closed. Raises StoreBusy."""
        self.close()
        try:
            return self._locked(fcntl.LOCK_EX)
        except OSError as error:
            raise self.unusable(error) from None

    def unusable(self, error: OSError) -> StoreError:
        """What to tell the user when the disk does not let us."""
        message = f"cannot use the code store {self.root}: {error.strerror}"
        return StoreError(message, hint="free some space, or set DSTACK_HOME to another folder")

    def _locked(self, kind: int) -> int:
        descriptor = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + _PRUNE_WAIT
        while True:
            try:
                fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    os.close(descriptor)
                    message = f"the code store {self.root} is in use by another dstack command"
                    raise StoreBusy(message, hint="try again when it has ended") from None
                time.sleep(0.02)
            else:
                return descriptor

    def _create(self) -> None:
        for folder in (self.projects, self.spares):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        aside = self.root / f"store.git.tmp-{os.getpid()}"
        for name in ("objects/info", "objects/pack", "refs/runs", "refs/projects", "info"):
            (aside / name).mkdir(parents=True, exist_ok=True)
        (aside / "config").write_text(_CONFIG)
        (aside / "info" / "attributes").write_text(_ATTRIBUTES)
        (aside / "HEAD").write_text("ref: refs/heads/none\n")
        try:
            aside.rename(self.git_dir)
        except OSError:
            remove_folder(aside)
            if not (self.git_dir / "HEAD").exists():  # else another command was first
                raise

    def sweep(self) -> None:
        """Delete what killed or failed git commands left half-written, unless one may run."""
        if self._lock is None:
            return
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return
        objects = self.git_dir / "objects"
        for left in (*objects.glob("pack/tmp_*"), *objects.glob("??/tmp_obj_*")):
            left.unlink(missing_ok=True)
        fcntl.flock(self._lock, fcntl.LOCK_SH)

    def set_ref(self, name: str, tree: str) -> None:
        """Write `refs/NAME`: the tree is needed."""
        ref = self.git_dir / "refs" / name
        aside = self.git_dir / f"ref.tmp-{os.getpid()}"
        try:
            aside.write_text(tree + "\n")
            aside.rename(ref)
        except OSError as error:
            raise self.unusable(error) from None

    def drop_ref(self, name: str) -> None:
        """Remove `refs/NAME`, when it is there."""
        (self.git_dir / "refs" / name).unlink(missing_ok=True)

    def environ(self, top: Path, index: Path) -> dict[str, str]:
        """The environment of a git command on this store, work tree and index."""
        environ = clean_environ()
        environ.update(GIT_DIR=str(self.git_dir), GIT_WORK_TREE=str(top), GIT_INDEX_FILE=str(index))
        return environ

    def git(
        self,
        *arguments: str,
        top: Path,
        index: Path,
        cwd: Path | None = None,
        hold: Iterable[int] = (),
        stdin: bytes = b"",
    ) -> bytes:
        """Run git and return its output. Raises GitFailed, StoreError when the disk is full.

        `hold`: lock descriptors that the command inherits, so that a lock lasts as long as the
        last process that works under it, even when dstack is killed meanwhile.
        """
        process = self.start(arguments, cwd or top, top, index, hold=hold, stdin=subprocess.PIPE)
        output, complaint = process.communicate(stdin)
        return self.checked(arguments[0], process.returncode, output, complaint)

    def start(
        self,
        arguments: Iterable[str],
        cwd: Path,
        top: Path,
        index: Path,
        *,
        hold: Iterable[int] = (),
        stdin: int,
    ) -> subprocess.Popen[bytes]:
        """Start a git command that may write to the store: `prune` waits for it as well."""
        held = (*hold, self._lock) if self._lock is not None else tuple(hold)
        return start(arguments, cwd, self.environ(top, index), hold=held, stdin=stdin)

    def checked(self, command: str, code: int, output: bytes, complaint: bytes) -> bytes:
        """The output of a git command that has ended well; raises GitFailed or StoreError."""
        if code == 0:
            return output
        complaint = complaint.replace(_GIT_FULL, os.strerror(errno.ENOSPC).encode())
        for number in _DISK:
            if os.strerror(number).encode() in complaint:
                self.sweep()
                raise self.unusable(OSError(number, os.strerror(number)))
        raise GitFailed(command, code, complaint)


def start(
    arguments: Iterable[str],
    cwd: Path,
    environ: dict[str, str],
    *,
    hold: Iterable[int] = (),
    stdin: int = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    """Start git in `cwd`. Raises DstackError when there is no git."""
    try:
        return subprocess.Popen(
            ["git", *arguments],
            cwd=cwd,
            env=environ,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=tuple(hold),
        )
    except FileNotFoundError as error:
        if error.filename == "git":
            message = "git is not installed"
            raise DstackError(message, hint="install git: it takes the snapshot") from None
        message = f"the folder {cwd} does not exist"
        raise DstackError(message) from None
    except OSError as error:
        message = f"cannot run git in {cwd}: {error.strerror}"
        raise DstackError(message) from None


def remove_folder(folder: Path) -> None:
    """Delete a folder of ours; what cannot be deleted is left for the next time."""
    from shutil import rmtree

    rmtree(folder, ignore_errors=True)
