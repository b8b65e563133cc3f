"""What a build stage reads and leaves, seen on the real file system, wherever it runs."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dstack.engines.builds import read_made, take_result
from dstack.engines.process import ProcessEngine
from dstack.errors import StoreError
from dstack.paths import Home
from dstack.run.made import Made
from tests.contract.engine.conftest import Bench, finish
from tests.support import write_files

FILES = {
    "read.txt": "read\n",
    "other.txt": "other\n",
    "written.txt": "before\n",
    "deleted.txt": "deleted\n",
    "sub/listed": "1\n",
    "quiet/file": "1\n",
}


def build(
    bench: Bench, *commands: str, files: dict[str, str] | None = None, **plan: Any
) -> tuple[Path, Made, bool]:
    """Make it; the run's folder, and what was seen of it."""
    run = bench.run(*commands, stage="build", **plan)
    folder = bench.home.run(run.id)
    write_files(folder / "code", files or FILES)
    (folder / "code" / "link").symlink_to("quiet/file")
    job = bench.engine.plan(run, folder, 1)
    bench.engine.start(job, {})
    directory = Path(job.directory)
    done = bench.ended(directory)
    assert done.code == 0, (done, bench.log(directory))
    made, whole = read_made(run.plan, directory)
    image = bench.engine.build_image(directory)
    if image is not None:
        bench.engine.discard_image(image[0], run.plan.client, dict(run.plan.base_env))
    return folder, made, whole


def test_what_is_read_is_seen_and_nothing_else(any_bench: Bench) -> None:
    _, made, whole = build(any_bench, "cat read.txt", "ls sub", "test -e other.txt", "cd quiet")
    assert not whole
    assert made.read == {b"read.txt", b"sub"}
    assert made.moves == made.gone == ()


def test_listing_the_folder_itself_is_seen(any_bench: Bench) -> None:
    _, made, _ = build(any_bench, "ls")
    assert made.read == {b""}


def test_what_is_written_deleted_and_made_is_seen(any_bench: Bench) -> None:
    _, made, _ = build(
        any_bench,
        "echo more >>written.txt; rm deleted.txt",
        "mkdir -p new/deep; echo 1 >new/deep/file; echo 2 >sub/new",
        "mv quiet moved",
    )
    assert set(made.moves) == {b"written.txt", b"new", b"sub/new", b"moved"}
    assert set(made.gone) == {b"written.txt", b"deleted.txt", b"quiet", b"quiet/file"}
    assert {b"written.txt", b"deleted.txt", b"quiet/file"} <= made.read


def test_a_link_that_is_followed_is_read_and_so_is_what_it_leads_to(quick: Bench) -> None:
    _, made, _ = build(quick, "cat link")
    assert made.read == {b"link", b"quiet/file"}


def test_what_is_replaced_by_a_rename_counts_as_read(quick: Bench) -> None:
    _, made, _ = build(quick, "sed -i s/before/after/ written.txt")
    assert made.moves == made.gone == (b"written.txt",)
    assert b"written.txt" in made.read


def test_a_cache_folder_is_no_part_of_it(any_bench: Bench) -> None:
    folder, made, _ = build(any_bench, "echo 1 >kept/file", cache=("kept",), cache_key="k")
    assert made == Made((), (), frozenset())
    assert (any_bench.home.cache / "k" / "kept" / "file").exists()
    assert folder.exists()


def test_a_build_that_fails_gathers_nothing(quick: Bench) -> None:
    run = quick.run("exit 3", stage="build")
    job = quick.engine.plan(run, quick.home.run(run.id), 1)
    quick.engine.start(job, {})
    assert quick.ended(Path(job.directory)).code == 3
    with pytest.raises(StoreError, match="not known"):
        read_made(run.plan, Path(job.directory))


