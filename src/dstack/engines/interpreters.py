"""Which interpreter is taken for a version. Pure: reads what find_python.sh printed."""

from __future__ import annotations


def parse_pythons(text: str) -> dict[str, str]:
    """`3.11.7 /path` lines to {"3.11": "/path"}: the newest patch, and of equals the first one.

    An interpreter whose patch version is not known (`3.11 /usr/bin/python3.11`) stands on PATH or
    belongs to the system: it is taken before all others when it comes first.
    """
    best: dict[str, tuple[tuple[int, ...], str]] = {}
    for line in text.splitlines():
        version, _, path = line.partition(" ")
        numbers = version.split(".")
        known = len(numbers) >= 2 and all(n.isdigit() for n in numbers[:2])
        if not path.startswith("/") or not known:
            continue
        minor = f"{numbers[0]}.{numbers[1]}"
        patch = tuple(int(n) for n in numbers if n.isdigit())
        # A pre-release (3.14.0rc1) sorts below every release.
        if len(numbers) > 2 and len(patch) < len(numbers):
            patch = (-1,)
        if minor not in best or patch > best[minor][0]:
            best[minor] = (patch, path)
    ordered = sorted(best, key=lambda minor: [int(n) for n in minor.split(".")])
    return {minor: best[minor][1] for minor in ordered}
