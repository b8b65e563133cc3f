"""`dstack secrets`: set, list and delete; values go in and are never shown."""

from __future__ import annotations

import argparse
import sys

from .. import text
from ..errors import UsageError
from ..paths import find_home

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..store.secrets import Vault

HELP = "set, list and delete secrets"


def configure(parser: argparse.ArgumentParser) -> None:
    """What can be typed after `dstack secrets`."""
    commands = parser.add_subparsers(dest="action", metavar="set|list|delete", required=True)
    help = "keep a secret, in place of the one of that name"
    new = commands.add_parser("set", help=help, description=help.capitalize() + ".")
    new.add_argument("name", metavar="NAME", help="a name as variables have it")
    new.add_argument(
        "value",
        metavar="VALUE",
        nargs="?",
        help="the value; without it, it is asked for without echo, or read from stdin",
    )
    help = "print the names of all secrets"
    listing = commands.add_parser("list", help=help, description=help.capitalize() + ".")
    listing.add_argument("--json", action="store_true", help="as one JSON array")
    help = "forget a secret"
    delete = commands.add_parser("delete", help=help, description=help.capitalize() + ".")
    delete.add_argument("name", metavar="NAME", help="the secret's name")


def run(args: argparse.Namespace) -> int:
    """Do it. Raises UsageError and StoreError."""
    from ..store.database import Database
    from ..store.secrets import Vault

    home = find_home()
    vault = Vault(home, Database(home))
    if args.action == "list":
        _list(vault.names(), as_json=args.json)
    elif args.action == "delete":
        _delete(vault, args.name)
    else:
        _set(vault, args.name, args.value)
    return 0


def _set(vault: Vault, name: str, value: str | None) -> None:
    from ..store.secrets import check_name

    check_name(name)  # before a password is asked for in vain
    if value is None:
        value = _ask(name) if text.is_terminal(sys.stdin) else _read()
    vault.set(name, value)
    text.say(f"secret {name} set")


def _delete(vault: Vault, name: str) -> None:
    if not vault.delete(name):
        message = f"there is no secret called {name}"
        raise UsageError(message, hint="`dstack secrets list` shows all names")
    text.say(f"secret {name} deleted")


def _list(names: list[str], *, as_json: bool) -> None:
    if as_json:
        import json

        text.show(json.dumps(names))
    elif names:
        text.show("\n".join(names))
    else:
        text.say("no secrets; `dstack secrets set NAME` keeps one")


def _ask(name: str) -> str:
    import getpass

    try:
        return getpass.getpass(f"Value of {name}: ", stream=sys.stderr)
    except EOFError:
        raise UsageError("no value was given") from None


def _read() -> str:
    """What stands on stdin, byte for byte, without the one newline that `echo` adds."""
    from ..store.secrets import LARGEST

    if sys.stdin is None:
        raise UsageError("no value was given, and stdin is closed")
    # Enough to see that it is too large; whoever pipes gigabytes is told so.
    value = sys.stdin.buffer.read(LARGEST + 2)
    return value.removesuffix(b"\n").decode("utf-8", "surrogateescape")
