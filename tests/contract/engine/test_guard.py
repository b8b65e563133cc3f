"""One process sees to the `max_duration` of all long jobs, and to when they print."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from dstack.output.times import read_times
from dstack.paths import Home

from .conftest import SHELLS, Bench, OneShell, WithoutCgroups, finish, gone, marked, wait_for


def hurry(body: str) -> str:
    """Timers hand over after one second instead of thirty, and the guard looks every second."""
    assert "timer_seconds=30 " in body
    assert "guard_seconds=5 " in body
    return body.replace("_seconds=30 ", "_seconds=1 ").replace("_seconds=5 ", "_seconds=1 ")


class Hasty(OneShell):
    def body(self) -> str:
        return hurry(super().body())


class HastyWithoutCgroups(WithoutCgroups):
    def body(self) -> str:
        return hurry(super().body())


@pytest.fixture(params=[*SHELLS, "without-cgroups"])
def hasty(request: pytest.FixtureRequest, home: Home) -> Iterator[Bench]:
    kind = request.param
    if kind in SHELLS:
        found = Bench(Hasty(home, shell=SHELLS[kind], grace=3))
    else:
        found = Bench(HastyWithoutCgroups(home, shell=SHELLS["dash"], grace=3))
    yield found
    finish(found)
    wait_for(lambda: not guards(home), "the guard to end")


def guards(home: Home) -> list[int]:
    """The processes that watch this folder's links."""
    found = []
    for pid in os.listdir("/proc"):
        try:
            words = Path("/proc", pid, "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"guard" in words and any(word.startswith(os.fsencode(home.root)) for word in words):
            found.append(int(pid))
    return found


def the_guard(home: Home) -> int:
    wait_for(lambda: guards(home) and (home.guard / "pid").exists(), "a guard")
    return int((home.guard / "pid").read_text().split(":")[0])


def links(home: Home) -> list[str]:
    return sorted(name for name in os.listdir(home.guard) if name.startswith("1"))


def only_the_job(directory: Path) -> bool:
    """Whether there are just its keeper, the shell of the commands, and what they started."""
    return len(marked(f"{directory.parent.name}-{directory.name}")) == 3


def test_one_guard_for_all(hasty: Bench) -> None:
    long = [hasty.start("sleep 1000", max_duration=100_000) for _ in range(3)]
    short = hasty.start("sleep 1000", max_duration=3)
    guard = the_guard(hasty.home)
    wait_for(lambda: len(links(hasty.home)) == 4, "all to be handed over")
    wait_for(lambda: guards(hasty.home) == [guard], "a single guard")
    for directory in long:
        wait_for(partial(only_the_job, directory), "the timer to be gone")
    done = hasty.ended(short)
    assert (done.code, done.reason) == (124, "max_duration")
    # What it starts looks like it for a moment.
    wait_for(lambda: guards(hasty.home) == [guard], "it alone still")
    for directory in long:
        hasty.engine.stop(directory, kill=False)
        assert hasty.ended(directory).reason == "stopped"
    wait_for(lambda: gone(guard), "the guard to end")
    assert links(hasty.home) == []


def test_a_limit_that_its_own_timer_sees_through(hasty: Bench) -> None:
    done, _ = hasty.do("sleep 1000", max_duration=2)
    assert (done.code, done.reason) == (124, "max_duration")
    assert not hasty.home.guard.exists()


def test_a_killed_guard_is_followed_by_another_that_knows_all(hasty: Bench) -> None:
    first = hasty.start("sleep 1000", max_duration=4)
    guard = the_guard(hasty.home)
    os.kill(guard, signal.SIGKILL)
    wait_for(lambda: gone(guard), "its end")
    second = hasty.start("sleep 1000", max_duration=100_000)
    wait_for(lambda: the_guard(hasty.home) not in (0, guard), "another guard")
    assert hasty.ended(first).reason == "max_duration"
    hasty.engine.stop(second, kill=True)
    assert hasty.ended(second).reason == "stopped"


def test_the_guard_outlives_the_job_that_started_it(hasty: Bench) -> None:
    first = hasty.start("sleep 1000", max_duration=100_000)
    guard = the_guard(hasty.home)
    second = hasty.start("sleep 1000", max_duration=4)
    wait_for(lambda: len(links(hasty.home)) == 2, "the second to be handed over")
    hasty.engine.stop(first, kill=True)
    assert hasty.ended(first).reason == "stopped"
    assert not gone(guard)
    assert hasty.ended(second).reason == "max_duration"


def test_links_of_an_earlier_boot_and_of_deleted_jobs_mean_nothing(hasty: Bench) -> None:
    directory = hasty.start("sleep 1000", max_duration=100_000)
    hasty.home.guard.mkdir()
    (hasty.home.guard / "1000000000001.another-boot.x-1").symlink_to(directory)
    (hasty.home.guard / "1000000000002.another-boot.y-1").symlink_to("nowhere")
    the_guard(hasty.home)
    wait_for(lambda: len(links(hasty.home)) == 1, "the others to go")
    assert not (directory / "stop").exists()
    hasty.engine.stop(directory, kill=False)
    assert hasty.ended(directory).reason == "stopped"


@pytest.mark.parametrize("limit", [None, 100_000])
def test_it_is_noted_when_a_job_prints_while_nobody_watches(
    hasty: Bench, limit: int | None
) -> None:
    def noted(directory: Path, length: int) -> float:
        """When the log was that long, in seconds."""

        def look() -> int | None:
            return next((at for at, end in read_times(directory / "log") if end == length), None)

        at: int = wait_for(look, f"a note of {length} bytes")
        return at / 1000

    chatty = hasty.start("while :; do echo; sleep 0.3; done", max_duration=limit)
    quiet = hasty.start("echo one; until [ -e two ]; do sleep 0.1; done; echo two; sleep 1000")
    # Its own timer sees the first line; the second one is the guard's.
    begun = time.time()
    assert abs(noted(quiet, 4) - begun) < 3
    the_guard(hasty.home)
    wait_for(lambda: len(links(hasty.home)) == 2, "both to be handed over")
    before = [(quiet / name).stat().st_mtime_ns for name in ("log.idx", "log.seen")]
    rounds = len(read_times(chatty / "log"))
    wait_for(lambda: len(read_times(chatty / "log")) >= rounds + 3, "more looks")
    # Where nothing was printed nothing is written.
    assert [(quiet / name).stat().st_mtime_ns for name in ("log.idx", "log.seen")] == before
    (quiet.parent / "code" / "two").touch()
    wait_for(lambda: "two" in hasty.log(quiet), "the second line")
    printed = (quiet / "log").stat().st_mtime
    assert abs(noted(quiet, 8) - printed) < 1.1
    for directory in (chatty, quiet):
        hasty.engine.stop(directory, kill=True)
        assert hasty.ended(directory).reason == "stopped"
