"""Where a container's port is reached from this machine."""

from __future__ import annotations

from typing import Any

import msgspec


def find_address(network_settings: bytes, port: int) -> tuple[str, int] | None:
    """Host and port, from an engine's NetworkSettings as JSON; None when it is not reached.

    The container's own address where its network's gateway is an address of this machine: there
    an app that does not listen yet refuses, where the engine's proxy would take the connection.
    """
    try:
        found: Any = msgspec.json.decode(network_settings)
    except msgspec.DecodeError:
        return None
    if not isinstance(found, dict):
        return None
    networks = [found, *(found.get("Networks") or {}).values()]
    for network in networks:
        address, gateway = network.get("IPAddress"), network.get("Gateway")
        if address and gateway and _is_ours(gateway):
            return str(address), port
    for published in (found.get("Ports") or {}).get(f"{port}/tcp") or ():
        if str(published.get("HostPort", "")).isdigit():
            return "127.0.0.1", int(published["HostPort"])
    return None


def _is_ours(address: str) -> bool:
    import socket

    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True
