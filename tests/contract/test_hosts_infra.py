"""The hosts that tests stand on are what those tests think, and what is done to them happens."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pexpect
import pytest

from tests.engines.engine import Engine
from tests.hosts import services
from tests.hosts.client import Client
from tests.hosts.fixtures import *  # noqa: F403 (that is how fixtures are taken over)
from tests.hosts.host import Host
from tests.hosts.services import Hosts
from tests.hosts.spec import PASSWORD, USERS
from tests.support import wait_for

# Give up soon on who does not answer.
SOON = ("-o", "ConnectTimeout=2")


def ticking(ssh: Client, *options: str) -> subprocess.Popen[bytes]:
    """A connection to alpha over which something comes every 50 ms; its first line is read."""
    # It ends when nobody reads it: no cut may leave it behind.
    script = "i=0; while [ $i -lt 400 ]; do echo tick; i=$((i + 1)); sleep 0.05; done"
    command = ssh.command(*options, "alpha", script)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout
    assert process.stdout.readline() == b"tick\n", process.communicate()[1]
    os.set_blocking(process.stdout.fileno(), False)
    return process


def comes(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Whether anything comes within that time; what has come before does not count."""
    assert process.stdout
    process.stdout.read()
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.stdout.read():
            return True
        time.sleep(0.01)
    return False


