"""Containers on real engines: what they are made of, how they end, and that nothing is left."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import dstack
from dstack.config.shapes import (
    EnvVar,
    Port,
    Range,
    RegistryAuth,
    Resources,
    Secret,
    Text,
    Variable,
)
from dstack.paths import Home
from dstack.run.observation import Preparing
from tests.contract.engine.conftest import Bench, finish, gone, in_containers, wait_for
from tests.engines.engine import Engine
from tests.engines.fixtures import *  # noqa: F403 (that is how fixtures are taken over)
from tests.engines.fixtures import RegistryAddress


@pytest.fixture
def box(engine: Engine, home: Home) -> Iterator[Bench]:
    """A bench on an engine that nobody else uses; what is left behind fails the test."""
    found = in_containers(engine, home)
    yield found
    finish(found)


def name_of(directory: Path) -> str:
    return f"dstack-{directory.parent.name}-{directory.name}"


def clients(directory: Path) -> list[int]:
    """The engine's client of a job, `run`."""
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = process.read_bytes().split(b"\0")
        except OSError:
            continue
        if words[1:2] == [b"run"] and name_of(directory).encode() in words:
            found.append(int(process.parent.name))
    return found


def said(box: Bench, directory: Path, text: str) -> None:
    wait_for(lambda: text in box.log(directory), f"{text!r} in the log")


# What a run is


def test_the_folder_is_the_run_s_own_and_what_it_writes_is_kept(box: Bench) -> None:
    directory = box.start("pwd; echo new >made; exit 0", workdir="sub")
    assert box.ended(directory).code == 0
    assert box.log(directory) == "/workflow/sub\n"
    assert (directory.parent / "code/sub/made").read_text() == "new\n"


def test_path_is_the_image_s_and_the_user_s_env_wins(box: Bench) -> None:
    env = (
        EnvVar("PATH", (Text("/bin/my:"), Variable("PATH"))),
        EnvVar("PYTHONUNBUFFERED", (Text("0"),)),
        EnvVar("LITERAL", (Text("a b'c$(echo no)\nd"),)),
        EnvVar("SAME", (Variable("FROM_IMAGE"),)),
    )
    command = 'echo "$PATH|$PYTHONUNBUFFERED|$LITERAL|$SAME|$DSTACK_RUN_NAME"'
    done, log = box.do(command, env=env)
    path = "/bin/my:/usr/local/bin:/usr/bin:/bin"
    assert log == f"{path}|0|a b'c$(echo no)\nd|a value|brave-fox\n"
    assert done.code == 0
    # And nothing of this machine, nor of how it is done.
    _, log = box.do("env | grep -c -e TINI -e DOCKER -e CONTAINERS_ || true")
    assert log == "0\n"


def test_sh_is_the_shell_where_there_is_no_bash(box: Bench, engine: Engine) -> None:
    done, log = box.do("echo ${BASH:-none}", "exit 7", image=engine.image("busybox"))
    assert (done.code, done.index, log) == (7, 2, "none\n")
    assert box.do("echo ${BASH:+some}")[1] == "some\n"


def test_the_image_s_own_command(box: Bench, engine: Engine) -> None:
    done, log = box.do(image=engine.image("entry"))
    assert (done.code, done.reason) == (0, "completed")
    assert log == "entry: echo the image's own command\nthe image's own command\n"


def test_an_image_without_a_shell(box: Bench, engine: Engine) -> None:
    image = engine.image("scratch")
    assert box.do(image=image)[1] == "hello from scratch\n"
    env = {"A": "b c"}
    entry = ("/busybox", "sh", "-c")
    done, log = box.do('echo "$A"', "exit 4", image=image, entrypoint=entry, env=env)
    assert (done.code, done.index, log) == (4, 2, "b c\n")
    done, _ = box.do("echo no", image=image)
    assert (done.code, done.reason) == (125, "start_failed")
    assert "has no shell" in str(done.detail)


