"""What each Envoy lets through of a limit, and that services without one cost what they did."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from easel_contracts.facts import GroupState, ServiceState
from easel_contracts.spec import GatewayPolicy, RevisionSpec
from easel_contracts.spec import Resources as Request
from easel_router.decide.limits import NONE, Rate, shares
from easel_router.model import Known
from easel_router.testing import a_plan
from easel_router.xds import envoy_pb2 as pb
from easel_router.xds.limiting import GROUP_LIMITS_FILTER, LIMITS_FILTER
from easel_router.xds.messages import CLUSTER, ROUTE
from easel_router.xds.render import render
from easel_router.xds.scopes import Resources

DISABLED = pb.FilterConfig(disabled=True).SerializeToString()


def host(resources: Resources, service: str = "ocr") -> pb.VirtualHost:
    scope = pb.ScopedRouteConfiguration.FromString(resources.by_type[ROUTE][service])
    return scope.route_configuration.virtual_hosts[0]


def test_the_smaller_rate_counts() -> None:
    """Of the whole, or per replica in traffic; the text says which."""
    policy = GatewayPolicy(rate_limit_qps=100, replica_rate_limit_qps=30)
    few, many = shares(policy, replicas=2, envoys=1).rate, shares(policy, replicas=4, envoys=1).rate

    assert few == Rate(tokens=60, every_s=1, burst=60, why="30 requests a second and replica, 2 in traffic")
    assert many == Rate(tokens=100, every_s=1, burst=100, why="100 requests a second")


def test_without_a_replica_requests_are_held_at_the_rate_of_one() -> None:
    """And the queue of replicas that are not there limits nothing: holding has its own limit."""
    found = shares(GatewayPolicy(replica_rate_limit_qps=3, worker_threads=1), replicas=0, envoys=1)

    assert found.rate is not None
    assert (found.rate.tokens, found.queue) == (3, None)


def test_the_queue_is_what_replicas_work_on_and_what_waits() -> None:
    policy = GatewayPolicy(worker_threads=2, max_queue_size=3)
    found = shares(policy, replicas=4, envoys=1)

    assert found.queue is not None
    assert (found.workers, found.queue.requests) == (2, 4 * (2 + 3))
    assert "approximate" not in found.queue.why
    assert "approximate" in str(shares(policy, replicas=4, envoys=2).queue)


COUNT = st.integers(0, 1000)


@given(COUNT, COUNT, COUNT, st.integers(1, 50), COUNT, st.integers(0, 20), st.integers(1, 9))
def test_shares_add_up(
    rate: int, concurrency: int, per_replica: int, workers: int, queue: int, replicas: int, envoys: int
) -> None:
    """Never above the limit where each Envoy can have a whole part of it; never nothing."""
    policy = GatewayPolicy(
        rate_limit_qps=rate, concurrency_limit=concurrency, replica_rate_limit_qps=per_replica,
        worker_threads=workers, max_queue_size=queue,
    )  # fmt: skip
    each = shares(policy, replicas=replicas, envoys=envoys)

    if each.concurrency is not None:
        assert envoys <= each.concurrency.requests * envoys <= max(concurrency, envoys)
    if each.queue is not None:
        assert replicas <= each.queue.requests * envoys <= max(workers, envoys) * replicas + queue * replicas
    if each.rate is not None:
        allowed = [n for n in (rate, per_replica * max(1, replicas)) if n]
        assert (each.rate.tokens, each.rate.every_s) == (min(allowed), envoys)
        assert each.rate.burst >= 1
    assert 1 <= each.workers <= max(1, workers // envoys)


def test_scopes_without_limits_leave_the_filters_out() -> None:
    """On the virtual host, for all its routes; the cluster has no limit, however many replicas and Envoys there are."""
    made = render(a_plan("ocr", 1, 2), "s")
    found = host(made)
    (cluster,) = (pb.Cluster.FromString(body) for body in made.by_type[CLUSTER].values())

    for place in (LIMITS_FILTER, GROUP_LIMITS_FILTER):
        assert found.typed_per_filter_config[place].value == DISABLED
        assert not [route for route in found.routes if place in route.typed_per_filter_config]
    assert not cluster.circuit_breakers.per_host_thresholds
    assert cluster.circuit_breakers.thresholds[0].max_requests.value == 100_000
    assert a_plan("ocr", 1, 2, envoys=3).limits == NONE


def test_replicas_that_come_and_go_leave_what_counts_as_it_is() -> None:
    """The scope with its buckets and counters, and the clusters with their connections, are the very same bytes."""
    policy = GatewayPolicy(rate_limit_qps=10, concurrency_limit=5)
    before, after = (render(a_plan("ocr", *ports, gateway=policy), "s") for ports in ((1, 2), (2, 3, 4)))

    assert before.by_type[ROUTE] == after.by_type[ROUTE]
    assert before.by_type[CLUSTER] == after.by_type[CLUSTER]
    assert before.route_hash == after.route_hash
    assert before.hash != after.hash


def test_a_queue_follows_the_replicas_and_leaves_the_connections() -> None:
    policy = GatewayPolicy(worker_threads=2)
    before, after = (render(a_plan("ocr", *ports, gateway=policy), "s") for ports in ((1, 2), (2, 3, 4)))

    assert before.by_type[ROUTE] != after.by_type[ROUTE]
    assert before.by_type[CLUSTER] == after.by_type[CLUSTER]


def test_another_number_of_envoys_concerns_limited_services_alone() -> None:
    known = Known("default", ())
    for name, policy in (("free", GatewayPolicy()), ("ocr", GatewayPolicy(rate_limit_qps=1))):
        known.take_service(_service(name, policy))

    for name, policy in (("loose", GatewayPolicy()), ("both", GatewayPolicy(concurrency_limit=1))):
        known.take_group(GroupState(uid=name, name=name, generation=1, gateway=policy))

    assert known.take_envoys(2) == (["ocr"], ["both"])
    assert known.take_envoys(2) == ([], [])
    known.take_service(_service("ocr", GatewayPolicy()))
    assert known.take_envoys(0) == ([], ["both"])


def _service(name: str, policy: GatewayPolicy) -> ServiceState:
    spec = RevisionSpec(number=1, port=1, resources=Request(cpu=1, memory_mib=1))
    return ServiceState(uid=name, name=name, generation=1, wanted="running", instance=1, revision=spec, gateway=policy)
