"""A slow link: packets between two network namespaces, each passed on late, some never.

`relay.py PID ADDRESS PID ADDRESS DELAY LOSS SEED`: in the network of each process (0: this one)
the way to the other's address leads through here. DELAY is in seconds for one way, LOSS the part
that is lost. Prints `ready`, and for each line that it reads `SEEN LOST TRIPS` since the line
before. When it ends, by a signal or when its input does, the ways are as they were, as its devices
are gone.

TRIPS says how often somebody waited, whatever time it took: a packet that was sent after another
had arrived there is one trip further than that. Acknowledgements, for which nobody waits, are none.
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
    waiting: deque[tuple[float, int, bytes, int]] = deque()
    seen = lost = 0
    trips = dict.fromkeys(ends, 0)  # of the packets that have arrived at an end, the furthest
    with selectors.DefaultSelector() as selector:
        for fd in (*ends, 0):
            selector.register(fd, selectors.EVENT_READ)
        while True:
            patience = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
            for key, _ in selector.select(patience):
                if key.fd == 0:
                    if not os.read(0, 100):
                        return
                    print(seen, lost, max(trips.values()), flush=True)
                    seen = lost = 0
                    trips = dict.fromkeys(ends, 0)
                    waiting = deque((*packet[:3], 0) for packet in waiting)
                    continue
                packet = read(key.fd)
                seen += bool(packet)
                if packet and draw.random() < loss:
                    lost += 1
                elif packet:
                    trip = trips[key.fd] + 1 if is_awaited(packet) else 0
                    waiting.append((time.monotonic() + delay, other[key.fd], packet, trip))
            while waiting and waiting[0][0] <= time.monotonic():
                _, fd, packet, trip = waiting.popleft()
                trips[fd] = max(trips[fd], trip)
                write(fd, packet)


def is_awaited(packet: bytes) -> bool:
    """Whether it is more than an acknowledgement: of TCP, what opens a connection or has data."""
    header = (packet[0] & 0x0F) * 4
    if packet[0] >> 4 != 4 or packet[9] != 6:
        return True
    data = int.from_bytes(packet[2:4], "big") - header - (packet[header + 12] >> 4) * 4
    opens = packet[header + 13] & 0x02
    return data > 0 or opens != 0


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
