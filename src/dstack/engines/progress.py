"""How far a pull is, from what the engines' clients print where there is no terminal. Pure."""

from __future__ import annotations

_BEGUN = ("Pulling fs layer", "Already exists", "Copying blob", "Waiting")
_DONE = ("Pull complete", "Already exists", " done", "skipped: already exists")


def layers(text: str) -> tuple[int, int]:
    """How many layers are there, and of how many that are known of."""
    begun: set[str] = set()
    done: set[str] = set()
    for line in text.replace("\r", "\n").splitlines():
        if line.startswith("Copying blob"):  # Podman
            name = line.split()[2].rpartition(":")[2][:12]
        else:
            name, colon, _ = line.partition(": ")
            if not colon or " " in name:
                continue
        if any(word in line for word in _BEGUN):
            begun.add(name)
        if any(word in line for word in _DONE) and (name in begun or line.startswith("Copying")):
            done.add(name)
    return len(done), len(begun)
