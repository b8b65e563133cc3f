"""Commands run in one shell, as SPEC says, and the one that failed is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from dstack.config.shapes import EnvVar, Secret, Text, Variable
from dstack.hosts.local import LocalHost

from .conftest import Bench, on_any_bench, wait_for


def test_cd_and_export_carry_over(any_bench: Bench) -> None:
    done, log = any_bench.do("mkdir sub; cd sub", "export A=1; B=2", 'echo "$A$B ${PWD##*/}"')
    assert (done.code, done.reason, done.stage, done.index) == (0, "completed", "commands", 3)
    assert log == "12 sub\n"


@pytest.mark.parametrize(
    ("item", "output"),
    [
        ("cat <<X\n$((1+1))\nX", "2\n"),
        ("cat <<'X'\n$HOME \\n\nX\necho after", "$HOME \\n\nafter\n"),
        ("# only a comment", ""),
        ("echo a # b", "a\n"),
        ("for i in 1 2; do\n  echo $i\ndone", "1\n2\n"),
        ("echo 'it''s' \"$(echo \"q\")\" \\\\", "its q \\\n"),
        ("if true; then echo yes; fi", "yes\n"),
        ("false || echo saved", "saved\n"),
        ("echo out; echo err >&2", "out\nerr\n"),
        ("f() { echo in; }; f", "in\n"),
        ("echo $#", "0\n"),
        ("yes | head -1", "y\n"),
        ("cat", ""),
        ("", ""),
        ("printf 'no newline'", "no newline"),
    ],
)
def test_item(quick: Bench, item: str, output: str) -> None:
    done, log = quick.do(item)
    assert (done.code, done.reason, log) == (0, "completed", output)


@on_any_bench(
    "item, code",
    ("exit 3", 3),
    ("false", 1),
    ("(exit 145)", 145),
    ("exit 127", 127),
    ("nonexistent-command-x", 127),
    ("exec sh -c 'exit 9'", 9),
    ("set -e; false; echo no", 1),
    ("set -u; echo $nothing_there", 1),
    ("trap 'echo bye' EXIT; false", 1),
)
def test_the_failing_item_ends_the_run_and_is_named(any_bench: Bench, item: str, code: int) -> None:
    done, log = any_bench.do("echo first", item, "echo never")
    assert (done.code, done.reason, done.stage, done.index) == (
        code,
        "command_failed",
        "commands",
        2,
    )
    assert log.startswith("first\n")
    assert "never" not in log
    assert ("bye" in log) == ("bye" in item)


@on_any_bench("item", 'echo "open', "echo 'open", "if true; then", "cat <(", "$(")
def test_a_syntax_error_stays_in_its_item(any_bench: Bench, item: str) -> None:
    done, log = any_bench.do("echo first", item, "echo never")
    assert (done.reason, done.index) == ("command_failed", 2)
    assert done.code != 0
    assert log.startswith("first\n")
    assert "never" not in log


@on_any_bench("name", "KILL", "TERM", "SEGV")
def test_death_by_signal(any_bench: Bench, name: str) -> None:
    import signal

    number = int(getattr(signal, f"SIG{name}"))
    done, _ = any_bench.do("true", f"kill -{name} $$")
    assert (done.code, done.signal, done.reason) == (128 + number, number, "command_failed")
    assert done.index == 2


def test_set_e_inside_an_item_and_a_trap(any_bench: Bench) -> None:
    done, log = any_bench.do("trap 'echo cleaned' EXIT", "set -e", "echo x", "exit 0")
    assert (done.code, log) == (0, "x\ncleaned\n")


def test_noclobber_and_odd_modes_do_not_disturb(quick: Bench) -> None:
    done, log = quick.do("set -C; set -f; IFS=o; set -a", "echo two", "set -u", "echo four")
    assert (done.code, done.index, log) == (0, 4, "two\nfour\n")


def test_background_item_ends_with_the_run(any_bench: Bench) -> None:
    done, log = any_bench.do("sleep 1000 & echo $! >pid", "echo on")
    assert (done.code, log) == (0, "on\n")


def test_a_long_command_and_many(any_bench: Bench) -> None:
    text = "x" * 60_000
    done, log = any_bench.do(f"echo {text}", *[f"echo {n}" for n in range(200)])
    assert (done.code, done.index) == (0, 201)
    assert log == text + "\n" + "".join(f"{n}\n" for n in range(200))


def test_only_few_names_of_ours_are_visible(quick: Bench) -> None:
    _, log = quick.do("set | grep -ic -e '^job_' || true; declare -F | wc -l")
    assert log == "0\n0\n"


def test_environment_is_clean_and_values_are_literal(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of the submitting shell")
    monkeypatch.setenv("https_proxy", "http://proxy:1")
    literal = "a b'c\"d;$(echo no)`echo no`\\n\nline\té"
    env = (
        EnvVar("LITERAL", (Text(literal),)),
        EnvVar("PATH", (Text("/bin/my:"), Variable("PATH"))),
        EnvVar("FROM", (Variable("DSTACK_WORKING_DIR"), Text("/x"), Variable("NOT_THERE"))),
        EnvVar("UID", (Text("77"),)),
        EnvVar("PYTHONUNBUFFERED", (Text("0"),)),
    )
    done, log = bench.do("env -0 | tr '\\n\\0' '\\1\\n'", env=env, workdir="sub")
    found = dict(line.split("=", 1) for line in log.splitlines())
    assert done.code == 0
    assert found["LITERAL"] == literal.replace("\n", "\1")
    assert found["PATH"].startswith("/bin/my:/")
    assert found["FROM"].endswith("/code/sub/x")
    assert found["DSTACK_RUN_NAME"] == "brave-fox"
    assert found["DSTACK_ATTEMPT"] == "1"
    assert found["PYTHONUNBUFFERED"] == "0"
    # What passes is that of the machine where it runs; over ssh, of the login session there.
    proxy = "http://proxy:1" if isinstance(bench.engine.host, LocalHost) else None
    assert found.get("https_proxy") == proxy
    assert "AWS_SECRET_ACCESS_KEY" not in found
    assert found["PWD"].endswith("/code/sub")


def test_a_value_that_no_program_can_be_given(bench: Bench) -> None:
    done, _ = bench.do("echo never", env={"LONG": "x" * 200_000})
    assert (done.code, done.reason) == (125, "start_failed")
    assert "a value in env may be too long" in (done.detail or "")


def test_secrets_reach_the_commands_and_nothing_else(bench: Bench) -> None:
    secret = "s3cr3t'with\nnewline $HOME"
    env = (
        EnvVar("TOKEN", (Text("<"), Secret("KEY"), Text(">"))),
        EnvVar("TAKEN", None),
    )
    directory = bench.start(
        'printf "%s" "$TOKEN$TAKEN" >seen; env | grep -c __dstack_v; sleep 1000',
        env=env,
        values={"secret:KEY": secret, "env:TAKEN": "t4k3n"},
    )
    keeper = bench.running(directory)
    seen = directory.parent / "code" / "seen"
    wait_for(lambda: bench.log(directory) == "0\n", "the command")
    assert seen.read_text() == f"<{secret}>t4k3n"
    assert not (directory / "env").exists()
    assert b"s3cr3t" not in Path(f"/proc/{keeper}/environ").read_bytes()
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = process.read_bytes()
        except OSError:
            continue
        assert b"s3cr3t" not in text
    for file in directory.iterdir():
        if file.is_file():
            assert b"s3cr3t" not in file.read_bytes(), file
            assert b"t4k3n" not in file.read_bytes(), file
    bench.engine.stop(directory, kill=True)
    assert bench.ended(directory).reason == "stopped"


def test_output_is_complete_before_exit_appears(any_bench: Bench) -> None:
    done, log = any_bench.do("seq 1 50000")
    assert done.code == 0
    assert log.splitlines()[-1] == "50000"
    assert len(log.splitlines()) == 50_000
