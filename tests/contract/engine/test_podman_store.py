"""What Podman said about an image holds until its store or its settings change."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from dstack.engines.podman_store import image_id, look_up
from dstack.hosts.base import Completed
from dstack.hosts.local import LocalHost
from dstack.paths import Home
from tests.engines.engine import PREFIX, Engine
from tests.engines.fixtures import *  # noqa: F403 (that is how fixtures are taken over)
from tests.engines.fixtures import held
from tests.engines.services import Services

TAG = f"{PREFIX['podman']}/moving:latest"


class Counting(LocalHost):
    """This machine, and what was run on it."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Completed:
        self.asked.append(argv[1])
        return super().run(argv, env=env, timeout=timeout)


class Asker:
    """Looks images up, as every `dstack run` does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environ: dict[str, str] = {}
        self.client = "podman"

    def __call__(self, image: str) -> tuple[str | None, list[str]]:
        """The image's id, and what the client was asked for it."""
        host = Counting()
        facts = look_up(host, self.folder, self.client, image, self.environ)
        return image_id(facts) if facts is not None else None, host.asked


@pytest.fixture
def podman_alone(services: Services, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    with held(services, "podman", monkeypatch, fcntl.LOCK_EX) as engine:
        yield engine
        engine.run("untag", TAG, TAG)


@pytest.fixture
def ask(home: Home) -> Asker:
    return Asker(home.images)


def id_of(engine: Engine, name: str) -> str:
    return engine.cli("image", "inspect", "--format", "{{.Id}}", engine.image(name))


def test_it_is_asked_once(podman_alone: Engine, ask: Asker) -> None:
    busybox, user = (id_of(podman_alone, name) for name in ("busybox", "user"))
    assert ask(podman_alone.image("busybox")) == (busybox, ["info", "image"])
    assert ask(podman_alone.image("busybox")) == (busybox, [])
    assert ask(podman_alone.image("user")) == (user, ["image"])
    podman_alone.cli("run", "--rm", podman_alone.image("busybox"), "true")
    assert ask(podman_alone.image("busybox")) == (busybox, [])
    assert ask(podman_alone.image("user")) == (user, [])


def test_a_name_that_moves_is_asked_for_again(podman_alone: Engine, ask: Asker) -> None:
    assert ask(TAG)[0] is None
    for name in ("busybox", "user", "busybox"):
        podman_alone.cli("tag", podman_alone.image(name), TAG)
        assert ask(TAG)[0] == id_of(podman_alone, name)
        assert ask(TAG)[1] == []
    podman_alone.cli("untag", TAG, TAG)
    assert ask(TAG)[0] is None


def test_other_settings_may_mean_another_store(
    podman_alone: Engine, ask: Asker, tmp_path: Path
) -> None:
    image = podman_alone.image("busybox")
    known = ask(image)[0]
    settings = tmp_path / "storage.conf"
    settings.write_text(Path(os.environ["CONTAINERS_STORAGE_CONF"]).read_text())
    ask.environ = {"CONTAINERS_STORAGE_CONF": str(settings)}
    assert ask(image) == (known, ["info", "image"])
    assert ask(image) == (known, [])
    settings.write_text(settings.read_text() + "# edited\n")
    assert ask(image) == (known, ["info", "image"])


def test_what_is_damaged_is_asked_for_again(podman_alone: Engine, ask: Asker) -> None:
    image = podman_alone.image("busybox")
    known = ask(image)[0]
    for damaged in (b"", b"{}", b"[1]", b"\xff"):
        (kept,) = ask.folder.iterdir()
        kept.write_bytes(damaged)
        assert ask(image) == (known, ["info", "image"])


def test_without_the_client_nothing_is_known(ask: Asker, tmp_path: Path) -> None:
    ask.client = str(tmp_path / "podman")
    assert ask("busybox")[0] is None
