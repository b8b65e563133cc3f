"""Local ports of runs: chosen before anything starts, never one that another run was promised."""

from __future__ import annotations

from ..ports.check import choose
from ..run.model import Plan
from ..supervise.step import Supervisor


def choose_ports(
    supervisor: Supervisor, plan: Plan, run_id: str | None
) -> tuple[tuple[int, int], ...]:
    """The (run, local) pairs for a plan; `run_id` is a run whose own promise does not count.

    Raises CannotStart when a port is taken. Call it inside `Leases.choosing_ports`.
    """
    reserved: dict[int, str] = {}
    for stored in supervisor.runs.active():
        if stored.run.id == run_id or not supervisor.look(stored).active:
            continue
        for inside, local in stored.run.ports:
            reserved[local] = stored.run.name
            if shares_ports(stored.run.plan):
                reserved[inside] = stored.run.name
    return choose(plan.ports, reserved, shared=shares_ports(plan))


def shares_ports(plan: Plan) -> bool:
    """Whether the run's apps listen on this machine's own ports."""
    return plan.engine == "process" and plan.remote is None