def finish(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()


# ---- what they are ----


def test_every_host_has_a_name_an_address_and_a_boot_of_its_own(hosts: Hosts, ssh: Client) -> None:
    said = [
        ssh.run(name, "hostname; cat /proc/sys/kernel/random/boot_id; id -un; pwd").stdout.split()
        for name in hosts.all
    ]
    assert [line[0] for line in said] == list(hosts.all)
    assert len({line[1] for line in said}) == len(hosts.all)
    assert {tuple(line[2:]) for line in said} == {("me", "/home/me")}
    assert Path("/proc/sys/kernel/random/boot_id").read_text().strip() not in {s[1] for s in said}


def test_what_is_there(hosts: Hosts, ssh: Client) -> None:
    programs = ("sh", "tar", "bash", "git", "python3", "uv", "docker")
    look = f"for p in {' '.join(programs)}; do command -v $p >/dev/null && echo $p; done; true"
    there = {name: set(ssh.run(name, look).stdout.split()) for name in hosts.all}
    assert there["alpha"] == {"sh", "tar", "bash", "git", "python3", "uv"}
    assert there["inner"] == {"sh", "tar", "bash", "git", "python3"}
    assert there["nogit"] == {"sh", "tar", "bash", "python3"}
    assert there["bare"] == {"sh", "tar"}
    assert there["boxes"] == {"sh", "tar", "bash", "git", "python3", "docker"}


def test_programs_work(ssh: Client) -> None:
    script = "git init -q r && uv --version && python3 -c 'import ssl, venv; print(1 + 1)'"
    done = ssh.run("alpha", script)
    assert done.stderr == ""
    assert done.stdout.startswith("uv ")
    assert done.stdout.endswith("\n2\n")
    packed = ssh.run("bare", "mkdir a && echo x >a/b && tar -c a | tar -t && busybox | head -n 1")
    assert packed.stdout.split()[:2] == ["a/", "a/b"]
    assert "BusyBox" in packed.stdout


@pytest.mark.parametrize("user", [user for user in USERS if user != "typed"])
def test_login_shells(user: str, ssh: Client) -> None:
    done = ssh.run(f"alpha.{user}", "echo $SHELL")
    assert done.stdout.splitlines()[-1] == USERS[user][1]
    assert done.stdout.count("\n") == (2 if user == "noisy" else 1)
    assert (done.stderr != "") == (user == "noisy")


def test_users_do_not_see_each_others_homes(ssh: Client) -> None:
    assert ssh.run("alpha", "echo 1 >secret; umask").returncode == 0
    other = ssh.run("alpha.other", "cat /home/me/secret")
    assert other.returncode != 0
    assert "Permission denied" in other.stderr


def test_nothing_of_this_machine_is_there(hosts: Hosts, ssh: Client, tmp_path: Path) -> None:
    places = f"{tmp_path} {Path.cwd()} {services.PARENT}"
    assert ssh.run("alpha.root", f"ls -d {places}").stdout == ""
    assert ssh.run("alpha.root", "echo 1 >/usr/mine && echo 1 >/etc/mine").returncode == 0
    assert not Path("/usr/mine").exists()
    assert not Path("/etc/mine").exists()
    assert hosts["alpha"].path("/usr/mine").exists()
    assert ssh.run("inner.root", "ls /usr/mine").returncode != 0


def test_a_password_and_a_passphrase_can_be_typed(ssh: Client) -> None:
    for alias, question in (("alpha.typed", "password:"), ("alpha.locked", "passphrase for key")):
        command, *args = ssh.command(alias, "echo in; id -un")
        child = pexpect.spawn(command, args, timeout=30, encoding="utf-8")
        child.expect(question)
        child.sendline(PASSWORD)
        child.expect("in\r\n")
        child.expect("typed" if alias == "alpha.typed" else "me")
        child.expect(pexpect.EOF)
        child.close()


def test_who_is_not_let_in_or_not_known(ssh: Client) -> None:
    assert "Permission denied" in ssh.run("alpha.wrongkey", "true").stderr
    assert "Permission denied" in ssh.run("alpha.locked", "true").stderr
    assert "Host key verification failed" in ssh.run("alpha.stranger", "true").stderr
    assert "Could not resolve" in ssh.run("nowhere", "true").stderr
    ssh.forget()
    assert "Host key verification failed" in ssh.run("alpha", "true").stderr


def test_the_inner_host_is_reached_through_alpha_only(hosts: Hosts, ssh: Client) -> None:
    assert ssh.run("inner", "hostname").stdout == "inner\n"
    straight = ssh.run(*SOON, "-o", "ProxyJump=none", "inner", "true")
    assert straight.returncode == 255
    hosts["alpha"].link.cut()
    assert ssh.run(*SOON, "inner", "true").returncode == 255


# ---- what happens to their links ----


@pytest.mark.parametrize("here", [False, True], ids=["there", "here"])
def test_a_link_that_is_down(here: bool, hosts: Hosts, ssh: Client) -> None:
    link = hosts["alpha"].link
    process = ticking(ssh)
    link.cut(here=here)
    assert not comes(process, 0.5)
    assert ssh.run(*SOON, "alpha", "true").returncode == 255
    link.heal()
    # TCP tries again in ever longer steps, a second or two by now.
    assert comes(process, 20)
    assert ssh.run("alpha", "echo back").stdout == "back\n"
    finish(process)


def test_a_link_that_loses_everything(hosts: Hosts, ssh: Client) -> None:
    link = hosts["alpha"].link
    process = ticking(ssh)
    link.drop()
    assert not comes(process, 0.5)
    assert "timed out" in ssh.run(*SOON, "alpha", "true").stderr
    assert process.poll() is None
    link.heal()
    assert comes(process, 20)
    finish(process)


def test_a_slow_link(hosts: Hosts, ssh: Client) -> None:
    link = hosts["alpha"].link
    process = ticking(ssh)
    link.slow(0.2)
    # What else the machine does can only add to it.
    assert min(round_trips(hosts["alpha"], 5)) == pytest.approx(0.2, abs=0.05)
    # The connection goes on, and new ones can be made.
    assert comes(process, 20)
    assert ssh.run("alpha", "echo slow").stdout == "slow\n"
    link.heal()
    assert min(round_trips(hosts["alpha"], 5)) < 0.05
    assert comes(process, 20)
    finish(process)


def test_a_slow_link_behind_another(hosts: Hosts, ssh: Client) -> None:
    hosts["inner"].link.slow(0.3)
    begun = time.monotonic()
    assert ssh.run("inner", "echo slow").stdout == "slow\n"
    assert time.monotonic() - begun > 1.2  # four round trips at the least
    hosts["inner"].link.heal()


def test_a_link_that_loses_some(hosts: Hosts, ssh: Client) -> None:
    link = hosts["alpha"].link
    link.slow(0.0, loss=0.3, seed=1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for _ in range(400):
            sender.sendto(b"x", (link.address.far, 9))
            # Who is told that nobody listens there is told so by the next call.
            sender.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    seen = lost = 0

    def all_seen() -> bool:
        nonlocal seen, lost
        passed = link.passed()
        seen, lost = seen + passed.seen, lost + passed.lost
        return seen >= 400

    wait_for(all_seen, "the packets to come by")
    assert 0.2 < lost / seen < 0.4
    # Nothing is lost for who sends again. As much as above would keep TCP at it for minutes.
    link.slow(0.0, loss=0.03, seed=1)
    assert ssh.run("alpha", "head -c 600000 /dev/zero").stdout == "\0" * 600000
    assert link.passed().lost > 0
    link.heal()
    assert_none_lost(hosts["alpha"])


def test_connections_that_are_reset(hosts: Hosts, ssh: Client) -> None:
    process = ticking(ssh)
    hosts["alpha"].link.reset()
    assert process.wait(10) == 255
    # Which of the two is read from the connection's end is up to the moment.
    said = process.communicate()[1]
    assert b"reset by peer" in said or b"Broken pipe" in said
    assert ssh.run("alpha", "echo on").stdout == "on\n"


def test_half_open_connections(hosts: Hosts, ssh: Client) -> None:
    process = ticking(ssh)
    idle = subprocess.Popen(ssh.command("alpha", "cat"), stdin=subprocess.PIPE)
    wait_for(lambda: any(p.command == "cat" for p in hosts["alpha"].jobs()), "cat to run")
    hosts["alpha"].link.half_open()
    # The host knows nothing of it any more, and here nobody has noticed.
    wait_for(lambda: not hosts["alpha"].processes("me"), "the host's ends to go")
    assert not comes(process, 0.5)
    assert process.poll() is None
    assert idle.poll() is None
    assert ssh.run("alpha", "echo on").stdout == "on\n"
    # Who speaks is told.
    assert idle.stdin
    idle.stdin.write(b"hello\n")
    idle.stdin.flush()
    assert idle.wait(10) == 255
    idle.stdin.close()
    finish(process)


def assert_none_lost(host: Host) -> None:
    command = ["busybox", "ping", "-q", "-c", "20", "-i", "0.01", host.link.address.far]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert " 0% packet loss" in said


def round_trips(host: Host, count: int) -> list[float]:
    """What `ping` measures, in seconds."""
    command = ["busybox", "ping", "-c", str(count), "-i", "0.2", host.link.address.far]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [float(part.split()[0]) / 1000 for part in said.split("time=")[1 : count + 1]]


# ---- what happens to the hosts ----


def test_a_host_that_is_rebooted(hosts: Hosts, ssh: Client) -> None:
    boot = "cat /proc/sys/kernel/random/boot_id"
    first = ssh.run("alpha", f"echo kept >file; setsid sleep 300 >/dev/null 2>&1 & {boot}").stdout
    assert [p.command for p in hosts["alpha"].jobs()] == ["sleep 300"]
    process = ticking(ssh)
    hosts["alpha"].reboot()
    assert not hosts["alpha"].jobs()
    second = ssh.run("alpha", f"{boot}; cat file").stdout.split()
    assert second[0] != first.strip()
    assert second[1] == "kept"
    finish(process)
    # What is behind it did not notice.
    assert ssh.run("inner", "hostname").stdout == "inner\n"


def test_a_host_that_is_off(hosts: Hosts, ssh: Client) -> None:
    hosts["inner"].power_off()
    assert ssh.run("inner", "true").returncode == 255
    hosts["inner"].start()
    assert ssh.run("inner", "hostname").stdout == "inner\n"


def test_a_host_that_refuses(hosts: Hosts, ssh: Client) -> None:
    process = ticking(ssh)
    hosts["alpha"].stop_sshd()
    assert "Connection refused" in ssh.run("alpha", "true").stderr
    assert comes(process, 10)
    hosts["alpha"].start_sshd()
    assert ssh.run("alpha", "echo on").stdout == "on\n"
    finish(process)


def test_a_host_with_another_key(hosts: Hosts, ssh: Client, tmp_path: Path) -> None:
    hosts["bare"].change_key()
    changed = ssh.run("bare", "true")
    assert changed.returncode == 255
    assert "IDENTIFICATION HAS CHANGED" in changed.stderr
    assert hosts.client(tmp_path / "new").run("bare", "echo known").stdout == "known\n"


@pytest.mark.parametrize("name", ["alpha", "bare"])
def test_a_full_disk(name: str, hosts: Hosts, ssh: Client) -> None:
    hosts[name].small_disk("4m")
    filler = hosts[name].fill()
    full = ssh.run(name, "echo x >.dstack/file; df .dstack | tail -n 1")
    assert "No space left on device" in full.stderr
    filler.unlink()
    assert ssh.run(name, "echo x >.dstack/file && cat .dstack/file").stdout == "x\n"


def test_a_stand_in_on_everyones_path(hosts: Hosts, ssh: Client) -> None:
    assert ssh.run("alpha", "nvidia-smi").returncode == 127
    hosts["alpha"].write("/usr/local/bin/nvidia-smi", "#!/bin/sh\necho two\n", mode=0o755)
    assert ssh.run("alpha.other", "nvidia-smi").stdout == "two\n"
    hosts["bare"].write("/bin/nvidia-smi", "#!/bin/sh\necho one\n", mode=0o755)
    assert ssh.run("bare", "nvidia-smi").stdout == "one\n"


def test_a_clean_host_is_as_when_new(hosts: Hosts, ssh: Client) -> None:
    host = hosts["alpha"]
    before = ssh.run("alpha", "ls -A . /tmp /var/tmp; cat /proc/mounts").stdout
    host.small_disk()
    ssh.run("alpha", "echo x >file; echo x >/tmp/x; setsid sleep 300 >/dev/null 2>&1 &")
    host.stop_sshd()
    host.link.drop()
    host.clean()
    assert ssh.run("alpha", "ls -A . /tmp /var/tmp; cat /proc/mounts").stdout == before
    assert not host.jobs()


# ---- containers there ----


def test_a_docker_of_the_hosts_own(ssh: Client, docker_there: Engine) -> None:
    image = docker_there.image("python")
    script = f"""
    echo there >file
    docker run --rm -v $HOME:/mnt {image} cat /mnt/file
    docker run -d --name dstack-web -p 127.0.0.1:8000:80 {image} python -m http.server 80
    """
    assert ssh.run("boxes", script).stdout.startswith("there\n")
    fetch = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8000').status)"
    wait_for(lambda: ssh.run("boxes", f'python3 -c "{fetch}"').stdout == "200\n", "an answer")
    assert docker_there.containers() == ["dstack-web"]
    assert ssh.run("boxes.other", "docker ps").returncode != 0  # who is not in the group
    docker_there.remove("dstack-web")


def test_containers_end_with_their_host(hosts: Hosts, ssh: Client, docker_there: Engine) -> None:
    command = f"docker run -d --name=dstack-lost {docker_there.image('busybox')} sleep 300"
    assert ssh.run("boxes", command).returncode == 0
    hosts["boxes"].reboot()
    assert not hosts["boxes"].jobs()
    again = hosts.docker["boxes"].start()
    assert again.containers() == []


# ---- the set of them ----


def test_hosts_whose_owner_was_killed_are_ended_by_who_comes_next() -> None:
    program = (
        "import os, signal; from tests.hosts.services import Hosts; h = Hosts(os.getpid());"
        "h.start(); print(os.getpid(), *[x.pid for x in h.all.values()], flush=True);"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    owner, *pids = done.stdout.split()
    assert all(Path("/proc", pid).exists() for pid in pids)
    with services.locked():
        services.sweep()
    assert not any(Path("/proc", pid).exists() for pid in pids)
    assert not (services.PARENT / owner).exists()
