"""The command line of `dstack run`: DIR, -f, arguments, --dry-run, and what is refused how."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.e2e.conftest import RunTask, Task
from tests.support import Dstack, git_init, write_files


def refused(dstack: Dstack, done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """Nothing was started, and one short message says why."""
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert "Traceback" not in done.stderr
    assert "http" not in done.stderr
    for word in words:
        assert word in done.stderr
    assert dstack.ps("-a") == []
    assert not list(dstack.home.glob("runs/*"))


def test_arguments_are_quoted_for_the_shell(run_task: RunTask) -> None:
    text = "commands: [\"printf '<%s>' start ${{ run.args }}\"]"
    odd = ["--epochs", "a b", "$HOME", "it's", '"', "*", "", "-x=1", "--", "-d", "ü\n"]
    done = run_task(text, "--lr", "0.1", "--", *odd)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "".join(f"<{word}>" for word in ["start", "--lr", "0.1", *odd])


def test_arguments_that_the_file_does_not_use_are_an_error(
    dstack: Dstack, run_task: RunTask
) -> None:
    refused(dstack, run_task("commands: [echo hi]", "--epochs", "3"), 2, "--epochs 3", "run.args")


def test_an_argument_that_is_nearly_an_option_is_told_of(run_task: RunTask) -> None:
    text = "commands: ['echo ${{ run.args }}']"
    done = run_task(text, "--bckend", "local", "--epochs", "3")
    assert (done.returncode, done.stdout) == (0, "--bckend local --epochs 3\n")
    assert "--bckend is handed to the run; did you mean --backend?" in done.stderr
    assert "--epochs is" not in done.stderr
    assert "handed" not in run_task(text, "--", "--bckend", "local").stderr


def test_run_name_is_replaced(run_task: RunTask) -> None:
    done = run_task("commands: ['echo ${{ run.name }}']", "-n", "given")
    assert (done.returncode, done.stdout) == (0, "given\n")


def test_a_file_with_errors_shows_all_of_them(dstack: Dstack, run_task: RunTask) -> None:
    done = run_task("comands: [x]\npython: 2.7\nports: [70000]\nenv: [A B]\nmax_duration: soon")
    refused(dstack, done, 2, 'did you mean "commands"')
    places = re.findall(r"^\.dstack\.yml:(\d+):\d+: ", done.stderr, re.MULTILINE)
    assert set(places) >= {"2", "3", "4", "5", "6"}


@pytest.mark.parametrize(
    "content", [b"", b"- a\n", b"\0\1\2", b"type: task\n\tcommands: [x]\n", b"a: [", b"\xff\xfe"]
)
def test_a_file_of_garbage(dstack: Dstack, tmp_path: Path, content: bytes) -> None:
    folder = write_files(tmp_path / "project", {".dstack.yml": content})
    refused(dstack, dstack("run", folder), 2, ".dstack.yml:")


def test_the_type_lists_those_that_exist(dstack: Dstack, tmp_path: Path) -> None:
    folder = write_files(tmp_path / "p", {".dstack.yml": "type: service\ncommands: [x]\n"})
    refused(dstack, dstack("run", folder), 2, "task")


def test_another_file_is_relative_to_where_the_user_stands(dstack: Dstack, task: Task) -> None:
    folder = task(
        "commands: [echo default]",
        files={
            "sub/train.dstack.yml": "type: task\ncommands: ['echo other in $(basename $PWD)']\n",
            "sub/wrong.yml": "type: task\ncommands: [echo no]\n",
            "sub/long.dstack.yaml": "type: task\ncommands: [echo yaml]\n",
        },
    )
    git_init(folder)
    sub = folder / "sub"
    assert dstack.ok("run", ".", "-f", "train.dstack.yml", cwd=sub) == "other in sub\n"
    assert dstack.ok("run", "sub", "-f", "sub/long.dstack.yaml", cwd=folder) == "yaml\n"
    assert dstack.ok("run", "..", cwd=sub) == "default\n"
    done = dstack("run", ".", "-f", "wrong.yml", cwd=sub)
    assert done.returncode == 2
    assert "NAME.dstack.yml" in done.stderr
    done = dstack("run", ".", cwd=sub)
    assert done.returncode == 2
    assert "train.dstack.yml" in done.stderr


def test_a_folder_outside_the_project(dstack: Dstack, task: Task) -> None:
    inside = task("commands: [echo hi]", name="inside")
    git_init(inside)
    outside = task("commands: [echo hi]", name="outside")
    refused(dstack, dstack("run", outside, cwd=inside), 2, "outside", str(outside))


def test_profiles_in_dstacks_own_folder_make_no_project(dstack: Dstack, tmp_path: Path) -> None:
    own = {"DSTACK_HOME": str(tmp_path / ".dstack")}
    files = {".dstack.yml": "type: task\ncommands: [pwd]\n", "other": "x"}
    folder = write_files(tmp_path / "below", files)
    dstack.ok("ps", env=own)
    write_files(tmp_path, {".dstack/profiles.yml": "profiles: []\n"})
    assert dstack.ok("run", folder, env=own).rstrip().endswith("/code")
    # The folder that holds it can be a project all the same; what dstack keeps is not sent.
    write_files(tmp_path, {".dstack.yml": "type: task\ncommands: [ls -a]\n"})
    for _ in range(2):
        shown = dstack.ok("run", tmp_path, env=own).split()
        assert "below" in shown
        assert ".dstack" not in shown


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["missing"], ["missing"]),
        ([""], ["there is no folder ''"]),
        ([".dstack.yml"], ["not a folder", "-f .dstack.yml"]),
        ([], ["DIR"]),
        ([".", "-f", "none.dstack.yml"], ["none.dstack.yml"]),
        ([".", "--profile", "none"], ["none"]),
        ([".", "--backend", "moon"], ["moon", "local"]),
        ([".", "--cpu", "many"], ["--cpu many"]),
        ([".", "-p", "70000"], ["-p 70000"]),
        ([".", "-e", "1X=2"], ["-e 1X=2"]),
        ([".", "-n", "Not_A_Name"], ["Not_A_Name"]),
        ([".", "--max-duration", "soon"], ["--max-duration soon"]),
        ([".", "--spot", "--on-demand"], ["--on-demand"]),
    ],
)
def test_a_wrong_command_line(
    dstack: Dstack, task: Task, args: list[str], words: list[str]
) -> None:
    refused(dstack, dstack("run", *args, cwd=task("commands: [echo no]")), 2, *words)


@pytest.mark.parametrize(
    "args",
    [
        ["fly"],
        ["--fly"],
        ["ps", "--fly"],
        ["ps", "nobody"],
        ["logs", "nobody"],
        ["attach", "nobody"],
        ["stop", "nobody"],
        ["restart", "nobody"],
        ["rm", "nobody"],
        ["stop"],
        ["rm"],
        ["logs"],
        ["secrets"],
        ["secrets", "delete", "nobody"],
        ["completion", "tcsh"],
        ["validate", "missing.dstack.yml"],
        ["logs", "nobody", "--tail", "x"],
    ],
)
def test_wrong_commands_exit_with_2_and_name_what_is_wrong(dstack: Dstack, args: list[str]) -> None:
    done = dstack(*args)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 4
    if len(args) > 1:
        assert any(word in done.stderr for word in args[1:])


def test_a_near_miss_gets_a_hint(dstack: Dstack) -> None:
    assert 'did you mean "restart"?' in dstack("restrat").stderr


def test_a_task_with_a_build_asks_for_one(dstack: Dstack, run_task: RunTask) -> None:
    done = run_task("build: [make]\ncommands: [echo hi]")
    refused(dstack, done, 125, "error: there is no build of this task yet", "dstack build .")


def test_build_options_need_a_build(dstack: Dstack, run_task: RunTask) -> None:
    refused(dstack, run_task("commands: [echo hi]", "--build"), 2, "has no `build`")


def test_dry_run_prints_the_script_and_starts_nothing(dstack: Dstack, task: Task) -> None:
    folder = task("""
        env: [TOKEN]
        setup: [pip install something]
        commands: ["echo it's run", 'echo ${{ run.args }}']
        """)
    secret = {"TOKEN": "very-secret-value"}
    done = dstack("run", ".", "--dry-run", "-n", "tried", "--", "a b", cwd=folder, env=secret)
    assert done.returncode == 0
    assert done.stdout.startswith("#!/bin/sh\n")
    assert "pip install something" in done.stdout
    assert "a b" in done.stdout
    assert "very-secret-value" not in done.stdout
    assert subprocess.run(["sh", "-n"], input=done.stdout, text=True, check=False).returncode == 0
    assert dstack.ps("-a") == []
    assert not list(dstack.home.glob("runs/*"))


def test_odd_folders(dstack: Dstack, task: Task) -> None:
    name = "a 'b' \"c\" $d `e` ünïcødé 日本"
    folder = task(
        """
        cache: [kept here]
        commands: [cat 'file ü.txt', 'python -c "print(1)"', pip --version > kept\\ here/v]
        """,
        name=name,
        files={"file ü.txt": "content\n"},
    )
    assert dstack.ok("run", folder) == "content\n1\n"
    assert dstack.ok("run", ".", cwd=folder) == "content\n1\n"


def test_without_git_commands_say_so(dstack: Dstack, task: Task, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("sh", "bash", "ls"):
        (tools / name).symlink_to(f"/bin/{name}")
    done = dstack("run", task("commands: [echo hi]"), env={"PATH": str(tools)})
    assert done.returncode in {1, 125}
    assert "git" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_state_folder_that_cannot_be_used(dstack: Dstack, task: Task, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = dstack("run", task("commands: [echo hi]"), env={"DSTACK_HOME": str(tmp_path / "file")})
    assert done.returncode == 1
    assert "DSTACK_HOME" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_state_folder_is_the_users_alone(dstack: Dstack, run_task: RunTask) -> None:
    run_task("commands: [echo hi]")
    assert dstack.home.stat().st_mode & 0o777 == 0o700


def test_init_writes_a_file_that_runs_as_it_is(dstack: Dstack, tmp_path: Path) -> None:
    folder = tmp_path / "fresh"
    folder.mkdir()
    done = dstack("init", cwd=folder)
    assert (done.returncode, done.stdout) == (0, "")
    assert "dstack run ." in done.stderr
    assert dstack.ok("validate", cwd=folder) == ".dstack.yml: ok\n"
    assert dstack.ok("run", ".", "-n", "first", cwd=folder).startswith("Hello from first")
    before = (folder / ".dstack.yml").read_text()
    assert dstack("init", cwd=folder).returncode == 2
    assert (folder / ".dstack.yml").read_text() == before


def test_an_empty_folder_hints_at_init(dstack: Dstack, tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    done = dstack("run", ".", cwd=folder)
    assert done.returncode == 2
    assert "dstack init" in done.stderr


def test_the_reader_of_the_output_goes_away(dstack: Dstack, task: Task) -> None:
    folder = task("name: pipe\ncommands: [yes]")
    line = f"{dstack.binary} run . | head -1"
    done = subprocess.run(
        ["bash", "-c", line + '; echo "${PIPESTATUS[0]}"'],
        cwd=folder, env=dstack.env(), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.stdout == "y\n141\n"
    assert "Traceback" not in done.stderr
    assert dstack.run_of("pipe")["status"] == "stopped"


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams(dstack: Dstack, task: Task, closed: str) -> None:
    folder = task("name: closed\ncommands: [echo hi]")
    done = subprocess.run(
        ["sh", "-c", f'"$0" run . {closed}', dstack.binary],
        cwd=folder, env=dstack.env(), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == ("hi\n" if closed in ("<&-", "2>&-") else "")
    assert "Traceback" not in done.stderr
    assert dstack.run_of("closed")["status"] == "done"
    assert dstack.ok("logs", "closed") == "hi\n"


def test_output_that_cannot_be_written_does_not_end_the_run(dstack: Dstack, task: Task) -> None:
    folder = task("name: goes-on\ncommands: [echo hi, sleep 1000]")
    with open("/dev/full", "wb") as full:
        cli = dstack.start("run", folder, stdout=full)
        _, err = cli.communicate(timeout=120)
    assert cli.returncode == 1
    assert b"goes-on goes on" in err
    assert b"error: No space left on device" in err
    assert dstack.run_of("goes-on")["status"] in ("preparing", "running")


def test_a_locale_that_is_not_utf8(dstack: Dstack, task: Task) -> None:
    folder = task("commands: ['echo ü€ ${{ run.args }}']", files={"ü.txt": "x"})
    # As with LC_ALL=de_DE.ISO-8859-1, which few machines have.
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = dstack("run", folder, "-n", "odd", "日本", env=ascii_only)
    assert (done.returncode, done.stdout) == (0, "ü€ 日本\n"), done.stderr


def test_schema_and_backend_are_json(dstack: Dstack) -> None:
    assert "commands" in json.loads(dstack.ok("schema"))["properties"]
    (local,) = json.loads(dstack.ok("backend", "--json"))
    assert local["name"] == "local"
    assert local["cpus"] == len(os.sched_getaffinity(0)) or local["cpus"] > 0


def test_what_argparse_finds_looks_like_every_other_error(dstack: Dstack) -> None:
    assert dstack("logs").stderr.startswith("error: NAME is missing\nhint: dstack logs ")
    assert dstack("ps", "--fly").stderr.startswith("error: --fly: not understood\nhint: ")


def test_no_runs_yet(dstack: Dstack) -> None:
    done = dstack("ps")
    assert (done.returncode, done.stdout) == (0, "")
    assert "dstack run DIR" in done.stderr


def test_the_folder_that_the_user_stands_in_is_gone(dstack: Dstack, tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    line = f"rmdir '{folder}'; exec '{dstack.binary}' run ."
    done = subprocess.run(
        ["sh", "-c", line], cwd=folder, env=dstack.env(), capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: the folder you stand in is not there any more\n")
