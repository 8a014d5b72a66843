"""Plans and resources of a split: which arm a replica is on, what is realised, clusters, priorities, routes."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from easel_contracts.facts import Endpoint, ReplicaState, Rollout, ServiceState
from easel_contracts.spec import Match, Resources, RevisionSpec, Split
from easel_router.decide.snapshot import Hold, ServicePlan, Table, Token, TokenSet, plan, problems
from easel_router.testing import a_plan
from easel_router.xds import envoy_pb2 as pb
from easel_router.xds.clusters import every_cluster
from easel_router.xds.messages import CLUSTER, ENDPOINTS, ROUTE
from easel_router.xds.render import render

MATCH = Match(kind="header", name="to", value="candidate")


def spec(number: int, nonce: int = 0) -> RevisionSpec:
    return RevisionSpec(number=number, port=1, resources=Resources(cpu=1, memory_mib=1), restart_nonce=nonce)


def service(rollout: Rollout | None, number: int = 2, nonce: int = 0) -> ServiceState:
    return ServiceState(
        uid="u", name="ocr", generation=1, wanted="running", instance=1, revision=spec(number, nonce), rollout=rollout
    )


def replica(port: int, revision: int, state: str = "ready", nonce: int = 0) -> ReplicaState:
    return ReplicaState(
        id=f"ocr-{revision}-{port}", service="ocr", revision=revision, generation=1, state=state, restart_nonce=nonce,
        endpoints=(Endpoint(network="host", ip="127.0.0.1", port=port),),
    )  # fmt: skip


def planned(state: ServiceState, *replicas: ReplicaState) -> ServicePlan:
    table = Table(
        services={"ocr": state},
        replicas={"ocr": replicas},
        tokens={"ocr": TokenSet(tokens=(Token(value="t"),), version=1)},
    )
    made = plan(table, "ocr")
    assert made is not None
    return made


def rollout(split: Split | None, nonce: int = 0, number: int = 1) -> Rollout:
    return Rollout(stable=spec(number, nonce), share_percent=50, split=split)


def test_a_replica_is_on_the_side_of_its_revision() -> None:
    """A restart is a rollout from a revision to itself: the nonce tells them apart."""
    new = planned(service(rollout(None)), replica(1, 1), replica(2, 2))
    again = planned(service(rollout(None), number=1, nonce=1), replica(1, 1), replica(2, 1, nonce=1))
    over = planned(service(None), replica(1, 1), replica(2, 2))

    assert [u.arm for u in new.upstreams] == ["stable", "candidate"]
    assert [u.arm for u in again.upstreams] == ["stable", "candidate"]
    assert [u.arm for u in over.upstreams] == ["stable", "stable"]


def test_what_a_canary_withdrew_gets_nothing_while_stable_serves() -> None:
    """The split has ended and the replica is not drained yet; it must not come back into traffic by that."""
    back = msgspec.structs.replace(service(None, number=1), withdrew=True)
    two = planned(back, replica(1, 1), replica(2, 2))
    alone = planned(back, replica(1, 1, "starting"), replica(2, 2))
    again = planned(msgspec.structs.replace(back, rollout=rollout(None)), replica(1, 1), replica(2, 2))

    assert (two.serving, two.draining) == (("ocr-1-1",), ("ocr-2-2",))
    assert (alone.serving, alone.draining) == (("ocr-2-2",), ()), "nobody else is there"
    assert len(again.serving) == 2
    assert len(planned(service(None), replica(1, 1), replica(2, 2)).serving) == 2, "a plain rollout ends by drains"


@pytest.mark.parametrize(
    ("replicas", "permille", "named"),
    [
        ((replica(1, 1), replica(2, 2)), 300, True),
        ((replica(1, 1), replica(2, 2, "draining")), 0, False),
        ((replica(1, 1),), 0, False),
        ((replica(1, 1, "draining"), replica(2, 2)), 1000, False),
        ((replica(2, 2),), 1000, False),
        ((), 0, False),
    ],
)
def test_a_side_without_a_replica_in_traffic_gets_nothing(
    replicas: tuple[ReplicaState, ...], permille: int, named: bool
) -> None:
    """Nor does what `match` names go there."""
    made = planned(service(rollout(Split(weight_permille=300, match=MATCH))), *replicas)

    assert made.split is not None
    assert (made.split.weight_permille, made.split.match is not None) == (permille, named)


def test_no_rollout_or_no_split_is_no_split() -> None:
    """Then replicas of both revisions share as ever."""
    assert planned(service(None), replica(1, 1)).split is None
    assert planned(service(rollout(None)), replica(1, 1), replica(2, 2)).split is None


def resources(made: ServicePlan) -> tuple[dict[str, pb.Cluster], dict[str, pb.ClusterLoadAssignment], list[pb.Route]]:
    by_type = render(made, "secret").by_type
    scope = pb.ScopedRouteConfiguration.FromString(by_type[ROUTE][made.service])
    return (
        {name: pb.Cluster.FromString(body) for name, body in by_type[CLUSTER].items()},
        {name: pb.ClusterLoadAssignment.FromString(body) for name, body in by_type[ENDPOINTS].items()},
        [r for r in scope.route_configuration.virtual_hosts[0].routes if r.name == made.service],
    )


def ranks(load: pb.ClusterLoadAssignment) -> list[list[int | str]]:
    """Ports by priority; `hold` for the hold listener."""
    return [
        [
            e.endpoint.address.socket_address.port_value
            or e.endpoint.address.envoy_internal_address.server_listener_name
            for e in locality.lb_endpoints
        ]
        for locality in load.endpoints
    ]


def test_each_side_has_its_cluster_then_the_other_then_the_hold_listener() -> None:
    """And says whose it is; metrics count all as the service."""
    clusters, loads, _ = resources(a_plan("ocr", 1, candidates=(2,), split=Split(weight_permille=100), grpc=True))

    assert set(clusters) == set(loads) == {name for name in every_cluster("ocr") if not name.endswith("shadow")}
    assert {c.alt_stat_name for c in clusters.values()} == {"ocr"}
    for name in clusters:
        arm = "candidate" if "candidate" in name else "stable"
        assert clusters[name].metadata.filter_metadata["easel"]["arm"] == arm
        assert ranks(loads[name]) == ([[2], [1], ["hold"]] if arm == "candidate" else [[1], [2], ["hold"]])
        assert [locality.priority for locality in loads[name].endpoints] == [0, 1, 2]


def test_without_a_split_there_is_one_cluster_with_all() -> None:
    """The same cluster, byte for byte, so that nothing is taken anew when a split begins or ends."""
    split = a_plan("ocr", 1, candidates=(2,), split=Split(weight_permille=100))
    whole = msgspec.structs.replace(split, split=None)
    _, loads, _ = resources(whole)

    assert ranks(loads["ocr"]) == [[1, 2], ["hold"]]
    assert list(loads) == ["ocr"]
    assert render(whole, "s").by_type[CLUSTER]["ocr"] == render(split, "s").by_type[CLUSTER]["ocr"]


def targets(route: pb.Route) -> dict[str, int]:
    action = route.route
    return (
        {action.cluster: 1000}
        if action.cluster
        else {c.name: c.weight.value for c in action.weighted_clusters.clusters}
    )


def test_who_is_named_comes_before_the_shares() -> None:
    """In each pair of routes; and only the scope differs between two weights."""
    one = a_plan("ocr", 1, candidates=(2,), split=Split(weight_permille=1, match=MATCH))
    other = a_plan("ocr", 1, candidates=(2,), split=Split(weight_permille=999, match=MATCH))
    _, _, routes = resources(one)
    named = [any(h.name == "to" for h in r.match.headers) for r in routes]

    assert named == [True, False] * (len(routes) // 2)
    assert all(targets(r) == {"ocr|candidate": 1000} for r, is_named in zip(routes, named, strict=True) if is_named)
    shared = [targets(r) for r, is_named in zip(routes, named, strict=True) if not is_named]
    assert all(of == {"ocr|candidate": 1, "ocr": 999} for of in shared)
    first, second = render(one, "s").by_type, render(other, "s").by_type
    assert (first[CLUSTER], first[ENDPOINTS]) == (second[CLUSTER], second[ENDPOINTS])
    assert first[ROUTE] != second[ROUTE]


def test_held_requests_have_one_way() -> None:
    """Its cluster is chosen before they wait, so it is the one that finds whoever comes."""
    made = a_plan("ocr", hold=Hold(max_requests=1), split=Split(weight_permille=0, match=MATCH))
    _, _, routes = resources(made)

    assert all(targets(r) == {"ocr": 1000} for r in routes)


@pytest.mark.parametrize("permille", [-1, 1001])
def test_an_impossible_weight_is_a_problem(permille: int) -> None:
    """It names the field and what is allowed."""
    made: Any = a_plan("ocr", 1, candidates=(2,), split=Split(weight_permille=permille))

    assert [p for p in problems("ocr", made) if "split.weight_permille" in p and "0 to 1000" in p]
