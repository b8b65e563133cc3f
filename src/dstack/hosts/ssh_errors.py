"""What `ssh` said when it could not do it -> a sentence, and what to do about it. Pure."""

from __future__ import annotations

import re
from typing import Literal

from ..errors import HostError, HostRefused, HostUnreachable

# Whether it may mend itself, or not, or not unless somebody types something.
_Kind = Literal["away", "refused", "asks"]

# (what ssh prints, the sentence after the host's name, the hint)
_KNOWN: tuple[tuple[str, str, str, _Kind], ...] = (
    (
        r"REMOTE HOST IDENTIFICATION HAS CHANGED|Host key for .* has changed",
        "its host key is another one than before",
        "somebody may be in between, or the machine was set up anew: ask who runs it, then"
        " `ssh-keygen -R {name}` and `ssh {host}` once",
        "refused",
    ),
    (
        r"Host key verification failed|No .* host key is known for",
        "its host key is not known here",
        "connect once with `ssh {host}`, and compare the fingerprint that it shows",
        "asks",
    ),
    (
        r"Could not resolve hostname|Name or service not known|nodename nor servname",
        "there is no machine of that name",
        "check the name (`host` in config.yml), ~/.ssh/config, and the network",
        "away",
    ),
    (
        r"Too many authentication failures",
        "too many keys were tried",
        "name the right one (`dstack backend add --identity-file`), and set `IdentitiesOnly yes`"
        " for it in ~/.ssh/config",
        "refused",
    ),
    (
        r"Permission denied|no mutual signature|Authentication failed",
        "it does not let this user in: {said}",
        "does `ssh {host}` work? A key is named with `dstack backend add --identity-file`; one with"
        " a passphrase must be in the agent (`ssh-add`) where nobody can type it",
        "asks",
    ),
    (
        r"UNPROTECTED PRIVATE KEY|bad permissions",
        "ssh does not take the key: others can read it",
        "chmod 600 the key",
        "refused",
    ),
    (
        r"Bad configuration option|bad configuration options",
        "{said}",
        "see ~/.ssh/config",
        "refused",
    ),
    (
        r"Unable to negotiate",
        "ssh there and here have no algorithm in common: {said}",
        "one of the two is very old",
        "refused",
    ),
    (r"Connection refused", "nothing answers at its ssh port", "is sshd running there?", "away"),
    (
        r"Connection timed out|Operation timed out|timed out during banner",
        "it does not answer",
        "",
        "away",
    ),
    (
        r"No route to host|Network is unreachable|Host is down",
        "there is no way to it: {said}",
        "",
        "away",
    ),
)
_FALLBACK_HINT = "does `ssh {host}` work?"
# What says nothing about why.
_NOISE = re.compile(r"^(\*\*|Warning: Permanently added|@|mux_client_|ControlSocket )")


def ssh_error(host: str, said: str) -> HostError:
    """The error for what ssh printed on stderr, when it exited with its own 255."""
    lines = [line.strip() for line in said.splitlines()]
    lines = [line for line in lines if line and not _NOISE.match(line)]
    last = lines[-1] if lines else ""
    for pattern, sentence, hint, kind in _KNOWN:
        found = re.search(pattern, said)
        if found:
            name = host.rpartition("@")[2]
            line = next((line for line in lines if re.search(pattern, line)), last)
            values = {"host": host, "name": name, "said": _short(line)}
            return _error(host, sentence.format(**values), hint.format(**values), kind)
    if not last:
        return _error(host, "the connection broke off", "", "away")
    return _error(host, _short(last), _FALLBACK_HINT.format(host=host), "away")


def _error(host: str, what: str, hint: str, kind: _Kind) -> HostError:
    message = f"{host} cannot be reached: {what}"
    if kind == "away":
        return HostUnreachable(message, hint=hint or None)
    return HostRefused(message, hint=hint or None, asks=kind == "asks")


def _short(line: str) -> str:
    """Without the prefixes `ssh: connect to host X port 22:` and `user@host:`."""
    line = re.sub(r"^ssh: (connect to host \S+ port \d+: )?", "", line)
    line = re.sub(r"^\S+@\S+: ", "", line)
    return line.rstrip(".")
