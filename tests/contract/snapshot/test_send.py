"""A tree that is sent to a host is there exactly, whatever changed and wherever it broke off."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from dstack.errors import HostError
from dstack.hosts.base import Completed
from dstack.hosts.local import LocalHost
from dstack.paths import Home
from dstack.snapshot import Snapshots, send
from tests.support import wait_for

NAMES = ("a", "b", "c d", "\u00e9'\"", "x" * 120, "-r", "f")
APPLETS = "sh cp rm mv ln readlink xargs dd mkdir cat sleep du chmod"


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
        self.count = 0

    def send(self, *, cut: int | None = None) -> Path:
        """Send it as it is now; the folder there."""
        self.count += 1
        target = self.root / "runs" / str(self.count) / "code"
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


@pytest.mark.parametrize("seed", [1, 2])
def test_of_a_large_file_that_is_edited_again_and_again(sending: Sending, seed: int) -> None:
    dice = random.Random(seed)
    large = sending.project / "large"
    data = dice.randbytes(3_000_000)
    large.write_bytes(data)
    sending.send()
    for _ in range(8):
        edited = 0
        for _ in range(dice.randrange(1, 6)):
            at, size = dice.randrange(len(data)), dice.randrange(20_000)
            new = dice.randbytes(dice.randrange(20_000))
            data = data[:at] + new + data[at + size :]
            edited += 1
        large.write_bytes(data)
        before = sending.far.received
        assert content(sending.send()) == content(sending.project)
        # What is new, what lies between two edits that are near, and a tar's headers.
        assert sending.far.received - before < edited * 45_000 + 20_000


def test_a_file_that_cannot_be_put_together_is_not_laid(tmp_path: Path) -> None:
    # Shells do not agree on what `set -e` means here; that of many hosts is bash.
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in APPLETS.split():
        (tools / name).symlink_to(shutil.which("busybox") or "/bin/busybox")
    (tools / "sh").unlink()
    (tools / "sh").symlink_to(shutil.which("bash") or "/bin/bash")
    sending = Sending(tmp_path, tools)
    large = sending.project / "large"
    large.write_bytes(random.Random(1).randbytes(3_000_000))
    sending.send()
    for name, said in (("cat", "cat is out of order"), ("dd", "dd: no space left")):
        data = large.read_bytes()
        large.write_bytes(data[:2_000_000] + b"more" + data[2_000_000:])
        (tools / name).unlink()
        (tools / name).write_text(f"#!/bin/sh\necho '{said}' >&2\nexit 1\n")
        (tools / name).chmod(0o755)
        with pytest.raises(HostError, match=said):
            sending.send()
        assert not (sending.root / "runs" / str(sending.count)).exists()
        (tools / name).unlink()
        (tools / name).symlink_to(shutil.which("busybox") or "/bin/busybox")
        assert content(sending.send()) == content(sending.project)


@pytest.mark.parametrize(
    "before",
    [
        ": >staging/assembled",
        "rm -f tree\n",
        "change files link",
        "mv staging/ready tree",
        'mv staging "over-$$"',
    ],
)
def test_killed_while_it_is_laid(
    sending: Sending, before: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dice = random.Random(1)
    large, other, small = (sending.project / name for name in ("large", "other", "small"))

    def edit(text: str) -> None:
        small.write_text(text)
        for path in (large, other):
            data = path.read_bytes() if path.exists() else dice.randbytes(3_000_000)
            at = dice.randrange(len(data))
            path.write_bytes(data[:at] + text.encode() + data[at:])

    edit("first")
    sending.send()
    edit("second")
    script = send._script()
    assert script.count(before) == 1
    killed = script.replace(before, f"kill -KILL $$; {before}")
    monkeypatch.setattr(send, "_script", lambda: killed)
    with pytest.raises(HostError):
        sending.send()
    monkeypatch.setattr(send, "_script", lambda: script)
    edit("third")
    other.unlink()
    assert content(sending.send()) == content(sending.project)
    assert content(sending.send()) == content(sending.project)


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


@pytest.mark.parametrize("shell", [("sh",), ("busybox", "sh")])
def test_a_lock_that_another_took_meanwhile_is_not_taken_away(
    tmp_path: Path, shell: tuple[str, ...]
) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    (tmp_path / "lock").symlink_to(f"{ended.pid} lay")
    # Who waits has read that one's name when it lets go, ends, and the next one takes the lock.
    looks = "other=$(readlink lock) || continue"
    script = send._script().replace(looks, f"{looks}; [ ! -L next ] || mv -f next lock")
    assert script != send._script()
    holder = subprocess.Popen(["sleep", "100"], cwd=tmp_path)
    (tmp_path / "next").symlink_to(f"{holder.pid} lay")
    waits = subprocess.Popen([*shell, "-c", script, "sh", str(tmp_path), "look", ""])
    try:
        wait_for(lambda: not (tmp_path / "next").is_symlink(), "it to be taken")
        with pytest.raises(subprocess.TimeoutExpired):
            waits.wait(0.5)
        assert os.readlink(tmp_path / "lock") == f"{holder.pid} lay"
        # That one is killed, and holds it no longer.
        holder.kill()
        holder.wait()
        assert waits.wait(10) == 0
    finally:
        holder.kill()
        holder.wait()
        waits.kill()
        waits.wait()


def slow_spare(folder: Path, seconds: float) -> Sending:
    """A project, and a host where a spare takes so long, or until there is a file `go`.

    Its `copies` are what was copied.
    """
    tools = folder / "tools"
    tools.mkdir()
    real = shutil.which("busybox") or "/bin/busybox"
    for name in APPLETS.split():
        (tools / name).symlink_to(real)
    # busybox's shell would take its own cp, wherever another one is found.
    for name in ("sh", "cp"):
        (tools / name).unlink()
    (tools / "sh").symlink_to(shutil.which("dash") or "/bin/dash")
    turns = f"for i in $({real} seq {round(seconds * 10)})"
    wait = f"{turns}; do [ -e {folder}/go ] || {real} sleep 0.1; done"
    lines = (
        "#!/bin/sh",
        f'case "$*" in *" files/. "*) echo "${{*##* }}" >>{folder}/copies ;; esac',
        f'case "$*" in *"files/. spare") {wait} ;; esac',
        f'exec {real} cp "$@"',
    )
    (tools / "cp").write_text("\n".join(lines) + "\n")
    (tools / "cp").chmod(0o755)
    sending = Sending(folder, tools)
    (sending.project / "file").write_text("1")
    assert content(sending.send()) == content(sending.project)
    wait_for(lambda: "spare" in copied(folder), "the spare to be begun")
    return sending


def copied(folder: Path) -> list[str]:
    """Where `files` were copied to, by their last names."""
    lines = (folder / "copies").read_text().splitlines()
    return [line.rpartition("/")[2].partition(".")[0] for line in lines]


def test_a_spare_that_is_being_made_is_waited_for_and_used(tmp_path: Path) -> None:
    sending = slow_spare(tmp_path, 1.5)
    (sending.project / "file").write_text("2")
    assert content(sending.send()) == content(sending.project)
    (kept,) = (sending.root / "code").iterdir()
    wait_for((kept / "spare.tree").exists, "the next spare")
    # One copy for the first run, and then spares alone.
    assert copied(tmp_path) == ["code", "spare", "spare"]
    wait_for(lambda: not list(kept.glob("over-*")), "what was sent to be tidied away")


def test_a_spare_that_takes_too_long_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = send._script()
    assert "PATIENCE=200 " in script
    monkeypatch.setattr(send, "_script", lambda: script.replace("PATIENCE=200 ", "PATIENCE=10 "))
    sending = slow_spare(tmp_path, 60)
    (sending.project / "file").write_text("2")
    assert content(sending.send()) == content(sending.project)
    assert copied(tmp_path)[:3] == ["code", "spare", "code"]
    (kept,) = (sending.root / "code").iterdir()
    (tmp_path / "go").touch()
    wait_for((kept / "spare.tree").exists, "the spare")


def test_nobody_waits_for_a_spare_who_needs_none(tmp_path: Path) -> None:
    sending = slow_spare(tmp_path, 60)
    sending.count = 0  # the same run once more
    assert content(sending.send()) == content(sending.project)
    # All of it is sent anew, as after a prune: a spare of what was there is of no use.
    sending.count = 1
    sending.snapshots.prune()
    (sending.project / "file").write_text("2")
    assert content(sending.send()) == content(sending.project)
    (kept,) = (sending.root / "code").iterdir()
    assert not (kept / "spare.tree").exists()
    (tmp_path / "go").touch()
    wait_for((kept / "spare.tree").exists, "the spare")
