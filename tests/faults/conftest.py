"""What the tests of single faults share."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import Dstack, wait_for


def mount(*args: str | Path) -> None:
    """Mount something. Where that is not allowed, the test cannot be done."""
    done = subprocess.run(["mount", *map(str, args)], capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"mount is not allowed here: {done.stderr.decode().strip()}")


@pytest.fixture
def small(home: Path) -> Iterator[Path]:
    """The state folder as a disk of its own, of 64 MB. Named before `dstack` in a test."""
    home.mkdir(exist_ok=True)
    mount("-t", "tmpfs", "-o", "size=64m,mode=0700", "none", home)
    yield home
    subprocess.run(["umount", "-l", home], check=True)


@pytest.fixture
def begun(dstack: Dstack) -> Callable[[str], None]:
    """Wait until the run has printed `begun`."""

    def wait(name: str) -> None:
        wait_for(lambda: "begun\n" in dstack("logs", name).stdout, f"{name} to print", timeout=60)

    return wait


def clear(stderr: str) -> None:
    """It is a message for people: no traceback, and no fault of dstack's."""
    assert "Traceback" not in stderr
    assert "dstack has a fault" not in stderr
    assert "error: " in stderr or "error:" in stderr
