"""From argv to exit code. Each command is one module; only the one that is typed is imported."""

from __future__ import annotations

import os
import sys

from ..errors import DstackError

# name: (module, one line of help). The modules' own HELP is the same; a test holds them together.
COMMANDS: dict[str, tuple[str, str]] = {
    "run": ("run", "run a task and stream its output"),
    "build": ("build", "make the build that later runs start from"),
    "builds": ("builds", "list builds and what they were made from"),
    "ps": ("ps", "list runs"),
    "logs": ("logs", "print a run's output"),
    "attach": ("attach", "watch a run as if it had not been detached"),
    "stop": ("stop", "stop runs"),
    "restart": ("restart", "run a finished run again in the same environment"),
    "rm": ("rm", "forget finished runs and delete their folders"),
    "secrets": ("secrets", "set, list and delete secrets"),
    "prune": ("prune", "delete what is not needed any more"),
    "init": ("init", "write a first .dstack.yml"),
    "validate": ("validate", "check task files"),
    "schema": ("schema", "print the JSON Schema of the task file"),
    "backend": ("backend", "show what runs can be put on"),
    "completion": ("completion", "print a shell's completion script"),
}
_HIDDEN = {"__complete": "complete_words"}


def usage() -> str:
    """What `dstack --help` prints."""
    lines = [
        "usage: dstack COMMAND ...",
        "",
        "Run a task described in one small YAML file: dstack run DIR",
        "",
        "commands:",
    ]
    lines += [f"  {name:<12}{text}" for name, (_, text) in COMMANDS.items()]
    lines += ["", "options:", "  -h, --help  show this help; `dstack COMMAND --help` for a command"]
    lines += ["  --version   print the version"]
    return "\n".join(lines) + "\n"


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        if len(argv) > 1 and argv[0] == "help" and argv[1] in COMMANDS:
            return _command(argv[1], ["--help"])
        (sys.stdout if argv else sys.stderr).write(usage())
        return 0 if argv else 2
    if argv[0] in ("--version", "-V", "version"):
        from .. import __version__

        sys.stdout.write(f"dstack {__version__}\n")
        return 0
    name = argv[0]
    if name not in COMMANDS and name not in _HIDDEN:
        from ..errors import UsageError

        noun = "option" if name.startswith("-") else "command"
        message = f"there is no {noun} {name}"
        raise UsageError(message, hint=_near(name))
    return _command(name, argv[1:])


def _near(name: str) -> str:
    import difflib

    near = difflib.get_close_matches(name, COMMANDS, 1)
    return f'did you mean "{near[0]}"?' if near else "`dstack --help` lists the commands"


def _command(name: str, argv: list[str]) -> int:
    from importlib import import_module

    from .parser import Parser

    module = import_module("." + (COMMANDS.get(name) or (_HIDDEN[name],))[0], __package__)
    parser = Parser(prog=f"dstack {name}", description=module.HELP)
    module.configure(parser)
    parse = getattr(module, "parse", None)
    args = parse(parser, argv) if parse is not None else parser.parse_args(argv)
    return int(module.run(args))


def _unexpected(error: BaseException) -> int:
    """A fault of ours: one sentence, and the traceback in a file for the report."""
    import traceback

    from ..paths import find_home
    from ..text import error as show

    if os.environ.get("DSTACK_DEBUG"):
        traceback.print_exception(error)
        return 1
    hint = "DSTACK_DEBUG=1 shows where"
    try:
        path = find_home().root / "crash.log"
        with path.open("a", encoding="utf-8") as file:
            traceback.print_exception(error, file=file)
        hint = f"please report it with {path}"
    except (OSError, DstackError):
        pass
    show(f"dstack has a fault: {type(error).__name__}: {error}", hint)
    return 1


def _disk(error: OSError) -> int:
    from ..text import error as show

    try:
        os.getcwd()
    except FileNotFoundError:
        show("the folder you stand in is not there any more", "go to one that is")
        return 1
    where = f": {error.filename}" if error.filename else ""
    show(f"{error.strerror or error}{where}", None)
    return 1


def main(argv: list[str] | None = None) -> int:
    """Run one command; its exit code."""
    try:
        code = _dispatch(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
    except DstackError as error:
        from ..errors import FileErrors
        from ..text import error as show

        if isinstance(error, FileErrors):
            sys.stderr.write(error.message + "\n")
        else:
            show(error.message, error.hint)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader has gone; a second error while the interpreter flushes would be noise.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    except OSError as error:
        return _disk(error)
    except Exception as error:
        return _unexpected(error)
    return code
