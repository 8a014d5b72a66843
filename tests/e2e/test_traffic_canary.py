"""Canaries as callers and operators see them: who is answered by what, what fails, and how each ends.

Callers do not retry. What the candidate answers with 500 is the candidate's; nothing else may fail, and nothing runs
twice.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from easel_kit.testing import eventually
from easel_sdk import Client
from easel_sdk.types import CanaryPlan, TrafficMatch
from tests.e2e.load import Load, steady_load
from tests.e2e.platform import Executions, Platform, deploy, remove, spec
from tests.e2e.traffic import FAST, WAIT_S, answered_by, ask, canary_is, canary_over, start_canary

NAME = "canaried"
BAD = {"VALUE": "bad", "FAIL_PERCENT": "40"}
GOOD = {"VALUE": "next"}
MATCHED = {"x-canary": "1"}


@pytest.fixture
def executions(tmp_path: Path) -> Executions:
    return Executions(tmp_path)


@pytest.fixture
async def service(easel: Client, executions: Executions) -> AsyncIterator[Any]:
    """Two replicas that say they are stable."""
    document = spec(NAME, instance=2, env={"VALUE": "stable"}, rollout={"revert_after_seconds": 1})
    yield await deploy(easel, executions.of(document))
    await remove(easel, NAME)


def load_on(service: Any) -> Any:
    """Callers whose requests are not safe to repeat."""
    return steady_load(service.endpoint, service.token, method="POST", clients=3)


def assert_nothing_lost(load: Load, executions: Executions) -> None:
    """No failure, and nothing was executed twice."""
    assert load.failed() == []
    assert {mark: count for mark, count in executions.counts().items() if count > 1} == {}


def assert_only_the_candidate_failed(load: Load, executions: Executions) -> None:
    """Every failure is an answer of the candidate's replicas."""
    assert [what for what in load.failed() if not (what.startswith("500 ") and '"value": "bad"' in what)] == []
    assert {mark: count for mark, count in executions.counts().items() if count > 1} == {}


async def back_at_stable(easel: Client, load: Load) -> None:
    """The service runs the stable revision alone, and nobody meets another."""
    await load.answered_more(5)  # what was under way when it ended
    failed = len(load.failures)
    found = await easel.wait(NAME, timeout_s=WAIT_S)
    assert found is not None
    assert (found.status, found.revision, found.latest_version) == ("Running", 1, 2)
    await load.answered_more(100)
    assert len(load.failures) == failed, "the candidate came back into traffic"


async def test_a_worse_revision_goes_back_by_itself(easel: Client, service: Any, executions: Executions) -> None:
    """What callers lost is what the candidate answered, and the canary counted it."""
    before = {r.name for r in await easel.replicas.list(NAME) if r.ready}
    async with load_on(service) as load:
        await start_canary(easel, NAME, BAD)
        over = await canary_over(easel, NAME)
        await back_at_stable(easel, load)

    assert over.state == "rolled_back", over
    assert 0 < over.candidate_counts.errors <= len(load.failures)
    assert over.stable.errors == 0
    assert_only_the_candidate_failed(load, executions)
    assert {r.name for r in await easel.replicas.list(NAME) if r.ready} == before
    assert (await easel.services.revisions(NAME))[0].state == "reverted"
    told = [event.message async for event in easel.events.watch(key=NAME, from_sequence=1, follow=False)
            if event.type == "service.rollout_changed"]  # fmt: skip
    assert any(over.message in message for message in told), (over.message, told)


@pytest.mark.usefixtures("runtime")
async def test_a_good_revision_is_promoted(easel: Client, service: Any, executions: Executions) -> None:
    """Through its steps, without a lost request; in the end it answers alone."""
    async with load_on(service) as load:
        await start_canary(easel, NAME, GOOD)
        over = await canary_over(easel, NAME)
        found = await easel.wait(NAME, timeout_s=WAIT_S)
        await load.answered_more(20)

    assert over.state == "promoted", over
    assert [n.weight_permille for n in over.journal if n.reason == "Step"][:2] == [200, 500], over.journal
    assert over.candidate_counts.errors == over.stable.errors == 0
    assert_nothing_lost(load, executions)
    assert found is not None
    assert (found.status, found.revision) == ("Running", 2)
    assert await answered_by(service.endpoint, service.token, 20) == {"next": 20}


