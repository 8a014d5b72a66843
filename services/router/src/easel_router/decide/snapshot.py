"""What Envoy should do with every service: pure, from one frozen table.

Decides which replicas take traffic, which only finish what they have, and whether a request that comes while none takes
traffic is held or what it is told. Never reads a clock, a file or the network, and knows nothing of Envoy's messages
(`xds.render` does).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

from msgspec import Struct

from easel_contracts.facts import Endpoint, ReplicaState, ServiceState
from easel_contracts.spec import Mirroring, Split, Traffic
from easel_router.decide.arms import WHOLE, Arm, arm_of, is_present, realised
from easel_router.decide.limits import NONE, Limits, shares
from easel_router.decide.mirrors import Shadow, realised_mirroring, shadows

AT_ZERO = "ScaledToZero"
"""Control's reason for a running service without replicas that needs none."""


class Token(Struct, frozen=True, kw_only=True):
    """What opens a service or a group to its callers."""

    value: str
    name: str = "default"
    expires_unix_s: int = 0
    """0: never."""
    rate_limit_qps: int = 0
    """Requests per second with this token; 0: no limit of its own."""

    def __repr__(self) -> str:
        """Without the secret."""
        return f"Token(name={self.name!r}, expires_unix_s={self.expires_unix_s}, rate_limit_qps={self.rate_limit_qps})"


class TokenSet(Struct, frozen=True, kw_only=True):
    """All tokens of a service or a group; `version` changes with any of them."""

    tokens: tuple[Token, ...]
    """The first is the one named `default`."""
    version: int


class Upstream(Struct, frozen=True, kw_only=True, order=True):
    """A replica as Envoy reaches it."""

    replica: str
    ip: str
    port: int
    draining: bool = False
    arm: Arm = "stable"


class Hold(Struct, frozen=True, kw_only=True):
    """Requests wait for a replica, within limits."""

    max_requests: int
    """More than so many at a time are refused."""
    hopeless: str = ""
    """Why waiting makes no sense (a sentence); empty: it does."""
    wakes_only: bool = False
    """Requests are refused, but wake the service (autoscaler.behavior.onZero.interceptTraffic: false)."""


class ServicePlan(Struct, frozen=True, kw_only=True):
    """What Envoy does with one service's path."""

    workspace: str
    service: str
    uid: str
    """Of the service: a later one with the same name is another."""
    generation: int
    tokens: tuple[Token, ...]
    """Each opens the service; the first is the one named `default`."""
    token_version: int
    traffic: Traffic
    upstreams: tuple[Upstream, ...]
    """Sorted by replica."""
    without_replica: str
    """The sentence of the 503 while no replica can answer."""
    unreachable: tuple[str, ...] = ()
    """Replicas left out because Envoy shares no network with them."""
    revision: int = 0
    hold: Hold | None = None
    """Set while no replica takes traffic and the service should run."""
    awake: bool = True
    """Replicas are there or on their way: Envoy keeps the cluster, so that a request being retried finds the next."""
    keep_alive_s: float | None = None
    """The shortest keep-alive of a replica's server, where one is too short for Envoy's own limit."""
    web: bool = False
    """A web application: reached by its host name too, and with a browser's session."""
    grpc: bool = False
    """The service, or a replica that it still has, takes gRPC calls."""
    shadows: tuple[Shadow, ...] = ()
    """Which of its replicas get copies of requests, its own or others'."""
    mirroring: Mirroring | None = None
    """Of its requests, as far as it can be done now."""
    limits: Limits = NONE
    """What each Envoy lets through."""
    split: Split | None = None
    """Between its revisions, as far as it can be had now: an arm without a replica in traffic has no weight."""

    @property
    def serving(self) -> tuple[str, ...]:
        """Replicas that take new requests."""
        return tuple(u.replica for u in self.upstreams if not u.draining)

    @property
    def draining(self) -> tuple[str, ...]:
        """Replicas that only finish."""
        return tuple(u.replica for u in self.upstreams if u.draining)