def test_names_with_anything_in_them(quick: Bench) -> None:
    names = ["a b", "n\nl", "-rf", "*", "'q\""]
    files = dict.fromkeys(names, "1\n")
    folder, made, _ = build(
        quick, 'for f in ./*; do echo 2 >>"$f"; done; mkdir -- "new\nfolder"', files=files
    )
    assert {os.fsencode(name) for name in names} <= set(made.moves)
    take_result(folder, folder / "1", folder / "kept", made)
    assert (folder / "kept/files/n\nl").read_text() == "1\n2\n"
    assert (folder / "kept/files/new\nfolder").is_dir()


def test_taking_goes_on_where_it_was_cut_off(quick: Bench) -> None:
    folder, made, _ = build(
        quick, "mkdir -p new sub/x; echo 1 >new/f; echo 2 >sub/x/g; rm read.txt"
    )
    target = folder / "kept"
    (target / "files").mkdir(parents=True)
    (folder / "code" / "new").rename(target / "files" / "new")
    for _ in range(2):
        take_result(folder, folder / "1", target, made)
        assert (target / "files/new/f").read_text() == "1\n"
        assert (target / "files/sub/x/g").read_text() == "2\n"
        assert (target / "gone").read_bytes() == b"./read.txt\0"
        assert not (folder / "code" / "new").exists()


@pytest.fixture
def noatime(tmp_path: Path) -> Iterator[Bench]:
    """A bench on a file system that keeps no access times."""
    if os.geteuid() != 0:
        pytest.skip("mounting takes root; run the tests as root")
    place = tmp_path / "noatime"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "noatime,size=64m", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("nothing can be mounted here; run the tests where a tmpfs can be")
    bench = Bench(ProcessEngine(Home(place / "home"), grace=3))
    try:
        yield bench
        finish(bench)
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_file_system_without_access_times_is_noticed(noatime: Bench) -> None:
    _, made, whole = build(noatime, "cat read.txt; echo 1 >new")
    assert whole
    assert made.moves == (b"new",)


# A run that starts from one


def lay(bench: Bench, *commands: str, files: dict[str, str], **plan: Any) -> tuple[Path, str]:
    """Start a run from a build with these files; its job folder and output."""
    build_folder = write_files(bench.home.build("b1"), {"build.json": "{}", **files})
    run = bench.run(*commands, **plan)
    run = type(run)(**{f: getattr(run, f) for f in run.__struct_fields__} | {"build": "b1"})
    folder = bench.home.run(run.id)
    write_files(folder / "code", FILES)
    job = bench.engine.plan(run, folder, 1)
    bench.engine.start(job, {})
    done = bench.ended(Path(job.directory))
    assert done.code == 0, (done, bench.log(Path(job.directory)))
    assert build_folder.exists()
    return folder, bench.log(Path(job.directory))


def test_what_the_build_left_is_laid_over_the_code_as_a_copy(bench: Bench) -> None:
    files = {
        "files/written.txt": "after\n",
        "files/sub/new": "new\n",
        "files/quiet": "a file now\n",
        "gone": "./written.txt\0./deleted.txt\0./quiet\0./quiet/file\0",
    }
    folder, log = lay(
        bench, "cat written.txt sub/new quiet sub/listed; ls", "echo x >>sub/new", files=files
    )
    assert log == "after\nnew\na file now\n1\nother.txt\nquiet\nread.txt\nsub\nwritten.txt\n"
    assert (bench.home.build("b1") / "files/sub/new").read_text() == "new\n"
    assert (folder / "laid").exists()


def test_a_build_that_is_gone_is_said(quick: Bench) -> None:
    run = quick.run("true")
    run = type(run)(**{f: getattr(run, f) for f in run.__struct_fields__} | {"build": "gone"})
    job = quick.engine.plan(run, quick.home.run(run.id), 1)
    quick.engine.start(job, {})
    done = quick.ended(Path(job.directory))
    assert (done.reason, done.code) == ("start_failed", 125)
    assert done.detail == "the build that the run starts from is not there any more"
