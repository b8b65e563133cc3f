"""The completion scripts in the shells that they are for, asking a real database for names."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pexpect
import pytest

from dstack.cli.completion import script
from dstack.paths import Home
from dstack.store.database import Database
from dstack.store.secrets import Vault
from tests.support import wait_for

SOURCE = Path(sys.modules["dstack"].__file__ or "").parent.parent
TASK = "type: task\ncommands: [true]\n"
Complete = Callable[[str], list[str]]


def parser() -> argparse.ArgumentParser:
    """Small, and with every kind of word in it."""
    root = argparse.ArgumentParser(prog="dstack")
    root.add_argument("--version", action="store_true", help="print the version")
    commands = root.add_subparsers()
    run = commands.add_parser("run", help="run a task: it's $HOME `here`")
    run.add_argument("directory", metavar="DIR")
    run.add_argument("args", metavar="ARGS", nargs="*")
    run.add_argument("-f", "--file", metavar="FILE")
    run.add_argument("-e", "--env", metavar="NAME[=VALUE]", action="append")
    run.add_argument("-d", "--detach", action="store_true", help="100%% in the background")
    run.add_argument("--profile", metavar="PROFILE")
    run.add_argument("--backend", metavar="B")
    stop = commands.add_parser("stop", help="stop runs")
    stop.add_argument("names", metavar="NAME", nargs="+")
    stop.add_argument("-x", "--abort", action="store_true")
    logs = commands.add_parser("logs", help="print output")
    logs.add_argument("name", metavar="NAME")
    logs.add_argument("--secret", help=argparse.SUPPRESS)
    secrets = commands.add_parser("secrets", help="secrets").add_subparsers()
    secrets.add_parser("set", help="set").add_argument("name", metavar="NAME")
    secrets.add_parser("list", help="list")
    shell = commands.add_parser("completion", help="completion")
    shell.add_argument("shell", choices=("bash", "zsh", "fish"))
    return root


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the user stands: a project with profiles, files, and runs in the database."""
    project = tmp_path / "project"
    (project / "examples").mkdir(parents=True)
    (project / "my task").mkdir()
    (project / "train.dstack.yml").write_text(TASK)
    (project / ".dstack").mkdir()
    (project / ".dstack" / "profiles.yml").write_text(
        "profiles:\n- name: big\n- name: '$(touch pwned)'\n- name: small\n"
    )
    (tmp_path / "home").mkdir()
    home = Home(tmp_path / "home")
    database = Database(home)
    for number, name in enumerate(["brave-cat", "brave-dog", "calm-owl", "brave-cat"]):
        database.connection.execute(
            "INSERT INTO runs (id, name, active, version, submitted_at, doc)"
            " VALUES (?, ?, 0, 0, 0, '{}')",
            (str(number), name),
        )
    Vault(home, database).set("TOKEN", "x")
    database.close()
    bin = tmp_path / "bin"
    bin.mkdir()
    (bin / "dstack").write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(SOURCE)!r})\n"
        "from dstack.cli.main import main\nsys.exit(main())\n"
    )
    (bin / "dstack").chmod(0o755)
    return project


def environment(folder: Path) -> dict[str, str]:
    return {
        **os.environ,
        "DSTACK_HOME": str(folder.parent / "home"),
        "HOME": str(folder.parent),
        "PATH": f"{folder.parent / 'bin'}:{os.environ['PATH']}",
        "XDG_CONFIG_HOME": str(folder.parent),
        "XDG_DATA_HOME": str(folder.parent),
        "TERM": "dumb",
        "PS1": "> ",
    }


def needed(shell: str) -> str:
    return shutil.which(shell) or pytest.skip(f"{shell} is not installed")


