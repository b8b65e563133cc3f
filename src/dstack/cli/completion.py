"""`dstack completion`: scripts for shells, made from the parser that reads the command line.

The scripts know commands and options by heart, so that most completions start no Python. Names
that change (runs, secrets, profiles, backends) they ask `dstack __complete KIND PREFIX` for.
"""

from __future__ import annotations

import argparse

from .. import text

HELP = "print a shell's completion script"
SHELLS = ("bash", "zsh", "fish")


def configure(parser: argparse.ArgumentParser) -> None:
    """What can be typed after `dstack completion`."""
    parser.add_argument("shell", metavar="SHELL", choices=SHELLS, help="bash, zsh or fish")
    parser.epilog = 'for bash: eval "$(dstack completion bash)" in ~/.bashrc'


class Word:
    """An option or a positional argument, and what its value is.

    `kind` is `words` (then `choices` are the words), `files`, `folders`, `runs`, `secrets`,
    `profiles`, `backends`, `any` (nothing to suggest), or `none` where it takes no value.
    """

    __slots__ = ("choices", "flags", "help", "kind", "many")

    def __init__(self, action: argparse.Action, path: tuple[str, ...]) -> None:
        self.flags = tuple(action.option_strings)
        self.help = _one_line(action.help)
        self.choices = tuple(str(choice) for choice in action.choices or ())
        self.many = action.nargs in {"*", "+", argparse.REMAINDER}
        self.kind = _kind(action, path)


class Command:
    """What can follow the words of `path`: other commands, or options and arguments."""

    __slots__ = ("children", "help", "options", "path", "places")

    def __init__(
        self, parser: argparse.ArgumentParser, path: tuple[str, ...] = (), help: str = ""
    ) -> None:
        self.path = path
        self.help = _one_line(help)
        self.children: list[Command] = []
        self.options: list[Word] = []
        self.places: list[Word] = []
        for action in parser._actions:  # argparse has no public way to ask
            if isinstance(action, argparse._SubParsersAction):
                # Only those with a help line: `__complete` is for scripts.
                self.children = [
                    Command(action.choices[choice.dest], (*path, choice.dest), choice.help or "")
                    for choice in action._choices_actions
                    if choice.help != argparse.SUPPRESS
                ]
            elif action.help == argparse.SUPPRESS:
                continue
            else:
                (self.options if action.option_strings else self.places).append(Word(action, path))

    def walk(self) -> list[Command]:
        """This and everything below it."""
        return [self, *(found for child in self.children for found in child.walk())]


def _kind(action: argparse.Action, path: tuple[str, ...]) -> str:
    """What a value is, told by what the help calls it."""
    if action.nargs == 0:
        return "none"
    if action.choices:
        return "words"
    shown = action.metavar if isinstance(action.metavar, str) else action.dest
    if action.option_strings:
        for flag, kind in (("--profile", "profiles"), ("--backend", "backends")):
            if flag in action.option_strings:
                return kind
        return {"FILE": "files", "DIR": "folders"}.get(shown, "any")
    names = "secrets" if path[:1] == ("secrets",) else "runs"
    # ARGS go to the user's own program, which more often than not wants a file.
    kinds = {"FILE": "files", "ARGS": "files", "DIR": "folders", "NAME": names}
    return kinds.get(shown, "any")


def _one_line(help: str | None) -> str:
    return " ".join((help or "").replace("%%", "%").split())


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    """The script for one of SHELLS, without a last newline."""
    from .completion_scripts import bash, fish, zsh

    return {"bash": bash, "zsh": zsh, "fish": fish}[shell](Command(parser))


def full_parser() -> argparse.ArgumentParser:
    """Every command in one parser, which only this command needs: the others import one each."""
    from importlib import import_module

    from .main import COMMANDS

    parser = argparse.ArgumentParser(prog="dstack", allow_abbrev=False)
    parser.add_argument("--version", action="store_true", help="print the version")
    commands = parser.add_subparsers(metavar="COMMAND")
    for name, (module, help) in COMMANDS.items():
        import_module(f".{module}", __package__).configure(commands.add_parser(name, help=help))
    return parser


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    text.show(script(full_parser(), args.shell))
    return 0
