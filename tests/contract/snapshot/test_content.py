"""What a snapshot holds: exactly what the folder holds, byte for byte."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from dstack.errors import DstackError
from dstack.snapshot import update
from tests.contract.snapshot.lab import Lab, contents, user_git


def test_a_folder_without_git_arrives_as_it_is(lab: Lab) -> None:
    lab.write("train.py", "print(1)\n")
    lab.write("bin/tool", "#!/bin/sh\n", mode=0o755)
    lab.write("data/all-bytes.bin", bytes(range(256)) * 50)
    lab.write("empty", b"")
    (lab.project / "link").symlink_to("train.py")
    (lab.project / "dangling").symlink_to("nowhere/at all")
    (lab.project / "absolute").symlink_to("/etc")
    (lab.project / "folder-link").symlink_to("data")
    assert lab.seen() == contents(lab.project)
    assert lab.take().files == 8


def test_committed_changed_new_and_deleted_files(lab: Lab) -> None:
    lab.git("init")
    for name in ("same", "changed", "staged", "deleted", "folder/deleted"):
        lab.write(name, "committed\n")
    lab.git("add", "-A")
    lab.git("commit", "-m", "x")
    lab.write("changed", "changed\n")
    lab.write("staged", "staged\n")
    lab.git("add", "staged")
    lab.write("staged", "later\n")
    lab.write("new/file", "new\n")
    (lab.project / "deleted").unlink()
    (lab.project / "folder/deleted").unlink()
    assert lab.seen() == contents(lab.project)


def test_every_change_is_seen_in_the_next_snapshot(lab: Lab) -> None:
    lab.write("a/b", "1\n")
    lab.write("c", "1\n")
    lab.write("tool", "1\n")
    first = lab.take()
    (lab.project / "a/b").unlink()
    (lab.project / "a").rmdir()
    lab.write("a", "a file now\n")
    (lab.project / "c").unlink()
    lab.write("c/d/e", "a folder now\n")
    (lab.project / "tool").chmod(0o755)
    assert lab.seen() == contents(lab.project)
    (lab.project / "c/d/e").unlink()
    (lab.project / "c/d").rmdir()
    (lab.project / "c/d").symlink_to("../a")
    assert lab.seen() == contents(lab.project)
    assert contents(lab.give(first.tree)) == {
        b"a/b": ("file", b"1\n"),
        b"c": ("file", b"1\n"),
        b"tool": ("file", b"1\n"),
    }


def test_a_folder_replaced_by_a_link_to_its_copy(lab: Lab) -> None:
    lab.write("d/x", "1\n")
    lab.take()
    (lab.project / "d").rename(lab.project / "e")
    (lab.project / "d").symlink_to("e")
    assert lab.seen() == {b"d": ("link", b"e"), b"e/x": ("file", b"1\n")}


def test_unchanged_content_has_the_same_tree_and_sends_nothing(lab: Lab) -> None:
    lab.write("a", "1\n")
    first, second = lab.take(), lab.take()
    assert (first.sent, second.sent) == (2, 0)
    assert first.tree == second.tree
    assert second.files == 1


def test_an_edit_right_after_a_snapshot_is_seen_though_size_and_second_are_the_same(
    lab: Lab,
) -> None:
    path = lab.write("a", "0000")
    for number in range(1, 40):
        lab.take()
        path.write_text(f"{number:04}")
        assert lab.seen() == {b"a": ("file", b"%04d" % number)}


def test_an_edit_with_size_and_time_put_back_is_seen(lab: Lab) -> None:
    path = lab.write("a", "0000")
    lab.take()
    before = path.stat()
    path.write_text("1111")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert lab.seen() == {b"a": ("file", b"1111")}


@pytest.mark.parametrize(
    "name",
    [
        b"with space",
        b" leading and trailing ",
        b"new\nline",
        b"tab\t",
        b"-dash",
        b"--add",
        b"quote\"and'both",
        b"back\\slash",
        b"\xff\xfe not utf-8",
        "ünïcode".encode(),
        b":(exclude)magic",
        b"star*",
        b"git~1",
        b".gitmodules",
        b"con",
        b"x" * 255,
        b"/".join([b"y" * 200] * 10) + b"/z",
    ],
)
def test_odd_names(lab: Lab, name: bytes) -> None:
    path = os.path.join(os.fsencode(lab.project), name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(b"1")
    assert lab.seen() == {name: ("file", b"1")}
    with open(path, "wb") as file:
        file.write(b"22")
    assert lab.seen() == {name: ("file", b"22")}
    os.unlink(path)
    assert lab.seen() == contents(lab.project)


def test_names_that_differ_by_case_only(lab: Lab) -> None:
    lab.write("a", "1")
    lab.write("A", "2")
    assert lab.names() == ["A", "a"]


def test_what_git_takes_for_its_own_is_left_out_and_named(lab: Lab) -> None:
    lab.write("a", "1")
    lab.write("sub/.GIT/config", "1")
    assert lab.names() == ["a"]
    assert any("sub/.GIT/config" in notice for notice in lab.notices)


def test_pipes_and_sockets_are_left_out(lab: Lab) -> None:
    lab.write("was-file", "1")
    lab.write("a", "1")
    lab.take()
    os.mkfifo(lab.project / "pipe")
    (lab.project / "was-file").unlink()
    os.mkfifo(lab.project / "was-file")
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(lab.project)  # the name of a socket may have 108 bytes
        try:
            server.bind("socket")
        finally:
            os.chdir(here)
        assert lab.names() == ["a"]
    assert any("was-file" in notice for notice in lab.notices)


def test_an_empty_folder_and_one_emptied(lab: Lab) -> None:
    assert lab.seen() == {}
    path = lab.write("a", "1")
    assert lab.names() == ["a"]
    path.unlink()
    assert lab.seen() == {}
    assert lab.take().files == 0


def test_empty_folders_come_and_go(lab: Lab) -> None:
    folder = lab.project
    (folder / "empty").mkdir()
    (folder / "deep/er/est").mkdir(parents=True)
    lab.write("new/file", "1")
    (folder / "new/beside it\n").mkdir()
    for _ in range(2):
        assert lab.seen() == contents(folder)
    assert (lab.take().sent, lab.take().files) == (0, 1)
    (folder / "new/file").unlink()
    (folder / "empty").rmdir()
    assert lab.seen() == contents(folder)
    lab.write("deep/er/est/file", "1")
    assert lab.seen() == contents(folder)
    for name in ("deep/er/est/file", "new/beside it\n", "new"):
        path = folder / name
        path.rmdir() if path.is_dir() else path.unlink()
    assert lab.seen() == contents(folder)
    (folder / "deep/er/est").rmdir()
    (folder / "deep/er").rmdir()
    (folder / "deep").rmdir()
    assert lab.seen() == {}


def test_a_new_file_in_a_folder_that_was_empty_or_hidden(lab: Lab) -> None:
    for ignore in (".gitignore", ".dstackignore"):
        lab.write(ignore, "*.log\n")
        lab.write("logs/a.log", "1")
        (lab.project / "empty").mkdir(exist_ok=True)
        folders = {b"empty": ("empty folder", b"")}
        ignored = {ignore.encode(): ("file", b"*.log\n")}
        for _ in range(2):
            assert lab.seen() == folders | ignored
        assert lab.take().sent == 0
        for name in ("logs/new", "empty/new"):
            lab.write(name, "1")
            assert lab.seen()[name.encode()] == ("file", b"1")
            (lab.project / name).unlink()
            assert lab.seen() == folders | ignored
        (lab.project / ignore).unlink()
        (lab.project / "logs/a.log").unlink()


def test_the_users_own_file_may_be_called_as_ours(lab: Lab) -> None:
    lab.write(".dstack-empty-folders", "theirs\n")
    lab.write("a", "1")
    assert lab.names() == [".dstack-empty-folders", "a"]


def test_a_project_folder_with_an_odd_name(lab: Lab) -> None:
    folder = lab.project / "odd: *'\"\n name "
    folder.mkdir()
    (folder / "a").write_text("1")
    assert lab.names(folder) == ["a"]


def test_a_project_named_through_a_link_is_the_same_project(lab: Lab, tmp_path: Path) -> None:
    lab.write("a", "1")
    lab.take()
    (tmp_path / "link").symlink_to(lab.project)
    assert lab.take(tmp_path / "link").sent == 0


def test_a_folder_that_is_not_there(lab: Lab, tmp_path: Path) -> None:
    with pytest.raises(DstackError, match="missing"):
        lab.take(tmp_path / "missing")


def test_many_and_large_files(lab: Lab) -> None:
    for number in range(250):
        lab.write(f"many/{number}", f"{number}\n" * number)
    lab.write("large", os.urandom(1_000_000) * 33)  # more than goes into a loose object
    assert lab.seen() == contents(lab.project)
    lab.write("many/7", "changed")
    assert lab.seen() == contents(lab.project)


def test_what_is_large_is_named(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(update, "_LARGE", 2_000_000)
    lab.write("train.bin", os.urandom(2 * 1024 * 1024))
    lab.write("small", "1")
    lab.take()
    assert lab.notices == [
        "uploading 2 MB; largest: train.bin 2 MB — add it to .gitignore if the run does not need it"
    ]
    lab.notices.clear()
    lab.write("small", "2")
    lab.take()
    assert lab.notices == []


def test_progress_rises_to_the_whole(lab: Lab) -> None:
    lab.write("train.bin", os.urandom(1_000_000) * 60)
    seen: list[tuple[int, int]] = []
    lab.snapshots.begin(lab.project).finish(lambda now: seen.append((now.done, now.total)))
    assert len(seen) > 2
    assert seen == sorted(set(seen))
    assert {total for _, total in seen} == {60_000_000}
    assert seen[-1] == (60_000_000, 60_000_000)


ATTRIBUTES = """\
[attr]lfs filter=lfs diff=lfs merge=lfs -text
*.bin lfs
*.txt text eol=crlf ident
*.u16 text working-tree-encoding=UTF-16
* text=auto
secret export-ignore
"""


def test_attributes_and_filters_change_no_byte(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    configuration = lab.write("../gitconfig", "[core]\n\tautocrlf = true\n\tsafecrlf = true\n")
    for name in ("clean", "smudge"):
        user_git(
            "config", "-f", str(configuration), f"filter.lfs.{name}", "tr a-z A-Z", cwd=lab.project
        )
    user_git("config", "-f", str(configuration), "filter.lfs.required", "true", cwd=lab.project)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(configuration))
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "core.autocrlf")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "true")
    lab.git("init")
    lab.write(".gitattributes", ATTRIBUTES)
    lab.write("sub/.gitattributes", "*.dat filter=lfs text eol=lf\n")
    for name in ("a.bin", "a.txt", "a.u16", "plain", "sub/a.dat", "secret"):
        lab.write(name, b"$Id$ lower\r\nmixed\nlone\r\x00\xff\xfe\r\n")
    lab.write("only-crlf.txt", b"a\r\nb\r\n")
    lab.write("only-lf.txt", b"a\nb $Id: x$\n")
    assert lab.seen() == contents(lab.project)


def test_the_users_git_variables_lead_nowhere(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.write("a", "1")
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY"):
        monkeypatch.setenv(name, str(tmp_path / "elsewhere"))
    assert lab.names() == ["a"]
    assert not (tmp_path / "elsewhere").exists()


def test_the_users_repository_is_not_touched(lab: Lab) -> None:
    lab.git("init")
    lab.write("a", "1")
    lab.git("add", "a")
    lab.git("commit", "-m", "x")
    lab.write("a", "2")
    os.utime(lab.write("same", "1"), (1, 1))

    def state() -> dict[str, tuple[int, int]]:
        found = {}
        for where, folders, files in os.walk(lab.project / ".git"):
            for name in folders + files:
                seen = os.lstat(os.path.join(where, name))
                found[os.path.join(where, name)] = (seen.st_mtime_ns, seen.st_ino)
        return found

    before = state()
    lab.take()
    lab.write("b", "3")
    lab.take()
    assert state() == before


def test_unreadable_is_an_error_that_names_it() -> None:
    """As another user where the tests run as root, for whom everything is readable."""
    with tempfile.TemporaryDirectory() as made:
        root = Path(made)
        root.chmod(0o777)
        script = (
            "import collections, hashlib, os, shutil, sys\n"
            "from pathlib import Path\n"
            "from dstack.errors import DstackError\n"
            "from dstack.paths import Home\n"
            "from dstack.snapshot import Snapshots\n"
            "hashlib.sha1(b'')\n"
            "if os.getuid() == 0:\n"  # the interpreter may lie where only root can read
            "    os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
            "root = Path(sys.argv[1])\n"
            "(root / 'home').mkdir()\n"
            "snapshots = Snapshots(Home(root / 'home'))\n"
            "def attempt():\n"
            "    try:\n"
            "        print('files', snapshots.begin(root / 'p').finish().files)\n"
            "    except DstackError as error:\n"
            "        print(error.message, '|', error.hint)\n"
            "(root / 'p/d').mkdir(parents=True)\n"
            "(root / 'p/d/f').write_text('1')\n"
            "(root / 'p/d').chmod(0)\n"
            "attempt()\n"
            "(root / 'p/d').chmod(0o700)\n"
            "(root / 'p/d/f').chmod(0)\n"
            "attempt()\n"
            "(root / 'p/d/f').chmod(0o600)\n"
            "attempt()\n"
            "(root / 'p/d').chmod(0)\n"
            "attempt()\n"
            "(root / 'p/d').chmod(0o700)\n"
            "shutil.rmtree(root / 'p'); shutil.rmtree(root / 'home')\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", script, made],
            capture_output=True,
            text=True,
            check=False,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path)),
                "HOME": made,
            },
        )
    lines = done.stdout.splitlines()
    assert len(lines) == 4, done.stderr
    hint = "make it readable, or exclude it in .dstackignore"
    folder, file = f"{made}/p/d", f"{made}/p/d/f"
    assert lines[0] == f"cannot read the folder {folder}: Permission denied | {hint}"
    assert lines[1] == f"cannot read {file}: Permission denied | {hint}"
    assert lines[2] == "files 1"
    assert lines[3].startswith(f"cannot read the folder {folder}")
