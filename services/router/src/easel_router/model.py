"""What the router knows now, in memory: services, replicas, tokens. Filled from its projections, changed by facts."""

from __future__ import annotations

from easel_contracts import states
from easel_contracts.facts import ReplicaState, ServiceState
from easel_router.decide.mirrors import other_targets
from easel_router.decide.snapshot import ServicePlan, Table, TokenSet, finishes, plan


class Known:
    """The table from which plans are made; one service's plan costs what that service has."""

    def __init__(self, workspace: str, networks: tuple[str, ...]) -> None:
        self.services: dict[str, ServiceState] = {}
        self.tokens: dict[str, TokenSet] = {}
        self._replicas: dict[str, dict[str, ReplicaState]] = {}
        self._mirrors: dict[str, set[str]] = {}
        """Service → those whose requests it gets copies of."""
        self._workspace, self._networks = workspace, networks

    def take_service(self, state: ServiceState) -> frozenset[str]:
        """A service's newest state; the tokens of an earlier one with its name are not its own.

        Returns the other services that begin or cease to be targets of its mirroring: their plans may change."""
        before = self.services.get(state.name)
        if before is not None and before.uid != state.uid:
            self.tokens.pop(state.name, None)
        self.services[state.name] = state
        old, new = other_targets(before) if before else frozenset(), other_targets(state)
        for target in new - old:
            self._mirrors.setdefault(target, set()).add(state.name)
        for target in old - new:
            self._mirrors[target].discard(state.name)
            if not self._mirrors[target]:
                del self._mirrors[target]
        return old ^ new

    def take_replica(self, state: ReplicaState) -> None:
        """A replica's newest state; one that has ended is forgotten."""
        of_service = self._replicas.setdefault(state.service, {})
        before = of_service.get(state.id)
        if before is not None and before.row_version > state.row_version:
            return
        if states.is_final(states.REPLICA, state.state):
            of_service.pop(state.id, None)
        else:
            of_service[state.id] = state

    def replica(self, replica: str) -> ReplicaState | None:
        """A living replica by its id."""
        service = replica.rsplit("-", 2)[0]
        return self._replicas.get(service, {}).get(replica)

    def replicas(self, service: str) -> tuple[ReplicaState, ...]:
        """A service's living replicas."""
        return tuple(self._replicas.get(service, {}).values())

    def finishing(self) -> list[str]:
        """Ids of all replicas that only finish what they have."""
        return [r.id for of in self._replicas.values() for r in of.values() if finishes(r)]

    def forget(self, service: str) -> None:
        """The service is gone for good, unless one of its name was made meanwhile."""
        if (state := self.services.get(service)) is not None and state.wanted != "deleted":
            return
        self.services.pop(service, None)
        self.tokens.pop(service, None)
        self._replicas.pop(service, None)

    def table(self, service: str) -> Table:
        """What one service's plan depends on."""
        return Table(
            services={service: self.services[service]} if service in self.services else {},
            replicas={service: self.replicas(service)},
            tokens={service: self.tokens[service]} if service in self.tokens else {},
            networks=self._networks,
            workspace=self._workspace,
            targets=frozenset({service} & self._mirrors.keys()),
        )

    def plan(self, service: str) -> ServicePlan | None:
        """What Envoy should do with a service now; None: nothing, it has no route."""
        return plan(self.table(service), service)
