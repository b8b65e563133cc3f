"""A host that does not answer is asked again after a pause, however often one looks meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from dstack.hosts.base import Host
from dstack.paths import Home
from dstack.run.model import Remote
from dstack.run.observation import Unknown
from dstack.supervise import far


def test_who_looks_meanwhile_does_not_put_off_the_next_question(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr("dstack.supervise.far.time.monotonic", lambda: now)
    nobody = cast(Host, object())
    site = far.FarSite(nobody, Remote("alpha", "/root", None), Home(Path("/here")))
    assert site.away() is None
    site.told(Unknown("no answer", away=True))
    for _ in range(100):
        if site.away() is None:
            break
        # What a supervisor does that looks five times a second.
        site.told(site.away())
        now += 0.2
    assert site.away() is None
    assert now - 1000.0 < 2.0
    site.told(Unknown("no answer", away=True))
    assert site.away() == Unknown("no answer", away=True)
    site.told(None)
    assert site.away() is None


class Typed:
    """A host that lets nobody in who cannot type a password, unless there is a connection."""

    def __init__(self) -> None:
        self.shared = False

    def shares(self) -> bool:
        return self.shared


def test_a_connection_that_somebody_made_is_used_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("dstack.supervise.far.time.monotonic", lambda: now)
    host = Typed()
    site = far.FarSite(cast(Host, host), Remote("alpha", "/root", None), Home(Path("/here")))
    refused = Unknown("it does not let this user in", away=True, asks=True)
    site.told(refused)
    # Logins that fail are few.
    now += 59
    assert site.away() == refused
    host.shared = True
    assert site.away() is None
