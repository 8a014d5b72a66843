"""A service that can answer no more: its groups are asked first, its own route changes after that."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from easel_contracts.facts import ServiceState
from easel_contracts.spec import GatewayPolicy, Resources, RevisionSpec
from easel_kit.clock import SystemClock
from easel_router.apply import Applier
from easel_router.decide.snapshot import Token, TokenSet
from easel_router.lastgood import LastGood
from easel_router.model import Known
from easel_router.testing import a_plan
from easel_router.told import Told
from easel_router.xds.catalog import Catalog
from easel_router.xds.messages import ROUTE
from easel_router.xds.render import render

SPEC = RevisionSpec(number=1, port=1, resources=Resources(cpu=1, memory_mib=1))
OCR = ServiceState(uid="ocr", name="ocr", generation=1, wanted="running", instance=1, revision=SPEC)


class Away:
    """Neither a row, nor an Envoy, nor a request that waits; another copy tells."""

    async def route(self, service: str) -> None:
        return None

    async def everywhere(self, wanted: object) -> list[object]:
        return []

    async def probed(self, streams: object, service: str, version: str) -> None: ...

    def token_for(self, key: str) -> None: ...

    async def ensure(self, service: str) -> bool:
        return True

    def shut(self, service: str) -> None: ...

    def changed(self, service: str) -> None: ...

    def opened(self, plan: object) -> None: ...


def made(known: Known, catalog: Catalog, path: Path) -> Applier:
    away = cast("Any", Away())
    return Applier(
        known=known, tokens=away, catalog=catalog, envoys=away, told=Told(away), leases=away,
        last_good=LastGood(path, 1), holds=away, clock=SystemClock(), probe_secret="s", timeout_s=5,
    )  # fmt: skip


@pytest.mark.parametrize("wanted", ["running", "stopped", "deleted"])
async def test_groups_first(tmp_path: Path, wanted: Any) -> None:
    """While they are asked, Envoy still has the route of before."""
    known, catalog = Known("default", ()), Catalog()
    known.take_service(msgspec.structs.replace(OCR, wanted=wanted))
    known.tokens["ocr"] = TokenSet(tokens=(Token(value="tok"),), version=1)
    before = render(a_plan("ocr", 1), "s").by_type[ROUTE]["ocr"]
    catalog.put(ROUTE, "ocr", before)
    applier = made(known, catalog, tmp_path)
    seen = []

    async def aside(service: str) -> None:
        found = catalog.get(ROUTE, service)
        seen.append(found.body if found else None)

    applier.aside = aside
    await applier.reconcile("ocr")

    assert seen == [before]
    found = catalog.get(ROUTE, "ocr")
    assert (found.body if found else None) != before


async def test_a_group_with_the_name_of_a_service_that_ended_keeps_its_scope(tmp_path: Path) -> None:
    """It may be made before the last is heard of the service; neither its scope nor its row are the service's."""
    known, catalog = Known("default", ()), Catalog()
    known.take_service(msgspec.structs.replace(OCR, wanted="deleted"))
    plan = a_plan("ocr", 1, gateway=GatewayPolicy(web=True))
    for name, body in render(plan, "s").by_type[ROUTE].items():
        catalog.put(ROUTE, name, body)
    applier = made(known, catalog, tmp_path)
    groups: set[str] = set()

    async def aside(service: str) -> None:
        catalog.put(ROUTE, "ocr", b"of the group")
        groups.add("ocr")

    applier.aside, applier.taken = aside, groups.__contains__

    assert await applier.reconcile("ocr") is None
    assert {name: packed.body for name in ("ocr", "web/ocr") if (packed := catalog.get(ROUTE, name))} == {
        "ocr": b"of the group"
    }
