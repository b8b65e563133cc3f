"""The disk of the engine itself is full: at the pull, and when a build becomes an image."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Project
from tests.engines.daemon import Daemon
from tests.engines.engine import Engine
from tests.engines.podman import Podman
from tests.engines.services import Services
from tests.faults.conftest import clear, use
from tests.support import Dstack

SIZE, LARGE = "40m", 24 << 20  # of which two do not find room there
PRODUCT = {"docker": "Docker", "podman": "Podman"}


@pytest.fixture
def tight(
    request: pytest.FixtureRequest,
    engine_name: str,
    services: Services,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Engine]:
    """An engine of this test's own whose disk holds SIZE."""
    source, registry = services.engines[engine_name], services.open.address
    if engine_name == "docker":
        start: Callable[..., Daemon] = request.getfixturevalue("docker_daemon")
        daemon = start(f"--insecure-registry={registry}", size=SIZE)
        daemon.copy_image(source, "busybox")
        monkeypatch.setenv("DOCKER_HOST", daemon.host)
        yield daemon.client()
        return
    folder = Path(tempfile.mkdtemp(prefix="dst-", dir="/var/tmp"))
    podman = Podman(folder, size=SIZE, beside=services.podman)
    try:
        podman.configure([registry])
        podman.copy_image(source, "busybox")
        for key, value in podman.env.items():
            monkeypatch.setenv(key, value)
        yield podman.client()
    finally:
        podman.clean()
        shutil.rmtree(folder)


def images(engine: Engine) -> list[str]:
    """The ids of all images, those without a name included."""
    return sorted(engine.cli("images", "--all", "--quiet", "--no-trunc").split())


def test_full_at_the_pull(
    tight: Engine, services: Services, dstack: Dstack, project: Project
) -> None:
    use(dstack, tight)
    before = images(tight)
    image = f"{services.open.address}/dstack-test/python:latest"
    done = dstack("run", project(f"type: task\nimage: {image}\ncommands: [echo never]\n"))
    assert done.returncode == 125
    clear(done.stderr)
    full = f"the disk of {PRODUCT[tight.name]} is full: {image} could not be put there"
    assert full in done.stderr
    assert (tight.containers(), images(tight)) == ([], before)


def test_full_at_the_commit(tight: Engine, dstack: Dstack, project: Project) -> None:
    use(dstack, tight)
    before = images(tight)
    folder = project(
        f"type: task\nimage: {tight.image('busybox')}\nenv: [SIZE=4]\n"
        "build: ['head -c $SIZE /dev/zero >/large; echo made']\n"
        "commands: ['wc -c </large']\n"
    )
    full = f"the disk of {PRODUCT[tight.name]} is full: the image of the build could not be put"
    done = dstack("build", folder, "-e", f"SIZE={LARGE}")
    assert (done.returncode, done.stdout) == (125, "made\n"), done.stderr
    clear(done.stderr)
    assert full in done.stderr
    # A build that failed is never kept, and nothing of it is left.
    assert json.loads(dstack.ok("builds", "--json")) == []
    assert os.listdir(dstack.home / "builds") == ["lock"]
    assert (tight.containers(), images(tight)) == ([], before)
    assert {run["reason"] for run in dstack.ps("-a")} == {"start_failed"}
    # The next one, for which there is room, is made.
    assert dstack.ok("run", folder, "--build") == "4\n"
    dstack.ok("prune", "builds", "-y")
    assert images(tight) == before
