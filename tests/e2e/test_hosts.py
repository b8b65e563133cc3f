"""Runs on other machines, as a user has them: the same file, the same commands, another place."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import urllib.request
from datetime import datetime, timezone
from pathlib import Path

import pytest

from dstack.hosts.ssh_master import socket_folder
from tests.e2e.conftest import Task, free_port
from tests.e2e.far import *  # noqa: F403 (that is how fixtures are taken over)
from tests.e2e.far import BACKENDS, end_masters
from tests.engines.engine import Engine
from tests.faults.rounds import kill, supervisors
from tests.hosts.client import Client
from tests.hosts.services import Hosts
from tests.support import Dstack, wait_for

COUNT = "commands: ['for i in $(seq 1 60); do echo line $i; sleep 0.1; done']"
LINES = "".join(f"line {n}\n" for n in range(1, 61))


def says(far: Dstack, name: str, text: str) -> None:
    """Wait until the run has printed that; it need not be there yet."""
    wait_for(lambda: text in far("logs", name).stdout, f"{name} to print {text!r}", timeout=60)


def commands(hosts: Hosts, name: str = "alpha") -> list[str]:
    """What runs on a host that a run of these tests started."""
    return [p.command for p in hosts.all[name].processes("me") if "sleep 300" in p.command]


def test_output_code_and_exit_code(far: Dstack, task: Task) -> None:
    folder = task("commands: [cat in, 'cat in >&2; uname -n', exit 3]", files={"in": "\u00e9\n"})
    done = far("run", ".", "-n", "there", "--backend", "alpha", cwd=folder)
    assert done.stdout == "\u00e9\n\u00e9\nalpha\n"
    assert done.returncode == 3
    assert "command 3 of 3 exited with code 3" in done.stderr
    shown = far.run_of("there")
    assert (shown["backend"], shown["exit_code"], shown["status"]) == ("alpha", 3, "failed")


def test_train_there_and_serve_here(far: Dstack) -> None:
    """The example that is for another machine, as its README says."""
    example = str(Path(__file__).parents[2] / "examples" / "train-and-serve")
    run = ("run", example, "--backend", "alpha", "-n", "letters", "-d", "--", "--epochs", "4")
    far.ok(*run)
    says(far, "letters", "Ask http://")
    assert "training on alpha" in far.ok("logs", "letters")
    watcher = far.start("attach", "letters")
    assert watcher.stdout is not None
    lines = iter(watcher.stdout.readline, b"")
    address = next(line.split()[1].decode() for line in lines if line.startswith(b"Ask"))
    with urllib.request.urlopen(f"{address}&length=30", timeout=60) as answer:
        page = answer.read().decode()
    assert page.startswith("The")
    assert len(page) == 31
    far.ok("stop", "letters")
    watcher.communicate(timeout=60)
    # The next one there goes on from what was kept there.
    far.ok(*run)
    says(far, "letters", "Ask http://")
    assert " 0 contexts known" not in far.ok("logs", "letters")


@pytest.mark.parametrize("alias", ["inner", "nogit", "alpha.fish", "alpha.csh", "alpha.noisy"])
def test_behind_a_jump_host_without_git_and_with_odd_shells(
    far: Dstack, task: Task, alias: str
) -> None:
    (far.home / "config.yml").write_text(
        f"backends: [{{name: {alias}, type: ssh, host: {alias}}}]\n"
    )
    folder = task("commands: ['uname -n; cat sub/file; exit 5']", files={"sub/file": "here\n"})
    done = far("run", ".", cwd=folder, env={"UV_OFFLINE": "1"})
    # Where there is no uv yet it comes from here, or the message says that it cannot.
    assert done.stdout == f"{alias.partition('.')[0]}\nhere\n", done.stderr
    assert done.returncode == 5


def test_the_code_is_exactly_the_folder_and_only_changes_are_sent(
    far: Dstack, task: Task, hosts: Hosts
) -> None:
    tree = "find . ! -name .dstack.yml -printf '%y %m %l %p\\n' | sort; cat a big | cksum"
    folder = task(f"commands: [{tree!r}]".replace("\\\\n", "\\n"), files={"a": "1", "gone/x": "2"})
    (folder / "tool").write_text("#!/bin/sh\n")
    (folder / "tool").chmod(0o755)
    (folder / "link").symlink_to("sub/../a")
    (folder / "empty").mkdir()
    (folder / "big").write_bytes(os.urandom(3 << 20))

    def check() -> None:
        here = subprocess.check_output(tree, shell=True, cwd=folder, text=True)
        assert far.ok("run", ".", "--backend", "alpha", cwd=folder) == here

    check()
    before = received(hosts)
    (folder / "a").write_text("changed")
    (folder / "gone" / "x").unlink()
    (folder / "gone").rmdir()
    (folder / "new").mkdir()
    (folder / "new" / "y").write_text("3")
    with (folder / "big").open("r+b") as file:
        file.seek(1 << 20)
        file.write(b"one line")
    check()
    # Of three megabytes a few lines changed; the rest is what ssh and the job itself take.
    assert received(hosts) - before < 300_000


def received(hosts: Hosts) -> int:
    """Bytes that the host alpha has received."""
    for line in hosts.all["alpha"].admin("cat", "/proc/net/dev").splitlines():
        name, _, rest = line.partition(":")
        if name.strip() != "lo" and rest:
            return int(rest.split()[0])
    raise AssertionError


def test_detached_looked_at_and_attached_again(far: Dstack, task: Task) -> None:
    folder = task(COUNT)
    assert far.ok("run", ".", "-d", "-n", "far", "--backend", "alpha", cwd=folder) == "far\n"
    far.wait_status("far", "running")
    says(far, "far", "line 5\n")
    follower = far.start("logs", "-f", "far")
    done = far("attach", "far")
    assert done.returncode == 0, done.stderr
    assert done.stdout == LINES
    assert follower.communicate(timeout=60)[0].decode() == LINES
    assert far.ok("logs", "far") == LINES
    assert far.ok("logs", "far", "--tail", "1") == "line 60\n"


def test_when_a_line_was_printed_that_nobody_saw(far: Dstack, task: Task, hosts: Hosts) -> None:
    folder = task(
        "commands: ['for i in 1 2 3; do echo $i $(date +%s) >>~/told; echo $i; sleep 6; done']"
    )
    far.ok("run", ".", "-d", "-n", "far", "--backend", "alpha", cwd=folder)
    says(far, "far", "1\n")
    for pid in supervisors(far):
        kill(pid)
    end_masters(far.home)
    run = hosts.all["alpha"].home() / ".dstack/runs" / far_id(far)
    wait_for((run / "1/exit").exists, "its end", timeout=90)
    told = [line.split() for line in (hosts.all["alpha"].home() / "told").read_text().splitlines()]
    shown = [line.split() for line in far.ok("logs", "far", "-t").splitlines()]
    assert [number for _, number in shown] == [number for number, _ in told]
    for (stamp, _), (_, seconds) in zip(shown, told, strict=True):
        at = datetime.fromisoformat(stamp.replace("Z", "+00:00")).timestamp()
        assert abs(at - int(seconds)) < 4, (shown, told)
    third = datetime.fromtimestamp(int(told[2][1]) - 2, tz=timezone.utc).isoformat()
    assert far.ok("logs", "far", "--since", third) == "3\n"


def far_id(far: Dstack) -> str:
    """The id of the one run there, without asking its host."""
    (folder,) = (far.home / "runs").iterdir()
    return folder.name


def test_stop_restart_and_rm(far: Dstack, task: Task, hosts: Hosts) -> None:
    folder = task("commands: ['echo go; sleep 300 & sleep 300']")
    far.ok("run", ".", "-d", "-n", "far", "--backend", "alpha", cwd=folder)
    says(far, "far", "go")
    far.ok("stop", "far")
    assert far.run_of("far")["status"] == "stopped"
    assert not commands(hosts)
    far.ok("restart", "far", "-d")
    wait_for(lambda: far.ok("logs", "far").count("go") == 2, "the commands to run again")
    far.ok("stop", "far", "-x")
    run_id = far.run_of("far")["id"]
    there = hosts.all["alpha"].home() / ".dstack" / "runs" / run_id
    assert (there / "2" / "exit").exists()
    far.ok("rm", "far")
    assert not there.exists()
    assert not (far.home / "runs" / run_id).exists()


def test_rm_says_once_for_all_runs_that_their_host_does_not_answer(
    far: Dstack, task: Task, hosts: Hosts
) -> None:
    folder = task("commands: ['true']")
    for name in ("one", "two"):
        far.ok("run", ".", "-n", name, "--backend", "alpha", cwd=folder)
    end_masters(far.home)
    hosts.all["alpha"].stop_sshd()
    try:
        done = far("rm", "-a", "-y")
    finally:
        hosts.all["alpha"].start_sshd()
    assert done.returncode == 1
    assert re.search(r"warning: (one, two|two, one) are kept: alpha cannot be reached", done.stderr)
    assert done.stderr.count("cannot be reached") == 1
    assert "0 runs deleted" in done.stderr
    far.ok("rm", "-a", "-y")
    assert far.ps("-a") == []


def test_a_cut_costs_no_byte_and_is_told(
    far: Dstack, task: Task, hosts: Hosts, tmp_path: Path
) -> None:
    link = hosts.all["alpha"].link
    loop = "i=0; until [ -e ~/go ]; do i=$((i + 1)); echo line $i; sleep 0.1; done; exit 3"
    folder = task(f"commands: ['{loop}']")
    said = tmp_path / "said"
    with said.open("wb") as stderr:
        args = ("run", ".", "-n", "far", "--backend", "alpha")
        watcher = far.start(*args, cwd=folder, stderr=stderr)
    says(far, "far", "line 9\n")
    link.cut()
    unknown = far.wait_status("far", "unknown")
    assert unknown["unknown_since"] is not None
    assert unknown["exit_code"] is None
    assert watcher.poll() is None
    # What came before is still shown, and it is said that there may be more.
    shown = far("logs", "far")
    assert "line 9\n" in shown.stdout
    assert "there may be more" in shown.stderr
    # Others see it on their own; the connection would live on were it healed before it is given up.
    wait_for(lambda: "alpha does not answer; reconnecting" in said.read_text(), "it to be told")
    link.heal()
    far.wait_status("far", "running")
    hosts.all["alpha"].write("/home/me/go", "", user="me")
    out, _ = watcher.communicate(timeout=120)
    assert watcher.returncode == 3, said.read_text()
    lines = out.decode().splitlines()
    assert lines == [f"line {n}" for n in range(1, len(lines) + 1)]
    assert far.ok("logs", "far") == out.decode()
    assert "alpha answers again" in said.read_text()


def test_ports_are_here_and_led_on_after_a_cut(far: Dstack, task: Task, hosts: Hosts) -> None:
    port = free_port()
    folder = task(
        f"""
        ports: ["{port}:8000"]
        commands:
          - echo http://0.0.0.0:8000; sleep 1; exec python -m http.server 8000 --bind 127.0.0.1
        """,
        files={"page": "served there\n"},
    )
    watcher = far.start("run", ".", "-n", "web", "--backend", "alpha", cwd=folder)

    def page() -> bool:
        # Who comes before the app listens waits for it.
        url = f"http://127.0.0.1:{port}/page"
        done = subprocess.run(
            ["curl", "-sS", "-m", "20", url], capture_output=True, text=True, check=False
        )
        return done.stdout == "served there\n"

    wait_for(page, "the page")
    hosts.all["alpha"].link.reset()
    wait_for(page, "the page after a cut")
    watcher.kill()
    watcher.communicate()
    watcher = far.start("attach", "web")
    wait_for(page, "the page for another watcher")
    # The one that was killed could not clean up.
    (socket,) = Path(socket_folder(far.home)).glob("port-*")
    assert socket.name.startswith(f"port-{watcher.pid}-")
    watcher.terminate()
    out, err = watcher.communicate(timeout=60)
    assert out.startswith(f"http://127.0.0.1:{port}\n".encode())
    assert b"web was stopped" in err
    assert not page()


def fetch(port: int) -> str:
    """What one connection to a local port brings."""
    url = f"http://127.0.0.1:{port}/page"
    done = subprocess.run(
        ["curl", "-sS", "-m", "20", url], capture_output=True, text=True, check=False
    )
    return done.stdout


def test_a_port_that_somebody_else_has_there_is_not_shown(
    far: Dstack, task: Task, hosts: Hosts, ssh: Client
) -> None:
    port = free_port()
    serve = "python3 -m http.server 8000 --bind 127.0.0.1"
    wait = "echo up; until [ -e go ]; do sleep 0.1; done"
    mine = f"ports: ['{port}:8000']\ncommands: ['{wait}; exec {serve}']"
    folder = task(mine, files={"page": "mine\n"})
    notebook = hosts.all["alpha"].home("other") / "page"
    notebook.write_text("somebody else's\n")
    other = subprocess.Popen(
        ssh.command("-o", "BatchMode=yes", "-tt", "alpha.other", f"exec {serve}"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(
            lambda: ssh.run("alpha", "curl -s http://127.0.0.1:8000/page").stdout,
            "the other one's program",
        )
        watcher = far.start("run", ".", "-n", "web", "--backend", "alpha", cwd=folder)
        says(far, "web", "up")
        assert fetch(port) == ""
    finally:
        other.kill()
        other.wait()
    # Another run of the same user's is another one, too.
    second = task(f"commands: ['{serve}']", files={"page": "of another run\n"}, name="second")
    far.ok("run", ".", "-d", "-n", "second", "--backend", "alpha", cwd=second)
    wait_for(
        lambda: "another run" in ssh.run("alpha", "curl -s http://127.0.0.1:8000/page").stdout,
        "the other run's program",
    )
    assert fetch(port) == ""
    far.ok("stop", "-x", "second")
    (code,) = (hosts.all["alpha"].home() / ".dstack/runs").glob(f"{far.run_of('web')['id']}/code")
    (code / "go").touch()
    wait_for(lambda: fetch(port) == "mine\n", "the run's own page")
    watcher.terminate()
    _, err = watcher.communicate(timeout=60)
    assert err.count(b"port 8000 of alpha belongs to another process") == 1


def test_who_comes_before_the_app_in_a_container_there_waits(
    far: Dstack, task: Task, hosts: Hosts, docker_there: Engine
) -> None:
    port = free_port()
    folder = task(
        f"""
        image: {docker_there.image("python")}
        ports: ["{port}:8000"]
        commands:
          - echo up; until [ -e go ]; do sleep 0.1; done; exec python -m http.server 8000
        """,
        files={"page": "in there\n"},
    )
    watcher = far.start("run", ".", "-n", "web", "--backend", "boxes", cwd=folder)
    says(far, "web", "up")
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        client.sendall(b"GET /page HTTP/1.0\r\n\r\n")
        client.settimeout(1)
        with pytest.raises(TimeoutError):
            client.recv(1)
        client.settimeout(60)
        (code,) = (hosts.all["boxes"].home() / ".dstack/runs").glob("*/code")
        (code / "go").touch()
        assert b"200 OK" in client.recv(100)
    watcher.terminate()
    watcher.communicate(timeout=60)


def test_a_taken_port_is_an_error_before_anything_starts(
    far: Dstack, task: Task, hosts: Hosts
) -> None:
    with socket.create_server(("127.0.0.1", free_port())) as taken:
        port = taken.getsockname()[1]
        folder = task(f"ports: ['{port}:8000']\ncommands: [echo never]")
        done = far("run", ".", "--backend", "alpha", cwd=folder)
    assert done.returncode == 125
    assert f"local port {port} is taken" in done.stderr
    assert not hosts.all["alpha"].home().joinpath(".dstack/runs").exists()


def test_secrets_are_read_once_and_stay_nowhere(far: Dstack, task: Task, hosts: Hosts) -> None:
    secret = "tulip-0815-very-secret"
    far.ok("secrets", "set", "KEY", secret)
    folder = task(
        """
        env: ["KEY=${{ secrets.KEY }}", "TAKEN"]
        commands: ['echo "$KEY $TAKEN"; echo go; sleep 2']
        """
    )
    args = ("run", ".", "-n", "far", "--backend", "alpha")
    watcher = far.start(*args, cwd=folder, env={"TAKEN": "from here"})
    says(far, "far", "go")
    for process in hosts.all["alpha"].processes():
        assert secret not in process.command
    found = hosts.all["alpha"].admin("sh", "-c", "grep -rlF tulip-0815 /home/me/.dstack/runs || :")
    assert [name for name in found.split() if not name.endswith("/log")] == []
    assert watcher.communicate(timeout=60)[0] == b"*** from here\ngo\n"


def test_builds_stay_on_their_host(far: Dstack, task: Task, hosts: Hosts) -> None:
    folder = task(
        """
        build: ["cat in; mkdir -p out/deep; date +%N >out/deep/stamp; ln -s deep out/link"]
        commands: ["cat out/link/stamp; echo more >>out/deep/stamp"]
        """,
        files={"in": "read\n", "other": "1"},
    )
    missing = far("run", ".", "--backend", "alpha", cwd=folder)
    assert missing.returncode == 125
    assert "dstack build . --backend alpha" in missing.stderr
    assert far.ok("build", ".", "--backend", "alpha", cwd=folder) == "read\n"
    first = far.ok("run", ".", "--backend", "alpha", cwd=folder)
    (folder / "other").write_text("2")
    assert far.ok("run", ".", "--backend", "alpha", cwd=folder) == first
    elsewhere = far("run", ".", "--backend", "nogit", cwd=folder)
    assert "the host changed" in elsewhere.stderr
    builds = hosts.all["alpha"].home() / ".dstack" / "builds"
    assert len(list(builds.iterdir())) == 1
    far.ok("prune", "builds", "-y")
    assert not list(builds.iterdir())


def test_the_first_backend_that_can(far: Dstack, task: Task) -> None:
    folder = task("commands: [uname -n]")
    both = ("--backend", "nowhere", "--backend", "alpha")
    assert far.ok("run", ".", *both, cwd=folder) == "alpha\n"
    neither = far("run", ".", "--backend", "nowhere", cwd=folder)
    assert neither.returncode == 125
    assert "nowhere" in neither.stderr


# Three GPUs; somebody who is not dstack computes on the second one.
SMI = """#!/bin/sh
case $1 in
--query-gpu=*)
    for i in 0 1 2; do
        [ $i = 1 ] && used=60000 || used=4
        uuid=GPU-0000000$i-aaaa-bbbb-cccc-012345678901
        echo "$i, NVIDIA A100-SXM4-80GB, $uuid, 81920, $used, P0"
    done
    ;;