@pytest.mark.parametrize(
    ("entrypoint", "commands", "output"),
    [
        (("/bin/bash", "-i", "-c"), ["echo $FROM_BASHRC"], "root\n"),
        (("/bin/sh", "-e", "-c"), ["echo a", "echo b"], "a\nb\n"),
        (("python3", "-c"), ["import os", "print(os.getcwd())"], "/workflow\n"),
        (("/opt/entry/bin/entry", "sh", "-c"), ["echo a"], "entry: sh -c"),
    ],
)
def test_entrypoints(
    box: Bench, entrypoint: tuple[str, ...], commands: list[str], output: str
) -> None:
    done, log = box.do(*commands, entrypoint=entrypoint)
    assert done.code == 0
    assert output in log


def test_which_command_failed_is_known_with_an_entrypoint(box: Bench) -> None:
    done, _ = box.do("true", "exit 5", "true", entrypoint=("/bin/bash", "-i", "-c"))
    assert (done.code, done.index, done.stage) == (5, 2, "commands")


def test_an_image_for_another_cpu_is_refused(box: Bench, engine: Engine) -> None:
    done, _ = box.do(image=engine.image("foreign"))
    assert (done.code, done.reason) == (125, "start_failed")
    assert "this machine is linux/" in str(done.detail)


def test_an_image_whose_user_is_not_root(box: Bench, engine: Engine) -> None:
    directory = box.start(
        "echo mine >made; id -u; echo ~; echo kept >>~/.cache/x/y",
        image=engine.image("user"),
        cache=("~/.cache/x", "relative"),
    )
    assert box.ended(directory).code == 0, box.log(directory)
    assert box.log(directory) == "1000\n/home/app\n"
    made = directory.parent / "code/made"
    assert (made.read_text(), made.stat().st_uid) == ("mine\n", 1000)


def test_setup_runs_before_in_a_shell_of_its_own(box: Bench) -> None:
    done, log = box.do("echo $A; cat /made", setup=("A=1", "echo x >/made"))
    assert (done.code, log) == (0, "\nx\n")
    done, _ = box.do("echo never", setup=("true", "exit 3"))
    assert (done.code, done.reason, done.stage, done.index) == (3, "setup_failed", "setup", 2)


def test_home_dir(box: Bench) -> None:
    done, log = box.do("echo ~; ls ~/kept", home_dir="/home/else", cache=("~/kept",))
    assert (done.code, log) == (0, "/home/else\n")


def test_caches_are_kept_and_shared(box: Bench) -> None:
    cache = ("/abs/kept", "~/.cache/pip", "data", "with,comma")
    script = "for d in /abs/kept ~/.cache/pip data with,comma; do cat $d/x; echo 1 >>$d/x; done"
    assert box.do(f"({script}) 2>/dev/null; exit 9", cache=cache, cache_key="k")[0].code == 9
    _, log = box.do(script, cache=cache, cache_key="k")
    assert log == "1\n" * 4
    # From the code, where it brought something along; and who owns it.
    run = box.run("cat seed/x; stat -c %u /abs/kept", cache=("seed", "/abs/kept"), cache_key="k")
    seed = box.home.run(run.id) / "code/seed"
    seed.mkdir()
    (seed / "x").write_text("first\n")
    job = box.engine.plan(run, box.home.run(run.id), 1)
    box.engine.start(job, {})
    assert box.ended(Path(job.directory)).code == 0
    assert box.log(Path(job.directory)) == "first\n0\n"


def test_secrets_are_in_no_file_list_or_configuration(box: Bench, engine: Engine) -> None:
    env = (EnvVar("TOKEN", (Text("<"), Secret("KEY"), Text(">"))), EnvVar("TAKEN", None))
    directory = box.start(
        'echo "$TOKEN$TAKEN" >seen; echo ready; sleep 1000',
        env=env,
        values={"secret:KEY": "s3cr3t'x", "env:TAKEN": "t4k3n"},
    )
    said(box, directory, "ready\n")
    assert (directory.parent / "code/seen").read_text() == "<s3cr3t'x>t4k3n\n"
    for file in directory.rglob("*"):
        if file.is_file():
            assert b"s3cr3t" not in file.read_bytes(), file
            assert b"t4k3n" not in file.read_bytes(), file
    assert "s3cr3t" not in engine.cli("container", "inspect", name_of(directory))
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert b"s3cr3t" not in process.read_bytes()
        except OSError:
            continue
    box.engine.stop(directory, kill=True)
    assert box.ended(directory).reason == "stopped"


