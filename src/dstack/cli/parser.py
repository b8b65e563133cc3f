"""argparse, whose complaints look like every other error of ours."""

from __future__ import annotations

import argparse
from typing import NoReturn

from ..errors import UsageError

_REQUIRED = "the following arguments are required: "
_UNKNOWN = "unrecognized arguments: "


class Parser(argparse.ArgumentParser):
    """Raises UsageError instead of printing and exiting."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong in our words, and how the command is typed."""
        if message.startswith(_REQUIRED):
            message = f"{message.removeprefix(_REQUIRED)} is missing"
        elif message.startswith(_UNKNOWN):
            message = f"{message.removeprefix(_UNKNOWN)}: not understood"
        message = message.removeprefix("argument ")
        usage = " ".join(self.format_usage().split()).removeprefix("usage: ")
        raise UsageError(message, hint=usage)
