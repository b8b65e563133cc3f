"""The one link that a host has, and what may happen to it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from tests.engines import machine
from tests.hosts.namespaces import call, inside

INTERFACE = "eth0"
# `-n` keeps what else is there, such as Docker's rules.
_LOOSE = ("iptables-restore", "-w", "-n")
_RULES = """*filter
:INPUT {policy} [0:0]
:OUTPUT {policy} [0:0]
COMMIT
"""


class Address(NamedTuple):
    """The two ends of a link: `near` is that of who reaches the host, `far` the host's."""

    near: str
    far: str


class Passed(NamedTuple):
    """What a slow link saw: packets, how many of them it lost, and how often somebody waited.

    `trips` are one-way, and do not depend on how fast anything is; see relay.py.
    """

    seen: int
    lost: int
    trips: int


class Link:
    """A virtual cable between process `near` (0: this machine) and the host of process `far`.

    The near end is called `device`, the far one eth0. Afterwards `heal` makes all as it was.
    """

    def __init__(self, device: str, address: Address) -> None:
        self.device = device
        self.address = address
        self.near = self.far = 0
        self._relay: subprocess.Popen[bytes] | None = None
        self._harmed = False  # whether there is something to heal

    def connect(self, near: int, far: int) -> None:
        """Lay the cable."""
        self.near, self.far = near, far
        self._harmed = False
        self._here(
            "ip", "link", "add", self.device, "type", "veth", "peer", INTERFACE, "netns", far
        )
        self._here("ip", "-batch", "-", input=_up(self.device, f"{self.address.near}/30"))
        self._there(
            "ip", "-batch", "-", input=f"{_up(INTERFACE, self.address.far + '/30')}link set lo up\n"
        )

    def disconnect(self) -> None:
        """Take the cable away, if it is there."""
        self._end_relay()
        for pid, device in ((self.near, self.device), (self.far, INTERFACE)):
            # One end goes with the other. With a host's network the kernel takes its time.
            if pid == 0 or machine.start_time(pid):
                machine.quietly(*inside(pid, "ip", "link", "del", device, only_network=True))

    def cut(self, *, here: bool = False) -> None:
        """Interface down: the host's, or the one at this end, when this end knows that it is."""
        self._harmed = True
        if here:
            self._here("ip", "link", "set", self.device, "down")
        else:
            self._there("ip", "link", "set", INTERFACE, "down")

    def drop(self) -> None:
        """Lose every packet, both ways. Nobody is told."""
        self._harmed = True
        self._there("iptables-restore", input=_RULES.format(policy="DROP"))

    def slow(self, delay: float, loss: float = 0.0, seed: int = 0) -> None:
        """Make a round trip take `delay` seconds more, and lose the part `loss` (0 to 1) each way.

        Connections live on. Not every kernel can do it, so a program passes the packets on.
        """
        self._end_relay()
        self._harmed = True
        script = Path(__file__).with_name("relay.py")
        settings = (self.near, self.address.near, self.far, self.address.far, delay / 2, loss, seed)
        self._relay = subprocess.Popen(
            [sys.executable, script, *map(str, settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        if not self._relay.stdout or self._relay.stdout.readline() != b"ready\n":
            self._end_relay()
            raise RuntimeError("the relay for slow links did not start")

    def passed(self) -> Passed:
        """What happened on a slow link since it was made, or since this was asked before."""
        relay = self._relay
        assert relay
        assert relay.stdin
        assert relay.stdout
        relay.stdin.write(b"?\n")
        relay.stdin.flush()
        return Passed(*map(int, relay.stdout.readline().split()))

    def reset(self) -> None:
        """Break the host's connections; who is at the other end is told with an RST."""
        # `ss` exits with 0 also when there was none.
        self._there("ss", "--kill", "--tcp", "state", "connected", "src", self.address.far)

    def half_open(self) -> None:
        """The host forgets its connections and nobody tells the other end."""
        self.drop()
        self.reset()
        # An acknowledgement comes up to 0.2 s late, and would be answered.
        time.sleep(0.3)
        self._pass()

    def heal(self) -> None:
        """Undo `cut`, `drop` and `slow`, and wait until packets go there and back.

        While this end still asks in vain who has the address there, a connection that begins fails.
        """
        if not self._harmed:
            return
        self._end_relay()
        self._pass()
        self._here("ip", "link", "set", self.device, "up")
        self._there("ip", "link", "set", INTERFACE, "up")
        ping = ("busybox", "ping", "-q", "-c", "1", "-W", "1", self.address.far)
        machine.wait_until(
            lambda: (
                " 0% packet loss" in machine.quietly(*inside(self.near, *ping, only_network=True))
            ),
            f"{self.address.far} to be reached",
        )
        self._harmed = False

    def _pass(self) -> None:
        if "-P INPUT DROP" in self._there("iptables", "-S"):
            self._there("iptables-restore", input=_RULES.format(policy="ACCEPT"))

    def _end_relay(self) -> None:
        if self._relay:
            # It has the two devices, which go with it, and the routes through them with those.
            self._relay.kill()
            self._relay.communicate()
            self._relay = None

    def _here(self, *command: str | int, input: str = "") -> str:
        return call(self.near, *map(str, command), input=input, only_network=True)

    def _there(self, *command: str | int, input: str = "") -> str:
        # The number of a host that is off is soon another process's, which may well be of this
        # machine's network: to drop every packet there would stop all that runs here.
        if os.path.samefile(f"/proc/{self.far}/ns/net", "/proc/self/ns/net"):
            raise RuntimeError(f"the host at {self.address.far} is off")
        return call(self.far, *map(str, command), input=input, only_network=True)


def _up(device: str, address: str) -> str:
    return f"link set {device} addrgenmode none up\naddress add {address} dev {device}\n"
