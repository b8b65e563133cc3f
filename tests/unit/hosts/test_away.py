"""A host that does not answer is asked again after a pause, however often one looks meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from dstack.hosts.base import Host
from dstack.paths import Home
from dstack.run.model import Remote
from dstack.supervise import far


def test_who_looks_meanwhile_does_not_put_off_the_next_question(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr("dstack.supervise.far.time.monotonic", lambda: now)
    nobody = cast(Host, object())
    site = far.FarSite(nobody, Remote("alpha", "/root", None), Home(Path("/here")))
    assert site.away() is None
    site.told("no answer")
    for _ in range(100):
        if site.away() is None:
            break
        # What a supervisor does that looks five times a second.
        site.told(site.away())
        now += 0.2
    assert site.away() is None
    assert now - 1000.0 < 2.0
    site.told("no answer")
    assert site.away() == "no answer"
    site.told(None)
    assert site.away() is None
