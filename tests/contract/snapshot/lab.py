"""A project folder, real git, and a dstack folder of its own."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

from dstack.paths import Home
from dstack.snapshot import Snapshot, Snapshots

Tree = dict[bytes, tuple[str, bytes]]


class Lab:
    """A project folder, and snapshots of it."""

    def __init__(self, root: Path, home: Path | None = None) -> None:
        self.project = root / "project"
        self.project.mkdir(exist_ok=True)
        self.home = Home(home or root / "home")
        self.home.root.mkdir(mode=0o700, parents=True)
        self.snapshots = Snapshots(self.home)
        self.notices: list[str] = []
        self._targets = root / "targets"
        self._count = 0

    def write(self, name: str, content: str | bytes = "x\n", mode: int = 0o644) -> Path:
        """A file of the project, its folders made."""
        path = self.project / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        path.chmod(mode)
        return path

    def take(self, folder: Path | None = None) -> Snapshot:
        """A snapshot."""
        return self.snapshots.begin(folder or self.project).finish(notice=self.notices.append)

    def give(self, tree: str) -> Path:
        """The tree as a new folder."""
        self._count += 1
        target = self._targets / str(self._count)
        self.snapshots.checkout(tree, target)
        return target

    def seen(self, folder: Path | None = None) -> Tree:
        """What a run would see."""
        return contents(self.give(self.take(folder).tree))

    def names(self, folder: Path | None = None) -> list[str]:
        """The names of the files and links that a run would see, sorted."""
        seen = self.seen(folder).items()
        return sorted(os.fsdecode(name) for name, (kind, _) in seen if kind != "empty folder")

    def git(self, *arguments: str, cwd: Path | None = None) -> str:
        """The user's own git, in the user's own repository."""
        return user_git(*arguments, cwd=cwd or self.project)


def user_git(*arguments: str, cwd: Path) -> str:
    """A git command as a user would type it."""
    who = (
        "-c",
        "user.name=u",
        "-c",
        "user.email=u@example.org",
        "-c",
        "protocol.file.allow=always",
    )
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    done = subprocess.run(
        ["git", *who, "-c", "init.defaultBranch=main", *arguments],
        cwd=cwd,
        env=environ,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout


def contents(folder: Path) -> Tree:
    """Every file, link and empty folder below a folder, and what it holds; without `.git`."""
    found: Tree = {}
    base = os.fsencode(folder)
    for where, folders, files in os.walk(base):
        folders[:] = [name for name in folders if name != b".git"]
        links = [name for name in folders if os.path.islink(os.path.join(where, name))]
        if not folders and not set(files) - {b".git"} and where != base:
            found[os.path.relpath(where, base)] = ("empty folder", b"")
        for name in files + links:
            path = os.path.join(where, name)
            mode = os.lstat(path).st_mode
            key = os.path.relpath(path, base)
            if stat.S_ISLNK(mode):
                found[key] = ("link", os.readlink(path))
            elif name != b".git":
                kind = "executable" if mode & 0o100 else "file"
                with open(path, "rb") as file:
                    found[key] = (kind, file.read())
    return found
