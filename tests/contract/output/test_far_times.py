"""When a run printed what, as another machine tells it; its clock need not be ours."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pytest

from dstack.hosts.base import Host
from dstack.hosts.clocks import ask_shift
from dstack.output.far_times import fetch_times, knows_times
from dstack.output.times import read_times


class Elsewhere:
    """Answers like a host whose clock is `ahead` seconds ahead of ours."""

    def __init__(self, bin: Path, ahead: int) -> None:
        self.path = f"{bin}:{os.environ['PATH']}"
        bin.mkdir()
        (bin / "date").write_text(f"#!/bin/sh\necho $(($(/bin/date +%s) + {ahead}))\n")
        (bin / "date").chmod(0o755)

    def query(self, argv: Sequence[str], what: str, *, timeout: float) -> bytes:
        env = {"PATH": self.path}
        return subprocess.run(argv, env=env, check=True, stdout=subprocess.PIPE).stdout


@pytest.mark.parametrize("ahead", [0, 1000, -1000])
def test_times_are_of_our_clock(tmp_path: Path, ahead: int) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    there.mkdir()
    here.mkdir()
    now = time.time()
    (there / "log").write_bytes(b"one\ntwo\nthree\n")
    os.utime(there / "log", (now + ahead - 10, now + ahead - 10))
    (there / "log.idx").write_text(f"{int((now + ahead - 30) * 1000)} 4\n")
    (here / "log").write_bytes(b"one\ntwo\nthree\n")
    # As it came here: all at once, now.
    (here / "log.idx").write_text(f"{int(now * 1000)} 14\n")
    fetch_times(cast(Host, Elsewhere(tmp_path / "bin", ahead)), there, here)
    (first, four), (last, end) = read_times(here / "log")
    assert (four, end) == (4, 14)
    assert abs(first / 1000 - (now - 30)) < 2
    assert abs(last / 1000 - (now - 10)) < 2


@pytest.mark.parametrize("ahead", [0, 1000, -1000])
def test_what_is_added_to_its_times(tmp_path: Path, ahead: int) -> None:
    shift = ask_shift(cast(Host, Elsewhere(tmp_path / "bin", ahead)))
    assert abs(shift + ahead) < 2


def test_where_nothing_is_known_there(tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    fetch_times(cast(Host, Elsewhere(tmp_path / "bin", 0)), tmp_path / "gone", here)
    assert read_times(here / "log") == []


def test_it_is_asked_once_after_the_end(tmp_path: Path) -> None:
    assert not knows_times(tmp_path)
    (tmp_path / "far.idx").touch()
    assert not knows_times(tmp_path)
    (tmp_path / "whole").touch()
    os.utime(tmp_path / "whole", (1, 1))
    assert knows_times(tmp_path)
    os.utime(tmp_path / "far.idx", (0, 0))
    assert not knows_times(tmp_path)
