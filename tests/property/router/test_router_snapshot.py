"""The snapshot builder: whatever the table, the snapshot is consistent, and work is per service."""

from __future__ import annotations

from typing import Literal

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from easel_contracts.facts import Endpoint, ReplicaState, ServiceState
from easel_contracts.spec import GatewayPolicy, Resources, RevisionSpec, Traffic
from easel_router.decide.snapshot import AT_ZERO, Table, Token, TokenSet, build, plan
from easel_router.xds.clusters import grpc_cluster
from easel_router.xds.messages import CLUSTER, ENDPOINTS, ROUTE
from easel_router.xds.render import render
from easel_router.xds.web import web_scope

NAMES = ("ocr", "ocr2", "filetype", "chat")
Wanted = Literal["running", "stopped", "deleted"]
WANTED: tuple[Wanted, ...] = ("running", "stopped", "deleted")
Out = Literal["", "isolated", "restarting"]
OUT: tuple[Out, ...] = ("", "isolated", "restarting")
STATES = ("pending", "placed", "starting", "ready", "unready", "draining")

traffics = st.builds(
    Traffic,
    keepalive_ms=st.integers(1, 10_000_000),
    retry=st.sampled_from(("safe", "pre_send", "off")),
    retry_body_mib=st.integers(0, 64),
    grpc=st.booleans(),
)
endpoints = st.builds(
    Endpoint,
    network=st.sampled_from(("host", "overlay")),
    ip=st.sampled_from(("10.0.0.1", "10.0.0.2", "")),
    port=st.integers(0, 8),
)


@st.composite
def services(draw: st.DrawFn, name: str) -> ServiceState:
    spec = RevisionSpec(number=1, port=1, resources=Resources(cpu=1, memory_mib=1), traffic=draw(traffics))
    wanted: Wanted = draw(st.sampled_from(WANTED))
    return ServiceState(
        uid=name,
        name=name,
        generation=draw(st.integers(1, 9)),
        wanted=wanted,
        instance=1,
        revision=spec,
        status=draw(st.sampled_from(("Running", "Waiting", "Failed"))),
        reason=draw(st.sampled_from(("Running", AT_ZERO))),
        gateway=GatewayPolicy(web=draw(st.booleans())),
    )


@st.composite
def replicas(draw: st.DrawFn, name: str) -> tuple[ReplicaState, ...]:
    return tuple(
        ReplicaState(
            id=f"{name}-1-{n}", service=name, revision=1, generation=1, state=draw(st.sampled_from(STATES)),
            endpoints=tuple(draw(st.lists(endpoints, max_size=2))), row_version=draw(st.integers(1, 5)),
            out_of_traffic=draw(st.sampled_from(OUT)), keep_alive_s=draw(st.sampled_from((None, 0.5, 2.0))),
            grpc=draw(st.booleans()),
        )
        for n in range(draw(st.integers(0, 4)))
    )  # fmt: skip


@st.composite
def token_sets(draw: st.DrawFn, name: str) -> TokenSet:
    more = tuple(
        Token(name=f"n{n}", value=f"t{name}{n}", expires_unix_s=draw(st.sampled_from((0, 2_000_000_000))),
              rate_limit_qps=draw(st.sampled_from((0, 5))))
        for n in range(draw(st.integers(0, 2)))
    )  # fmt: skip
    return TokenSet(tokens=(Token(value=f"t{name}"), *more), version=1)


@st.composite
def tables(draw: st.DrawFn) -> Table:
    names = draw(st.lists(st.sampled_from(NAMES), unique=True))
    return Table(
        services={name: draw(services(name)) for name in names},
        replicas={name: draw(replicas(name)) for name in names},
        tokens={name: draw(token_sets(name)) for name in names if draw(st.booleans())},
        networks=draw(st.sampled_from(((), ("host",), ("overlay", "host")))),
    )


