"""What can be typed or read is documented: a missing line in docs/ fails here."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, get_args

import pytest

from dstack import errors
from dstack.run.model import Reason, Status
from dstack.run.states import diagram
from tests.support import Dstack

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")],
)
# Exit codes that no error carries: they come from a run's end or from the terminal.
OTHER_CODES = {0, 124, 128, 130}


def page(name: str) -> str:
    return (REFERENCE / name).read_text()


def commands(dstack: Dstack) -> list[str]:
    """The commands that `dstack --help` lists."""
    listed = re.findall(r"^ {2,6}([a-z]+)(?: {2,}|$)", dstack.ok("--help"), re.MULTILINE)
    assert {"run", "ps", "logs", "stop"} <= set(listed)
    return listed


def help_of(dstack: Dstack, command: str) -> str:
    """What `--help` shows of the command, and of its own commands (`set|list|delete`)."""
    text = dstack.ok(command, "--help")
    found = re.search(r" ([a-z]+(?:\|[a-z]+)+)", text)
    words = found.group(1).split("|") if found else []
    return text + "".join(dstack.ok(command, word, "--help") for word in words)


def flags(dstack: Dstack, command: str) -> set[str]:
    """The long options that the command's help shows."""
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", help_of(dstack, command))) - {"--help"}


def section(text: str, command: str) -> str:
    """The part of the page whose heading names the command."""
    found = re.search(rf"^(#+) .*`dstack {command}\b.*$", text, re.MULTILINE)
    assert found, f"docs/reference/commands.md has no heading with `dstack {command}`"
    rest = text[found.end() :]
    end = re.search(rf"^#{{1,{len(found.group(1))}}} ", rest, re.MULTILINE)
    return rest[: end.start()] if end else rest


def names(schema: dict[str, Any]) -> set[str]:
    """Every property that a JSON Schema names, at any depth."""
    found = set(schema.get("properties", {}))
    for value in schema.values():
        for inner in value if isinstance(value, list) else [value]:
            if isinstance(inner, dict):
                found |= names(inner)
    # A property's own schema is a value of `properties`, whose keys are no keywords.
    for inner in schema.get("properties", {}).values():
        found |= names(inner)
    return found


def test_every_command_and_option_is_documented(dstack: Dstack) -> None:
    text = page("commands.md")
    missing = [
        f"dstack {command} {flag}"
        for command in commands(dstack)
        for flag in sorted(flags(dstack, command))
        if not re.search(rf"(?<![\w-]){flag}(?![\w-])", section(text, command))
    ]
    assert not missing


def test_no_option_is_documented_that_does_not_exist(dstack: Dstack) -> None:
    text = page("commands.md")
    invented = [
        f"dstack {command} {flag}"
        for command in commands(dstack)
        for flag in sorted(set(re.findall(r"(?<![\w-])`--[a-z][a-z-]*", section(text, command))))
        if flag.strip("`") not in help_of(dstack, command)
    ]
    assert not invented


def test_every_property_is_documented(dstack: Dstack) -> None:
    text = "\n".join(path.read_text() for path in REFERENCE.glob("*.md"))
    found = names(json.loads(dstack.ok("schema")))
    assert {"commands", "ports", "setup", "gpu"} <= found
    assert not [name for name in sorted(found) if f"`{name}`" not in text]


def test_every_reason_and_status_is_documented() -> None:
    text = page("runs.md")
    known = [*get_args(Reason), *get_args(Status)]
    assert len(known) > 10
    assert not [name for name in known if f"`{name}`" not in text]


def test_every_exit_code_is_documented() -> None:
    kinds = [k for k in vars(errors).values() if isinstance(k, type)]
    codes = {k.exit_code for k in kinds if issubclass(k, errors.DstackError)} | OTHER_CODES
    assert {1, 2, 125} < codes
    text = page("exit-codes.md")
    assert not [code for code in sorted(codes) if not re.search(rf"`{code}\b", text)]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(path: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", path.read_text())
    local = [target for target in targets if "://" not in target]
    assert not [target for target in local if not (path.parent / target).exists()]


def test_every_task_file_shown_is_valid(dstack: Dstack, tmp_path: Path) -> None:
    shown = [
        (path.relative_to(ROOT), block)
        for path in PAGES
        for block in re.findall(r"^```yaml\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE)
        if re.search(r"^type: ", block, re.MULTILINE)
    ]
    assert shown
    for number, (path, block) in enumerate(shown):
        file = tmp_path / f"shown{number}.dstack.yml"
        file.write_text(block)
        done = dstack("validate", file)
        assert done.returncode == 0, f"{path}:\n{block}\n{done.stderr}"


def test_the_diagram_of_states_is_drawn_from_the_table() -> None:
    assert f"```mermaid\n{diagram()}```" in page("runs.md")
