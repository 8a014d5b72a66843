"""Revisions, rollouts, clones, locks and single replicas by the async client, against the real gRPC APIs."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from easel_proto.v1.replicas_pb2 import Replica
from easel_proto.v1.services_pb2 import Difference, Rollout, Service
from easel_sdk import Client
from easel_sdk.errors import Conflict, NotFound, TimedOut
from tests.flow.sdk.platform import KEY, Platform

ROLLING = Rollout(from_revision=1, to_revision=2, share_percent=20, state="rolling")


@pytest.fixture
async def client(platform: Platform) -> AsyncIterator[Client]:
    """A client of the platform, which has the service `ocr`."""
    async with Client(platform.server, KEY) as found:
        await found.services.create({"name": "ocr"})
        yield found


async def test_requests_carry_what_was_asked(platform: Platform, client: Client) -> None:
    """Every field of the new calls, and a key that makes them safe to repeat."""
    platform.services["ocr"].rollout.CopyFrom(ROLLING)
    platform.replicas = [Replica(name="a"), Replica(name="b")]
    platform.differences = [Difference(path="metadata.cpu", before="1", after="2")]

    await client.services.update("ocr", {"metadata": {"cpu": 2}}, allow_interruption=True)
    await client.services.restart("ocr", allow_interruption=True)
    await client.services.switch_revision("ocr", 4, allow_interruption=True)
    await client.services.change_rollout("ocr", "pause")
    await client.services.clone("ocr", "next", {"metadata": {"cpu": 4}})
    await client.services.lock("ocr", "all")
    differences = await client.services.diff_revisions("ocr", 3, 4)
    restarted = await client.replicas.restart("ocr", ["b"], soft=True)
    isolated = await client.replicas.isolate("ocr", "a")
    back = await client.replicas.isolate("ocr", "a", isolated=False)

    asked = {name: request for name, request in platform.calls if "." in name}
    assert asked["Services.Update"].allow_interruption
    assert asked["Services.Restart"].allow_interruption
    assert (asked["Services.SwitchRevision"].revision, asked["Services.SwitchRevision"].allow_interruption) == (4, True)
    assert asked["Services.ChangeRollout"].action == "pause"
    assert (asked["Services.Clone"].name, asked["Services.Clone"].new_name) == ("ocr", "next")
    assert json.loads(asked["Services.Clone"].config) == {"metadata": {"cpu": 4}}
    assert asked["Services.Lock"].lock == "all"
    assert (asked["Services.DiffRevisions"].base, asked["Services.DiffRevisions"].other) == (3, 4)
    assert [d.path for d in differences] == ["metadata.cpu"]
    assert (asked["Replicas.Restart"].soft, asked["Replicas.Restart"].now) == (True, False)
    assert [r.name for r in restarted] == ["b"]
    assert (isolated.isolated, back.isolated) == (True, False)
    mutations = ("Update", "Restart", "SwitchRevision", "ChangeRollout", "Clone", "Lock")
    keys = [asked[f"Services.{name}"].idempotency_key for name in mutations]
    keys += [asked[f"Replicas.{name}"].idempotency_key for name in ("Restart", "Isolate")]
    assert [len(key) for key in keys] == [36] * len(keys)
    assert len(set(keys)) == len(keys)


async def test_a_clone_without_changes_sends_none(platform: Platform, client: Client) -> None:
    """No configuration is laid over the original's."""
    await client.services.clone("ocr", "next")

    assert platform.asked("Services.Clone")[0].config == ""


async def test_a_locked_service_is_refused_with_the_way_out(client: Client) -> None:
    """Code and hint as the platform gives them."""
    await client.services.lock("ocr", "dangerous")

    with pytest.raises(Conflict) as found:
        await client.services.delete("ocr")
    assert (found.value.code, found.value.hint) == ("LOCKED", "`easel lock ocr none`")


async def test_the_autoscaler_is_merged_in(platform: Platform, client: Client) -> None:
    """Only the section; a list of targets takes the place of those that are stored."""
    await client.services.set_autoscaler("ocr", {"min": 0, "max": 5, "strategies": {"qps": 10}})
    platform.services["ocr"].service_config = json.dumps({"autoscaler": {"min": 0, "strategies": {"qps": 10}}})
    listed = [{"metricName": "concurrency", "threshold": 4}]
    await client.services.set_autoscaler("ocr", {"scaleStrategies": listed})
    await client.services.remove_autoscaler("ocr")

    sent = [json.loads(request.config) for request in platform.asked("Services.Update")]
    assert sent == [
        {"autoscaler": {"min": 0, "max": 5, "strategies": {"qps": 10}}},
        {"autoscaler": {"scaleStrategies": listed, "strategies": None}},
        {"autoscaler": None},
    ]
    assert {request.update_type for request in platform.asked("Services.Update")} == {"merge"}


async def test_no_autoscaler_is_removed_where_there_is_none(platform: Platform, client: Client) -> None:
    """Nothing is changed."""
    await client.services.remove_autoscaler("ocr")

    assert platform.asked("Services.Update") == []


async def test_replacement_ends_when_successors_serve(platform: Platform, client: Client) -> None:
    """The old one is gone and as many as wanted are ready."""
    platform.services["ocr"].MergeFrom(Service(status="Running", wanted_instance=2))
    old, kept = Replica(name="a", status="ready", ready=True), Replica(name="b", status="ready", ready=True)
    coming = Replica(name="c", status="starting", message="starting")
    serving = Replica(name="c", status="ready", ready=True)
    platform.replicas_path = [[old, kept, coming], [kept, coming], [kept, serving]]

    looks = [look async for look in client.watch_replacement("ocr", [old], timeout_s=30)]

    assert [(look.left, look.done) for look in looks] == [(("a",), False), ((), False), ((), True)]


async def test_replacement_times_out_with_who_is_left(platform: Platform, client: Client) -> None:
    """By name."""
    platform.replicas = [Replica(name="a", status="draining")]

    with pytest.raises(TimedOut, match=r"after 0\.2 s a of ocr is not replaced"):
        async for _ in client.watch_replacement("ocr", [Replica(name="a")], timeout_s=0.2):
            pass


async def test_isolating_what_is_not_there(client: Client) -> None:
    """Not found."""
    with pytest.raises(NotFound):
        await client.replicas.isolate("ocr", "nothing")