def shell_output(folder: Path, argv: list[str]) -> list[str]:
    done = subprocess.run(
        argv,
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    assert done.returncode == 0
    return done.stdout.splitlines()


@pytest.fixture
def bash(folder: Path) -> Complete:
    """What bash offers for a line; words are split as readline does."""
    path = folder.parent / "completion.bash"
    path.write_text(script(parser(), "bash"))
    program = 'set -u; source "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _dstack'
    program += '; [[ ${#COMPREPLY[@]} = 0 ]] || printf "%s\\n" "${COMPREPLY[@]}"'

    def complete(line: str) -> list[str]:
        words = line.replace("=", " = ").replace(":", " : ").split(" ")
        while "" in words[:-1]:
            words.remove("")
        return shell_output(folder, [needed("bash"), "-c", program, str(path), *words])

    return complete


@pytest.fixture
def fish(folder: Path) -> Complete:
    """What fish offers for a line, without its descriptions."""
    path = folder.parent / "completion.fish"
    path.write_text(script(parser(), "fish"))

    def complete(line: str) -> list[str]:
        program = f"source {path}; complete -C '{line}'"
        found = shell_output(folder, [needed("fish"), "-c", program])
        return [line.split("\t")[0] for line in found]

    return complete


@pytest.fixture(params=["bash", "fish"])
def complete(request: pytest.FixtureRequest) -> Complete:
    found: Complete = request.getfixturevalue(request.param)
    return found


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("dstack s", ["secrets", "stop"]),
        ("dstack logs ", ["brave-cat", "brave-dog", "calm-owl"]),
        ("dstack stop -x calm-owl brave-d", ["brave-dog"]),
        ("dstack stop brave-cat b", ["brave-cat", "brave-dog"]),
        ("dstack logs brave-cat ", []),
        ("dstack secrets ", ["list", "set"]),
        ("dstack secrets set T", ["TOKEN"]),
        ("dstack secrets list ", []),
        ("dstack completion ", ["bash", "fish", "zsh"]),
        ("dstack run --profile ", ["big", "small"]),
        ("dstack run . --backend l", ["local"]),
        ("dstack run -e ", []),
        ("dstack run -e logs --det", ["--detach"]),
        ("dstack logs --se", []),
        ("dstack logs -- b", ["brave-cat", "brave-dog"]),
    ],
)
def test_words_are_completed(complete: Complete, line: str, words: list[str]) -> None:
    assert sorted(complete(line)) == words


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("dstack run --profile=", ["big", "small"]),
        ("dstack run --profile=s", ["small"]),
        ("dstack run -e A=b --profile s", ["small"]),
        ("dstack run -e A=b", []),
    ],
)
def test_bash_words_broken_at_equals_signs(bash: Complete, line: str, words: list[str]) -> None:
    assert bash(line) == words


def test_fish_completes_files_and_folders(fish: Complete) -> None:
    assert fish("dstack run ex") == ["examples/"]
    assert "train.dstack.yml" in fish("dstack run -f tr")
    assert fish("dstack run --profile=s") == ["--profile=small"]


def test_names_from_a_project_are_never_executed(complete: Complete, folder: Path) -> None:
    complete("dstack run --profile ")
    complete("dstack run --profile $")
    assert not (folder / "pwned").exists()


def test_a_garbled_database_completes_nothing(complete: Complete, folder: Path) -> None:
    (folder.parent / "home" / "dstack.db").write_bytes(b"garbage" * 1000)
    assert complete("dstack logs ") == []


def test_asking_makes_no_folder(complete: Complete, folder: Path) -> None:
    shutil.rmtree(folder.parent / "home")
    assert complete("dstack logs ") == []
    assert not (folder.parent / "home").exists()


class Screen:
    """A shell that is typed into. What stands on the line afterwards is written to a file."""

    def __init__(self, folder: Path, argv: list[str], setup: str) -> None:
        self.result = folder.parent / "line"
        self.child = pexpect.spawn(
            argv[0],
            argv[1:],
            cwd=str(folder),
            env={**environment(folder), "TERM": "vt100"},
            encoding="utf-8",
            timeout=60,
            dimensions=(40, 200),
        )
        self.child.sendline(setup + "; echo rea''dy")
        self.child.expect("ready\r\n")

    def type(self, keys: str) -> str:
        """The line that the keys make, without a space at its end."""
        self.child.send(f"{keys}\x01printf '%s\\n' '\x05' > {self.result}.new")
        self.child.sendline(f" && mv {self.result}.new {self.result}")
        found = wait_for(lambda: self.result.exists() and self.result.read_text(), keys)
        self.result.unlink()
        return str(found).rstrip()

    def close(self) -> None:
        self.child.close(force=True)


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_on_a_real_line(shell: str, folder: Path) -> None:
    path = folder.parent / f"completion.{shell}"
    path.write_text(script(parser(), shell))
    plain = {"bash": ["--norc", "--noprofile", "-i"], "zsh": ["-f", "-i"]}[shell]
    screen = Screen(folder, [needed(shell), *plain], f"source {path}")
    try:
        assert screen.type("dstack logs ca\t") == "dstack logs calm-owl"
        assert screen.type("dstack run ex\t").rstrip("/") == "dstack run examples"
        assert screen.type("dstack run my\t").rstrip("/") == "dstack run my\\ task"
        assert screen.type("dstack run . -f tr\t") == "dstack run . -f train.dstack.yml"
        assert screen.type("dstack run . --prof\t") == "dstack run . --profile"
        assert screen.type("dstack run --profile=sm\t") == "dstack run --profile=small"
        assert screen.type("dstack secrets s\t") == "dstack secrets set"
        assert screen.type("dstack comp\tf\t") == "dstack completion fish"
    finally:
        screen.close()
