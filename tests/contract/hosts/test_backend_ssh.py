"""`dstack backend` with machines that `ssh` reaches, and what a person is asked on the way."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from dstack.cli.main import main
from dstack.hosts.ssh import SshHost
from dstack.hosts.ssh_options import SshOptions
from tests.hosts.client import Client
from tests.hosts.services import Hosts
from tests.hosts.spec import PASSWORD

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def home(ssh: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of dstack; the connections that were made for it end with the test."""
    monkeypatch.setenv("DSTACK_HOME", str(tmp_path / "home"))
    yield tmp_path / "home"
    for name in ("alpha", "bare", "nogit", "alpha.typed", "alpha.locked", "alpha.stranger"):
        SshHost(name, SshOptions(name), tmp_path / "home").disconnect()
    assert ssh.hosts


def test_a_machine_is_added_checked_and_removed(home: Path, capsys: Capture) -> None:
    assert (
        main(["backend", "add", "box", "--ssh", "alpha", "--engine", "process", "--default"]) == 0
    )
    out, err = capsys.readouterr()
    assert out == ""
    lines = dict(line.split(None, 1) for line in err.splitlines()[1:-1])
    assert err.startswith("box (alpha)  answers\n")
    assert lines["gpus"] == "none"
    assert lines["disk"].endswith(" free")
    assert lines["uv"][0].isdigit()
    assert lines["git"][0].isdigit()
    assert "3." in lines["python"]
    assert (home / "config.yml").read_text() == (
        "backends:\n  - name: local\n  - name: box\n    type: ssh\n    engine: process\n"
        "    host: alpha\n    default: true\n"
    )
    assert main(["backend", "check", "box", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["host"], found["answers"], set(found["tools"])) == (
        "alpha",
        True,
        {"tar", "git", "uv"},
    )
    assert main(["backend", "remove", "box"]) == 0
    assert "what dstack keeps there stays: ~/.dstack on alpha" in capsys.readouterr().err
    assert (home / "config.yml").read_text() == "backends:\n  - name: local\n"


@pytest.mark.usefixtures("home")
def test_what_is_missing_is_told(capsys: Capture) -> None:
    assert main(["backend", "add", "tiny", "--ssh", "bare", "--root", "/tmp/d"]) == 0
    said = capsys.readouterr().err
    assert "  git         none: only commands of yours may need it\n" in said
    assert "  uv          none: it is copied there when a run needs it\n" in said
    assert "  docker      Docker is not installed\n" in said


def test_a_machine_without_tar_is_not_taken(home: Path, hosts: Hosts, capsys: Capture) -> None:
    hosts["nogit"].admin("mv", "/usr/bin/tar", "/usr/bin/tar.away")
    try:
        assert main(["backend", "add", "box", "--ssh", "nogit"]) == 1
    finally:
        hosts["nogit"].admin("mv", "/usr/bin/tar.away", "/usr/bin/tar")
    assert "nogit cannot be used: there is no tar on it\nhint:" in capsys.readouterr().err
    assert not (home / "config.yml").exists()


def test_what_does_not_answer_is_not_added(home: Path, capsys: Capture) -> None:
    assert main(["backend", "add", "box", "--ssh", "alpha.wrongkey"]) == 1
    err = capsys.readouterr().err
    assert "error: backend box: alpha.wrongkey cannot be reached: it does not let" in err
    assert err.endswith("box was not added\n")
    assert not (home / "config.yml").exists()


@pytest.mark.parametrize(
    ("alias", "question", "reply"),
    [
        ("alpha.typed", "password:", PASSWORD),
        ("alpha.locked", "passphrase for key", PASSWORD),
        ("alpha.stranger", "continue connecting", "yes"),
    ],
)
def test_a_person_is_asked_what_ssh_asks(home: Path, alias: str, question: str, reply: str) -> None:
    env = {**os.environ, "PYTHONPATH": "src", "DSTACK_HOME": str(home), "NO_COLOR": "1"}
    args = ["-m", "dstack", "backend", "add", "box", "--ssh", alias]
    child = pexpect.spawn(sys.executable, args, env=env, timeout=60, encoding="utf-8")
    child.expect(question)
    child.sendline(reply)
    child.expect("answers")
    child.expect("try: dstack run . --backend box")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
    # The connection is there now: nobody is asked again, a script is not either.
    assert main(["backend", "check", "box"]) == 0


def test_a_wrong_password_is_told(home: Path) -> None:
    env = {**os.environ, "PYTHONPATH": "src", "DSTACK_HOME": str(home), "NO_COLOR": "1"}
    args = ["-m", "dstack", "backend", "add", "box", "--ssh", "alpha.typed"]
    child = pexpect.spawn(sys.executable, args, env=env, timeout=60, encoding="utf-8")
    for _ in range(3):
        child.expect("password:")
        child.sendline("wrong")
    child.expect("it does not let this user in")
    child.expect("box was not added")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 1
