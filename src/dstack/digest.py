"""Names for content: a digest that nobody can make collide, without OpenSSL at start."""

from __future__ import annotations

try:
    # `hashlib` loads OpenSSL, 5 to 8 ms on the path of every run; this is where it has BLAKE2 from.
    from _blake2 import blake2b
except ImportError:  # pragma: no cover - another Python implementation
    from hashlib import blake2b

_BYTES = 20


def digest(data: bytes) -> str:
    """40 hexadecimal digits (BLAKE2b, RFC 7693)."""
    return blake2b(data, digest_size=_BYTES).hexdigest()
