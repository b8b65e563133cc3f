"""Every property is documented, with what it defaults to; every example in the pages is right."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dstack.config.backends import BACKEND, load_backends
from dstack.config.forms import Properties
from dstack.config.load import Context, load_task
from dstack.config.profile import (
    GPU,
    PROFILE,
    RESOURCES,
    RETRY,
    RETRY_EVENTS,
    RETRY_POLICY,
    SETTINGS,
    SPOT_POLICIES,
    load_profiles,
)
from dstack.config.settings import DEFAULTS
from dstack.config.task import REGISTRY_AUTH, TASK

REFERENCE = Path(__file__).parents[3] / "docs" / "reference"
TASK_PAGE = (REFERENCE / "task-file.md").read_text()
PROFILES_PAGE = (REFERENCE / "profiles.md").read_text()


@pytest.mark.parametrize("name", TASK)
def test_every_property_of_a_task_is_in_the_table_with_its_default(name: str) -> None:
    (row,) = re.findall(
        rf"^\| \[`{name}`\]\(#([a-z_-]+)\) \|(.*)\|(.*)\|$", TASK_PAGE, re.MULTILINE
    )
    headings = re.findall(r"^### `?([^`\n]+)`?$", TASK_PAGE, re.MULTILINE)
    assert row[0] in [heading.lower().replace(" ", "-") for heading in headings]
    default = row[2].replace("`", "").strip()
    written = TASK[name].default.replace("`", "")
    assert written.startswith(default.removesuffix(" command"))
    assert bool(default) == bool(written)


@pytest.mark.parametrize("name", PROFILE)
def test_every_property_of_a_profile_has_its_part(name: str) -> None:
    assert f"\n### `{name}`\n" in PROFILES_PAGE


@pytest.mark.parametrize("properties", [GPU, RESOURCES, RETRY, RETRY_POLICY, BACKEND])
def test_every_inner_property_is_named(properties: Properties) -> None:
    assert [name for name in properties if f"`{name}`" not in PROFILES_PAGE] == []


def test_every_property_of_registry_auth_is_named() -> None:
    assert [name for name in REGISTRY_AUTH if f"`{name}`" not in TASK_PAGE] == []


def test_the_table_of_defaults_is_true() -> None:
    part = PROFILES_PAGE.partition("## What wins")[2].partition("\n## ")[0]
    table = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|$", part, re.MULTILINE))
    assert table.keys() == SETTINGS.keys() - {"retry_policy"}
    found = {name: text.replace("`", "") for name, text in table.items()}
    assert found["max_duration"] == f"{(DEFAULTS.max_duration or 0) // 3600}h"
    assert found["spot_policy"] == DEFAULTS.spot_policy
    assert (found["retry"], DEFAULTS.retry) == ("false", None)


def test_every_word_that_can_be_chosen_is_named() -> None:
    assert [w for w in (*RETRY_EVENTS, *SPOT_POLICIES) if f"`{w}`" not in PROFILES_PAGE] == []


def test_every_example_is_right() -> None:
    blocks = re.findall(r"^```yaml\n(.*?)^```", TASK_PAGE + PROFILES_PAGE, re.DOTALL | re.MULTILINE)
    assert len(blocks) > 6
    for block in blocks:
        source = block.encode()
        if block.startswith("profiles:"):
            load_profiles(source, "p")
        elif block.startswith("backends:"):
            load_backends(source, "c")
        elif block.startswith("type:"):
            load_task(source, "f", Context())
        else:
            load_task(b"type: task\ncommands: [x]\n" + source, "f", Context())
