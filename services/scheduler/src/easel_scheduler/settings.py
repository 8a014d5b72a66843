"""Settings of the scheduler."""

from __future__ import annotations

from easel_kit.settings import ProcessSettings


class SchedulerSettings(ProcessSettings, frozen=True, kw_only=True):
    """`agent_addr` may name several agents, separated by commas."""

    node_lease_s: float = 10.0
    """A node whose agent is silent for less is kept as it is; then it takes nothing new."""
    node_lost_s: float = 30.0
    """After this silence its replicas are replaced elsewhere."""
    heartbeat_s: float = 1.0
    """How often an agent that has nothing to tell says so."""
    keep_ended: int = 20
    """Replicas that stopped, failed or were lost: kept per service, the newest."""
    keep_ended_days: int = 7
    resync_s: float = 30.0
    """Everything is looked at this often, should a wake-up have been lost."""

    def agents(self) -> tuple[str, ...]:
        """Addresses of the agents."""
        return tuple(part.strip() for part in self.addr("agent").split(",") if part.strip())