--query-compute-apps=*) echo "GPU-00000001-aaaa-bbbb-cccc-012345678901, 4711" ;;
esac
"""


def test_gpus_are_leased_between_machines(
    far: Dstack, task: Task, hosts: Hosts, ssh: Client, tmp_path: Path
) -> None:
    assert ssh.config.exists()
    hosts.all["alpha"].write("/usr/local/bin/nvidia-smi", SMI, mode=0o755)
    try:
        folder = task(
            """
            resources: {gpu: 2}
            commands: ['echo "$CUDA_VISIBLE_DEVICES"; until [ -e /tmp/go ]; do sleep 0.1; done']
            """
        )
        far.ok("run", ".", "-d", "-n", "one", "--backend", "alpha", cwd=folder)
        says(far, "one", "0,2\n")
        shown = far.ok("backend", "check", "alpha")
        assert "gpus        0: NVIDIA A100-SXM4-80GB 80 GB, leased by one\n" in shown
        assert "            1: NVIDIA A100-SXM4-80GB 80 GB, 59 GB used\n" in shown
        (found,) = json.loads(far.ok("backend", "check", "alpha", "--json"))
        gpus = [(gpu["number"], gpu["memory_used"] >> 20, gpu["run"]) for gpu in found["gpus"]]
        assert gpus == [(0, 4, "one"), (1, 60000, None), (2, 4, "one")]
        # Another machine of the same user.
        other = Dstack(far.binary, tmp_path / "other", far.cwd)
        other.home.mkdir(mode=0o700)
        (other.home / "config.yml").write_text(BACKENDS)
        refused = other("run", ".", "--backend", "alpha", cwd=folder)
        assert refused.returncode == 125
        assert "asks for 2 of 3 GPUs, and 1 are free" in refused.stderr
        waiting = ("run", ".", "-d", "-n", "two", "--retry-limit", "1h", "--backend", "alpha")
        other.ok(*waiting, cwd=folder)
        run = other.wait_status("two", "submitted")
        assert "asks for 2 of 3 GPUs" in run["message"]
        hosts.all["alpha"].write("/tmp/go", "")
        other.wait_status("two", "done", timeout=90)
        far.wait_status("one", "done")
        all_of_them = task(
            "resources: {gpu: 3}\ncommands: ['echo $CUDA_VISIBLE_DEVICES']", name="all"
        )
        done = far("run", ".", "--backend", "alpha", cwd=all_of_them)
        assert done.stdout == "0,1,2\n"
        assert "the run shares these GPUs with others: 1 (60000 MB used)" in done.stderr
        assert not list((hosts.all["alpha"].home() / ".dstack" / "gpus").iterdir())
        end_masters(other.home)
    finally:
        hosts.all["alpha"].path("/usr/local/bin/nvidia-smi").unlink()
