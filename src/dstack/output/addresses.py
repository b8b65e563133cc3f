"""Showing an app's address as the one that reaches it from here, in a stream of bytes."""

from __future__ import annotations

import re
from collections.abc import Sequence

# How an app on this machine calls itself in its log; this machine's own name is added.
HOSTS = ("0.0.0.0", "127.0.0.1", "localhost", "[::]", "[::1]")  # noqa: S104 - read, not bound

# Some dev servers print the port in bold: at most one colour sequence is looked through.
_COLOUR = [r"\x1b?", r"\[?", r"[0-9;]{0,12}", r"m?"]


def _beginning(atoms: Sequence[str]) -> str:
    """A pattern for the first atom followed by as many of the others as there are."""
    return "".join(f"{atom}(?:" for atom in atoms) + ")?" * len(atoms)


class Rewriter:
    """Turns `http://0.0.0.0:8000` into `http://127.0.0.1:LOCAL` for each mapped port.

    `mapping` is (run, local) pairs; https as well, and all names in HOSTS and `names`. The result
    does not depend on how the text is cut, unless `idle` was called in the middle of an address.
    """

    def __init__(self, mapping: Sequence[tuple[int, int]], names: Sequence[str] = ()) -> None:
        self._local = {str(run).encode(): str(local).encode() for run, local in mapping}
        hosts = sorted({*HOSTS, *names})
        ports = "|".join(str(run) for run, _ in mapping)
        written = "|".join(re.escape(host) for host in hosts)
        colour = r"(?:\x1b\[[0-9;]{0,12}m)?"
        whole = rf"(https?://)(?:{written}):({colour})({ports})(?![0-9])"
        self._whole = re.compile(whole.encode())
        digits = max(len(port) for port in self._local)
        # Looser than the address itself (any digits), which only ever holds back a little more.
        rests = (
            _beginning([*map(re.escape, f"{host}:"), *_COLOUR, f"[0-9]{{0,{digits}}}"])
            for host in hosts
        )
        scheme = _beginning([*"http", "s?", *":/", f"/(?:{'|'.join(rests)})?"])
        self._begun = re.compile(rf"{scheme}\Z".encode())
        self._reach = max(map(len, hosts)) + digits + len("https://:") + len("\x1b[m") + 12
        self._held = b""

    @property
    def holding(self) -> bool:
        """Whether there is text that `idle` would show."""
        return bool(self._held)

    def feed(self, data: bytes) -> bytes:
        """What can be shown after `data` came."""
        if not data:
            return b""
        text = self._held + data if self._held else data
        begun = self._begun.search(text, max(0, len(text) - self._reach))
        if begun is not None:
            self._held = text[begun.start() :]
            text = text[: begun.start()]
        else:
            self._held = b""
        return self._rewrite(text)

    def flush(self) -> bytes:
        """The rest, when nothing more will come, or not for a while."""
        text, self._held = self._held, b""
        return self._rewrite(text)

    def _rewrite(self, text: bytes) -> bytes:
        # Looking for three bytes is ten times as fast as looking for the pattern.
        if b"://" not in text:
            return text
        return self._whole.sub(self._replaced, text)

    def _replaced(self, match: re.Match[bytes]) -> bytes:
        scheme, colour, port = match.groups()
        return b"%s127.0.0.1:%s%s" % (scheme, colour, self._local[port])
