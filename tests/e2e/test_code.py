"""The code that a run sees: the folder as it stood at `dstack run`, and nothing else."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable

import pytest

from tests.e2e.conftest import Task
from tests.support import Dstack, git_init

LIST = r"find . -path ./.git -prune -o \( -type f -o -type l \) -print | LC_ALL=C sort"


@pytest.mark.parametrize("git", [True, False])
def test_what_is_sent_and_what_is_not(dstack: Dstack, task: Task, git: bool) -> None:
    folder = task(
        f"commands:\n  - {LIST}",
        files={
            "committed.py": "1\n",
            "changed.py": "1\n",
            "deleted.py": "1\n",
            ".gitignore": "*.log\nbuilt/\n",
            ".dstackignore": "data/\n",
        },
    )
    if git:
        git_init(folder)
    (folder / "changed.py").write_text("2\n")
    (folder / "deleted.py").unlink()
    for name in ("new.py", "some.log", "built/x", "data/big", "sub/deep/new.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")
    assert dstack.ok("run", folder).split() == [
        "./.dstack.yml", "./.dstackignore", "./.gitignore", "./changed.py", "./committed.py",
        "./new.py", "./sub/deep/new.py",
    ]  # fmt: skip


def test_bytes_modes_and_links_are_intact(dstack: Dstack, task: Task) -> None:
    folder = task(
        """
        commands:
          - ./tool
          - readlink link
          - sha256sum binary crlf.txt
        """,
        files={"tool": "#!/bin/sh\necho tool\n", ".gitattributes": "* text=auto eol=lf\n"},
    )
    (folder / "tool").chmod(0o755)
    (folder / "link").symlink_to("no/where")
    (folder / "binary").write_bytes(os.urandom(5000))
    (folder / "crlf.txt").write_bytes(b"a\r\nb\r\n")
    git_init(folder)
    sums = subprocess.run(
        ["sha256sum", "binary", "crlf.txt"], cwd=folder, capture_output=True, text=True, check=True
    )
    assert dstack.ok("run", folder) == "tool\nno/where\n" + sums.stdout


def test_later_edits_do_not_reach_the_run(
    dstack: Dstack, task: Task, printed: Callable[[str, str], str]
) -> None:
    folder = task(
        """
        name: frozen
        commands:
          - echo begun
          - while [ ! -e go ]; do sleep 0.05; done
          - cat text; echo mine > text; ls
        """,
        files={"text": "before\n"},
    )
    dstack.ok("run", folder, "-d")
    (folder / "text").write_text("after\n")
    (folder / "new").write_text("")
    printed("frozen", "begun")
    (code,) = dstack.home.glob("runs/*/code")
    (code / "go").touch()
    dstack.wait_status("frozen", "done")
    assert dstack.ok("logs", "frozen") == "begun\nbefore\ngo\ntext\n"
    # Nor does what the run does reach the folder.
    assert (folder / "text").read_text() == "after\n"


def test_the_repository_is_not_touched(dstack: Dstack, task: Task) -> None:
    folder = task("commands: [cat new]", files={"old": "1"})
    git_init(folder)
    (folder / "new").write_text("new\n")
    before = {path: path.stat().st_mtime_ns for path in (folder / ".git").rglob("*")}
    assert dstack.ok("run", folder) == "new\n"
    assert {path: path.stat().st_mtime_ns for path in (folder / ".git").rglob("*")} == before


def test_a_subfolder_of_a_repository(dstack: Dstack, task: Task) -> None:
    folder = task(
        "commands: [echo root]",
        files={
            "shared.txt": "shared\n",
            "sub/.dstack.yml": "type: task\ncommands: [cat ../shared.txt, 'basename $PWD']\n",
        },
    )
    git_init(folder)
    assert dstack.ok("run", "sub", cwd=folder) == "shared\nsub\n"
    assert dstack.ok("run", ".", cwd=folder / "sub") == "shared\nsub\n"


def test_the_folder_may_go_away_while_it_runs(
    dstack: Dstack, task: Task, printed: Callable[[str, str], str]
) -> None:
    folder = task("""
        name: moved
        commands: [echo begun, 'while [ ! -e go ]; do sleep 0.05; done', cat .dstack.yml]
        """)
    text = (folder / ".dstack.yml").read_text()
    dstack.ok("run", folder, "-d")
    printed("moved", "begun")
    folder.rename(folder.with_name("elsewhere"))
    (code,) = dstack.home.glob("runs/*/code")
    (code / "go").touch()
    assert dstack.wait_status("moved", "done", "failed")["status"] == "done"
    assert dstack.ok("logs", "moved") == "begun\n" + text


def test_a_large_file_is_named(dstack: Dstack, task: Task) -> None:
    folder = task("commands: ['wc -c < data/train.bin']")
    (folder / "data").mkdir()
    with (folder / "data/train.bin").open("wb") as file:
        file.truncate(120_000_000)
    done = dstack("run", folder)
    assert (done.returncode, done.stdout.strip()) == (0, "120000000")
    assert "data/train.bin" in done.stderr
    assert ".gitignore" in done.stderr