def test_what_the_container_sees_cannot_become_a_command_here(box: Bench) -> None:
    directory = box.start("ls /.dstack; ls -a /.dstack/.. | grep -c job.sh || true")
    assert box.ended(directory).code == 0
    assert "job.sh" not in box.log(directory)


# How it ends


def test_stop_reaches_every_process_and_lets_them_end(box: Bench) -> None:
    directory = box.start(
        "trap 'echo parent; exit 0' TERM; sh -c 'trap \"echo child; exit\" TERM; echo ready; "
        "while :; do sleep 0.05; done' & while :; do wait; done"
    )
    said(box, directory, "ready\n")
    box.engine.stop(directory, kill=False)
    done = box.ended(directory)
    assert (done.reason, done.code) == ("stopped", 0)
    assert {"child", "parent"} <= set(box.log(directory).splitlines())


def test_a_signal_adds_nothing_to_the_output(box: Bench) -> None:
    directory = box.start("echo ready; sleep 1000")
    said(box, directory, "ready\n")
    box.engine.stop(directory, kill=False)
    assert box.ended(directory).code == 143
    assert box.log(directory) == "ready\n"


def test_stop_kills_what_is_deaf(box: Bench) -> None:
    directory = box.start("trap '' TERM; echo ready; while :; do sleep 0.05; done")
    said(box, directory, "ready\n")
    box.engine.stop(directory, kill=False)
    done = box.ended(directory)
    assert (done.reason, done.code, done.signal) == ("stopped", 137, 9)


def test_stop_before_it_runs(box: Bench) -> None:
    directory = box.start("echo never")
    box.engine.stop(directory, kill=True)
    assert box.ended(directory).reason in ("stopped", "completed")


def test_max_duration(box: Bench) -> None:
    done, log = box.do("echo on; sleep 1000", max_duration=1)
    assert (done.code, done.reason) == (124, "max_duration")
    assert log.startswith("on\n")


def test_signals_of_the_engine_s_own_stop_reach_the_program(box: Bench, engine: Engine) -> None:
    directory = box.start("trap 'echo told; exit 3' TERM; echo ready; while :; do sleep 0.05; done")
    said(box, directory, "ready\n")
    engine.cli("stop", "--time", "20" if engine.name == "docker" else "3", name_of(directory))
    done = box.ended(directory)
    if engine.name == "docker":
        assert (done.code, done.reason) == (3, "command_failed")
        assert "told" in box.log(directory)
    else:
        assert done.reason == "killed"


def test_no_zombies_pile_up(box: Bench) -> None:
    orphan = "sh -c 'sleep 0.01 & exit 0'; "
    done, log = box.do(orphan * 5 + "sleep 0.5; grep -l '^State:.Z' /proc/[0-9]*/status | wc -l")
    assert (done.code, log) == (0, "0\n")


def test_the_client_killed_loses_nothing(box: Bench) -> None:
    directory = box.start("echo one; while [ ! -e go ]; do sleep 0.05; done; echo two; exit 6")
    said(box, directory, "one\n")
    for pid in clients(directory):
        os.kill(pid, signal.SIGKILL)
        wait_for(partial(gone, pid), "the client's end")
    (directory.parent / "code/go").touch()
    done = box.ended(directory)
    assert (done.code, done.index, box.log(directory)) == (6, 1, "one\ntwo\n")


def test_the_keeper_killed_ends_the_container(box: Bench, engine: Engine) -> None:
    directory = box.start("echo one; sleep 1000")
    said(box, directory, "one\n")
    keeper = box.running(directory)
    os.kill(keeper, signal.SIGKILL)
    done = box.ended(directory)
    assert (done.code, done.reason) == (137, "killed")
    assert engine.containers() == []


def test_the_keeper_killed_while_the_container_is_made(box: Bench, engine: Engine) -> None:
    for delay in (0.0, 0.05, 0.2):
        directory = box.start("echo one; sleep 1000")
        wait_for((directory / "container").exists, "the client to be started")
        time.sleep(delay)
        os.kill(int(os.readlink(directory / "pid").partition(":")[0]), signal.SIGKILL)
        done = box.ended(directory)
        assert (done.code, done.reason) == (137, "killed")
        assert engine.containers() == []
        assert clients(directory) == []
        # No client, deprived of its container, may have had its say.
        assert box.log(directory) in ("", "one\n")