async def test_without_requests_it_waits(easel: Client, service: Any) -> None:
    """Neither on nor back, whatever the time; it says what is missing."""
    async with load_on(service) as load:
        await start_canary(easel, NAME, GOOD, min_requests=2000)
        await canary_is(easel, NAME, state="ramping", permille=200)
        await load.answered_more(5)

    async def nothing_moves() -> Any:
        before = await easel.canaries.get(NAME)
        await asyncio.sleep(3)  # several looks, and several times what a step lasts
        after = await easel.canaries.get(NAME)
        assert before == after, (before, after)
        return after

    again = await eventually(nothing_moves, WAIT_S)
    assert "of 2000 requests of the candidate" in again.waits_for, again
    assert (again.state, again.weight_permille) == ("ramping", 200), again
    assert (await easel.services.get(NAME)).status == "Updating"
    await easel.canaries.change(NAME, "abort")
    assert (await canary_over(easel, NAME)).state == "aborted"


async def test_requests_that_match_come_before_the_weight(easel: Client, service: Any) -> None:
    """A header reaches the candidate while nobody else does, and stable again when it is over."""
    async with load_on(service) as load:
        match = TrafficMatch(kind="header", name="x-canary", value="1")
        await start_canary(easel, NAME, GOOD, steps_permille=[0, 1000], match=match, manual=True)
        assert await answered_by(service.endpoint, service.token, 20, MATCHED) == {"stable": 20}
        await easel.canaries.change(NAME, "step")
        await canary_is(easel, NAME, state="ramping", permille=0)
        assert await answered_by(service.endpoint, service.token, 20, MATCHED) == {"next": 20}
        assert await answered_by(service.endpoint, service.token, 50) == {"stable": 50}
        assert await answered_by(service.endpoint, service.token, 20, {"x-canary": "2"}) == {"stable": 20}
        await easel.canaries.change(NAME, "abort")
        await canary_over(easel, NAME)
        assert await answered_by(service.endpoint, service.token, 20, MATCHED) == {"stable": 20}

    assert load.failed() == []


async def test_by_hand(platform: Platform, easel: Client, service: Any, executions: Executions, tmp_path: Path) -> None:
    """The command line starts, pauses, resumes, takes a step, promotes; another one it aborts."""
    change = tmp_path / "change.json"

    async def run(*arguments: str) -> Any:
        return json.loads(await asyncio.to_thread(platform.easel, "canary", *arguments, "-o", "json"))

    async def start(value: str) -> None:
        env = [{"name": "VALUE", "value": value}]
        config = json.loads((await easel.services.get(NAME)).service_config)["containers"][0]
        env += [e for e in config["env"] if e["name"] != "VALUE"]
        change.write_text(json.dumps({"containers": [config | {"env": env}]}))
        await run("start", NAME, "-s", str(change), "--steps", "10,50,100", "--metric", "errors", "--manual")
        await run("step", NAME)
        await canary_is(easel, NAME, state="ramping", permille=100)

    async with load_on(service) as load:
        await start("next")
        assert (await run("pause", NAME))["state"] == "paused"
        assert (await run("resume", NAME))["state"] == "ramping"
        await run("step", NAME)
        await canary_is(easel, NAME, state="ramping", permille=500)
        await run("promote", NAME)
        assert (await canary_over(easel, NAME)).state == "promoted"
        await easel.wait(NAME, timeout_s=WAIT_S)
        assert await answered_by(service.endpoint, service.token, 20) == {"next": 20}
        await start("another")
        await run("abort", NAME)
        assert (await canary_over(easel, NAME)).state == "aborted"
        await easel.wait(NAME, timeout_s=WAIT_S)
        assert await answered_by(service.endpoint, service.token, 20) == {"next": 20}
        refused = await asyncio.to_thread(platform.try_easel, "canary", "promote", NAME)
        listed = await run("ls")

    assert_nothing_lost(load, executions)
    assert refused.returncode == 1
    assert "NO_CANARY" in refused.stderr
    assert [c["state"] for c in listed if c["name"] == NAME][:2] == ["aborted", "promoted"]


