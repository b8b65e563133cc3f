"""How `exit` is read. Pure."""

from __future__ import annotations

from typing import Any, get_args

from ..run.model import Exit, Reason

_DETAILS = {
    "killed": "the process that looked after the run was killed",
    "host_restarted": "the machine was restarted while the run was under way",
}


def parse_exit(text: str, at: float | None) -> Exit:
    """Read lines of `key=value`; what is damaged becomes reason `killed`, never an error.

    `at` is when it was written, in seconds since the epoch.
    """
    found: dict[str, str] = {}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals:
            found[key.strip()] = value.strip()
    reason: Any = found.get("reason")
    if reason not in get_args(Reason) or not found.get("code", "").isdigit():
        detail = "its end was recorded, but the record cannot be read"
        return Exit(code=137, reason="killed", signal=9, detail=detail, at=at)
    stage: Any = found.get("stage")
    return Exit(
        code=int(found["code"]),
        reason=reason,
        signal=_number(found.get("signal")),
        oom=found.get("oom") == "true",
        stage=stage if stage in ("environment", "setup", "commands") else None,
        index=_number(found.get("index")) or None,
        detail=found.get("detail") or _DETAILS.get(reason),
        at=at,
    )


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() else None
