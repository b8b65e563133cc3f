"""What the engines leave on the machine: processes, mounts, bridges, packet filter rules.

Everything is told apart by a folder's path or by a name of ours, so that nothing else is touched.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def wait_until(condition: Callable[[], object], what: str, timeout: float = 60.0) -> None:
    """Wait for a true `condition()`, or fail saying `what`."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout:g} s for {what}")
        time.sleep(0.02)


def quietly(*command: str | Path) -> str:
    """Run a command that may fail; its output."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def detach(log: Path, *command: str | Path) -> None:
    """Start a service that is nobody's child: it goes on when this process ends."""
    with log.open("ab") as output:
        subprocess.run(
            ["setsid", "--fork", *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            check=True,
        )


def start_time(pid: int) -> str:
    """When the process started, in the kernel's ticks; empty when it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]


def processes(*marks: str) -> Iterator[int]:
    """Living processes of which an argument contains one of `marks`, but for this one."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if any(mark in command for mark in marks):
            yield int(entry.name)


def servants(folder: Path) -> list[str]:
    """Processes that serve containers of the engine in `folder`: `PID COMMAND` each."""
    daemons = list(processes(f"--data-root={folder}/"))
    found = []
    for pid in processes(f"{folder}/", "docker-proxy"):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        program = Path(command.split("\0")[0]).name
        proxy = program == "docker-proxy" and int(fields[1]) in daemons
        if proxy or program in {"conmon", "containerd-shim-runc-v2"}:
            found.append(f"{pid} {program}")
    return found


def end(pid: int, grace: float = 20.0) -> None:
    """End one process: asked first, after `grace` seconds by force. Waits until it is gone."""
    started = start_time(pid)
    for number, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, 20.0)):
        if not started:
            return
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return
        try:
            wait_until(lambda: _reap(pid) or start_time(pid) != started, "an end", patience)
            return
        except TimeoutError:
            continue


def _reap(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return False


def end_group(name: str) -> None:
    """Kill what lives in control groups called `name` or below such a one, and remove them."""
    for controller in CGROUPS.glob("*"):
        for top in [controller / name, *controller.glob(f"*/{name}")]:
            groups = [top, *top.glob("**/")] if top.is_dir() else []
            for group in sorted(set(groups), key=lambda path: -len(path.parts)):
                _empty_group(group)


def _empty_group(group: Path) -> None:
    def members() -> list[int]:
        try:
            return [int(pid) for pid in (group / "cgroup.procs").read_text().split()]
        except OSError:
            return []

    def emptied() -> bool:
        for pid in members():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        return not members()

    wait_until(emptied, f"{group} to be empty", 20.0)
    try:
        group.rmdir()
    except OSError:
        return


def mounts(below: Path) -> list[str]:
    """Mount points at or below a folder, the deepest first."""
    found = []
    for line in Path("/proc/self/mounts").read_text().splitlines():
        point = line.split()[1].replace("\\040", " ")
        if point == str(below) or point.startswith(f"{below}/"):
            found.append(point)
    return sorted(found, key=len, reverse=True)


def unmount(below: Path) -> None:
    """Unmount all that is mounted at or below a folder."""
    for point in mounts(below):
        quietly("umount", "-l", point)


def free_network(taken: str = "") -> str:
    """The first three numbers of a /24 of which no route or address of this machine is a part.

    Nor is it one that the text `taken` names.
    """
    known = taken + quietly("ip", "-4", "route") + quietly("ip", "-4", "addr")
    # Podman's networks exist only on paper while nothing runs in them: two starts at once may not
    # take the same one, and the process's id keeps them apart.
    numbers = [(os.getpid() + step) % 254 + 1 for step in range(254)]
    for number in numbers:
        if f"10.213.{number}." not in known:
            return f"10.213.{number}"
    raise RuntimeError("no free network in 10.213.0.0/16")


def add_bridge(name: str) -> None:
    """Make a bridge with a network of its own."""
    quietly("ip", "link", "del", name)
    network = free_network()
    subprocess.run(["ip", "link", "add", name, "type", "bridge"], check=True)
    subprocess.run(["ip", "addr", "add", f"{network}.1/24", "dev", name], check=True)
    subprocess.run(["ip", "link", "set", name, "up"], check=True)


class PacketFilter:
    """The chains of engines in iptables: which were there before, and taking ours away."""

    CHAINS = re.compile(r"^:((?:DOCKER|NETAVARK|CNI)\S*)", re.MULTILINE)

    @classmethod
    def chains(cls) -> list[str]:
        """The chains that are there now."""
        return sorted(set(cls.CHAINS.findall(quietly("iptables-save"))))

    @classmethod
    def forward_policy(cls) -> str:
        """The policy of the FORWARD chain, which Docker sets to DROP."""
        found = re.search(
            r"^:FORWARD (\w+)", quietly("iptables-save", "-t", "filter"), re.MULTILINE
        )
        return found[1] if found else "ACCEPT"

    @classmethod
    def clean(cls, kept: list[str], policy: str, bridges: list[str]) -> None:
        """Remove engines' chains that are not in `kept`, and every rule that names them."""
        ours = [chain for chain in cls.chains() if chain not in kept]
        if not ours:
            return
        rules = cls.without(quietly("iptables-save"), ours, bridges, policy)
        subprocess.run(["iptables-restore"], input=f"{rules}\n", text=True, check=True)

    @staticmethod
    def without(saved: str, chains: list[str], bridges: list[str], policy: str) -> str:
        """What `iptables-save` said, less these chains and bridges; FORWARD has `policy`."""
        names = "|".join(re.escape(name) for name in [*chains, *bridges])
        rule = re.compile(rf"(?:^:|\s)(?:{names})(?:\s|$)")
        rules = "\n".join(line for line in saved.splitlines() if not rule.search(line))
        return re.sub(r"^:FORWARD \w+", f":FORWARD {policy}", rules, flags=re.MULTILINE)
