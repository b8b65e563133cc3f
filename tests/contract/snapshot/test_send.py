"""A tree that is sent to a host is there exactly, whatever changed and wherever it broke off."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from dstack.errors import HostError
from dstack.hosts.base import Completed
from dstack.hosts.local import LocalHost
from dstack.paths import Home
from dstack.snapshot import Snapshots
from tests.support import wait_for

NAMES = ("a", "b", "c d", "\u00e9'\"", "x" * 120, "-r", "f")
APPLETS = "sh cp rm mv ln readlink xargs head tail mkdir cat sleep du chmod"


class Far(LocalHost):
    """A host that counts what is sent to it, and whose connection breaks after `limit` bytes.

    `tools` is the folder with all the commands that it has.
    """

    name = "far"

    def __init__(self, tools: Path | None) -> None:
        super().__init__()
        self.tools = tools
        self.limit: int | None = None
        self.received = 0

    def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Completed:
        if self.tools is None:
            return super().run(argv, env=env, timeout=timeout)
        command = [str(self.tools / "sh"), *argv[1:]]
        return super().run(command, env={"PATH": str(self.tools)}, timeout=timeout)

    def put_tree(self, archive: Iterable[bytes], folder: Path) -> None:
        super().put_tree(self._counted(archive), folder)

    def _counted(self, archive: Iterable[bytes]) -> Iterator[bytes]:
        left = self.limit
        for data in archive:
            if left is not None:
                left -= len(data)
                if left < 0:
                    raise HostError("the connection broke off")
            self.received += len(data)
            yield data


class Sending:
    """A project here, and a host that it is sent to."""

    def __init__(self, folder: Path, tools: Path | None) -> None:
        self.project = folder / "project"
        self.project.mkdir()
        self.root = folder / "far"
        home = Home(folder / "home")
        home.root.mkdir()
        self.snapshots = Snapshots(home)
        self.far = Far(tools)
        self._count = 0

    def send(self, *, cut: int | None = None) -> Path:
        """Send it as it is now; the folder there."""
        self._count += 1
        target = self.root / "runs" / str(self._count) / "code"
        pending = self.snapshots.begin(self.project)
        try:
            tree = pending.finish().tree
        finally:
            pending.cancel()
        places = (self.root / "code", target)
        self.far.limit = cut
        try:
            self.snapshots.send(self.project, tree, self.far, places)
        finally:
            self.far.limit = None
        return target


@pytest.fixture(params=["everything", "busybox"])
def sending(request: pytest.FixtureRequest, tmp_path: Path) -> Sending:
    if request.param == "everything":
        return Sending(tmp_path, None)
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in APPLETS.split():
        (tools / name).symlink_to(shutil.which("busybox") or "/bin/busybox")
    return Sending(tmp_path, tools)


def content(folder: Path) -> dict[str, tuple[object, ...]]:
    """All that is in a folder: kind, whether executable, content."""
    found: dict[str, tuple[object, ...]] = {}
    for place, folders, files in os.walk(folder):
        for name in folders + files:
            path = Path(place, name)
            key = str(path.relative_to(folder))
            if path.is_symlink():
                found[key] = ("link", os.readlink(path))
            elif path.is_dir():
                found[key] = ("folder",)
            else:
                found[key] = ("file", bool(path.stat().st_mode & 0o100), path.read_bytes())
    return found


def change(folder: Path, dice: random.Random) -> None:
    """Do something to the folder that people do to theirs."""
    places = [p for p in folder.rglob("*") if p.is_dir() and not p.is_symlink()]
    path = dice.choice([*sorted(places), folder]) / dice.choice(NAMES)
    if path.is_dir() and not path.is_symlink():
        if dice.random() < 0.4:
            shutil.rmtree(path)
        return
    path.unlink(missing_ok=True)
    kind = dice.random()
    if kind < 0.2:
        return
    if kind < 0.35:
        path.symlink_to(dice.choice(["a", "../b", "y" * 150]))
        return
    if kind < 0.6:
        path.mkdir()
        return
    large = kind < 0.7
    path.write_bytes(
        dice.randbytes(1_200_000 + dice.randrange(999) if large else dice.randrange(3000))
    )
    path.chmod(dice.choice([0o644, 0o755]))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_whatever_changes_it_is_the_same_there(sending: Sending, seed: int) -> None:
    dice = random.Random(seed)
    for _ in range(25):
        for _ in range(dice.randrange(1, 6)):
            change(sending.project, dice)
        if dice.random() < 0.3:
            try:
                sending.send(cut=dice.randrange(400_000))
            except HostError:
                change(sending.project, dice)
        assert content(sending.send()) == content(sending.project)


def test_a_line_of_a_large_file_is_a_line(sending: Sending) -> None:
    large = sending.project / "large"
    large.write_bytes(random.Random(1).randbytes(20_000_000))
    sending.send()
    first = sending.far.received
    assert first > 20_000_000
    data = large.read_bytes()
    large.write_bytes(data[:9_000_000] + b"one line more\n" + data[9_000_000:])
    assert content(sending.send()) == content(sending.project)
    assert sending.far.received - first < 10_000


def test_what_arrived_is_not_sent_again(sending: Sending) -> None:
    for n in range(10):
        (sending.project / f"part{n}").write_bytes(random.Random(n).randbytes(3_000_000))
    with pytest.raises(HostError, match="broke off"):
        sending.send(cut=20_000_000)
    before = sending.far.received
    # A file more does not make what is there worthless.
    (sending.project / "another").write_text("small")
    assert content(sending.send()) == content(sending.project)
    assert sending.far.received - before < 16_000_000


def test_a_run_may_write_into_its_code(sending: Sending) -> None:
    (sending.project / "file").write_text("as sent")
    for text in ("first", "second", "third"):
        target = sending.send()
        assert (target / "file").read_text() == "as sent"
        (target / "file").write_text(text)
        (target / "new").write_text(text)
        with (target / "file").open("a") as file:
            file.write(text)


def test_a_store_that_was_pruned_sends_all(sending: Sending) -> None:
    (sending.project / "a").write_text("1")
    sending.send()
    sending.snapshots.prune()
    (sending.project / "a").unlink()
    (sending.project / "b").write_text("2")
    assert content(sending.send()) == content(sending.project)


def test_nobody_waits_for_the_spare(tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    real = shutil.which("busybox") or "/bin/busybox"
    for name in APPLETS.split():
        (tools / name).symlink_to(real)
    # busybox's shell would take its own cp, wherever another one is found.
    for name in ("sh", "cp"):
        (tools / name).unlink()
    (tools / "sh").symlink_to(shutil.which("dash") or "/bin/dash")
    # The spare is made when the test says so, or after half a minute, when it has failed.
    wait = f"for i in $({real} seq 300); do [ -e {tmp_path}/go ] || {real} sleep 0.1; done"
    lines = ("#!/bin/sh", f'case "$*" in *"files/. spare") {wait} ;; esac', f'exec {real} cp "$@"')
    (tools / "cp").write_text("\n".join(lines) + "\n")
    (tools / "cp").chmod(0o755)
    sending = Sending(tmp_path, tools)
    for text in ("1", "2"):
        (sending.project / "file").write_text(text)
        # The second one comes while the spare of the first is being made.
        assert content(sending.send()) == content(sending.project)
    (kept,) = (sending.root / "code").iterdir()
    assert not (kept / "spare.tree").exists()
    (tmp_path / "go").touch()
    wait_for((kept / "spare.tree").exists, "the spare")