class Table(Struct, frozen=True, kw_only=True):
    """Everything the snapshot depends on."""

    services: Mapping[str, ServiceState]
    replicas: Mapping[str, tuple[ReplicaState, ...]]
    """By service."""
    tokens: Mapping[str, TokenSet]
    envoys: int = 1
    """That take requests; limits are divided by it."""
    networks: tuple[str, ...] = ()
    """Networks that Envoy is in, best first; empty: any address will do."""
    workspace: str = "default"
    targets: frozenset[str] = frozenset()
    """Services that get copies of another's requests."""


class Snapshot(Struct, frozen=True, kw_only=True):
    """All plans at once."""

    plans: Mapping[str, ServicePlan]

    def consistent(self) -> tuple[str, ...]:
        """What is wrong with it; empty when nothing is."""
        return tuple(problem for name, plan in self.plans.items() for problem in problems(name, plan))


def plan(table: Table, service: str) -> ServicePlan | None:
    """The plan of one service; None: it has no route (deleted, unknown, or its tokens are not known yet)."""
    state, known = table.services.get(service), table.tokens.get(service)
    if state is None or state.wanted == "deleted" or known is None:
        return None
    replicas = table.replicas.get(service, ())
    chosen, unreachable = _upstreams(state, replicas, table.networks)
    running = state.wanted == "running"
    mirroring = realised_mirroring(state)
    without = _why_none(state, chosen, unreachable)
    return ServicePlan(
        workspace=table.workspace,
        service=service,
        uid=state.uid,
        generation=state.generation,
        tokens=known.tokens,
        token_version=known.version,
        traffic=state.revision.traffic,
        upstreams=chosen,
        without_replica=without,
        unreachable=unreachable,
        revision=state.revision.number,
        hold=_hold(state, without if unreachable else "") if running and all(u.draining for u in chosen) else None,
        awake=bool(chosen) or (running and state.reason != AT_ZERO),
        keep_alive_s=min((r.keep_alive_s for r in replicas if r.keep_alive_s is not None), default=None),
        web=state.gateway.web,
        grpc=state.revision.traffic.grpc or any(r.grpc for r in replicas),
        shadows=shadows(mirroring, is_target=service in table.targets),
        mirroring=mirroring,
        limits=shares(
            state.gateway,
            replicas=sum(not u.draining for u in chosen),
            envoys=table.envoys,
            tokens=known.tokens,
        ),
        split=realised(state.rollout.split, {u.arm for u in chosen if not u.draining}) if state.rollout else None,
    )


def build(table: Table) -> Snapshot:
    """The plan of every service that has a route."""
    plans = {name: made for name in sorted(table.services) if (made := plan(table, name)) is not None}
    return Snapshot(plans=plans)


def problems(name: str, plan: ServicePlan) -> Iterable[str]:
    """Self-check of one plan: what would make Envoy refuse it, or let strangers in."""
    if name != plan.service:
        yield f"{name}: holds the plan of {plan.service}"
    yield from token_problems(name, plan.tokens)
    if plan.traffic.keepalive_ms <= 0:
        yield f"{name}: keepalive_ms is {plan.traffic.keepalive_ms}, allowed is 1 or more"
    replicas = [u.replica for u in plan.upstreams]
    if replicas != sorted(set(replicas)):
        yield f"{name}: replicas are not sorted and unique"
    addresses = [(u.ip, u.port) for u in plan.upstreams]
    if len(addresses) != len(set(addresses)):
        yield f"{name}: two replicas have one address"
    if plan.split is not None and not 0 <= plan.split.weight_permille <= WHOLE:
        yield f"{name}: split.weight_permille is {plan.split.weight_permille}, allowed is 0 to {WHOLE}"
    for upstream in plan.upstreams:
        if not upstream.ip or not 0 < upstream.port < 65536:
            yield f"{name}: {upstream.replica} has no address ({upstream.ip!r}:{upstream.port})"