def test_a_container_removed_by_hand(box: Bench, engine: Engine) -> None:
    directory = box.start("echo one; sleep 1000")
    said(box, directory, "one\n")
    engine.remove(name_of(directory))
    done = box.ended(directory)
    assert (done.code, done.reason) == (137, "killed")
    assert "removed" in str(done.detail)


@pytest.mark.parametrize("child", [False, True])
def test_out_of_memory(box: Bench, child: bool) -> None:
    eat = "python3 -c 'x = bytearray(200 << 20)'"
    asked = Resources(memory=Range(None, 64 << 20), cpu=Range(1, 1), shm_size=16 << 20)
    command = f"{eat} || true" if child else f"exec {eat}"
    done, _ = box.do(command, "df -k /dev/shm | tail -1", resources=asked)
    assert done.oom
    if child:
        assert (done.code, done.reason) == (0, "completed")
    else:
        assert (done.code, done.reason, done.signal) == (137, "oom", 9)


def test_limits_are_set(box: Bench) -> None:
    asked = Resources(memory=Range(None, 64 << 20), cpu=Range(None, 0.5), shm_size=16 << 20)
    files = "memory/memory.limit_in_bytes memory.max cpu/cpu.cfs_quota_us cpu.max"
    paths = " ".join(f"/sys/fs/cgroup/{name}" for name in files.split())
    done, log = box.do(f"cat {paths} 2>/dev/null; df -k /dev/shm | tail -1", resources=asked)
    assert done.code == 0
    assert f"{64 << 20}\n" in log
    assert "50000" in log
    assert "16384" in log


def test_start_twice_is_one_container(box: Bench, engine: Engine) -> None:
    run = box.run("echo begun >>times; echo ready; sleep 1000")
    job = box.engine.plan(run, box.home.run(run.id), 1)
    for _ in range(3):
        box.engine.start(job, {})
    directory = Path(job.directory)
    said(box, directory, "ready\n")
    assert engine.containers() == [name_of(directory)]
    box.engine.stop(directory, kill=True)
    box.ended(directory)
    assert (directory.parent / "code/times").read_text() == "begun\n"


def test_a_volume_of_the_image_s_is_removed(box: Bench, engine: Engine) -> None:
    built = "dstack-test-volume"
    engine.run("create", "--name", built, engine.image("busybox"))
    engine.cli("commit", "--change", "VOLUME /data", built, f"{built}:latest")
    engine.remove(built)
    image = f"{built}:latest" if engine.name == "docker" else f"localhost/{built}:latest"
    before = engine.cli("volume", "ls", "-q")
    try:
        assert box.do("echo x >/data/y; cat /data/y", image=image)[1] == "x\n"
        assert engine.cli("volume", "ls", "-q") == before
    finally:
        engine.cli("rmi", "--force", image)


