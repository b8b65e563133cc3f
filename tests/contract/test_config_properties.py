"""Files that nobody would write: each is read, or refused with sentences that have a place."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from dstack.config.task import TASK
from tests.characters import ANY
from tests.unit.config.fuzz import attempt, mutated

SCALARS = st.sampled_from(
    ["x", "", "null", "~", "true", "3.10", "-1", "*:80", "${{ run.args }}", "${{", "&a b", "*a",
     "'", '"', "| x", "{", "A=1", "../x", "1h", "24GB..", "\t", "!!int 3", "é", "a: b"]
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda v: f"[{', '.join(v)}]")
        | st.lists(st.tuples(SCALARS, inner), max_size=3).map(
            lambda v: "{" + ", ".join(f"{k}: {x}" for k, x in v) + "}"
        )
    ),
    max_leaves=6,
)
NAMES = st.sampled_from([*TASK, "commnds", "<<", "? x", "A"])


@settings(max_examples=250)
@given(st.lists(st.tuples(NAMES, VALUES), max_size=6))
def test_generated_files(entries: list[tuple[str, str]]) -> None:
    attempt("".join(f"{name}: {value}\n" for name, value in entries).encode())


@settings(max_examples=250)
@given(st.binary(max_size=200) | st.text(ANY, max_size=200).map(str.encode))
def test_garbage(source: bytes) -> None:
    attempt(source)


def test_mutated_files() -> None:
    outcomes = {attempt(source) for source in mutated(seed=1, count=500)}
    assert outcomes == {True, False}
