"""What is left out: what `.gitignore` or `.dstackignore` excludes, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contract.snapshot.lab import Lab, contents


@pytest.fixture(params=["with git", "without git"])
def lab_both(lab: Lab, request: pytest.FixtureRequest) -> Lab:
    if request.param == "with git":
        lab.git("init")
    return lab


@pytest.mark.parametrize("ignore", [".gitignore", ".dstackignore"])
def test_ignore_files_at_the_root_and_below(lab_both: Lab, ignore: str) -> None:
    lab = lab_both
    lab.write(ignore, "*.log\n/top\nbuild/\n!keep.log\n")
    lab.write(f"sub/{ignore}", "local\n*.tmp\n")
    for name in ("a.log", "keep.log", "top", "build/x", "sub/build/y", "sub/a.log"):
        lab.write(name)
    for name in ("sub/top", "sub/local", "local", "sub/deep/a.tmp", "a.tmp"):
        lab.write(name)
    expected = sorted([ignore, f"sub/{ignore}", "keep.log", "sub/top", "local", "a.tmp"])
    assert lab.names() == expected
    assert lab.names() == expected


def test_a_nested_dstackignore_alone(lab: Lab) -> None:
    lab.write("sub/.dstackignore", "data\n")
    lab.write("sub/data/large")
    lab.write("data")
    assert lab.names() == ["data", "sub/.dstackignore"]
    assert lab.names() == ["data", "sub/.dstackignore"]


def test_what_either_excludes_is_out(lab: Lab) -> None:
    lab.write(".gitignore", "a\n!b\n")
    lab.write(".dstackignore", "b\n!a\n")
    for name in ("a", "b", "c"):
        lab.write(name)
    assert lab.names() == [".dstackignore", ".gitignore", "c"]


def test_rules_that_come_and_go(lab_both: Lab) -> None:
    lab = lab_both
    lab.write("data/x")
    lab.write("a")
    assert lab.names() == ["a", "data/x"]
    for ignore in (".gitignore", ".dstackignore"):
        lab.write(ignore, "data\n")
        assert lab.names() == [ignore, "a"]
        (lab.project / ignore).unlink()
        assert lab.names() == ["a", "data/x"]


def test_an_ignore_file_that_ignores_itself(lab: Lab) -> None:
    lab.write("venv/.gitignore", "*\n")
    lab.write("venv/lib/x")
    lab.write("a")
    assert lab.names() == ["a"]
    lab.write("venv/.gitignore", "lib\n")
    assert lab.names() == ["a", "venv/.gitignore"]
    lab.write("venv/.gitignore", "*\n")
    assert lab.names() == ["a"]


def test_only_the_two_files_count(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.git("init")
    lab.write(".git/info/exclude", "by-exclude\n")
    excludes = lab.write("../excludes", "by-global\n")
    lab.write("../gitconfig", f"[core]\n\texcludesFile = {excludes}\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(lab.project.parent / "gitconfig"))
    lab.write("by-exclude")
    lab.write("by-global")
    assert lab.names() == ["by-exclude", "by-global"]


def test_what_the_user_tracks_is_code_though_gitignore_names_it(lab: Lab) -> None:
    lab.git("init")
    lab.write("model.bin", "1")
    lab.write("lib/tracked", "1")
    lab.git("add", "-A")
    lab.write(".gitignore", "*.bin\nlib/\n")
    lab.write("other.bin")
    lab.write("lib/other")
    for _ in range(2):
        assert lab.names() == [".gitignore", "lib/tracked", "model.bin"]
    lab.write("model.bin", "2")
    assert lab.seen()[b"model.bin"] == ("file", b"2")
    assert lab.take().sent == 0
    lab.git("rm", "-f", "--cached", "model.bin")
    assert lab.names() == [".gitignore", "lib/tracked"]
    lab.write(".dstackignore", "tracked\n")
    for _ in range(2):
        assert lab.names() == [".dstackignore", ".gitignore"]
    assert lab.take().sent == 0


def test_a_tracked_file_that_is_deleted_stays_so(lab: Lab) -> None:
    lab.git("init")
    lab.write("model.bin", "1")
    lab.git("add", "-A")
    lab.write(".gitignore", "*.bin\n")
    lab.take()
    (lab.project / "model.bin").unlink()
    for _ in range(2):
        assert lab.names() == [".gitignore"]


def test_a_subfolder_of_a_repository(lab: Lab) -> None:
    lab.git("init")
    lab.write(".gitignore", "*.log\n/sub/data\n")
    lab.write("outside")
    lab.write("sub/a")
    lab.write("sub/a.log")
    lab.write("sub/tracked.log", "1")
    lab.write("sub/data/x")
    lab.git("add", "-f", "sub/tracked.log")
    sub = lab.project / "sub"
    for _ in range(2):
        assert lab.names(sub) == ["a", "tracked.log"]
    lab.write("sub/b/c")
    (sub / "a").unlink()
    assert lab.names(sub) == ["b/c", "tracked.log"]
    assert lab.take(sub).sent == 0
    assert lab.take(sub).files == 2


def test_a_subfolder_that_its_repository_ignores(lab: Lab) -> None:
    lab.git("init")
    lab.write(".gitignore", "scratch/\n*.log\n")
    lab.write("scratch/.gitignore", "*.tmp\n")
    lab.write("scratch/a")
    lab.write("scratch/a.tmp")
    for _ in range(2):
        assert lab.names(lab.project / "scratch") == [".gitignore", "a"]


@pytest.mark.parametrize("state", ["empty folder", "garbage", "dangling", "broken index"])
def test_a_broken_repository_is_a_folder_as_any_other(lab: Lab, state: str) -> None:
    if state == "empty folder":
        (lab.project / ".git").mkdir()
    elif state == "garbage":
        lab.write(".git", b"\x00garbage")
    elif state == "dangling":
        lab.write(".git", "gitdir: /nowhere/at/all\n")
    else:
        lab.git("init")
        lab.write(".git/index", b"DIRCgarbage")
    lab.write(".gitignore", "b\n")
    lab.write("a")
    lab.write("b")
    for _ in range(2):
        assert lab.names() == [".gitignore", "a"]


def test_a_work_tree_of_a_repository(lab: Lab, tmp_path: Path) -> None:
    lab.git("init")
    lab.write(".gitignore", "*.log\n")
    lab.write("tracked.log", "1")
    lab.git("add", "-f", "tracked.log", ".gitignore")
    lab.git("commit", "-m", "x")
    work = tmp_path / "work"
    lab.git("worktree", "add", str(work))
    (work / "other.log").write_text("1")
    (work / "new").write_text("1")
    assert lab.names(work) == [".gitignore", "new", "tracked.log"]


def submodule(lab: Lab, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    lab.git("init", cwd=other)
    for name, text in ((".gitignore", "*.o\n"), ("s", "1\n"), ("kept.o", "1\n"), ("x.log", "1\n")):
        (other / name).write_text(text)
    lab.git("add", "-f", ".", cwd=other)
    lab.git("commit", "-m", "x", cwd=other)
    lab.git("init")
    lab.write(".gitignore", "*.log\n")
    lab.git("submodule", "add", str(other), "lib/sub")
    lab.git("add", "-A")
    lab.git("commit", "-m", "x")


def test_submodules_arrive_as_files(lab: Lab, tmp_path: Path) -> None:
    submodule(lab, tmp_path)
    lab.write("lib/sub/new")
    lab.write("lib/sub/s", "changed\n")
    lab.write("lib/sub/other.o")
    lab.write("lib/sub/other.log")
    lab.write("a.log")
    sub = [f"lib/sub/{name}" for name in (".gitignore", "kept.o", "new", "s", "x.log")]
    for _ in range(2):
        assert lab.names() == [".gitignore", ".gitmodules", *sub]
    assert lab.take().sent == 0
    lab.write("lib/sub/s", "again\n")
    assert lab.seen()[b"lib/sub/s"] == ("file", b"again\n")
    lab.git("submodule", "deinit", "-f", "lib/sub")
    assert lab.names() == [".gitignore", ".gitmodules"]


def test_a_submodule_at_a_place_that_is_ignored(lab: Lab, tmp_path: Path) -> None:
    submodule(lab, tmp_path)
    lab.write(".gitignore", "lib/\n")
    lab.write("lib/sub/new")
    lab.write("lib/other")
    sub = [f"lib/sub/{name}" for name in (".gitignore", "kept.o", "s", "x.log")]
    for _ in range(2):
        assert lab.names() == [".gitignore", ".gitmodules", *sub]
    assert lab.take().sent == 0


def test_repositories_inside_repositories(lab: Lab) -> None:
    lab.write("a")
    for depth in ("one", "one/two", "one/two/three", "empty"):
        (lab.project / depth).mkdir()
        lab.git("init", cwd=lab.project / depth)
    lab.write("one/b", "1")
    lab.write("one/two/three/c", "1")
    lab.git("add", "b", cwd=lab.project / "one")
    lab.git("commit", "-m", "x", cwd=lab.project / "one")
    for _ in range(2):
        assert lab.seen() == contents(lab.project)
    lab.write("one/two/d", "1")
    assert lab.seen() == contents(lab.project)
    assert lab.names() == ["a", "one/b", "one/two/d", "one/two/three/c"]


@pytest.mark.parametrize("name", ["sub/.dstack", "a [b]* \\c", "home "])
def test_dstacks_own_folder_is_left_out(lab_both: Lab, name: str) -> None:
    lab = lab_both
    inside = Lab(lab.project.parent, home=lab.project / name)
    lab.write("sub/a")
    lab.write("a b c")
    lab.write(f"x/{name}/b")
    expected = sorted(["sub/a", "a b c", f"x/{name}/b"])
    for _ in range(3):
        assert inside.names() == expected
    inside.write(".dstackignore", "nothing\n")
    assert inside.names() == sorted([*expected, ".dstackignore"])
    inside.snapshots.close()


def test_a_project_below_dstacks_own_folder(lab: Lab) -> None:
    folder = lab.home.root / "runs/1/code"
    folder.mkdir(parents=True)
    (folder / "a").write_text("x")
    assert lab.names(folder) == ["a"]
