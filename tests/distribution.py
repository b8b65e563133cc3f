"""Which tests are done by the same worker, one after the other.

pytest-xdist has marks for it (`--dist loadgroup`), which 3.8 writes where pytest 9.2 does not look.
"""

from __future__ import annotations

import re

from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

_ENGINE = re.compile("docker|podman")


def group_of(nodeid: str) -> str:
    """The name of the test's group; the test's own where it has none."""
    path, _, test = nodeid.partition("::")
    engine = _ENGINE.search(nodeid)
    own_daemon = "_rounds_of_" in test and "[docker" in test
    if engine and not own_daemon:
        # One that wants the engine for itself would wait for the others, and they for it.
        return engine[0]
    if path.startswith("tests/contract/hosts/"):
        # All tests of such a file share a connection to each host.
        return path
    return nodeid


class ByGroup(LoadScopeScheduling):  # type: ignore[misc]
    """The largest groups first, then test by test as they stand."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)
