"""Files on a host: writing, reading, listing and deleting them."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dstack.errors import HostError
from dstack.hosts.base import File, ProcessId
from tests.contract.hosts.places import Place

EVERY_BYTE = bytes(range(256))
NAMES = ("plain", "with space", "it's", '"', "-n", "ünï ✓", ".hidden", "..twice", "new\nline", "$x")


# ---- put ----


def test_files_are_written_with_their_modes(place: Place) -> None:
    folder = place.folder() / "a" / "b"
    files = {"one": File(EVERY_BYTE * 4), "two": File(b"#!/bin/sh\n", 0o755), "none": File(b"")}
    place.host.put(folder, files)
    for name, file in files.items():
        seen = place.see(folder / name)
        assert seen.read_bytes() == file.data
        assert stat.S_IMODE(seen.stat().st_mode) == file.mode
    assert stat.S_IMODE(place.see(folder).stat().st_mode) == 0o700
    assert sorted(place.host.list_folder(folder)) == sorted(files)


def test_names_of_every_kind(place: Place) -> None:
    folder = place.folder()
    place.host.put(folder, {name: File(name.encode()) for name in NAMES})
    assert sorted(place.host.list_folder(folder)) == sorted(NAMES)
    found = place.host.read_many([folder / name for name in NAMES])
    assert [each.data for each in found if each] == [name.encode() for name in NAMES]


def test_a_file_is_replaced_unless_it_is_to_be_kept(place: Place) -> None:
    folder = place.folder()
    place.host.put(folder, {"a": File(b"1"), "b": File(b"1")})
    place.host.put(
        folder, {"a": File(b"2"), "b": File(b"2", keep=True), "c": File(b"2", keep=True)}
    )
    found = place.host.read_many([folder / name for name in "abc"])
    assert [each.data for each in found if each] == [b"2", b"1", b"2"]
    assert sorted(place.host.list_folder(folder)) == ["a", "b", "c"]


def test_many_and_large_files(place: Place) -> None:
    folder = place.folder()
    files = {f"f{n}": File(b"%d" % n) for n in range(300)}
    files["large"] = File(os.urandom(300_000))
    place.host.put(folder, files)
    assert place.see(folder / "large").read_bytes() == files["large"].data
    assert len(place.host.list_folder(folder)) == 301


def test_where_nothing_can_be_written(place: Place) -> None:
    folder = place.folder()
    place.write(folder / "file", b"")
    with pytest.raises(HostError, match="cannot write"):
        place.host.put(folder / "file" / "below", {"a": File(b"")})
    # The host is as good as before.
    place.host.put(folder, {"a": File(b"1")})
    assert place.see(folder / "a").read_bytes() == b"1"


# ---- read ----


def test_what_is_read(place: Place) -> None:
    folder = place.folder()
    place.write(folder / "bytes", EVERY_BYTE)
    place.write(folder / "empty", b"")
    place.write(folder / "large", b"x" * 70_000)
    place.see(folder / "link").symlink_to("12:34:boot id")
    place.see(folder / "sub").mkdir()
    names = ["bytes", "missing", "link", "sub", "empty", "large", "bytes/below", "bytes"]
    found = place.host.read_many([folder / name for name in names])
    data = [each.data if each else None for each in found]
    assert data == [EVERY_BYTE, None, b"12:34:boot id", b"", b"", b"x" * 65536, None, EVERY_BYTE]
    assert place.host.read_many([]) == []


def test_when_it_was_written(place: Place) -> None:
    folder = place.folder()
    place.write(folder / "file", b"")
    os.utime(place.see(folder / "file"), (1_700_000_000.25, 1_700_000_000.25))
    (found,) = place.host.read_many([folder / "file"])
    assert found
    # A poor `stat` tells whole seconds.
    assert found.at == pytest.approx(1_700_000_000.25, abs=1)
    place.write(folder / "now", b"")
    (found,) = place.host.read_many([folder / "now"])
    assert found
    assert abs(found.at - time.time()) < 60


def test_what_may_not_be_read_is_not_missing(place: Place) -> None:
    if place.user == "root":
        folder = place.folder()
        place.see(folder / "loop").symlink_to("loop")
        # Root may read everything; only the way to it can be a bad one.
        with pytest.raises(HostError, match="cannot read"):
            place.host.read_many([folder / "loop" / "x"])
        return
    with pytest.raises(HostError, match="cannot read"):
        place.host.read_many([Path("/root/secret")])
    folder = place.folder()
    place.write(folder / "locked", b"x")
    place.see(folder / "locked").chmod(0)
    with pytest.raises(HostError, match="cannot read"):
        place.host.read_many([folder, folder / "locked"])
    assert place.host.read_many([folder])[0] is not None


def test_files_of_the_kernel(place: Place) -> None:
    (found,) = place.host.read_many([Path("/proc/sys/kernel/random/boot_id")])
    assert found
    assert found.data.decode().strip() == place.host.boot_id()


def test_a_survey(place: Place) -> None:
    folder = place.folder()
    me = place.host.spawn(["/bin/sh", "-c", "exec sleep 300"], env={}, output=folder / "out")
    (found,) = place.host.read_many([Path(f"/proc/{me}/stat")])
    assert found
    started = found.data.rpartition(b")")[2].split()[19].decode()
    targets = {
        "lives": f"{me}:{started}:{place.host.boot_id()}",
        "other": f"{me}:{int(started) + 1}:{place.host.boot_id()}",
        "boot": f"{me}:{started}:another",
        "nonsense": "nobody",
    }
    for name, target in targets.items():
        place.see(folder / name).symlink_to(target)
    place.write(folder / "file", b"1")
    links = [folder / name for name in (*targets, "missing")]
    contents, alive = place.host.survey([folder / "file", folder / "missing"], links)
    assert [each.data if each else None for each in contents] == [b"1", None]
    assert alive == [True, False, False, False, False]
    assert place.host.signal(ProcessId.parse(targets["lives"]), 9)


def test_parts_of_a_file(place: Place) -> None:
    folder = place.folder()
    data = EVERY_BYTE * 40
    place.write(folder / "file", data)
    for offset, limit in (
        (0, 5),
        (250, 20),
        (10_000, 1000),
        (10_240, 10),
        (20_000, 10),
        (0, 20_000),
    ):
        assert place.host.read_from(folder / "file", offset, limit) == data[offset : offset + limit]
    assert place.host.read_from(folder / "missing", 0, 10) is None


# ---- trees ----


def tree(*entries: tuple[str, str, bytes, int]) -> bytes:
    """A tar of (name, kind, content or target, mode)."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        for name, kind, content, mode in entries:
            entry = tarfile.TarInfo(name)
            entry.mode = mode
            entry.uid = entry.gid = 12345
            if kind == "file":
                entry.size = len(content)
            elif kind == "link":
                entry.type, entry.linkname = tarfile.SYMTYPE, content.decode()
            else:
                entry.type = tarfile.DIRTYPE
            archive.addfile(entry, io.BytesIO(content) if kind == "file" else None)
    return target.getvalue()


