"""What Docker's daemon says about an image, asked at its socket: 3 ms instead of a client's 20.

Only a shortcut. Whatever is unusual (another address, no answer, a strange one) gives None, and
job.sh asks with the client. https://docs.docker.com/reference/api/engine/
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ..errors import HostError
from ..hosts.base import Host
from .render import quote

_TIMEOUT = 2.0  # seconds
_DEFAULT = "unix:///var/run/docker.sock"


class Found(msgspec.Struct, frozen=True):
    """`facts`: what clients.FACTS would have given. `lasting`: containers survive the daemon."""

    facts: str
    lasting: bool


def look_up(image: str, environ: Mapping[str, str], host: Host) -> Found | None:
    """What is known of an image that is there; None: it is not there, or ask the client."""
    path = _path(environ)
    if path is None:
        return None
    about = _get(host, path, f"/images/{image}/json")
    if about is None:
        return None
    info = _get(host, path, "/info")
    try:
        facts = facts_of(about)
    except (KeyError, TypeError, AttributeError):
        return None
    return Found(facts, lasting=info is None or info.get("LiveRestoreEnabled") is not False)


def look_up_id(image: str, environ: Mapping[str, str], host: Host) -> str | None:
    """The id of an image that is there; None as with `look_up`."""
    path = _path(environ)
    about = _get(host, path, f"/images/{image}/json") if path is not None else None
    found = about.get("Id") if about is not None else None
    return found if isinstance(found, str) else None


def _path(environ: Mapping[str, str]) -> str | None:
    address = environ.get("DOCKER_HOST") or _DEFAULT
    if not address.startswith("unix://") or environ.get("DOCKER_CONTEXT"):
        return None
    return address.removeprefix("unix://")


def facts_of(about: Mapping[str, Any]) -> str:
    """The facts of an image, for the shell. Raises KeyError, TypeError, AttributeError."""
    config = about.get("Config") or {}
    argv = [*(config.get("Entrypoint") or ()), *(config.get("Cmd") or ())]
    digests = about.get("RepoDigests") or [""]
    return "\n".join(
        (
            f"image_id={quote(about['Id'])}",
            f"image_digest={quote(digests[0])}",
            f"image_platform={quote(about['Os'] + '/' + about['Architecture'])}",
            f"image_user={quote(config.get('User') or '')}",
            'image_env() { "$@" ' + " ".join(map(quote, config.get("Env") or ())) + "; }",
            'image_argv() { "$@" ' + " ".join(map(quote, argv)) + "; }",
            "",
        )
    )


def _get(host: Host, path: str, target: str) -> dict[str, Any] | None:
    if any(c in target for c in " \r\n?#%"):
        return None
    try:
        link = host.dial(path)
        if link is None:
            return None
        try:
            link.settimeout(_TIMEOUT)
            # HTTP/1.0: the answer ends where the connection does, in one piece.
            link.sendall(f"GET {target} HTTP/1.0\r\nHost: docker\r\n\r\n".encode())
            answer = b""
            while piece := link.recv(65536):
                answer += piece
        finally:
            link.close()
    except (HostError, OSError):
        return None
    head, _, body = answer.partition(b"\r\n\r\n")
    if head.split(None, 2)[1:2] != [b"200"]:
        return None
    try:
        found = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return None
    return found if isinstance(found, dict) else None
