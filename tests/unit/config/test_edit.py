"""What `dstack backend add` and `remove` make of a file that somebody wrote."""

from __future__ import annotations

import pytest

from dstack.config.backends import Backend, load_backends
from dstack.config.edit import add_backend, remove_backend
from dstack.errors import FileErrors, UsageError

BOX = Backend("box", "ssh", host="me@box:22")
WRITTEN = """\
# mine
backends:   # in this order

- name: here   # this machine
  type: local

  # the lab's
- type: ssh
  host: lab
  name: lab
  default: true   # always

# the end
"""


def test_a_first_one() -> None:
    text = add_backend(None, BOX, "c")
    assert text == "backends:\n  - name: local\n  - name: box\n    type: ssh\n    host: me@box:22\n"
    assert load_backends(text.encode(), "c") == (Backend(), BOX)


def test_comments_and_order_stay() -> None:
    text = add_backend(WRITTEN, BOX, "c")
    assert text == WRITTEN.replace(
        "# always\n", "# always\n- name: box\n  type: ssh\n  host: me@box:22\n"
    )
    assert remove_backend(text, "box", "c") == WRITTEN
    assert remove_backend(WRITTEN, "here", "c") == WRITTEN.replace(
        "- name: here   # this machine\n  type: local\n", ""
    )


def test_one_default() -> None:
    text = add_backend(WRITTEN, Backend("box", "ssh", host="b", default=True), "c")
    assert [each.default for each in load_backends(text.encode(), "c")] == [False, False, True]
    assert "# mine" in text


@pytest.mark.parametrize(
    "value", ["b'c", 'b"c', "b\\c", "~/a b", "/x: y", "/#x", "/null", "/ü", "~/{x}", "/a #b"]
)
def test_whatever_a_path_is(value: str) -> None:
    box = Backend("null", "ssh", host="b", root=value if value[0] in "/~" else "/" + value)
    assert load_backends(add_backend(None, box, "c").encode(), "c")[1] == box


@pytest.mark.parametrize(
    "text",
    ["backends: [{name: a}]", "backends: [{name: a},\n  {name: b}]", "{backends: [{name: a}]}"],
)
def test_what_cannot_be_changed_is_told(text: str) -> None:
    with pytest.raises(UsageError, match=r"add these lines to `backends`:\n *- name: box"):
        add_backend(text, BOX, "c")
    if "b" in text.partition("a}")[2]:
        with pytest.raises(UsageError, match="cannot change for you"):
            remove_backend(text, "b", "c")


def test_what_is_wrong_is_told() -> None:
    with pytest.raises(UsageError, match="there is a backend here already"):
        add_backend(WRITTEN, Backend("here"), "c")
    with pytest.raises(UsageError, match="there is no backend gone"):
        remove_backend(WRITTEN, "gone", "c")
    for text in (None, "backends: [{name: local}]"):
        with pytest.raises(UsageError, match="local is the only backend"):
            remove_backend(text, "local", "c")
    with pytest.raises(FileErrors):
        add_backend("backends: 7", BOX, "c")
