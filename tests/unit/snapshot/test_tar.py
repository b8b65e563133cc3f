"""The stream that is sent is read by any tar."""

from __future__ import annotations

import io
import tarfile

from hypothesis import given
from hypothesis import strategies as st

from dstack.snapshot.tar import END, Headers, padding

NAME = st.text("abc/\u00e9 '", min_size=1, max_size=300).map(
    lambda text: "n" + text.strip("/") + "n"
)


# Blocks have 512 bytes.
CONTENT = st.sampled_from([0, 1, 511, 512, 513, 1024, 2000]).map(
    lambda size: (b"\0\xff\n" * size)[:size]
) | st.binary(max_size=20)


@given(st.lists(st.tuples(NAME, CONTENT, st.booleans()), max_size=8), NAME)
def test_what_is_written_is_read(files: list[tuple[str, bytes, bool]], target: str) -> None:
    headers = Headers(1_700_000_000)
    data = b""
    for name, content, runs in files:
        mode = 0o755 if runs else 0o644
        data += headers.file(name.encode(), mode, len(content)) + content + padding(len(content))
    data += headers.folder(b"folder" * 30) + headers.link(b"link", target.encode()) + END
    with tarfile.open(fileobj=io.BytesIO(data), encoding="utf-8") as archive:
        *there, folder, link = archive.getmembers()
        assert [m.name for m in there] == [name for name, _, _ in files]
        assert [m.mode & 0o100 != 0 for m in there] == [runs for _, _, runs in files]
        assert {m.mtime for m in there} <= {1_700_000_000}
        for member, (_, content, _) in zip(there, files, strict=True):
            opened = archive.extractfile(member)
            assert opened is not None
            assert opened.read() == content
        assert folder.isdir()
        assert (link.issym(), link.linkname) == (True, target)


def test_a_size_beyond_eight_gibibytes() -> None:
    with tarfile.open(fileobj=io.BytesIO(Headers(0).file(b"f", 0o644, 9 << 30) + END)) as archive:
        member = archive.next()
        assert member is not None
        assert member.size == 9 << 30
