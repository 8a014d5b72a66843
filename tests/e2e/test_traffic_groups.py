"""Groups as callers see them: who answers at which endpoint, with which token, and with which share."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from easel_kit.testing import eventually
from easel_sdk import Client
from easel_sdk.errors import NotFound
from tests.e2e.load import steady_load
from tests.e2e.platform import Platform, deploy, remove, spec
from tests.e2e.traffic import WAIT_S, answered_by, ask

GROUP = "words"
MEMBERS = {"words_a": 2, "words_b": 1}
"""Name → replicas."""
ZERO = {"min": 0, "max": 1, "strategies": {"concurrency": 1000}}


def member(name: str, replicas: int, **changes: Any) -> dict[str, Any]:
    """A service of the group whose replicas say its name."""
    document = spec(name, instance=replicas, env={"VALUE": name}, **changes)
    document["metadata"]["group"] = GROUP
    return document


@pytest.fixture
async def group(easel: Client) -> AsyncIterator[Any]:
    """Two services; the first is released."""
    for name, replicas in MEMBERS.items():
        await deploy(easel, member(name, replicas))
    found = await easel.groups.release("words_a")
    await answers(easel, "words_a")
    yield found
    for name in MEMBERS:
        await remove(easel, name)


async def answers(easel: Client, *who: str) -> None:
    """Returns when these and no others answer the group's requests."""

    async def they_do() -> None:
        found = await easel.groups.get(GROUP)
        assert set(await answered_by(found.endpoint, found.token, 12)) == set(who)

    await eventually(lambda: _true(they_do()), WAIT_S)


async def _true(done: Any) -> bool:
    await done
    return True


async def shares(group: Any, count: int) -> Counter[str]:
    return await answered_by(group.endpoint, group.token, count)


async def test_shares_follow_replicas_and_weights(easel: Client, group: Any) -> None:
    """By replicas, by fixed weights, and none for a member that is standalone; no request fails meanwhile."""
    async with steady_load(group.endpoint, group.token, method="POST", clients=2) as load:
        assert await shares(group, 40) == {"words_a": 40}, "a new member gets nothing until it is released"
        await easel.groups.release("words_b")
        await answers(easel, "words_a", "words_b")
        found = await shares(group, 300)  # 2 to 1: 200 ± 8, so 150 to 250 is six times that
        assert 150 <= found["words_a"] <= 250, found
        assert {m.service: round(m.share_percent) for m in (await easel.groups.get(GROUP)).members} == {
            "words_a": 67, "words_b": 33,
        }  # fmt: skip

        await easel.groups.release("words_a", weight=100)
        changed = await easel.groups.release("words_b", weight=900)
        assert changed.traffic_mode == "customized"

        async def mostly_b() -> bool:
            return (await shares(group, 100))["words_b"] >= 75  # 90 ± 3

        await eventually(mostly_b, WAIT_S)
        found = await shares(group, 300)  # 1 to 9: 30 ± 5.2
        assert 3 <= found["words_a"] <= 60, found

        await easel.groups.release("words_b", state="standalone")
        await answers(easel, "words_a")
        assert await shares(group, 60) == {"words_a": 60}
        await easel.groups.update(GROUP, mode="auto")
        await easel.groups.release("words_b", state="grouping")
        await answers(easel, "words_a", "words_b")

    assert load.failed() == []


async def test_who_is_reached_where_with_which_token(easel: Client, group: Any) -> None:
    """Own endpoints always work; GROUP.SERVICE opens to both tokens; no token opens what it is not for."""
    a, b = await easel.services.get("words_a"), await easel.services.get("words_b")
    through = f"{group.endpoint}.words_b/some/path"
    expected = {
        (group.endpoint, group.token): (200, "words_a"),
        (through, group.token): (200, "words_b"),  # standalone, and reached all the same
        (through, b.token): (200, "words_b"),
        (b.endpoint, b.token): (200, "words_b"),
        (a.endpoint, a.token): (200, "words_a"),
        (b.endpoint, group.token): (401, "Unauthorized"),
        (group.endpoint, a.token): (401, "Unauthorized"),
        (through, a.token): (401, "Unauthorized"),
        (a.endpoint, b.token): (401, "Unauthorized"),
        (group.endpoint, ""): (401, "Unauthorized"),
        (f"{group.endpoint}.nobody", group.token): (404, "NotFound"),
    }

    found = {key: await ask(*key) for key in expected}

    assert {key: (answer.status, answer.who) for key, answer in found.items()} == expected
    assert found[through, b.token].body["path"] == "/some/path"


async def test_the_last_member_takes_the_group_with_it(platform: Platform, easel: Client, group: Any) -> None:
    """One may go, and the other answers on; with the last the group is gone, and its name free."""
    await easel.groups.release("words_b")
    await answers(easel, "words_a", "words_b")
    async with steady_load(group.endpoint, group.token, method="POST", clients=2) as load:
        await load.answered_more(20)
        await remove(easel, "words_a")
        await answers(easel, "words_b")
        await load.answered_more(20)
    assert load.failed() == []

    await easel.services.update("words_b", {"metadata": {"group": None}})

    async def gone() -> bool:
        return (await ask(group.endpoint, group.token)).status == 404

    await eventually(gone, WAIT_S)
    assert (await ask(group.endpoint, group.token)).who == "NotFound"
    with pytest.raises(NotFound):
        await easel.groups.get(GROUP)
    assert "no groups" in platform.try_easel("group", "ls").stderr
    alone = await easel.services.get("words_b")
    assert (await ask(alone.endpoint, alone.token)).who == "words_b"


async def test_a_member_at_zero_wakes_through_the_group(easel: Client) -> None:
    """The group's request waits for it, and is answered."""
    document = member("words_zero", 1, autoscaler=ZERO)
    document["metadata"]["instance"] = 0
    try:
        await deploy(easel, document)
        group = await easel.groups.release("words_zero")
        assert [r for r in await easel.replicas.list("words_zero") if r.ready] == []

        async def released() -> bool:
            return (await ask(group.endpoint, group.token)).who != "NoMember"

        await eventually(released, WAIT_S)
        assert await answered_by(group.endpoint, group.token, 5) == {"words_zero": 5}
        history = await easel.scaling.history("words_zero")
        assert history[0].reason == "Activated"
    finally:
        await remove(easel, "words_zero")
