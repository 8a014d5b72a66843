"""What the router knows now, in memory: services, replicas, groups, tokens. Filled and changed by facts."""

from __future__ import annotations

from collections.abc import Mapping

from easel_contracts import states
from easel_contracts.facts import GroupState, ReplicaState, ServiceState
from easel_router.decide import groups
from easel_router.decide.groups import GroupPlan
from easel_router.decide.limits import is_limited
from easel_router.decide.mirrors import other_targets
from easel_router.decide.snapshot import ServicePlan, Table, TokenSet, finishes, plan


class Known:
    """The table from which plans are made; one service's plan costs what that service has."""

    def __init__(self, workspace: str, networks: tuple[str, ...]) -> None:
        self.services: dict[str, ServiceState] = {}
        self.tokens: dict[str, TokenSet] = {}
        self.groups: dict[str, GroupState] = {}
        self.group_tokens: dict[str, TokenSet] = {}
        self._groups_of: dict[str, set[str]] = {}
        """Service → groups that it is a member of."""
        self._replicas: dict[str, dict[str, ReplicaState]] = {}
        self._mirrors: dict[str, set[str]] = {}
        """Service → those whose requests it gets copies of."""
        self._envoys = 1
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

    def take_envoys(self, count: int) -> tuple[list[str], list[str]]:
        """How many Envoys take requests now (0 counts as 1); the services and the groups whose plans that changes."""
        before, self._envoys = self._envoys, max(1, count)
        if before == self._envoys:
            return [], []
        return _limited(self.services, self.tokens), _limited(self.groups, self.group_tokens)

    def take_group(self, state: GroupState) -> None:
        """A group's newest state; the tokens of an earlier one with its name are not its own."""
        before = self.groups.get(state.name)
        if before is not None and before.uid != state.uid:
            self.group_tokens.pop(state.name, None)
        self._leave(before)
        self.groups[state.name] = state
        for member in state.members:
            self._groups_of.setdefault(member.service, set()).add(state.name)

    def forget_group(self, name: str) -> None:
        """The group is gone."""
        self._leave(self.groups.pop(name, None))
        self.group_tokens.pop(name, None)

    def groups_of(self, service: str) -> tuple[str, ...]:
        """Groups whose routes depend on a service: it is their member, or has their name."""
        found = self._groups_of.get(service, set())
        return tuple(sorted(found | ({service} if service in self.groups else set())))

    def _leave(self, state: GroupState | None) -> None:
        if state is None:
            return
        for member in state.members:
            names = self._groups_of[member.service]
            names.discard(state.name)
            if not names:
                del self._groups_of[member.service]

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
            envoys=self._envoys,
            networks=self._networks,
            workspace=self._workspace,
            targets=frozenset({service} & self._mirrors.keys()),
        )

    def plan(self, service: str) -> ServicePlan | None:
        """What Envoy should do with a service now; None: nothing, it has no route."""
        return plan(self.table(service), service)

    def group_plan(self, name: str) -> GroupPlan | None:
        """What Envoy should do with a group now; None: nothing. Costs what its members have."""
        state, tokens = self.groups.get(name), self.group_tokens.get(name)
        if state is None or tokens is None:
            return None
        members = {m.service: made for m in state.members if (made := self.plan(m.service)) is not None}
        return groups.plan(state, tokens, members, self._workspace, self._envoys)


def _limited(states: Mapping[str, ServiceState | GroupState], tokens: Mapping[str, TokenSet]) -> list[str]:
    """Names of those whose plan depends on how many Envoys there are."""
    return [
        name
        for name, state in states.items()
        if is_limited(state.gateway, tokens[name].tokens if name in tokens else ())
    ]
