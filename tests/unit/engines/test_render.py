"""A run becomes job.sh: the whole text against a golden file, and its parts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dstack.config.shapes import EnvVar, Range, Resources, Secret, Text, Variable
from dstack.engines.render import Places, needed, phase, quote, render, values_file
from dstack.run.model import Plan, Run

GOLDEN = Path(__file__).parents[2] / "golden" / "job"
PLACES = Places(
    run="/home/me/.dstack/runs/r1",
    job="/home/me/.dstack/runs/r1/2",
    cache="/home/me/.dstack/cache",
    envs="/home/me/.dstack/envs",
    uv="/opt/bin/uv",
)

FULL = Plan(
    name="brave-fox",
    project="/home/me/project",
    workdir="sub",
    file="sub/.dstack.yml",
    backend="local",
    engine="process",
    commands=("echo 'it''s'\n", "# only a comment", "cat <<X\n$HOME\nX"),
    setup=("pip install -r requirements.txt",),
    env=(
        EnvVar("PATH", (Text("/bin/my:"), Variable("PATH"))),
        EnvVar("TOKEN", (Text("a'b "), Secret("KEY"))),
        EnvVar("EMPTY", ()),
        EnvVar("UID", (Text("7"),)),
        EnvVar("TAKEN"),
    ),
    python="3.11",
    interpreter="/usr/bin/python3.11",
    cache=("data/", "~/.cache/x", "/mnt/big"),
    cache_key="k1",
    resources=Resources(cpu=Range(1, 1.5), memory=Range(None, 1 << 30)),
    max_duration=3600,
    base_env=(("PATH", "/usr/bin:/bin"), ("HOME", "/home/me")),
)
BARE = Plan(
    name="brave-fox",
    project="/p",
    workdir=".",
    file=".dstack.yml",
    backend="local",
    engine="process",
    commands=("true",),
    resources=Resources(memory=Range(1 << 30)),
)


def text(plan: Plan) -> str:
    run = Run(id="r1", name="brave-fox", plan=plan, status="submitted", submitted_at=0.0)
    return render(run, 2, PLACES, "# the rest\n")[0]


@pytest.mark.parametrize(("name", "plan"), [("full", FULL), ("bare", BARE)])
def test_golden(name: str, plan: Plan) -> None:
    golden = GOLDEN / f"{name}.sh"
    if os.environ.get("DSTACK_WRITE_GOLDEN"):
        golden.write_text(text(plan))
    assert text(plan) == golden.read_text()


def test_needs_are_named_once_in_order() -> None:
    env = (
        EnvVar("A", (Secret("X"), Secret("Y"), Secret("X"))),
        EnvVar("B"),
        EnvVar("C", (Text("x"), Variable("B"))),
    )
    assert needed(env) == ("secret:X", "secret:Y", "env:B")
    assert values_file(("secret:X",), ["a'b\n$c"]) == "__dstack_v1='a'\\''b\n$c'\n"


def test_limits_are_left_out_where_they_are_not_enforced() -> None:
    assert "job_memory='1073741824'" in text(FULL)
    assert "job_cpu='1500'" in text(FULL)
    from msgspec.structs import replace

    free = text(replace(FULL, enforce=False))
    assert "job_memory=''" in free
    assert "job_cpu=''" in free
    # "at least 1 GB" is no limit.
    assert "job_memory=''" in text(BARE)


def test_phase_has_one_width() -> None:
    assert {len(phase(stage, n)) for stage in ("setup", "commands") for n in (1, 99_999)} == {20}
    assert quote("it's") == "'it'\\''s'"
