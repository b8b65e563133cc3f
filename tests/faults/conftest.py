"""What the tests of single faults share."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from tests.conftest import make_home, tended
from tests.engines.daemon import Daemon
from tests.engines.engine import Engine
from tests.engines.fixtures import *  # noqa: F403 (that is how fixtures are taken over)
from tests.engines.fixtures import exclusive
from tests.engines.services import Services
from tests.faults.container_rounds import IMAGES, cgroups
from tests.faults.lanes import Lane
from tests.support import Dstack, wait_for


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest begins first, so that no worker is at it alone in the end.

    First batch next to first batch: cuts mostly wait, and kills do not.
    """
    here = Path(__file__).parent
    mine = [item for item in items if here in item.path.parents]
    others = [item for item in items if here not in item.path.parents]
    rounds = [item for item in mine if "_rounds_of_" in item.name]
    rounds.sort(key=lambda item: (number_of(item), item.path, item.name))
    items[:] = others + rounds + [item for item in mine if "_rounds_of_" not in item.name]


def number_of(item: pytest.Item) -> int:
    """Of a batch of rounds; 0 for what is a single batch."""
    number = item.name.rpartition("[")[2].rstrip("]")
    return int(number) if number.isdigit() else 0


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


class Place:
    """Where the runs of a test are: as processes, or in containers of a real engine."""

    def __init__(self, dstack: Dstack, side: Path, engine: Engine | None) -> None:
        self.dstack = dstack
        self.engine = engine
        self.head = "type: task\n"  # what the task file begins with
        self.inside = str(side)  # a folder beside the code, as the run has it
        self._side = side
        if engine is None:
            side.mkdir()
            return
        use(dstack, engine)
        self.inside = "/side"
        self.head += f"image: {engine.image('busybox')}\ncache: [/side]\n"

    @property
    def side(self) -> Path:
        """That folder, as the test has it; of a container once its run has begun."""
        if self.inside == str(self._side):
            return self._side
        (found,) = self.dstack.home.glob("cache/*/%2Fside")
        return found

    def fall(self) -> None:
        """End all of a container at once, as a machine does that falls: it is still there then."""
        if self.engine is None:
            return
        for name in self.engine.containers(all=False):
            self.engine.run("kill", name)
            # Nor does anybody remove it.
            wait_for(partial(self._made, name), "it to be gone, and there again", timeout=60)

    def _made(self, name: str) -> bool:
        if self.engine is None or name in self.engine.containers():
            return False
        image = self.engine.image("busybox")
        return self.engine.run("create", "--name", name, image, "true").returncode == 0

    def run(self) -> None:
        """Wait until the commands of the one run there is have begun."""
        names = ("running", "box/running")
        found = [f"runs/*/1/{name}" for name in names]
        wait_for(
            lambda: [path for each in found for path in self.dstack.home.glob(each)],
            "it to run",
            timeout=60,
        )


@pytest.fixture(params=["process", "docker", "podman"])
def place(
    request: pytest.FixtureRequest,
    dstack: Dstack,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Place]:
    """Each of the places that a run may be at; what is left of it in an engine fails the test."""
    if request.param == "process":
        yield Place(dstack, tmp_path / "side", None)
        return
    services: Services = request.getfixturevalue("services")
    with exclusive(services, request.param, monkeypatch) as engine:
        yield Place(dstack, tmp_path / "side", engine)
        # What a test that failed has left is no container left behind.
        dstack("stop", "-a", "-x", "-y")


def use(dstack: Dstack, engine: Engine) -> None:
    """Have every run of this state folder on `engine`."""
    (dstack.home / "config.yml").write_text(
        f"backends: [{{name: local, type: local, engine: {engine.name}}}]\n"
    )
