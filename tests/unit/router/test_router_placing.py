"""What the catalog holds of a service while plans follow each other."""

from __future__ import annotations

import pytest

from easel_contracts.spec import Split
from easel_router.decide.snapshot import ServicePlan
from easel_router.placing import Placing
from easel_router.testing import a_plan
from easel_router.xds import envoy_pb2 as pb
from easel_router.xds.catalog import Catalog
from easel_router.xds.messages import CLUSTER, ENDPOINTS, ROUTE
from easel_router.xds.render import render

WHOLE = a_plan("ocr", 1, 2)
SPLIT = a_plan("ocr", 1, candidates=(2,), split=Split(weight_permille=100))
BOTH = frozenset({"ocr", "ocr|candidate"})


@pytest.fixture
def catalog() -> Catalog:
    return Catalog()


@pytest.fixture
def placing(catalog: Catalog) -> Placing:
    return Placing(catalog)


def live(placing: Placing, plan: ServicePlan) -> bool:
    """Puts a plan as if every Envoy took it; whether something is left."""
    placing.everything(plan, render(plan, "s"))
    return placing.only(plan, render(plan, "s"))


def ports(catalog: Catalog, name: str) -> list[int]:
    packed = catalog.get(ENDPOINTS, name)
    assert packed is not None
    found = pb.ClusterLoadAssignment.FromString(packed.body).endpoints
    return [e.endpoint.address.socket_address.port_value for of in found for e in of.lb_endpoints][:-1]


def test_a_cluster_outlives_the_plan_that_named_it(catalog: Catalog, placing: Placing) -> None:
    """With the replicas of now, and until it is told to go; nobody waits for it."""
    assert not live(placing, SPLIT)
    assert live(placing, WHOLE)
    assert placing.left("ocr") == ("ocr|candidate",)
    wanted = placing.clusters(a_plan("ocr", 7), render(a_plan("ocr", 7), "s"))
    assert ports(catalog, "ocr|candidate") == [7]
    assert set(wanted[CLUSTER]) == set(wanted[ENDPOINTS]) == {"ocr"}
    placing.retire("ocr", placing.left("ocr"))

    assert catalog.names(CLUSTER) == catalog.names(ENDPOINTS) == {"ocr"}


def test_what_a_route_may_lead_to_is_never_retired(catalog: Catalog, placing: Placing) -> None:
    """Neither before the newer route is the only one, nor once a newer plan names it again."""
    live(placing, SPLIT)
    placing.everything(WHOLE, render(WHOLE, "s"))
    assert placing.left("ocr") == ()
    placing.retire("ocr", BOTH)
    assert catalog.names(CLUSTER) == BOTH
    placing.only(WHOLE, render(WHOLE, "s"))
    left = placing.left("ocr")
    placing.clusters(SPLIT, render(SPLIT, "s"))  # begins again while the old ones are being emptied
    placing.retire("ocr", left)

    assert catalog.names(CLUSTER) == BOTH


def test_what_was_refused_leaves_nothing(catalog: Catalog, placing: Placing) -> None:
    """An Envoy that did not take a cluster never acknowledges its endpoints."""
    live(placing, WHOLE)
    placing.everything(SPLIT, render(SPLIT, "s"))
    placing.back_to(WHOLE, render(WHOLE, "s"))

    assert catalog.names(CLUSTER) == {"ocr"}
    assert ports(catalog, "ocr") == [1, 2]


def test_at_zero_and_at_the_end_nothing_stays(catalog: Catalog, placing: Placing) -> None:
    """Without a replica nobody can be in a cluster; a deleted service has no route either."""
    live(placing, SPLIT)
    assert not live(placing, a_plan("ocr"))
    assert catalog.names(CLUSTER) == frozenset()
    assert "ocr" in catalog.names(ROUTE)
    live(placing, SPLIT)
    placing.nothing("ocr")

    assert not any(catalog.names(kind) for kind in (CLUSTER, ENDPOINTS, ROUTE))
