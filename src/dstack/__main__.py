"""`dstack`, and `python -m dstack`."""

from __future__ import annotations

import gc
import os
import sys

# New objects between two looks for garbage that refers to itself.
_GARBAGE = 50_000


def _have_streams() -> None:
    """Put /dev/null where stdin, stdout or stderr is closed (`>&-`).

    Otherwise the next file that is opened, the database among them, would be taken for it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    # Python has None for what was closed when it started.
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def _speak_utf8() -> None:
    """Start again in UTF-8 mode where the locale is neither UTF-8 nor C (PEP 540).

    Task files, file names and what goes to the shell are UTF-8, whatever the locale calls them.
    """
    if sys.getfilesystemencoding() != "utf-8" and os.environ.get("PYTHONUTF8") != "1":
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, sys.orig_argv)  # noqa: S606 - ourselves


def main() -> None:
    """Run the command and leave at once: tearing the interpreter down costs milliseconds."""
    _have_streams()
    _speak_utf8()
    # Modules and classes are here to stay: to look for garbage every 700 of them costs 3 ms.
    gc.set_threshold(_GARBAGE)
    from .cli.main import main as run

    try:
        code = run()
    except SystemExit as leaving:  # argparse
        code = leaving.code if isinstance(leaving.code, int) else 2
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            code = code or 1
    os._exit(code)


if __name__ == "__main__":
    main()
