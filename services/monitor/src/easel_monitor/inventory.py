"""Which services exist and how many replicas each has, by facts: for "no such service" and for replicas_total."""

from __future__ import annotations

from easel_contracts import facts, states
from easel_contracts.facts import Fact, ReplicaState, ServiceState
from easel_kit.db import Database
from easel_kit.projection import Projection

Key = tuple[str, str]
"""(workspace, service)."""


class Inventory:
    """What control and the scheduler said, in memory, from the projections."""

    def __init__(self, database: Database, workspace: str) -> None:
        self._workspace = workspace
        self._services = Projection(database, "service", ServiceState)
        self._replicas = Projection(database, "replica", ReplicaState)
        self._living: set[Key] = set()
        self._replicas_of: dict[Key, set[str]] = {}

    async def load(self) -> None:
        """Takes over what the projections held at the last stop."""
        for service in await self._services.all(self._workspace):
            self._living.add((self._workspace, service.name))
        for replica in await self._replicas.all(self._workspace):
            self._replicas_of.setdefault((self._workspace, replica.service), set()).add(replica.id)

    def services(self) -> frozenset[Key]:
        """Services that exist."""
        return frozenset(self._living)

    def exists(self, key: Key) -> bool:
        """Whether control says that there is such a service."""
        return key in self._living

    def replicas(self, key: Key) -> int:
        """Replicas that have not ended."""
        return len(self._replicas_of.get(key, ()))

    async def on_service(self, fact: Fact) -> None:
        """A service came, changed or went."""
        if not await self._services.apply(fact):
            return
        key = (fact.workspace, fact.key)
        if fact.verb == "deleted":
            self._living.discard(key)
            self._replicas_of.pop(key, None)
        else:
            self._living.add(key)

    async def on_replica(self, fact: Fact) -> None:
        """A replica came, changed or ended."""
        if not await self._replicas.apply(fact):
            return
        state = facts.state_of(fact, ReplicaState)
        of = self._replicas_of.setdefault((fact.workspace, state.service), set())
        if states.is_final(states.REPLICA, state.state):
            of.discard(state.id)
        else:
            of.add(state.id)
