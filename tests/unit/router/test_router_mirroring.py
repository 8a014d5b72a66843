"""Plans and resources of mirroring: who gets copies, over which clusters, and what a change of it touches."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from easel_contracts.facts import Rollout, ServiceState
from easel_contracts.ids import SERVICE_NAME
from easel_contracts.spec import CANDIDATE, Comparison, Mirroring, Resources, RevisionSpec
from easel_router.decide.mirrors import realised_mirroring, shadows
from easel_router.decide.snapshot import ServicePlan
from easel_router.model import Known
from easel_router.testing import a_plan
from easel_router.xds import envoy_pb2 as pb
from easel_router.xds.clusters import every_cluster
from easel_router.xds.messages import CLUSTER, ENDPOINTS, ROUTE
from easel_router.xds.render import render


def spec(number: int) -> RevisionSpec:
    return RevisionSpec(number=number, port=1, resources=Resources(cpu=1, memory_mib=1))


def service(name: str, *targets: str, percent: float = 10, rollout: bool = False, **more: Any) -> ServiceState:
    compare = more.pop("compare", None)
    return ServiceState(
        uid=name, name=name, generation=1, instance=1, revision=spec(2),
        mirroring=Mirroring(targets=targets, percent=percent, compare=compare) if targets else None,
        rollout=Rollout(stable=spec(1), share_percent=1) if rollout else None, **({"wanted": "running"} | more),
    )  # fmt: skip


def test_what_cannot_be_done_is_left_out() -> None:
    """Nothing at 0 %, no candidate without a rollout, never oneself."""
    both = ("copy", CANDIDATE)

    def targets(state: ServiceState) -> tuple[str, ...]:
        found = realised_mirroring(state)
        return found.targets if found else ()

    assert targets(service("ocr", *both, rollout=True)) == both
    assert targets(service("ocr", *both)) == ("copy",)
    assert targets(service("ocr", CANDIDATE)) == ()
    assert targets(service("ocr", "copy", percent=0)) == ()
    assert targets(service("ocr", "ocr")) == ()
    assert targets(service("ocr", "copy", wanted="deleted")) == ()


def test_which_clusters_for_copies_a_service_needs() -> None:
    """Of all replicas for others and as the base of a comparison; of one side for its own."""

    def needed(*targets: str, compare: Comparison | None = None, is_target: bool = False) -> tuple[str, ...]:
        mirroring = Mirroring(targets=targets, percent=1, compare=compare) if targets else None
        return shadows(mirroring, is_target=is_target)

    assert needed() == ()
    assert needed(is_target=True) == ("all",)
    assert needed("copy") == ()
    assert needed("copy", compare=Comparison()) == ("all",)
    assert needed(CANDIDATE) == ("candidate",)
    assert needed(CANDIDATE, compare=Comparison()) == ("candidate", "stable")
    assert needed(CANDIDATE, compare=Comparison(), is_target=True) == ("all", "candidate", "stable")


def test_a_change_of_mirroring_wakes_the_targets_that_it_concerns() -> None:
    """And no others; a deleted source is none any more."""
    known = Known("default", ())
    for name in ("a", "b", "c", "other"):
        known.take_service(service(name))

    assert known.take_service(service("ocr", "a", "b")) == {"a", "b"}
    assert known.take_service(service("ocr", "b", "c")) == {"a", "c"}
    assert known.take_service(service("ocr", "b", "c", percent=50)) == set()
    assert known.take_service(service("second", "c")) == {"c"}
    assert {name for name in ("a", "b", "c", "other") if known.table(name).targets} == {"b", "c"}
    assert known.take_service(service("ocr", "b", "c", wanted="deleted")) == {"b", "c"}
    assert {name for name in ("a", "b", "c", "other") if known.table(name).targets} == {"c"}


def clusters(made: ServicePlan) -> dict[str, pb.Cluster]:
    return {name: pb.Cluster.FromString(body) for name, body in render(made, "s").by_type[CLUSTER].items()}


def routes(made: ServicePlan) -> list[pb.Route]:
    scope = pb.ScopedRouteConfiguration.FromString(render(made, "s").by_type[ROUTE][made.service])
    return list(scope.route_configuration.virtual_hosts[0].routes)


def test_clusters_for_copies_are_small_and_have_no_fallback() -> None:
    """They count as the service's; what finds no replica there is dropped."""
    made = a_plan("ocr", 1, 2, candidates=(3,), draining=(2,), shadows=("all", "candidate", "stable"))
    found = clusters(made)
    names = {"ocr|shadow": [1, 2, 3], "ocr|candidate|shadow": [3], "ocr|stable|shadow": [1, 2]}

    assert set(found) == {"ocr", *names}
    assert set(found) <= set(every_cluster("ocr"))
    for name, ports in names.items():
        cluster = found[name]
        (limits,) = cluster.circuit_breakers.thresholds
        assert cluster.alt_stat_name == "ocr"
        assert not cluster.HasField("outlier_detection")
        assert (limits.max_connections.value, limits.max_pending_requests.value, limits.max_requests.value) == (
            32,
            32,
            128,
        )
        load = pb.ClusterLoadAssignment.FromString(render(made, "s").by_type[ENDPOINTS][name])
        assert [e.endpoint.address.socket_address.port_value for of in load.endpoints for e in of.lb_endpoints] == ports


