"""`dstack backend` about this machine, and what is written to config.yml."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from dstack.cli.main import main
from tests.engines.engine import Engine
from tests.engines.fixtures import *  # noqa: F403 (that is how fixtures are taken over)

Capture = pytest.CaptureFixture[str]
SHOWN = ["cpus", "memory", "disk", "gpus", "python", "limits", "docker", "podman"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DSTACK_HOME", str(tmp_path))
    return tmp_path


@pytest.mark.usefixtures("home")
def test_it_says_what_this_machine_offers(capsys: Capture) -> None:
    assert main(["backend", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["name"], found["answers"], found["error"]) == ("local", True, None)
    assert found["cpus"] >= 1
    assert found["memory"] > 2**20
    assert f"{sys.version_info[0]}.{sys.version_info[1]}" in found["pythons"]
    names = [each["name"] for each in found["engines"]]
    assert names == ["docker", "podman"]
    assert found["container_engine"] in (None, *names)
    assert set(found["tools"]) == {"tar", "git", "uv"}
    assert main(["backend"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "local  answers"
    assert [line.split()[0] for line in shown[1:]] == SHOWN


def test_check_says_whether_each_answers(home: Path, capsys: Capture) -> None:
    (home / "config.yml").write_text(
        "backends:\n- {name: here, type: local, engine: process}\n"
        "- {name: boat, type: local, engine: podman}\n"
    )
    assert main(["backend", "check", "here"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "here  answers"
    assert main(["backend", "check", "gone"]) == 2
    assert "there is no backend gone\nhint: backends: here, boat" in capsys.readouterr().err


def test_what_does_not_answer_is_told(
    home: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    (home / "config.yml").write_text("backends: [{name: boat, engine: docker}]\n")
    assert main(["backend"]) == 0
    assert main(["backend", "check"]) == 1
    out, err = capsys.readouterr()
    assert "boat  does not answer: Docker is not installed" in out.splitlines()
    assert err.startswith("error: backend boat does not answer: Docker is not installed\nhint: see")
    assert main(["backend", "--json", "check"]) == 1
    assert main(["backend", "check", "--json"]) == 1
    (first, second) = capsys.readouterr().out.split("]\n[")
    assert '"answers": false' in first
    assert '"answers": false' in second


def test_an_engine_says_its_version(busy_engine: Engine, home: Path, capsys: Capture) -> None:
    (home / "config.yml").write_text(
        f"backends: [{{name: local, type: local, engine: {busy_engine.name}}}]"
    )
    assert main(["backend", "check", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    (engine,) = found["engines"]
    assert engine["name"] == busy_engine.name
    assert engine["version"] in busy_engine.cli("version")


def test_a_bad_config_is_told(home: Path, capsys: Capture) -> None:
    (home / "config.yml").write_text("backends: 7\n")
    for command in ([], ["list"], ["check"], ["remove", "x"], ["add", "x", "--ssh", "y"]):
        assert main(["backend", *command]) == 2
        assert "config.yml:1:" in capsys.readouterr().err


def test_list_asks_nobody(home: Path, capsys: Capture) -> None:
    (home / "config.yml").write_text(
        "backends:\n- name: local\n- {name: far, type: ssh, host: nowhere.invalid, default: true}\n"
    )
    assert main(["backend", "list"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[1:] == [
        ["local", "local", "auto"],
        ["far", "ssh", "nowhere.invalid", "auto", "default"],
    ]
    assert main(["backend", "list", "--json"]) == 0
    local, far = json.loads(capsys.readouterr().out)
    assert (local["host"], local["default"]) == (None, False)
    assert (far["host"], far["root"], far["default"]) == ("nowhere.invalid", "~/.dstack", True)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--ssh", "-oProxyCommand=x"], "--ssh: expected one argument"),
        (["--ssh=-oProxyCommand=x"], '--ssh: "-oProxyCommand=x" is not the name of a machine'),
        (["--ssh", "b", "--root", "x"], '--root: "x" is not a path that begins with / or ~/'),
        (["--ssh", "b", "--engine", "vm"], '--engine: "vm" is not auto, process, docker or podman'),
        (["--ssh", "b", "--identity-file", "none"], "--identity-file: there is no file none"),
        ([], "--ssh is missing"),
    ],
)
def test_wrong_options_of_add(home: Path, capsys: Capture, options: list[str], error: str) -> None:
    assert main(["backend", "add", "box", *options]) == 2
    assert error in capsys.readouterr().err
    assert not (home / "config.yml").exists()
