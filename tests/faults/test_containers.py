"""Single faults of runs in containers: many at once, a full disk, an image that is taken away."""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from pathlib import Path

from tests.conftest import Project
from tests.engines.engine import Engine
from tests.faults.conftest import use
from tests.faults.test_disk import fill
from tests.support import Dstack, wait_for

AT_ONCE = 20


def test_twenty_at_once(alone: Engine, dstack: Dstack, project: Project) -> None:
    use(dstack, alone)
    folder = project(
        f"type: task\nimage: {alone.image('busybox')}\ncache: [/side]\n"
        "commands: ['echo $DSTACK_RUN_NAME >>/side/ran', echo hi, exit 3]\n"
    )
    commands = [dstack.start("run", folder, "-n", f"r{i}") for i in range(AT_ONCE)]
    for command in commands:
        out, err = command.communicate(timeout=300)
        assert (command.returncode, out) == (3, b"hi\n"), err.decode()
    (ran,) = dstack.home.glob("cache/*/%2Fside/ran")
    assert Counter(ran.read_text().split()) == Counter(f"r{i}" for i in range(AT_ONCE))
    assert {run["reason"] for run in dstack.ps("-a")} == {"command_failed"}
    # What the engine still has of them, and of anything else, the fixture finds.
    assert alone.containers() == []


def test_full_while_a_container_logs(
    small: Path, alone: Engine, dstack: Dstack, project: Project
) -> None:
    use(dstack, alone)
    folder = project(
        f"type: task\nimage: {alone.image('busybox')}\ncommands:\n"
        "  - while [ ! -e go ]; do sleep 0.05; done\n"
        "  - head -c 100000000 /dev/zero | tr '\\0' x || true\n  - exit 7\n"
        "  - echo never\n"
    )
    cli = dstack.start("run", folder, "-n", "big", stdout=subprocess.DEVNULL)
    wait_for(lambda: list(small.glob("runs/*/1/box/running")), "it to run", timeout=60)
    dstack.wait_status("big", "running")
    # Made before the disk is full, and seen from within at once.
    (code,) = small.glob("runs/*/code")
    (code / "going").touch()
    filler = fill(small)
    # Some of the output finds room, and most of it does not.
    os.truncate(filler, filler.stat().st_size - (1 << 20))
    (code / "going").rename(code / "go")
    wait_for(lambda: list(small.glob("runs/*/1/exit")), "the job's end", timeout=60)
    _, err = cli.communicate(timeout=120)
    # It knows the end, whether or not it can be kept now.
    assert cli.returncode in (1, 7), err.decode()
    assert "Traceback" not in err.decode()
    assert alone.containers() == []
    filler.unlink()
    run = dstack.wait_status("big", "failed")
    assert (run["reason"], run["exit_code"]) == ("command_failed", 7)
    assert set(dstack.raw("logs", "big").stdout) == {ord("x")}


def test_an_image_that_is_taken_away_before_the_next_attempt(
    alone: Engine, dstack: Dstack, project: Project
) -> None:
    use(dstack, alone)
    # Names of no registry: pulling it again fails at once, wherever there is no network.
    image = "127.0.0.1:9/passing:latest"
    alone.cli("tag", alone.image("busybox"), image)
    folder = project(f"type: task\nimage: {image}\ncommands: [echo hi]\n")
    assert dstack.ok("run", folder, "-n", "r") == "hi\n"
    alone.cli("image", "rm", image)
    done = dstack("restart", "r")
    assert done.returncode == 125
    assert "127.0.0.1:9" in done.stderr
    assert (dstack.run_of("r")["reason"], alone.containers()) == ("start_failed", [])
    alone.cli("tag", alone.image("busybox"), image)
    assert dstack.ok("restart", "r") == "hi\n"
    alone.cli("image", "rm", image)
