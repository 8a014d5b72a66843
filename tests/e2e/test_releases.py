"""Changing a service under a steady load: nothing we do on purpose costs a request, and none is run twice.

The callers do not retry; POSTs without Idempotency-Key are not safe to repeat. Executions are counted by the replicas.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from easel_kit.testing import eventually
from easel_sdk import Client
from easel_sdk.errors import EaselError, ServiceFailed
from tests.e2e.load import Load, steady_load
from tests.e2e.platform import Executions, Platform, deploy, remove, spec

pytestmark = pytest.mark.usefixtures("runtime")

NAME = "released"
CLIENTS = 4
WAIT_S = 90


@pytest.fixture
def executions(tmp_path: Path) -> Executions:
    return Executions(tmp_path)


@pytest.fixture
async def service(easel: Client, executions: Executions) -> AsyncIterator[Any]:
    """A service of two replicas that does not wait long with a revert."""
    document = executions.of(spec(NAME, instance=2, env={"VALUE": "v0"}, rollout={"revert_after_seconds": 1}))
    found = await deploy(easel, document)
    yield found
    await easel.services.lock(NAME, "none")
    await remove(easel, NAME)


def env(document: dict[str, Any], **values: str) -> dict[str, Any]:
    """What an update sends to change environment values: the list as it is, with these."""
    names = [entry["name"] for entry in document["containers"][0]["env"]]
    known = [{"name": name} | ({"value": values[name]} if name in values else {}) for name in names]
    added = [{"name": name, "value": value} for name, value in values.items() if name not in names]
    return {"containers": [{**document["containers"][0], "env": known + added}]}


async def config(easel: Client) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((await easel.services.get(NAME)).service_config)
    return found


async def update(easel: Client, **values: str) -> Any:
    """A new revision by other environment values; returns when it serves alone."""
    changed = await easel.services.update(NAME, env(await config(easel), **values))
    return await easel.wait(changed, timeout_s=WAIT_S)


async def ready(easel: Client) -> list[Any]:
    return [r for r in await easel.replicas.list(NAME) if r.ready]


async def value(service: Any, path: str = "") -> dict[str, Any]:
    """One answer of the model."""
    headers = {"Authorization": service.token}
    async with aiohttp.ClientSession() as session, session.get(service.endpoint + path, headers=headers) as response:
        found: dict[str, Any] = json.loads(await response.text())
        return found | {"status": response.status}


def assert_nothing_lost(load: Load, executions: Executions) -> None:
    """No failure, and nothing was executed twice."""
    assert load.failed() == []
    counts = executions.counts()
    assert {mark: count for mark, count in counts.items() if count > 1} == {}
    assert set(load.executions) <= set(counts)


async def test_five_updates_in_a_row(easel: Client, service: Any, executions: Executions) -> None:
    """Each takes over without a lost request; in the end the newest answers alone."""
    async with steady_load(service.endpoint, service.token, method="POST", clients=CLIENTS) as load:
        for n in range(1, 6):
            found = await update(easel, VALUE=f"v{n}")
            assert (found.status, found.revision) == ("Running", n + 1)
        await load.answered_more(20)

    assert_nothing_lost(load, executions)
    assert (await value(service))["value"] == "v5"
    assert [r.state for r in await easel.services.revisions(NAME)][:2] == ["live", "superseded"]


async def test_a_broken_revision_reverts_by_itself(easel: Client, service: Any, executions: Executions) -> None:
    """It pauses, says why, reverts, and costs no healthy replica."""
    before = {r.name for r in await ready(easel)}
    async with steady_load(service.endpoint, service.token, method="POST", clients=CLIENTS) as load:
        with pytest.raises(ServiceFailed):
            await update(easel, BROKEN="1")
        await load.answered_more(20)
        again = await easel.wait(NAME, timeout_s=WAIT_S)

    assert_nothing_lost(load, executions)
    assert again is not None
    assert (again.status, again.revision, again.latest_version) == ("Running", 1, 2)
    assert {r.name for r in await ready(easel)} == before
    assert next(r for r in await easel.services.revisions(NAME) if r.number == 2).state == "reverted"
    types = [event.type async for event in easel.events.watch(key=NAME, from_sequence=1, follow=False)]
    assert "service.rollout_changed" in types


async def test_back_to_an_older_version(easel: Client, service: Any, executions: Executions) -> None:
    """`version` by rollout, with what it says of its sources; the difference is shown without values."""
    await update(easel, VALUE="new")
    async with steady_load(service.endpoint, service.token, method="POST", clients=CLIENTS) as load:
        switched = await easel.services.switch_revision(NAME, 1)
        assert any("storage[1]" in warning for warning in switched.warnings), switched.warnings
        found = await easel.wait(switched, timeout_s=WAIT_S)
        await load.answered_more(20)

    assert_nothing_lost(load, executions)
    assert found is not None
    assert (found.revision, found.latest_version) == (1, 2)
    assert (await value(service))["value"] == "v0"
    different = await easel.services.diff_revisions(NAME, 1, 2)
    assert different
    assert "new" not in str(different)


async def test_restart_scale_in_and_replace(easel: Client, service: Any, executions: Executions) -> None:
    """Rolling restart, 2 → 4 → 1 replicas, `dw` of one: none costs a request."""
    async with steady_load(service.endpoint, service.token, method="POST", clients=CLIENTS, query="s=0.05") as load:
        before = {r.name for r in await ready(easel)}
        await easel.wait(await easel.services.restart(NAME), timeout_s=WAIT_S)
        assert not before & {r.name for r in await ready(easel)}
        for count in (4, 1):
            await easel.wait(await easel.services.scale(NAME, count), timeout_s=WAIT_S)
        (only,) = await ready(easel)
        await easel.replicas.restart(NAME, [only.name])

        async def replaced() -> bool:
            return [r.name for r in await ready(easel)] not in ([only.name], [])

        await eventually(replaced, WAIT_S)
        await load.answered_more(20)

    assert_nothing_lost(load, executions)


async def test_isolated_and_restarted_in_place(easel: Client, service: Any, executions: Executions) -> None:
    """An isolated replica lives without requests and comes back; a soft restart keeps the replica."""
    async with steady_load(service.endpoint, service.token, method="POST", clients=CLIENTS) as load:
        victim = (await ready(easel))[0]
        await easel.replicas.isolate(NAME, victim.name)

        async def out() -> bool:
            others = [r for r in await ready(easel) if not r.isolated]
            return len(others) == 2 and Path(f"/proc/{victim.pid}").exists()

        await eventually(out, WAIT_S)
        answers = {(await value(service))["replica"] for _ in range(20)}
        assert victim.name not in answers
        await easel.replicas.isolate(NAME, victim.name, isolated=False)

        async def two() -> bool:
            return len(await ready(easel)) == 2 and not any(r.isolated for r in await ready(easel))

        await eventually(two, WAIT_S)
        soft = (await ready(easel))[0]
        await easel.replicas.restart(NAME, [soft.name], soft=True)

        async def anew() -> bool:
            found = [r for r in await ready(easel) if r.name == soft.name]
            return bool(found) and found[0].pid != soft.pid and not found[0].isolated

        await eventually(anew, WAIT_S)
        await load.answered_more(20)

    assert_nothing_lost(load, executions)


async def test_long_requests_and_streams_are_not_cut(easel: Client, service: Any, executions: Executions) -> None:
    """A request of seconds and an event stream run on the old replicas to their end while new ones take over."""
    headers = {"Authorization": service.token}

    async def events() -> list[str]:
        url = service.endpoint + "/events?n=12&s=0.25"
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.get(url, headers={"accept": "text/event-stream"}) as answer,
        ):
            return [line for line in (await answer.text()).splitlines() if line]

    streams = [asyncio.create_task(events()) for _ in range(4)]
    slow = [asyncio.create_task(value(service, f"?s=3&id=slow{n}")) for n in range(4)]
    await eventually(lambda: sum(n for m, n in executions.counts().items() if m.startswith("slow")) == 4)
    await update(easel, VALUE="next")

    assert [len(lines) for lines in await asyncio.gather(*streams)] == [12] * 4
    answers = await asyncio.gather(*slow)
    assert {(a["status"], a["value"]) for a in answers} == {(200, "v0")}


async def test_no_room_is_told_before_anything_stops(platform: Platform, easel: Client) -> None:
    """An update that would have to interrupt is refused, with the reason, unless asked for."""
    cores = sum(n.cpu - n.cpu_used for n in await easel.nodes.list())
    document = spec("large", rollout={"revert_after_seconds": 1})
    document["metadata"]["cpu"] = round(cores * 0.7, 2)
    try:
        await deploy(easel, document)
        with pytest.raises(EaselError, match="WOULD_INTERRUPT"):
            await easel.services.restart("large")
        assert (await easel.services.get("large")).status == "Running"
        restarted = await easel.services.restart("large", allow_interruption=True)
        await easel.wait(restarted, timeout_s=WAIT_S)
    finally:
        await remove(easel, "large")


async def test_locks_and_clones(easel: Client, service: Any) -> None:
    """A locked service stays; a clone has the environment and a token of its own."""
    await easel.services.lock(NAME, "dangerous")
    for refused in (easel.services.stop, easel.services.delete):
        with pytest.raises(EaselError, match="LOCKED"):
            await refused(NAME)
    await easel.services.lock(NAME, "all")
    (victim, _) = await ready(easel)

    async def refused_by_the_scheduler() -> bool:
        try:
            await easel.replicas.isolate(NAME, victim.name)
        except EaselError as error:
            return "LOCKED" in str(error)
        await easel.replicas.isolate(NAME, victim.name, isolated=False)  # the lock was not known there yet
        return False

    await eventually(refused_by_the_scheduler)
    cloned = await easel.services.clone(NAME, "cloned")
    try:
        found = await easel.wait(cloned, timeout_s=WAIT_S)
        assert found is not None
        assert found.token != service.token
        assert (await value(found))["value"] == "v0"
    finally:
        await remove(easel, "cloned")
