"""What the tests of single faults share."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.conftest import make_home, tended
from tests.engines.daemon import Daemon
from tests.engines.engine import Engine
from tests.engines.fixtures import *  # noqa: F403 (that is how fixtures are taken over)
from tests.engines.services import Services
from tests.faults.container_rounds import IMAGES, cgroups
from tests.faults.lanes import Lane
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


@pytest.fixture
def alone(
    request: pytest.FixtureRequest,
    engine_name: str,
    services: Services,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Engine]:
    """An engine that no other test uses: Docker by a daemon of its own, Podman by its lock."""
    if engine_name == "podman":
        yield request.getfixturevalue("engine")
        return
    start: Callable[..., Daemon] = request.getfixturevalue("docker_daemon")
    daemon = start()
    monkeypatch.setenv("DOCKER_HOST", daemon.host)
    for image in IMAGES:
        daemon.copy_image(services.engines["docker"], image)
    engine = daemon.client()
    before = engine.snapshot() | cgroups(daemon.name)
    yield engine
    wait_for(lambda: engine.snapshot() | cgroups(daemon.name) <= before, "leftovers to go")


@pytest.fixture
def lanes(binary: str, templates: Path, tmp_path: Path) -> Iterator[Callable[[int], list[Lane]]]:
    """Make so many lanes, each with its own state folder; afterwards no process may be left."""
    with ExitStack() as stack:

        def lane(number: int) -> Lane:
            place = tmp_path / f"lane{number}"
            (place / "project").mkdir(parents=True)
            dstack = Dstack(binary, make_home(place / "home", templates), place)
            return Lane(stack.enter_context(tended(dstack)), place / "project")

        yield lambda count: [lane(number) for number in range(count)]


def use(dstack: Dstack, engine: Engine) -> None:
    """Have every run of this state folder on `engine`."""
    (dstack.home / "config.yml").write_text(
        f"backends: [{{name: local, type: local, engine: {engine.name}}}]\n"
    )
