"""`dstack backend`: what runs can be put on, what each offers, and whether it answers."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import get_args

import msgspec

from .. import text
from ..config.backends import BACKEND, Backend, EngineChoice, load_backends
from ..config.forms import ScalarForm
from ..config.quantities import BadValue
from ..errors import StoreError, UsageError
from ..paths import Home, find_home

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .backend_answers import Answer

HELP = "show, check, add and remove what runs can be put on"


def configure(parser: argparse.ArgumentParser) -> None:
    """What can be typed after `dstack backend`."""
    parser.set_defaults(json=False)
    as_json = argparse.ArgumentParser(add_help=False)
    for each in (parser, as_json):
        each.add_argument(
            "--json", action="store_true", default=argparse.SUPPRESS, help="as one JSON array"
        )
    commands = parser.add_subparsers(dest="action", metavar="list|check|add|remove")
    help = "name all, without asking them anything"
    commands.add_parser("list", parents=[as_json], help=help, description=help.capitalize() + ".")
    help = "ask them, or those that are named; exit code 1 when one does not answer"
    check = commands.add_parser(
        "check", parents=[as_json], help=help, description=help.capitalize() + "."
    )
    check.add_argument("names", metavar="NAME", nargs="*", help="a backend; all if left out")
    help = "add a machine that ssh reaches to config.yml, once it has answered"
    add = commands.add_parser("add", help=help, description=help.capitalize() + ".")
    add.add_argument("name", metavar="NAME", help="how it will be called")
    add.add_argument(
        "--ssh",
        metavar="HOST",
        required=True,
        help="what you type after `ssh` to get there, or USER@HOST:PORT",
    )
    add.add_argument("--identity-file", metavar="FILE", help="the private key")
    add.add_argument("--root", metavar="DIR", help="dstack's folder there (~/.dstack)")
    engines = "|".join(get_args(EngineChoice))
    add.add_argument("--engine", metavar=engines, help="how runs are executed (auto)")
    add.add_argument("--default", action="store_true", help="take it when none is named")
    help = "take one out of config.yml; runs on it go on"
    remove = commands.add_parser("remove", help=help, description=help.capitalize() + ".")
    remove.add_argument("name", metavar="NAME", help="the backend")


def run(args: argparse.Namespace) -> int:
    """Do it. Raises UsageError, FileErrors, StoreError, HostError."""
    home = find_home()
    if args.action == "list":
        return _list(home, as_json=args.json)
    if args.action == "add":
        return _add(home, args)
    if args.action == "remove":
        return _remove(home, args.name)
    return _check(home, tuple(args.names) if args.action == "check" else None, as_json=args.json)


def read_backends(home: Home) -> tuple[Backend, ...]:
    """The backends of `config.yml`. Raises FileErrors, StoreError when it cannot be read."""
    source = _read(home)
    return load_backends(source.encode() if source is not None else None, str(home.config))


def _list(home: Home, *, as_json: bool) -> int:
    backends = read_backends(home)
    if as_json:
        fields = [msgspec.to_builtins(each) | {"host": each.host or None} for each in backends]
        found = msgspec.json.encode(fields)
        text.show(msgspec.json.format(found).decode())
        return 0
    chosen = next((each for each in backends if each.default), backends[0])
    rows = [
        (each.name, each.type, each.host, each.engine, "default" if each is chosen else "")
        for each in backends
    ]
    text.show(text.table(("NAME", "TYPE", "HOST", "ENGINE", ""), rows))
    return 0


def _check(home: Home, names: tuple[str, ...] | None, *, as_json: bool) -> int:
    """Ask them; `names` None: all, and that one does not answer is no failure."""
    from .backend_answers import as_fields, ask_all, details

    known = {each.name: each for each in read_backends(home)}
    for name in names or ():
        if name not in known:
            raise UsageError(f"there is no backend {name}", hint=f"backends: {', '.join(known)}")
    answers: list[Answer] = []
    for answer in ask_all([known[name] for name in names or known], home):
        if not as_json:
            text.show(("\n" if answers else "") + details(answer))
            sys.stdout.flush()
        answers.append(answer)
    if as_json:
        found = msgspec.json.encode([as_fields(answer) for answer in answers])
        text.show(msgspec.json.format(found).decode())
    failed = [answer for answer in answers if answer.error is not None]
    if names is None:
        return 0
    for answer in failed:
        _tell(answer)
    return int(bool(failed))


def _add(home: Home, args: argparse.Namespace) -> int:
    from ..config.edit import add_backend
    from .backend_answers import ask_all, details

    backend = _asked_for(args)
    new = add_backend(_read(home), backend, str(home.config))
    (answer,) = ask_all([backend], home)
    if answer.error is not None:
        _tell(answer)
        text.say(f"{backend.name} was not added")
        return 1
    _write(home, new)
    text.say(details(answer))
    text.say(f"added to {home.config}; try: dstack run . --backend {backend.name}")
    return 0


def _remove(home: Home, name: str) -> int:
    from ..config.edit import remove_backend

    backend = next((each for each in read_backends(home) if each.name == name), None)
    _write(home, remove_backend(_read(home), name, str(home.config)))
    hint = ""
    if backend is not None and backend.type == "ssh":
        from ..hosts.ssh_master import Master
        from ..hosts.ssh_options import SshOptions

        Master(SshOptions(backend.host, backend.identity_file, backend.root), home.root).close()
        hint = f"; what dstack keeps there stays: {backend.root} on {backend.host}"
    text.say(f"backend {name} removed{hint}")
    return 0


def _asked_for(args: argparse.Namespace) -> Backend:
    """The backend of the command line, held to what may stand in the file. Raises UsageError."""
    said = {
        "name": args.name,
        "type": "ssh",
        "host": args.ssh,
        "identity_file": _key(args.identity_file),
        "root": args.root,
        "engine": args.engine,
    }
    read = {}
    for name, value in said.items():
        if value is None:
            continue
        try:
            form = BACKEND[name].form
            read[name] = form.parse(value) if isinstance(form, ScalarForm) else value
        except BadValue as error:
            option = {"name": "NAME", "host": "--ssh"}.get(name, f"--{name.replace('_', '-')}")
            raise UsageError(f"{option}: {error}", hint=error.hint) from None
    return Backend(**read, default=args.default)


def _key(given: str | None) -> str | None:
    """The key's path, wherever it is asked for later. Raises UsageError when it is not there."""
    if given is None:
        return None
    path = Path(given).expanduser().absolute()
    if not path.is_file():
        raise UsageError(f"--identity-file: there is no file {given}")
    try:
        return f"~/{path.relative_to(Path.home())}"
    except ValueError:
        return str(path)


def _tell(answer: Answer) -> None:
    from .backend_answers import problem

    text.error(f"backend {answer.backend.name}{problem(answer)}", answer.hint)


def _read(home: Home) -> str | None:
    try:
        return home.config.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise StoreError(f"cannot read {home.config}: {why}") from None


def _write(home: Home, new: str) -> None:
    # Where config.yml is a link (into somebody's dotfiles), that stays one.
    target = Path(os.path.realpath(home.config))
    aside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        mode = target.stat().st_mode & 0o777 if target.exists() else 0o600
        aside.write_text(new, encoding="utf-8")
        aside.chmod(mode)
        aside.rename(target)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise StoreError(f"cannot write {home.config}: {error.strerror}") from None
