"""A slow link: packets between two network namespaces, each passed on late, some never.

`relay.py PID ADDRESS PID ADDRESS DELAY LOSS SEED`: in the network of each process (0: this one)
the way to the other's address leads through here. DELAY is in seconds for one way, LOSS the part
that is lost. Prints `ready`. When it ends, by a signal or when its input does, the ways are as
they were, as its devices are gone.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import random
import selectors
import struct
import subprocess
import sys
import time
from collections import deque

# linux/if_tun.h
TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
CLONE_NEWNET = 0x40000000
DEVICE = b"slow%d"
LARGEST = 65536


def open_end(pid: int, own: str, other: str) -> int:
    """A device in that namespace, through which packets to `other` come; its descriptor."""
    enter(f"/proc/{pid or 'self'}/ns/net")
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    wanted = struct.pack("16sH22x", DEVICE, IFF_TUN | IFF_NO_PI)
    name = fcntl.ioctl(fd, TUNSETIFF, wanted)[:16].rstrip(b"\0").decode()
    for command in (
        f"link set {name} addrgenmode none txqueuelen 10000 up",
        f"route add {other}/32 dev {name} src {own}",
    ):
        subprocess.run(["ip", *command.split()], check=True)
    return fd


def enter(namespace: str) -> None:
    """Be in that network namespace from now on."""
    fd = os.open(namespace, os.O_RDONLY)
    if ctypes.CDLL(None, use_errno=True).setns(fd, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), f"cannot enter {namespace}")
    os.close(fd)


def pass_on(ends: tuple[int, int], delay: float, loss: float, seed: int) -> None:
    """Until the input ends. The delay is one for all packets: they stay in their order."""
    draw = random.Random(seed)
    other = {ends[0]: ends[1], ends[1]: ends[0]}
    waiting: deque[tuple[float, int, bytes]] = deque()
    with selectors.DefaultSelector() as selector:
        for fd in (*ends, 0):
            selector.register(fd, selectors.EVENT_READ)
        while True:
            patience = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
            for key, _ in selector.select(patience):
                if key.fd == 0:
                    return
                packet = read(key.fd)
                if packet and draw.random() >= loss:
                    waiting.append((time.monotonic() + delay, other[key.fd], packet))
            while waiting and waiting[0][0] <= time.monotonic():
                _, fd, packet = waiting.popleft()
                write(fd, packet)


def read(fd: int) -> bytes:
    """A packet; nothing when there is none after all, or when the network behind it is gone."""
    try:
        return os.read(fd, LARGEST)
    except OSError:
        return b""


def write(fd: int, packet: bytes) -> None:
    """Networks lose packets: one that cannot be written is lost."""
    try:
        os.write(fd, packet)
    except OSError:
        return


def main(arguments: list[str]) -> None:
    """See the top of the file."""
    near, near_address, far, far_address, delay, loss, seed = arguments
    home = f"/proc/{os.getpid()}/ns/net"
    first = os.open(home, os.O_RDONLY)
    ends = []
    for pid, own, other in (
        (int(near), near_address, far_address),
        (int(far), far_address, near_address),
    ):
        # Back to where it began: the next end may be here.
        enter(f"/proc/self/fd/{first}")
        ends.append(open_end(pid, own, other))
    print("ready", flush=True)
    pass_on((ends[0], ends[1]), float(delay), float(loss), int(seed))


if __name__ == "__main__":
    main(sys.argv[1:])
