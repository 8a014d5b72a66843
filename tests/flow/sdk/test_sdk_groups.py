"""Groups by the client, async and sync, against the real gRPC API; and calls to a group on the data listener."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from easel_proto.v1.groups_pb2 import Group
from easel_sdk import Client, SyncClient
from easel_sdk.errors import Conflict, NotFound
from tests.flow.sdk.groups import letters
from tests.flow.sdk.platform import KEY, Platform


@pytest.fixture
def group(platform: Platform) -> Group:
    """The group `letters`."""
    return letters(platform)


@pytest.fixture
async def client(platform: Platform, group: Group) -> AsyncIterator[Client]:
    """A client of the platform."""
    async with Client(platform.server, KEY) as found:
        yield found


async def test_requests_carry_what_was_asked(platform: Platform, client: Client) -> None:
    """What is not given is not sent; every mutation has a key that makes it safe to repeat."""
    await client.groups.update("letters", mode="customized")
    await client.groups.update("letters", rate_limit=0, concurrency_limit=7)
    await client.groups.release("ocr_b")
    await client.groups.release("ocr_b", weight=-1)
    await client.groups.release("ocr_b", state="standalone", idempotency_key="k")

    mode, limits = platform.asked("Groups.Update")
    assert (mode.name, mode.traffic_mode) == ("letters", "customized")
    assert not mode.HasField("rate_limit")
    assert (limits.traffic_mode, limits.HasField("rate_limit"), limits.rate_limit, limits.concurrency_limit) == (
        "", True, 0, 7,
    )  # fmt: skip
    plain, weighed, alone = platform.asked("Groups.Release")
    assert (plain.service, plain.traffic_state, plain.HasField("weight")) == ("ocr_b", "grouping", False)
    assert (weighed.HasField("weight"), weighed.weight) == (True, -1)
    assert (alone.traffic_state, alone.idempotency_key) == ("standalone", "k")
    assert [len(r.idempotency_key) for r in (mode, limits, plain, weighed)] == [36] * 4


async def test_answers(platform: Platform, client: Client) -> None:
    """All pages of the list; errors as the platform raised them."""
    platform.groups["words"] = Group(name="words")

    assert [g.name for g in await client.groups.list()] == ["letters", "words"]
    assert (await client.groups.get("letters")).members[0].share_percent == 100
    assert (await client.groups.explain("letters")).lines[0].code == "Fine"
    with pytest.raises(NotFound):
        await client.groups.get("nothing")
    with pytest.raises(Conflict, match="belongs to no group"):
        await client.groups.release("lone")


async def test_a_group_and_a_member_by_way_of_it_are_called(client: Client) -> None:
    """With the group's token; the error for a name that nobody has speaks of services."""
    assert (await client.predict("letters", {"x": 1})).status == 200
    assert (await client.predict("letters.ocr_a", {"x": 1})).status == 200
    with pytest.raises(NotFound, match="there is no service nothing"):
        await client.predict("nothing", {"x": 1})


def test_the_sync_face(platform: Platform, group: Group) -> None:
    with SyncClient(platform.server, KEY) as easel:
        assert easel.groups.release("ocr_b", weight=40).traffic_mode == "customized"
        assert [m.weight for m in easel.groups.get("letters").members] == [-1, 40]
