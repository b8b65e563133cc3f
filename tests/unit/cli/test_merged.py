"""How `-e` and the file's `env` become one list, whose order decides what a variable means."""

from __future__ import annotations

import pytest

from dstack.cli.prepare import merged_env
from dstack.config.shapes import EnvVar
from dstack.config.values import parse_env_item


@pytest.mark.parametrize(
    ("file", "line", "both"),
    [
        ("A=1 B=$A", "", "A=1 B=$A"),
        ("A=1 B=$A", "A=2", "A=2 B=$A"),
        ("A=1 B=$A", "C=$B", "A=1 B=$A C=$B"),
        # Among themselves they stay in the order written, and one may be given twice.
        ("URL=old", "HOST=h URL=$HOST P=1 P=$P:2", "HOST=h URL=$HOST P=1 P=$P:2"),
        ("A=1 B=2 C=$A$B", "B=3 A=4", "B=3 A=4 C=$A$B"),
        ("A=1 B=2 C=3", "C=4 A=5 A=$A:6", "C=4 A=5 A=$A:6 B=2"),
        ("", "A=1 B=$A", "A=1 B=$A"),
    ],
)
def test_order(file: str, line: str, both: str) -> None:
    def variables(text: str) -> tuple[EnvVar, ...]:
        return tuple(map(parse_env_item, text.split()))

    assert merged_env(variables(file), variables(line)) == variables(both)