def token_problems(name: str, tokens: tuple[Token, ...]) -> Iterable[str]:
    """What is wrong with the tokens of a service or a group. Control admits none of these."""
    if not tokens:
        yield f"{name}: without a token nobody could call it"
    for token in tokens:
        if not token.value:
            yield f"{name}: the token {token.name} is empty and would let everyone in"
        if not _VISIBLE.fullmatch(token.value + token.name):
            yield f"{name}: the token {token.name} has other than visible ASCII characters"


_VISIBLE = re.compile(r"[\x21-\x7e]*")


def takes_traffic(replica: ReplicaState) -> bool:
    """Whether new requests may go there."""
    return replica.state == "ready" and not replica.out_of_traffic


def finishes(replica: ReplicaState) -> bool:
    """Whether it only finishes what it has: told to end, or taken out of traffic."""
    return replica.state == "draining" or (replica.state in ("ready", "unready") and bool(replica.out_of_traffic))


def _hold(state: ServiceState, unreachable: str) -> Hold:
    """Failed is control's verdict that its replicas cannot run: nobody should wait for that."""
    intercept = state.autoscaling is None or state.autoscaling.intercept_traffic
    failed = (state.message or state.reason) if state.status == "Failed" else ""
    return Hold(
        max_requests=state.revision.traffic.hold_max_requests, hopeless=failed or unreachable, wakes_only=not intercept
    )


def _upstreams(
    state: ServiceState, replicas: Collection[ReplicaState], networks: tuple[str, ...]
) -> tuple[tuple[Upstream, ...], tuple[str, ...]]:
    chosen: dict[tuple[str, int], Upstream] = {}
    unreachable = []
    withdrawn = _withdrawn(state, replicas, networks)
    for replica in sorted(replicas, key=lambda r: (r.row_version, r.id)):
        if not (takes_traffic(replica) or finishes(replica)):
            continue
        endpoint = _reachable(replica.endpoints, networks)
        if endpoint is None:
            unreachable.append(replica.id)
            continue
        made = Upstream(
            replica=replica.id, ip=endpoint.ip, port=endpoint.port, arm=arm_of(state, replica),
            draining=finishes(replica) or replica.id in withdrawn,
        )  # fmt: skip
        before = chosen.get((made.ip, made.port))
        if before is None or before.draining or not made.draining:
            chosen[made.ip, made.port] = made  # a reused port belongs to whoever got it last
    return tuple(sorted(chosen.values())), tuple(sorted(unreachable))


def _withdrawn(state: ServiceState, replicas: Collection[ReplicaState], networks: tuple[str, ...]) -> frozenset[str]:
    """Replicas that a canary, now taken back, had brought: they are out of traffic before the scheduler drains them."""
    if not state.withdrew or state.rollout is not None:
        return frozenset()
    present = [r for r in replicas if takes_traffic(r) and is_present(state, r)]
    if not any(_reachable(r.endpoints, networks) for r in present):
        return frozenset()
    return frozenset(r.id for r in replicas if not is_present(state, r))


def _reachable(endpoints: tuple[Endpoint, ...], networks: tuple[str, ...]) -> Endpoint | None:
    usable = [e for e in endpoints if e.ip and 0 < e.port < 65536]
    if not networks:
        return usable[0] if usable else None
    return next((e for network in networks for e in usable if e.network == network), None)


def _why_none(state: ServiceState, upstreams: tuple[Upstream, ...], unreachable: tuple[str, ...]) -> str:
    if state.wanted == "stopped":
        return f"service {state.name} is stopped; `easel start {state.name}` starts it"
    if unreachable and not upstreams:
        return f"service {state.name} has replicas, but the gateway shares no network with them"
    return f"service {state.name} has no replica that can answer now"
