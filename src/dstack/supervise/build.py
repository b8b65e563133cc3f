"""Putting the supervisor together from its parts."""

from __future__ import annotations

from ..engines import get_engine
from ..engines.base import Engine
from ..paths import Home, find_home
from ..run.model import Plan
from ..store.database import Database
from ..store.runs import Runs
from ..store.secrets import Vault
from .lease import Leases
from .step import Supervisor


def make_supervisor(home: Home | None = None) -> Supervisor:
    """A supervisor for the user's folder. Raises StoreError."""
    home = home or find_home()
    database = Database(home)
    engines: dict[str, Engine] = {}

    def engine_of(plan: Plan) -> Engine:
        if plan.engine not in engines:
            engines[plan.engine] = get_engine(plan.engine, home)
        return engines[plan.engine]

    vault = Vault(home, database)
    return Supervisor(home, Runs(database), Leases(home), vault, engine_of)