def test_a_targets_replicas_are_its_own_matter() -> None:
    """Nothing of the source changes with them, nor with whether it exists."""
    before = a_plan("ocr", 1, mirroring=Mirroring(targets=("copy",), percent=10))

    assert list(clusters(before)) == ["ocr"]
    policies = [p for route in routes(before) for p in route.route.request_mirror_policies]
    assert {p.cluster for p in policies} == {"copy|shadow"}


@given(st.integers(1, 10_000))
def test_shares_are_exact_to_a_hundredth_of_a_percent(hundredths: int) -> None:
    """In millionths, as Envoy counts them."""
    made = a_plan("ocr", 1, mirroring=Mirroring(targets=("copy",), percent=hundredths / 100))
    found = {p.runtime_fraction.default_value.numerator for r in routes(made) for p in r.route.request_mirror_policies}

    assert found == {hundredths * 100}


def test_the_secret_goes_to_the_collector_alone() -> None:
    """In copies that are compared and in the match of its routes; never to a target."""
    plain = a_plan("ocr", 1, mirroring=Mirroring(targets=("copy",), percent=10))
    compared = a_plan("ocr", 1, mirroring=Mirroring(targets=("copy",), percent=10, compare=Comparison()))
    secret = "very-secret"

    def policies(made: ServicePlan) -> list[pb.RouteAction.RequestMirrorPolicy]:
        scope = pb.ScopedRouteConfiguration.FromString(render(made, secret).by_type[ROUTE]["ocr"])
        return [p for r in scope.route_configuration.virtual_hosts[0].routes for p in r.route.request_mirror_policies]

    assert all(secret.encode() not in p.SerializeToString() for p in policies(plain))
    assert {p.cluster for p in policies(compared) if secret.encode() in p.SerializeToString()} == {"easel-shadow"}
    assert all(any(m.remove == "authorization" for m in p.request_headers_mutations) for p in policies(compared))
    replays = [r for r in routes(compared) if r.name == "easel-replay"]
    assert {r.route.cluster for r in replays} == {"ocr|shadow", "copy|shadow"}
    assert not any(r.route.request_mirror_policies for r in replays)
    assert routes(compared)[: len(replays)] == replays


def test_the_routers_own_routes_are_counted_for_no_service() -> None:
    """What they refuse would be told as the refusals of a service with the route's name."""
    compared = a_plan("ocr", 1, mirroring=Mirroring(targets=("copy",), percent=1, compare=Comparison()))

    assert {r.name for r in routes(compared) if SERVICE_NAME.match(r.name)} == {"ocr"}
