"""`dstack backend` about this machine."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from dstack.cli.main import main
from tests.engines.engine import Engine
from tests.engines.fixtures import *  # noqa: F403 (that is how fixtures are taken over)

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DSTACK_HOME", str(tmp_path))
    return tmp_path


@pytest.mark.usefixtures("home")
def test_it_says_what_this_machine_offers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["backend", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["name"], found["answers"], found["error"]) == ("local", True, None)
    assert found["cpus"] >= 1
    assert found["memory"] > 2**20
    assert f"{sys.version_info[0]}.{sys.version_info[1]}" in found["pythons"]
    names = [each["name"] for each in found["engines"]]
    assert names == ["docker", "podman"]
    assert found["container_engine"] in (None, *names)
    assert main(["backend"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "local  answers"
    assert [line.split()[0] for line in shown[1:]] == [
        "cpus",
        "memory",
        "disk",
        "gpus",
        "python",
        "limits",
        "docker",
        "podman",
    ]


def test_check_says_whether_each_answers(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert main(["backend", "check"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "local  answers"
    assert [line.split(None, 1) for line in lines[1:]] == [
        ["docker", "Docker is not installed"],
        ["podman", "Podman is not installed"],
    ]
    (home / "config.yml").write_text(
        "backends:\n- {name: here, type: local, engine: process}\n"
        "- {name: boat, type: local, engine: docker}\n"
    )
    assert main(["backend", "check"]) == 1
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == "here  answers"
    assert "boat  does not answer: Docker is not installed" in out.splitlines()
    assert err.startswith("error: backend boat does not answer\nhint: see https://docs.docker.com")
    assert main(["backend", "check", "--json"]) == 1
    assert [b["answers"] for b in json.loads(capsys.readouterr().out)] == [True, False]


def test_an_engine_says_its_version(busy_engine: Engine, home: Path, capsys: Capture) -> None:
    (home / "config.yml").write_text(
        f"backends: [{{name: local, type: local, engine: {busy_engine.name}}}]"
    )
    assert main(["backend", "check", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    (engine,) = found["engines"]
    assert engine["name"] == busy_engine.name
    assert engine["version"] in busy_engine.cli("version")


def test_a_bad_config_is_told(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "config.yml").write_text("backends: 7\n")
    assert main(["backend"]) == 2
    assert "config.yml:1:" in capsys.readouterr().err