def parts(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


@pytest.mark.parametrize("size", [10_000, 3_000_000], ids=["small", "large"])
def test_a_tree_is_unpacked(size: int, place: Place) -> None:
    folder = place.folder() / "new" / "tree"
    data = os.urandom(size)
    archive = tree(
        ("a b/ünï ✓", "file", data, 0o640),
        ("run.sh", "file", b"#!/bin/sh\n", 0o755),
        ("link", "link", b"a b/x", 0o777),
        ("empty", "folder", b"", 0o750),
        ("locked", "file", b"x", 0o444),
    )
    place.host.put_tree(parts(archive, 65536), folder)
    seen = place.see(folder)
    assert (seen / "a b/ünï ✓").read_bytes() == data
    modes = {
        name: stat.S_IMODE((seen / name).stat().st_mode) for name in ("run.sh", "empty", "locked")
    }
    assert modes == {"run.sh": 0o755, "empty": 0o750, "locked": 0o444}
    assert os.readlink(seen / "link") == "a b/x"
    assert stat.S_IMODE(seen.stat().st_mode) == 0o700
    owners = {path.lstat().st_uid for path in seen.rglob("*")}
    assert owners == {seen.stat().st_uid}
    # What is there already is replaced, the rest stays.
    place.host.put_tree([tree(("run.sh", "file", b"2", 0o755))], folder)
    assert (seen / "run.sh").read_bytes() == b"2"
    assert (seen / "locked").read_bytes() == b"x"


def test_an_archive_that_is_none(place: Place) -> None:
    folder = place.folder()
    for size in (1000, 300_000):
        with pytest.raises(HostError, match="cannot write to"):
            place.host.put_tree(parts(b"x" * size, 65536), folder)
    place.write(folder / "file", b"")
    with pytest.raises(HostError, match="cannot write to"):
        place.host.put_tree([tree(("a", "file", b"1", 0o644))], folder / "file")
    assert place.host.run(["echo", "well"]).out == b"well\n"


def test_an_archive_whose_maker_fails(place: Place) -> None:
    folder = place.folder()

    def made() -> Iterator[bytes]:
        yield tree(("a", "file", bytes(200_000), 0o644))[:150_000]
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        place.host.put_tree(made(), folder)
    assert place.host.run(["echo", "well"]).out == b"well\n"


def test_an_archive_that_breaks_off(place: Place) -> None:
    folder = place.folder()
    archive = tree(*((f"f{n}", "file", os.urandom(100_000), 0o644) for n in range(20)))

    def broken() -> list[bytes]:
        return parts(archive, 65536)[:15]

    with pytest.raises(HostError):
        place.host.put_tree(broken(), folder)
    # What came before is there.
    assert "f0" in place.host.list_folder(folder)
    place.host.put_tree(parts(archive, 65536), folder)
    assert len(place.host.list_folder(folder)) == 20


# ---- folders ----


def test_folders_are_listed(place: Place) -> None:
    folder = place.folder()
    assert place.host.list_folder(folder) == []
    assert place.host.list_folder(folder / "missing") == []
    place.write(folder / "file", b"")
    place.see(folder / "dangling").symlink_to("nowhere")
    place.see(folder / "sub").mkdir()
    assert sorted(place.host.list_folder(folder)) == ["dangling", "file", "sub"]
    assert place.host.list_folder(folder / "file") == []


def test_things_are_deleted(place: Place) -> None:
    folder = place.folder()
    place.host.put(folder / "tree" / "deep", {name: File(b"") for name in NAMES})
    place.host.put(folder / "kept", {"file": File(b"")})
    place.see(folder / "tree" / "link").symlink_to("../kept")
    place.see(folder / "tree" / "deep").chmod(0o500)
    place.write(folder / "file", b"")
    for name in ("tree", "file", "missing", "kept/missing/below"):
        place.host.delete(folder / name)
    assert place.host.list_folder(folder) == ["kept"]
    assert place.host.list_folder(folder / "kept") == ["file"]
    place.see(folder / "link").symlink_to("kept")
    place.host.delete(folder / "link")
    assert place.host.list_folder(folder / "kept") == ["file"]


# ---- several at once ----


def test_a_batch_is_done_in_order(place: Place) -> None:
    folder = place.folder()
    with place.host.batch():
        place.host.put(folder / "a", {"x": File(b"1")})
        place.host.put_tree([tree(("y", "file", b"2", 0o600))], folder / "a")
        place.host.delete(folder / "a" / "x")
        place.host.put(folder / "a", {"z": File(b"3")})
        assert sorted(place.host.list_folder(folder / "a")) == ["y", "z"]
        place.host.delete(folder / "a" / "y")
    assert place.host.list_folder(folder / "a") == ["z"]


def test_what_fails_in_a_batch_is_said_and_ends_it(place: Place) -> None:
    folder = place.folder()
    place.write(folder / "file", b"")
    with pytest.raises(HostError, match="cannot write"), place.host.batch():
        place.host.put(folder, {"before": File(b"")})
        place.host.put(folder / "file" / "below", {"a": File(b"")})
        place.host.put(folder, {"after": File(b"")})
    assert sorted(place.host.list_folder(folder)) == ["before", "file"]
    # The next one knows nothing of it.
    with place.host.batch():
        place.host.put(folder, {"later": File(b"")})
    assert "later" in place.host.list_folder(folder)
