"""Sentences about how a run ended."""

from __future__ import annotations

from .model import Exit, Plan

_SIGNALS = {
    1: "SIGHUP",
    2: "SIGINT",
    3: "SIGQUIT",
    4: "SIGILL",
    6: "SIGABRT",
    7: "SIGBUS",
    8: "SIGFPE",
    9: "SIGKILL",
    11: "SIGSEGV",
    13: "SIGPIPE",
    14: "SIGALRM",
    15: "SIGTERM",
    24: "SIGXCPU",
    25: "SIGXFSZ",
}
_WIDTH = 100


def first_line(command: str) -> str:
    """A command as it fits into a sentence: its first line that says something, shortened."""
    lines = [line.strip() for line in command.splitlines() if line.strip()]
    line = lines[0] if lines else ""
    if len(line) > _WIDTH:
        return line[: _WIDTH - 1] + "…"
    return line + (" …" if len(lines) > 1 else "")


def _step(plan: Plan, end: Exit) -> str:
    """`command 2 of 3`, or the stage where no step is known."""
    steps = plan.setup if end.stage == "setup" else plan.commands
    noun = "setup command" if end.stage == "setup" else "command"
    if plan.stage == "build":
        noun = "build command"
    if end.index is None or not 1 <= end.index <= len(steps):
        return "the run"
    return f"{noun} {end.index} of {len(steps)}"


def _command(plan: Plan, end: Exit) -> str:
    steps = plan.setup if end.stage == "setup" else plan.commands
    if end.index is None or not 1 <= end.index <= len(steps):
        return ""
    return f": {first_line(steps[end.index - 1])}"


def duration(seconds: float) -> str:
    """`72h`, `90s`: a limit in the unit that it was most likely written in."""
    for unit, name in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= unit and seconds % unit == 0:
            return f"{seconds / unit:g}{name}"
    return f"{seconds:g}s"


def describe(plan: Plan, end: Exit) -> str:
    """How an attempt ended, as one sentence without a full stop."""
    if end.detail and end.reason in {"start_failed", "killed", "host_restarted", "no_capacity"}:
        return end.detail
    if end.reason in _PLAIN:
        return _PLAIN[end.reason]
    if end.reason == "max_duration":
        limit = f" ({duration(plan.max_duration)})" if plan.max_duration else ""
        return f"stopped after its max_duration{limit}"
    if end.reason == "oom":
        return f"{_step(plan, end)} was out of memory{_limit(plan)}{_command(plan, end)}"
    if end.signal is not None:
        name = _SIGNALS.get(end.signal, f"signal {end.signal}")
        return f"{_step(plan, end)} was killed by {name}{_command(plan, end)}"
    return f"{_step(plan, end)} exited with code {end.code}{_command(plan, end)}"


_PLAIN = {
    "completed": "completed",
    "stopped": "stopped by the user",
    "killed": "dstack's keeper of the run was killed from outside",
    "host_restarted": "the machine was restarted",
    "start_failed": "the run could not be started",
    "no_capacity": "what the run asks for is not there",
}


def _limit(plan: Plan) -> str:
    memory = plan.resources.memory
    if memory is None or memory.most is None or not plan.enforce:
        return ""
    for unit, name in ((1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "KB")):
        if memory.most >= unit:
            return f" (limit {memory.most / unit:.4g}{name})"
    return f" (limit {memory.most:.0f} bytes)"
