"""Splits: whatever replicas there are, shares are whole and nobody is sent to a side without one."""

from __future__ import annotations

from typing import Literal

from hypothesis import given
from hypothesis import strategies as st

from easel_contracts.facts import Endpoint, ReplicaState, Rollout, ServiceState
from easel_contracts.spec import (
    CANDIDATE,
    Comparison,
    Match,
    Mirroring,
    Resources,
    RevisionSpec,
    Split,
    Sticky,
    Traffic,
)
from easel_router.decide.snapshot import ServicePlan, Table, Token, TokenSet, plan, problems
from easel_router.xds import envoy_pb2 as pb
from easel_router.xds.clusters import cluster_arm, every_cluster, is_shadow
from easel_router.xds.messages import CLUSTER, ENDPOINTS, ROUTE
from easel_router.xds.render import render

Retry = Literal["safe", "pre_send", "off"]
RETRIES: tuple[Retry, ...] = ("safe", "pre_send", "off")
kinds = st.sampled_from(("header", "cookie", "query"))
splits = st.builds(
    Split,
    weight_permille=st.integers(0, 1000),
    match=st.none() | st.builds(Match, kind=kinds, name=st.just("n"), value=st.just("v")),
    sticky=st.none() | st.builds(Sticky, kind=kinds, name=st.just("n")),
)
mirrorings = st.none() | st.builds(
    Mirroring,
    targets=st.sampled_from(((CANDIDATE,), ("copy",))),
    percent=st.floats(0, 100),
    compare=st.none() | st.just(Comparison()),
)
targets = st.sampled_from((frozenset[str](), frozenset({"ocr"})))


@st.composite
def plans(draw: st.DrawFn) -> ServicePlan:
    def spec(number: int) -> RevisionSpec:
        retry = draw(st.sampled_from(RETRIES))
        return RevisionSpec(
            number=number, port=1, resources=Resources(cpu=1, memory_mib=1), traffic=Traffic(retry=retry)
        )

    rollout = Rollout(stable=spec(1), share_percent=50, split=draw(splits))
    state = ServiceState(
        uid="u", name="ocr", generation=1, wanted="running", instance=1, revision=spec(2), rollout=rollout,
        mirroring=draw(mirrorings),
    )  # fmt: skip
    replicas = tuple(
        ReplicaState(
            id=f"ocr-1-{n}", service="ocr", revision=draw(st.integers(1, 2)), generation=1, grpc=draw(st.booleans()),
            state=draw(st.sampled_from(("ready", "unready", "draining"))),
            endpoints=(Endpoint(network="host", ip="10.0.0.1", port=n + 1),),
        )
        for n in range(draw(st.integers(0, 5)))
    )  # fmt: skip
    table = Table(
        services={"ocr": state},
        targets=draw(targets),
        replicas={"ocr": replicas},
        tokens={"ocr": TokenSet(tokens=(Token(value="t"),), version=1)},
    )
    made = plan(table, "ocr")
    assert made is not None
    return made


def routes(made: ServicePlan) -> list[pb.Route]:
    scope = pb.ScopedRouteConfiguration.FromString(render(made, "s").by_type[ROUTE]["ocr"])
    return [r for r in scope.route_configuration.virtual_hosts[0].routes if r.name == "ocr"]


@given(plans())
def test_weights_are_whole_and_a_side_without_a_replica_has_none(made: ServicePlan) -> None:
    """Of every route; where nobody takes traffic all leads to where requests wait."""
    living = {u.arm for u in made.upstreams if not u.draining}
    for route in routes(made):
        shares = {c.name: c.weight.value for c in route.route.weighted_clusters.clusters}
        given_to = shares or {route.route.cluster: 1000}
        assert sum(given_to.values()) == 1000
        assert all(given_to.values())
        assert {cluster_arm(name) for name in given_to} <= (living or {"stable"})


@given(plans())
def test_every_cluster_that_is_led_to_is_there_and_is_counted(made: ServicePlan) -> None:
    """Routes, clusters, endpoints and the list by which requests are counted agree."""
    by_type = render(made, "s").by_type
    led_to = {c.name for r in routes(made) for c in r.route.weighted_clusters.clusters}
    led_to |= {r.route.cluster for r in routes(made) if r.route.cluster}
    own = {c.cluster for r in routes(made) for c in r.route.request_mirror_policies} - {"easel-shadow", "copy|shadow"}
    assert list(problems("ocr", made)) == []
    assert own <= set(by_type[CLUSTER])
    assert led_to <= set(by_type[CLUSTER])
    assert set(by_type[CLUSTER]) == set(by_type[ENDPOINTS])
    assert set(by_type[CLUSTER]) <= set(every_cluster("ocr"))


@given(plans())
def test_every_cluster_has_every_replica(made: ServicePlan) -> None:
    """Its own side's first: a retry finds them all."""
    wanted = sorted(u.port for u in made.upstreams)
    for name, body in render(made, "s").by_type[ENDPOINTS].items():
        if is_shadow(name):
            continue
        load = pb.ClusterLoadAssignment.FromString(body)
        ports = [e.endpoint.address.socket_address.port_value for of in load.endpoints for e in of.lb_endpoints]
        assert sorted(port for port in ports if port) == wanted
        assert load.endpoints[-1].lb_endpoints[0].health_status == pb.DEGRADED


@given(plans())
def test_copies_have_only_the_replicas_that_are_meant(made: ServicePlan) -> None:
    """And nobody waits for a copy: no hold listener, no other side."""
    for name, body in render(made, "s").by_type[ENDPOINTS].items():
        if (shadow := is_shadow(name)) is None:
            continue
        load = pb.ClusterLoadAssignment.FromString(body)
        ports = [e.endpoint.address.socket_address.port_value for of in load.endpoints for e in of.lb_endpoints]
        assert ports == [u.port for u in made.upstreams if shadow in ("all", u.arm)]
