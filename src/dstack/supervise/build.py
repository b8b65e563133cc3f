"""Putting the supervisor together from its parts."""

from __future__ import annotations

from ..paths import Home, find_home
from ..store.database import Database
from ..store.runs import Runs
from ..store.secrets import Vault
from .lease import Leases
from .sites import Sites
from .step import Supervisor


def make_supervisor(home: Home | None = None, sites: Sites | None = None) -> Supervisor:
    """A supervisor for the user's folder. Raises StoreError."""
    home = home or find_home()
    database = Database(home)
    vault = Vault(home, database)
    return Supervisor(home, Runs(database), Leases(home), vault, sites or Sites(home))