async def test_blue_green(platform: Platform, easel: Client, service: Any, executions: Executions) -> None:
    """The candidate comes up whole, gets all requests at once, and back is one step; stable stays until the end."""
    start = ("canary", "start", NAME, "--blue-green", "--manual", "--metric", "errors")

    async def begin(value: str) -> None:
        env = json.loads((await easel.services.get(NAME)).service_config)["containers"][0]["env"]
        number = next(n for n, entry in enumerate(env) if entry["name"] == "VALUE")
        option = f"-Dcontainers[0].env[{number}].value={value}"
        await asyncio.to_thread(platform.easel, *start, option)

        async def both_are_whole() -> bool:
            return len([r for r in await easel.replicas.list(NAME) if r.ready]) == 4

        await eventually(both_are_whole, WAIT_S)
        await eventually(steps, WAIT_S)
        await canary_is(easel, NAME, permille=1000)
        assert await answered_by(service.endpoint, service.token, 20) == {value: 20}
        assert await both_are_whole()

    async def steps() -> bool:
        done = await asyncio.to_thread(platform.try_easel, "canary", "step", NAME)
        return done.returncode == 0

    async with load_on(service) as load:
        await begin("green")
        await easel.canaries.change(NAME, "abort")
        await canary_over(easel, NAME)
        assert await answered_by(service.endpoint, service.token, 20) == {"stable": 20}
        await easel.wait(NAME, timeout_s=WAIT_S)
        await begin("blue")
        await easel.canaries.change(NAME, "promote")
        assert (await canary_over(easel, NAME)).state == "promoted"
        await easel.wait(NAME, timeout_s=WAIT_S)
        assert await answered_by(service.endpoint, service.token, 20) == {"blue": 20}

    assert_nothing_lost(load, executions)


async def test_between_members_of_a_group(easel: Client, executions: Executions) -> None:
    """A good member takes over the group's requests; a worse one does not, and the group is as before."""
    members = {"letters_a": {"VALUE": "a"}, "letters_b": {"VALUE": "b"}, "letters_bad": BAD}
    try:
        for name, env in members.items():
            document = executions.of(spec(name, env=env))
            document["metadata"]["group"] = "canary_letters"
            await deploy(easel, document)
        group = await easel.groups.release("letters_a")
        await eventually(lambda: _answers(group, "a"), WAIT_S)
        plan = CanaryPlan(**FAST)
        async with steady_load(group.endpoint, group.token, method="POST", clients=3) as load:
            await easel.canaries.start("canary_letters", candidate="letters_b", plan=plan)
            over = await canary_over(easel, "canary_letters")
            assert over.state == "promoted", over
            await load.answered_more(20)
            assert_nothing_lost(load, executions)
            assert await answered_by(group.endpoint, group.token, 20) == {"b": 20}
            before = await easel.groups.get("canary_letters")
            await easel.canaries.start("canary_letters", candidate="letters_bad", plan=plan)
            over = await canary_over(easel, "canary_letters")
            assert over.state == "rolled_back", over
            await load.answered_more(20)
        assert_only_the_candidate_failed(load, executions)
        after = await easel.groups.get("canary_letters")
        assert [(m.service, m.weight, m.traffic_state) for m in after.members] == [
            (m.service, m.weight, m.traffic_state) for m in before.members
        ]
        own = await easel.services.get("letters_a")
        assert await answered_by(own.endpoint, own.token, 5) == {"a": 5}
    finally:
        for name in members:
            await remove(easel, name)


async def _answers(group: Any, who: str) -> bool:
    return (await ask(group.endpoint, group.token)).who == who


PARTS = ("control", "router", "monitor")


async def test_parts_die_while_a_good_canary_is_on(
    platform: Platform, easel: Client, service: Any, executions: Executions
) -> None:
    """kill -9 of control, router and monitor at one step each: no request fails by it, and it is promoted."""
    async with load_on(service) as load:
        await start_canary(easel, NAME, GOOD, steps_permille=[100, 200, 300, 1000])
        for part, permille in zip(PARTS, (100, 200, 300), strict=True):
            await canary_reaches(easel, permille)
            await platform.kill(part)
        over = await canary_over(easel, NAME)
        found = await easel.wait(NAME, timeout_s=WAIT_S)
        await load.answered_more(20)

    assert over.state == "promoted", over
    assert_nothing_lost(load, executions)
    assert found is not None
    assert (found.status, found.revision) == ("Running", 2)
    assert await answered_by(service.endpoint, service.token, 20) == {"next": 20}


@pytest.mark.parametrize("part", ["monitor", *(pytest.param(part, marks=pytest.mark.soak) for part in PARTS[:2])])
async def test_a_part_dies_while_a_worse_canary_is_on(
    platform: Platform, easel: Client, service: Any, executions: Executions, part: str
) -> None:
    """It goes back all the same; only what the candidate answered fails."""
    async with load_on(service) as load:
        await start_canary(easel, NAME, BAD, steps_permille=[100, 1000])
        await eventually(lambda: load.failures, WAIT_S)
        await platform.kill(part)
        over = await canary_over(easel, NAME)
        await back_at_stable(easel, load)

    assert over.state == "rolled_back", over
    assert_only_the_candidate_failed(load, executions)


async def canary_reaches(easel: Client, permille: int) -> None:
    """Returns when the weight is live, or a higher one."""

    async def reached() -> bool:
        return bool((await easel.canaries.get(NAME)).realised_permille >= permille)

    await eventually(reached, WAIT_S)