def test_what_only_a_root_may_delete_is_deleted(box: Bench, engine: Engine) -> None:
    directory = box.start("mkdir -m 700 deep; echo x >deep/file", image=engine.image("user"))
    assert box.ended(directory).code == 0
    # As somebody who may use the engine and is no more than the owner of his own files.
    script = (
        "import sys; from pathlib import Path; from dstack.engines import get_engine\n"
        "from dstack.paths import Home\n"
        "get_engine(sys.argv[1], Home(Path(sys.argv[2]))).remove(Path(sys.argv[3]))\n"
    )
    powerless = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    words = [engine.name, str(box.home.root), str(directory.parent)]
    if engine.name == "podman":
        # Podman itself does nothing without capabilities, here as root.
        powerless = []
    done = subprocess.run(
        [*powerless, sys.executable, "-c", script, *words],
        env={**os.environ, "PYTHONPATH": str(Path(dstack.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert not directory.parent.exists()


# Ports


def test_a_port_is_reached_from_here_alone(box: Bench) -> None:
    directory = box.start("python -m http.server 8000", ports=(Port(8000, None),))
    box.running(directory)
    host, port = wait_for(lambda: box.engine.address(directory, 8000).address, "an address")

    def answer() -> bytes:
        try:
            with urllib.request.urlopen(f"http://{host}:{port}/", timeout=5) as reply:
                return bytes(reply.read())
        except OSError:
            return b""

    assert b"Directory listing" in wait_for(answer, "the app's answer")
    listening = subprocess.run(
        ["docker" if box.engine.name == "docker" else "podman", "port", name_of(directory)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert listening.count("127.0.0.1:") == 1
    assert "0.0.0.0" not in listening
    box.engine.stop(directory, kill=True)
    box.ended(directory)


# Pulling


def test_pulling_from_a_registry(
    box: Bench, engine: Engine, open_registry: RegistryAddress
) -> None:
    image = open_registry.image("busybox")
    engine.run("rmi", "--force", image)
    done, log = box.do("echo hi", image=image)
    assert (done.code, log) == (0, "hi\n")
    assert str(done.image_id).startswith(f"{open_registry.address}/dstack-test/busybox@sha256:")
    engine.cli("rmi", "--force", image)


def test_pull_always_takes_the_tag_as_it_is_now(
    box: Bench, engine: Engine, open_registry: RegistryAddress
) -> None:
    image = f"{open_registry.address}/dstack-test/moving:latest"
    engine.cli("tag", engine.image("user"), image)
    engine.cli("push", image)
    engine.cli("tag", engine.image("busybox"), image)
    assert box.do("id -u", image=image)[1] == "0\n"
    assert box.do("id -u", image=image, pull="always")[1] == "1000\n"
    engine.cli("rmi", "--force", image)


def test_credentials(box: Bench, engine: Engine, private_registry: RegistryAddress) -> None:
    image = private_registry.image("busybox")
    engine.run("rmi", "--force", image)

    def attempt(password: str | None) -> tuple[int, str, Path]:
        auth = RegistryAuth((Text(str(private_registry.username)),), (Secret("PW"),))
        plan: dict[str, Any] = {"registry_auth": auth} if password is not None else {}
        values = {"secret:PW": password} if password is not None else {}
        directory = box.start("echo hi", image=image, values=values, **plan)
        done = box.ended(directory)
        return done.code, str(done.detail), directory

    code, detail, _ = attempt(None)
    assert code == 125
    assert "registry_auth" in detail
    code, detail, directory = attempt("wrong-pw")
    assert code == 125
    assert "refused the username or password" in detail
    assert not (directory / "auth").exists()
    code, _, directory = attempt(private_registry.password)
    assert code == 0
    for file in directory.rglob("*"):
        if file.is_file():
            assert str(private_registry.password).encode() not in file.read_bytes(), file
    # Unneeded, since the image is there.
    code, _, directory = attempt("wrong-pw")
    assert (code, (directory / "auth").exists()) == (0, False)
    engine.cli("rmi", "--force", image)


def test_images_that_cannot_be_had(box: Bench, open_registry: RegistryAddress) -> None:
    unknown = f"{open_registry.address}/dstack-test/nothing:latest"
    done, _ = box.do("true", image=unknown)
    assert (done.code, done.reason) == (125, "start_failed")
    assert f"there is no image {unknown}" in str(done.detail)
    done, _ = box.do("true", image="registry.invalid/x:1")
    assert done.code == 125
    assert "(registry.invalid) cannot be reached" in str(done.detail)
    done, _ = box.do("true", image="Not A Name")
    assert "is no name of an image" in str(done.detail)


def test_a_run_that_shall_stop_pulls_no_further(box: Bench) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        image = f"127.0.0.1:{silent.getsockname()[1]}/x:1"
        directory = box.start("true", image=image)
        wait_for((directory / "pulling").exists, "the pull to begin")
        assert isinstance(box.poll(directory), Preparing)
        box.engine.stop(directory, kill=False)
        done = box.ended(directory)
    assert done.reason == "stopped"


def test_the_job_folder_is_nobody_else_s(box: Bench) -> None:
    directory = box.start("true")
    assert box.ended(directory).code == 0
    assert not stat.S_IMODE((directory).stat().st_mode) & 0o077
