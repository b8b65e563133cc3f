"""What a build was made from, and when it fits no more."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstack.config.shapes import EnvVar, Secret, Text, Variable
from dstack.run.builds import (
    Inputs,
    all_inputs,
    changed_input,
    changed_part,
    folder_words,
    inputs_of,
    parts_of,
    untouched,
)
from dstack.run.model import Plan
from dstack.run.plan import build_plan

NAMES = [b"a", b"b", b"c.py", b"d\te", b"f\ng", b"\xff"]
TWO = [b"/".join(names) for names in product(NAMES, repeat=2)]
THREE = [b"/".join(names) for names in product(NAMES[:2], repeat=3)]
# Few, so that two trees share some; half of them in the folder itself, as those may be folders.
PATHS = [*NAMES * 6, *TWO, *THREE]
PATH = st.sampled_from(PATHS)
WORDS = [b"100644 blob 1", b"100755 blob 1", b"100644 blob 2"]


def as_tree(entries: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Without those below a file: no name is both a file and a folder."""
    found = dict(entries)
    return {
        path: word
        for path, word in found.items()
        if not any(path.startswith(other + b"/") for other in found)
    }


TREE = st.lists(st.sampled_from(list(product(PATHS, WORDS))), max_size=6).map(as_tree)


def plan(**changes: object) -> Plan:
    values: dict[str, object] = {
        "name": "n",
        "project": "/p",
        "workdir": ".",
        "file": ".dstack.yml",
        "backend": "local",
        "engine": "process",
        "commands": ("run",),
        "build": ("make",),
        "python": "3.11",
        "env": (EnvVar("A", (Text("1"),)), EnvVar("B", (Secret("S"),)), EnvVar("C")),
        **changes,
    }
    return Plan(**values)  # type: ignore[arg-type]


def parts(**changes: object) -> dict[str, str]:
    return parts_of(plan(**changes), "", "linux-x86_64")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"build": ("make", "more")}, "the build commands changed"),
        ({"python": "3.12"}, "the Python version changed"),
        ({"workdir": "sub"}, "the folder changed"),
        ({"env": ()}, "the variable A is gone"),
        ({"env": tuple(reversed(plan().env))}, "the order of the variables changed"),
        ({"env": (EnvVar("A", (Text("2"),)), *plan().env[1:])}, "the variable A changed"),
        ({"env": (EnvVar("A", (Variable("1"),)), *plan().env[1:])}, "the variable A changed"),
        (
            {"env": (plan().env[0], EnvVar("B", (Secret("T"),)), plan().env[2])},
            "the variable B changed",
        ),
        ({"env": (*plan().env, EnvVar("D", (Text(""),)))}, "the variable D is new"),
        ({"engine": "docker", "image": "i", "python": None}, "the engine changed"),
    ],
)
def test_what_the_fixed_part_holds(changes: dict[str, object], why: str) -> None:
    old, new = parts(), parts(**changes)
    assert changed_part(old, new) == why


@pytest.mark.parametrize(
    "changes",
    [
        {"commands": ("other",)},
        {"setup": ("pip install x",)},
        {"name": "m"},
        {"project": "/q"},
        {"file": "b.dstack.yml"},
        {"interpreter": "/elsewhere/python"},
        {"max_duration": 5},
    ],
)
def test_what_the_fixed_part_does_not_hold(changes: dict[str, object]) -> None:
    assert changed_part(parts(), parts(**changes)) is None
    assert parts() == parts(**changes)


def test_a_build_has_the_same_fixed_part_as_the_run_that_starts_from_it() -> None:
    built = build_plan(plan(setup=("s",)), "build-x")
    assert (built.commands, built.setup, built.stage) == (("make",), (), "build")
    assert parts_of(built, "", "linux-x86_64") == parts()


def test_of_an_image_the_digest_counts_and_not_the_name() -> None:
    image = plan(image="tag", python=None)
    again = plan(image="other:tag", python=None)
    assert parts_of(image, "sha256:1", "p") == parts_of(again, "sha256:1", "p")
    assert changed_part(parts_of(image, "sha256:1", "p"), parts_of(image, "sha256:2", "p")) == (
        "the image changed"
    )


def test_no_value_stands_in_the_fixed_part() -> None:
    told = parts(env=(EnvVar("A", (Text("hunter2"),)),))
    assert not [word for item in told.items() for word in item if "hunter2" in word]


@given(TREE, st.lists(PATH, max_size=4))
def test_a_tree_fits_itself_and_inputs_are_read_back(
    tree: dict[bytes, bytes], read: list[bytes]
) -> None:
    for inputs in (inputs_of(tree, [*read, b""]), all_inputs(tree)):
        assert changed_input(inputs, tree) is None
        again = Inputs.decode(inputs.encode())
        assert (again.files, again.folders) == (dict(inputs.files), dict(inputs.folders))


@given(TREE, TREE, st.sets(PATH, max_size=4))
def test_a_build_fits_exactly_when_what_it_read_is_the_same(
    old: dict[bytes, bytes], new: dict[bytes, bytes], read: set[bytes]
) -> None:
    def listing(tree: dict[bytes, bytes], folder: bytes) -> set[bytes]:
        start = folder + b"/" if folder else b""
        return {p[len(start) :].split(b"/")[0] for p in tree if p.startswith(start)}

    inputs = inputs_of(old, read)
    folders = {name for name in read - old.keys() if listing(old, name)}
    same_files = all(new.get(name) == old[name] for name in read if name in old)
    same_folders = all(listing(new, name) == listing(old, name) for name in folders)
    assert (changed_input(inputs, new) is None) == (same_files and same_folders)
    changes = [
        (b"A" if name not in old else b"D" if name not in new else b"M", name)
        for name in old.keys() | new.keys()
        if old.get(name) != new.get(name)
    ]
    if untouched(inputs, changes):
        assert changed_input(inputs, new) is None
    if not inputs.folders:
        assert untouched(inputs, changes) == (changed_input(inputs, new) is None)


@given(TREE, TREE)
def test_where_every_file_counts_any_change_asks_for_a_new_build(
    old: dict[bytes, bytes], new: dict[bytes, bytes]
) -> None:
    assert (changed_input(all_inputs(old), new) is None) == (old == new)


def test_a_file_in_a_new_folder_beside_others_counts() -> None:
    old = {b"top/one/file": b"1"}
    assert changed_input(all_inputs(old), {**old, b"top/two/file": b"1"}) is not None


def test_why_names_the_file() -> None:
    tree = {b"a": b"1", b"sub/b": b"1"}
    inputs = inputs_of(tree, [b"a", b"sub", b""])
    assert changed_input(inputs, {**tree, b"a": b"2"}) == "a changed"
    assert changed_input(inputs, {b"sub/b": b"1"}) == "a was deleted"
    assert (
        changed_input(inputs, {**tree, b"sub/c": b"1"}) == "the files in sub are not the same ones"
    )
    assert (
        changed_input(inputs, {**tree, b"c": b"1"})
        == "the files in the folder are not the same ones"
    )
    assert changed_input(inputs, {**tree, b"sub/b": b"2"}) is None


def test_a_folder_that_is_none_has_no_word() -> None:
    assert folder_words({b"a/b": b"1"}, [b"a", b"c"]).keys() == {b"a"}


@pytest.mark.parametrize("data", [b"garbage\0", b"\0"])
def test_a_damaged_list_of_inputs_is_told(data: bytes) -> None:
    with pytest.raises(ValueError, match="inputs"):
        Inputs.decode(data)
