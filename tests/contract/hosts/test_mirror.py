"""The copy of a job's output that is made here, of every kind of host."""

from __future__ import annotations

import os
from pathlib import Path

from dstack.output.mirror import Mirror
from tests.contract.hosts.places import Place

SIZE = 20_000_000  # bytes: more than one answer holds, and than a pipe


def test_much_output_can_be_shown_while_it_comes(place: Place, tmp_path: Path) -> None:
    there, here = place.folder(), tmp_path / "run" / "1"
    data = os.urandom(SIZE)
    place.write(there / "log", data)
    sizes: list[int] = []
    mirror = Mirror(place.host, there, here, lambda: sizes.append((here / "log").stat().st_size))
    mirror.finish()
    assert (here / "log").read_bytes() == data
    assert mirror.whole
    assert len(sizes) > 1
    assert sizes == sorted(sizes)
    assert sizes[0] < SIZE
    mirror.close()


def test_a_copy_goes_on_at_its_byte(place: Place, tmp_path: Path) -> None:
    there, here = place.folder(), tmp_path / "run" / "1"
    place.write(there / "log", b"one\ntwo\n")
    here.mkdir(parents=True)
    (here / "log").write_bytes(b"one\n")
    mirror = Mirror(place.host, there, here)
    assert mirror.ask() == 4
    assert mirror.ask() == 0
    mirror.finish()
    assert (here / "log").read_bytes() == b"one\ntwo\n"
    mirror.close()


def test_what_was_fetched_ahead_is_not_taken_for_all(place: Place, tmp_path: Path) -> None:
    # As when a connection broke, the end was assumed, and the job goes on and ends later.
    there, here = place.folder(), tmp_path / "run" / "1"
    place.write(there / "log", b"one\n")
    mirror = Mirror(place.host, there, here)
    mirror.foresee()
    place.host.foresee_survey([there], [])
    place.host.survey([there], [])  # answered after what was asked ahead, which it does not void
    place.write(there / "log", b"one\ntwo\n")
    mirror.forget()
    mirror.finish()
    assert (here / "log").read_bytes() == b"one\ntwo\n"
    mirror.close()


def test_two_that_copy_at_once_double_nothing(place: Place, tmp_path: Path) -> None:
    there, here = place.folder(), tmp_path / "run" / "1"
    data = os.urandom(5_000_000)
    place.write(there / "log", data)
    mirrors = [Mirror(place.host, there, here) for _ in range(2)]
    for mirror in mirrors:
        mirror.stream()
    while (here / "log").stat().st_size < SIZE // 8:
        for mirror in mirrors:
            mirror.pump()
    for mirror in mirrors:
        mirror.finish()
    assert (here / "log").read_bytes() == data
    for mirror in mirrors:
        mirror.close()
