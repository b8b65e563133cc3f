"""How a host of `type: ssh` is named, and the command line of `ssh` for it. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from ..config.address import parse_address

# The longest path that a socket can have everywhere (sun_path of macOS), without the final zero.
_SOCKET_LENGTH = 103
# What ssh itself adds: `%C` is 40 characters, and 17 more while it makes the socket.
_SOCKET_NAME = 40 + 17

_PLAIN = re.compile(r"[\w./@+-]+")

CONNECT_TIMEOUT = 20  # seconds until a host that says nothing counts as unreachable
KEEP_ALIVE = 5  # seconds between questions whether the other end is still there
MISSED = 3  # questions without an answer after which the connection is given up
PERSIST = 600  # seconds that the shared connection stays open when nobody uses it


class SshOptions(msgspec.Struct, frozen=True):
    """What `config.yml` says about a host.

    `host` is what the user types after `ssh`, or `user@host:port`. `root` is where dstack's folder
    lies there, absolute or below the home folder.
    """

    host: str
    identity_file: str | None = None
    root: str = "~/.dstack"


def socket_fits(folder: str) -> bool:
    """Whether the socket of a shared connection can lie in this folder.

    Its path must be short, and hold nothing that means something else to ssh.
    """
    return (
        bool(_PLAIN.fullmatch(folder))
        and len(folder) + len("/12345678-") + _SOCKET_NAME <= _SOCKET_LENGTH
    )


def ssh_argv(
    options: SshOptions,
    control: str,
    *,
    ask: bool,
    forward: bool = False,
    ciphers: str | None = None,
    extra: Sequence[str] = (),
) -> list[str]:
    """`ssh` up to and with the host's name. Nothing here weakens what ssh checks.

    `control` is the path of the shared connection's socket; `ask`: ssh may ask on the terminal.
    `forward`: `extra` forwards something. `ciphers`: those that are offered, the first one first.
    """
    address = parse_address(options.host)
    argv = ["ssh", "-o", "ControlMaster=auto", "-o", f"ControlPath={control}"]
    argv += ["-o", f"ControlPersist={PERSIST}", "-o", f"ConnectTimeout={CONNECT_TIMEOUT}"]
    argv += ["-o", f"ServerAliveInterval={KEEP_ALIVE}", "-o", f"ServerAliveCountMax={MISSED}"]
    # Ours are no terminals, agents or windows, whatever the user's file says for this host.
    argv += ["-T", "-x", "-a", "-o", "RemoteCommand=none"]
    if not forward:
        argv += ["-o", "ClearAllForwardings=yes"]
    argv += ["-o", "EscapeChar=none", "-o", "LogLevel=ERROR"]
    if ciphers is not None:
        argv += ["-o", f"Ciphers={ciphers}"]
    if not ask:
        argv += ["-o", "BatchMode=yes"]
    if options.identity_file:
        argv += ["-i", options.identity_file]
    if address.user:
        argv += ["-l", address.user]
    if address.port:
        argv += ["-p", str(address.port)]
    return [*argv, *extra, address.host]
