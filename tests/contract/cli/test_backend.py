"""`dstack backend` about this machine."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from dstack.cli.main import main


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
    assert found["container_engine"] is None
    assert main(["backend"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "local  answers"
    assert [line.split()[0] for line in shown[1:]] == [
        "cpus",
        "memory",
        "disk",
        "gpus",
        "python",
        "containers",
        "limits",
    ]


def test_check_says_whether_each_answers(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["backend", "check"]) == 0
    assert capsys.readouterr().out == "local  answers\n"
    (home / "config.yml").write_text(
        "backends:\n- {name: here, type: local}\n- {name: boat, type: local, engine: docker}\n"
    )
    assert main(["backend", "check"]) == 1
    out, err = capsys.readouterr()
    assert out == "here  answers\nboat  does not answer: the engine docker is not there yet\n"
    assert err.startswith("error: backend boat does not answer\nhint: ")
    assert main(["backend", "check", "--json"]) == 1
    assert [b["answers"] for b in json.loads(capsys.readouterr().out)] == [True, False]


def test_a_bad_config_is_told(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "config.yml").write_text("backends: 7\n")
    assert main(["backend"]) == 2
    assert "config.yml:1:" in capsys.readouterr().err