@given(tables())
def test_always_consistent(table: Table) -> None:
    """Nothing that Envoy would refuse, no service without a token, no replica twice."""
    snapshot = build(table)

    assert snapshot.consistent() == ()
    for name, made in snapshot.plans.items():
        assert name in table.tokens
        assert table.services[name].wanted != "deleted"
        ready = {r.id for r in table.replicas[name] if r.state == "ready" and not r.out_of_traffic}
        assert set(made.serving) <= ready


@given(tables())
def test_requests_are_held_exactly_where_a_running_service_has_nobody(table: Table) -> None:
    """Held, or served, or told that the service is stopped: never two of them, never none."""
    for name, made in build(table).plans.items():
        running = table.services[name].wanted == "running"
        assert (made.hold is not None) == (running and not made.serving)
        holding = b"easel-check" in render(made, "s").by_type[ROUTE][name]
        assert holding == (made.hold is not None)


@given(tables())
def test_grpc_has_its_cluster_as_long_as_a_replica_may_have_a_call(table: Table) -> None:
    """The twin cluster is there for a service that takes gRPC, or has a replica that did; not for others."""
    for name, made in build(table).plans.items():
        takes = table.services[name].revision.traffic.grpc or any(r.grpc for r in table.replicas[name])
        resources = render(made, "s").by_type
        assert set(resources[CLUSTER]) == set(resources[ENDPOINTS])
        assert (grpc_cluster(name) in resources[CLUSTER]) == (takes and made.awake)
        assert (grpc_cluster(name).encode() in resources[ROUTE][name]) == takes


@given(tables())
def test_every_ready_replica_is_served_or_accounted_for(table: Table) -> None:
    """It takes traffic, or is named unreachable, or its address was taken over by a newer one."""
    for name, made in build(table).plans.items():
        known = {u.replica for u in made.upstreams} | set(made.unreachable)
        taken = {(u.ip, u.port) for u in made.upstreams}
        for replica in table.replicas[name]:
            if replica.state in ("ready", "draining") and replica.id not in known:
                assert any((e.ip, e.port) in taken for e in replica.endpoints)


@given(tables())
def test_same_input_same_bytes(table: Table) -> None:
    """Resources are a function of the plan, whatever the order of replicas."""
    shuffled = Table(
        services=table.services,
        replicas={name: tuple(reversed(of)) for name, of in table.replicas.items()},
        tokens=table.tokens,
        networks=table.networks,
    )
    for name, made in build(table).plans.items():
        again = plan(shuffled, name)
        assert again is not None
        assert render(made, "s") == render(again, "s")


@given(tables(), st.sampled_from(NAMES), st.data())
def test_a_change_touches_only_its_own_service(table: Table, name: str, data: st.DataObject) -> None:
    """Work is proportional to the change."""
    changed = Table(
        services={**table.services, name: data.draw(services(name))},
        replicas={**table.replicas, name: data.draw(replicas(name))},
        tokens=table.tokens,
        networks=table.networks,
    )
    before, after = build(table).plans, build(changed).plans
    for other in set(before) | set(after):
        if other != name:
            assert before.get(other) == after.get(other)


@given(tables())
def test_resources_agree_with_each_other(table: Table) -> None:
    """Clusters and endpoints only where replicas are or come, and each cluster has its endpoints."""
    for made in build(table).plans.values():
        resources = render(made, "s").by_type
        assert set(resources[ROUTE]) == {made.service} | ({web_scope(made.service)} if made.web else set())
        assert set(resources[CLUSTER]) == set(resources[ENDPOINTS])
        assert bool(resources[CLUSTER]) == made.awake
        assert made.awake or not made.upstreams


@given(tables())
def test_the_hash_tells_plans_apart(table: Table) -> None:
    """Another token or another set of replicas is another hash."""
    for made in build(table).plans.values():
        token = msgspec.structs.replace(made, tokens=(Token(value="other"),))
        assert render(token, "s").hash != render(made, "s").hash
        more = msgspec.structs.replace(made, tokens=(*made.tokens, Token(name="new", value="other")))
        assert render(more, "s").hash != render(made, "s").hash
        if made.upstreams:
            fewer = msgspec.structs.replace(made, upstreams=made.upstreams[1:])
            assert render(fewer, "s").hash != render(made, "s").hash
