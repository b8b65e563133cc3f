"""What can go wrong, as one tree; every message is a sentence for the person who typed the command.

DstackError                 1    something failed that the user did not write wrongly
├── UsageError              2    the command line is wrong (unknown run, name in use, bad option)
│   └── FileErrors          2    a file is wrong: all its problems at once
├── CannotStart           125    the run could not be started (no image, no build, no capacity)
│   └── NoCapacity        125    ... because what it asks for is not there (now)
├── StoreError              1    the state folder or database cannot be read or written
│   └── StoreBusy           1    ... because another command holds it (transient)
└── HostError               1    a command of dstack's own on a host failed
    ├── HostUnreachable     1    ... because the host does not answer (transient)
    └── HostRefused         1    ... because it, or ssh, does not let us in
"""

from __future__ import annotations


class DstackError(Exception):
    """A failure with a sentence for people.

    `message` says what and where, `hint` what to do about it, `exit_code` is the command's, and
    `transient` says whether the same step may work when it is tried again.
    """

    exit_code = 1
    transient = False

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(DstackError):
    """The command line is wrong."""

    exit_code = 2


class Problem:
    """One thing that is wrong in a file: `FILE:LINE:COL: PROPERTY: what is wrong`.

    `line` and `column` count from 1; `where` is the property's path (`env`, `resources.gpu`) or
    None when the file as a whole is meant.
    """

    __slots__ = ("column", "file", "hint", "line", "text", "where")

    def __init__(
        self,
        file: str,
        line: int,
        column: int,
        where: str | None,
        text: str,
        hint: str | None = None,
    ) -> None:
        self.file = file
        self.line = line
        self.column = column
        self.where = where
        self.text = text
        self.hint = hint

    def __str__(self) -> str:
        where = f"{self.where}: " if self.where else ""
        hint = f"\n  hint: {self.hint}" if self.hint else ""
        return f"{self.file}:{self.line}:{self.column}: {where}{self.text}{hint}"


class FileErrors(UsageError):
    """Everything that is wrong in one or more files, in the order written."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


class CannotStart(DstackError):
    """The run could not be started."""

    exit_code = 125


class NoCapacity(CannotStart):
    """What the run asks for is not there, or not now."""


class StoreError(DstackError):
    """The state folder or the database cannot be read or written."""


class StoreBusy(StoreError):
    """Another command holds the database for longer than is worth waiting."""

    transient = True


class HostError(DstackError):
    """A command of dstack's own on a host failed."""


class HostUnreachable(HostError):
    """The host does not answer."""

    transient = True


class HostRefused(HostError):
    """The host, or ssh here, does not let us in until somebody does something about it.

    `asks`: that may be to type a password, a passphrase or a yes, which nobody could here.
    """

    def __init__(self, message: str, *, hint: str | None = None, asks: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.asks = asks
