"""A project's code on every kind of host: what is sent of it, and what lies there then."""

from __future__ import annotations

import random
from pathlib import Path

from dstack.paths import Home
from dstack.snapshot import Snapshots
from tests.contract.hosts.places import Place

LINES = 1_000_000


def test_of_a_large_file_the_lines_that_changed_are_sent(place: Place, tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    dice = random.Random(1)
    lines = [b"%d,%032x" % (n, dice.getrandbits(128)) for n in range(LINES)]
    large = project / "large.csv"
    large.write_bytes(b"\n".join(lines))
    large.chmod(0o755)
    (tmp_path / "home").mkdir(mode=0o700)
    snapshots = Snapshots(Home(tmp_path / "home"))
    folder = place.folder()

    def send(name: str) -> int:
        pending = snapshots.begin(project)
        try:
            tree = pending.finish().tree
        finally:
            pending.cancel()
        target = folder / name
        sent = snapshots.send(project, tree, place.host, (folder / "code", target))
        seen = place.see(target / "large.csv")
        assert seen.read_bytes() == large.read_bytes()
        assert seen.stat().st_mode & 0o777 == 0o755
        return sent

    assert send("first") == large.stat().st_size > 38_000_000
    lines[10] = b"the first of three lines that are changed"
    lines[LINES // 2] = b""
    lines[LINES - 10_000] = b"the last one"
    lines.insert(LINES // 4, b"a line more")
    large.write_bytes(b"\n".join(lines))
    assert 0 < send("second") < 1000
