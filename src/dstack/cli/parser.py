"""argparse, whose complaints look like every other error of ours."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any, NoReturn

from ..errors import UsageError

_REQUIRED = "the following arguments are required: "
_UNKNOWN = "unrecognized arguments: "


class _Formatter(argparse.HelpFormatter):
    """argparse makes one for each option that is added, to check its name; few are ever read.

    Asking for the terminal's width each time, it would import `shutil` on the way, 3 ms.
    """

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_width() - 2)


def _width() -> int:
    """What `shutil.get_terminal_size` says: $COLUMNS, else the terminal's, else 80."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns):
        return int(columns)
    try:
        return os.get_terminal_size(sys.__stdout__.fileno()).columns or 80  # type: ignore[union-attr]
    except (AttributeError, ValueError, OSError):
        return 80


class Parser(argparse.ArgumentParser):
    """Raises UsageError instead of printing and exiting."""

    def __init__(
        self,
        prog: str,
        description: str | None = None,
        **options: Any,  # noqa: ANN401 - whatever argparse hands on
    ) -> None:
        """`options` are argparse's own, as it hands them on to parsers below this one."""
        super().__init__(
            prog=prog,
            description=description,
            allow_abbrev=False,
            formatter_class=_Formatter,
            **options,
        )

    def error(self, message: str) -> NoReturn:
        """Say what is wrong in our words, and how the command is typed."""
        if message.startswith(_REQUIRED):
            message = f"{message.removeprefix(_REQUIRED)} is missing"
        elif message.startswith(_UNKNOWN):
            message = f"{message.removeprefix(_UNKNOWN)}: not understood"
        message = message.removeprefix("argument ")
        usage = " ".join(self.format_usage().split()).removeprefix("usage: ")
        raise UsageError(message, hint=usage)
