"""How a machine that `ssh` reaches is named: `alias`, `user@host`, `user@host:port`."""

from __future__ import annotations

import re

import msgspec

from .quantities import BadValue, shown


class Address(msgspec.Struct, frozen=True):
    """`host` as ssh takes it; user and port when they were written with it."""

    host: str
    user: str | None = None
    port: int | None = None


def parse_address(text: str) -> Address:
    """`alias`, `user@host`, `host:port`, `user@host:port`, `[::1]:port`. Raises BadValue."""
    user, at, rest = text.rpartition("@")
    if at and (not user or user.startswith("-") or re.search(r"\s", user)):
        raise BadValue(f"{shown(text)}: the user before @ is missing")
    host, port = rest, None
    found = re.fullmatch(r"\[([0-9A-Fa-f:.]+(?:%\w+)?)\](?::(\w*))?", rest)
    if found:
        host, port = found.group(1), found.group(2)
    elif rest.count(":") == 1:
        host, _, port = rest.partition(":")
    # What begins with a hyphen would be an option to ssh.
    if not re.fullmatch(r"[^\s\-/'\"\\\[\]@][^\s/'\"\\\[\]@]*", host):
        hint = "an alias of ~/.ssh/config, a machine's name or address, or USER@HOST:PORT"
        raise BadValue(f"{shown(text)} is not the name of a machine", hint)
    if port is None:
        return Address(host, user or None)
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65536):
        raise BadValue(f"{shown(port)} is not a port: they go from 1 to 65535")
    return Address(host, user or None, int(port))
