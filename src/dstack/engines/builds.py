"""What a build stage left becomes a build: its folder is filled, and emptied, by renames.

Of this machine: job folders lie here, whatever runs in them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from ..errors import StoreError
from ..run.made import Made, Seen, made_of, names
from ..run.model import Plan

LISTS = ("folders", "files", "folders-after", "files-after", "read", "changed")
MARKERS = (".dstack-made", ".dstack-setup-done")


def read_made(plan: Plan, directory: Path) -> tuple[Made, bool]:
    """What the stage made, from the lists in its job folder, and whether every file counts.

    Raises StoreError.
    """
    try:
        lists = [(directory / f"build.{name}").read_bytes() for name in LISTS]
    except OSError as error:
        message = f"what the build read is not known: {error.filename}: {error.strerror}"
        raise StoreError(message) from None
    made = made_of(Seen(*map(names, lists)), relative_caches(plan))
    return made, (directory / "build.whole").exists()


def relative_caches(plan: Plan) -> list[bytes]:
    """The cache folders inside the code, as names of the code: no build keeps what is in them."""
    found = []
    for item in plan.cache:
        path = os.path.normpath(item)
        if not path.startswith(("/", "~")):
            found.append(os.fsencode(os.path.normpath(os.path.join(plan.workdir, path))))
    return found


def take_result(run_folder: Path, directory: Path, target: Path, made: Made) -> None:
    """Move what the stage left from the run's folder to `target`; going on where one was killed.

    `directory` is its job folder.
    ```
    target/env/     the environment, where the engine makes one in the run's folder
    target/files/   what is laid over a fresh checkout
    target/gone     names that are deleted from it before, NUL behind each
    target/base     of a container: what job.sh knows of the image that it was made in
    ```
    Raises StoreError.
    """
    code, files = os.fsencode(run_folder / "code"), os.fsencode(target / "files")
    try:
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        _move(os.fsencode(run_folder / "env"), os.fsencode(target / "env"))
        for marker in MARKERS:
            (target / "env" / marker).unlink(missing_ok=True)
        _move_all(made.moves, code, files)
        base = directory / "box" / "image"
        if base.exists():
            shutil.copyfile(base, target / "base")
        (target / "gone").write_bytes(b"".join(b"./%b\0" % name for name in made.gone))
    except (OSError, shutil.Error) as error:
        message = f"what the build left cannot be kept in {target}: {_why(error)}"
        raise StoreError(message, hint="free some space, then make the build again") from None


def _move_all(moves: Iterable[bytes], code: bytes, files: bytes) -> None:
    made: set[bytes] = set()
    for name in moves:
        parent = os.path.dirname(name)
        if parent not in made:
            _copy_folders(parent, code, files)
            made.add(parent)
        _move(os.path.join(code, name), os.path.join(files, name))


def _copy_folders(name: bytes, code: bytes, files: bytes) -> None:
    """Make the folders on the way to `name`, with the modes that they have in the code."""
    if os.path.isdir(os.path.join(files, name)):
        return
    if name:
        _copy_folders(os.path.dirname(name), code, files)
    target = os.path.join(files, name) if name else files
    os.mkdir(target)
    shutil.copystat(os.path.join(code, name) if name else code, target)


def _move(source: bytes, target: bytes) -> None:
    if not os.path.lexists(source):
        return  # moved before, or there is none
    try:
        os.rename(source, target)
    except OSError as error:
        import errno

        if error.errno != errno.EXDEV:
            raise
        shutil.move(os.fsdecode(source), os.fsdecode(target))


def make_spare(build: Path) -> None:
    """The environment that the next run takes, made while nobody waits. Failures are silent."""
    import subprocess

    env, spare = build / "env", build / "spare"
    aside = build / f"spare.tmp-{os.getpid()}"
    if not env.is_dir() or spare.exists():
        return
    for left in build.glob("spare.tmp-*"):
        shutil.rmtree(left, ignore_errors=True)
    done = subprocess.run(["cp", "-al", env, aside], capture_output=True, check=False)
    try:
        if done.returncode == 0:
            aside.rename(spare)
    except OSError:
        pass
    if aside.exists():
        shutil.rmtree(aside, ignore_errors=True)


def _why(error: OSError | shutil.Error) -> str:
    return getattr(error, "strerror", None) or str(error)


def folder_size(folder: Path) -> int:
    """Bytes that deleting it frees: blocks, each file once however many links it has."""
    total, seen = 0, set()
    for place, folders, files in os.walk(folder):
        for name in (".", *files, *folders):
            try:
                found = os.lstat(f"{place}/{name}")
            except OSError:  # gone meanwhile
                continue
            if (found.st_dev, found.st_ino) not in seen:
                seen.add((found.st_dev, found.st_ino))
                total += found.st_blocks * 512
    return total
