"""Limits as callers meet them: who is refused, how, and that what is let through is not touched."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from easel_kit.testing import eventually, short_directory
from easel_sdk import Client
from tests.e2e.platform import Platform, deploy, remove, running_platform, spec
from tests.e2e.traffic import WAIT_S, Answer, ask, ask_many

NAME = "limited"
COUNTED = "limited_counted"
"""The last minute of a name is counted, whoever had it: this one is used once."""
IN_FLIGHT = 6
"""Of two gateways together."""


@pytest.fixture(scope="module")
def two_gateways() -> Iterator[Platform]:
    """A platform of its own, where two gateways share the port."""
    with short_directory() as path, running_platform(path / "home", options=("--gateways", "2")) as made:
        yield made


@asynccontextmanager
async def serving(
    client: Client, *, name: str = NAME, rpc: dict[str, int] | None = None, **policy: int
) -> AsyncIterator[Any]:
    """One replica behind these limits: `rate_limit`, `concurrency_limit`."""
    gateway = {name: {"enable": True, "limit": limit} for name, limit in policy.items()}
    document = spec(name, env={"VALUE": "answered"}, networking={"gateway_policy": gateway})
    document["metadata"] |= {"rpc": rpc} if rpc else {}
    try:
        yield await deploy(client, document)
    finally:
        await remove(client, name)


def told(answers: list[Answer]) -> Counter[tuple[int, str]]:
    """How many were answered how."""
    return Counter((answer.status, answer.who) for answer in answers)


def refused(answers: list[Answer]) -> Answer:
    """One of the refusals, which all have a sentence, what to do, and are JSON."""
    found = [answer for answer in answers if answer.status != 200]
    for answer in found:
        assert answer.headers["content-type"] == "application/json"
        assert answer.body["message"]
        assert answer.body["hint"]
    return found[0]


async def test_too_many_a_second(easel: Client) -> None:
    """429 with a body and Retry-After; who waits as told is answered; without the limit all are, at once."""
    async with serving(easel, rate_limit=10) as service:
        answers = await ask_many(service.endpoint, service.token, 100, at_once=100)
        found = told(answers)
        assert set(found) == {(200, "answered"), (429, "TooManyRequests")}, found
        one = refused(answers)
        assert "10" in one.body["message"], one.body
        await asyncio.sleep(int(one.headers["retry-after"]))
        assert (await ask(service.endpoint, service.token)).status == 200

        off = {"networking": {"gateway_policy": {"rate_limit": {"enable": False}}}}
        before = (await easel.services.get(NAME)).revision
        await easel.services.update(NAME, off)

        async def all_pass() -> bool:
            return set(told(await ask_many(service.endpoint, service.token, 40, at_once=40))) == {(200, "answered")}

        await eventually(all_pass, WAIT_S)
        assert (await easel.services.get(NAME)).revision == before, "a limit is no new revision"


async def test_too_many_at_a_time(easel: Client) -> None:
    """Exactly so many are let through; the others are 429 at once."""
    async with serving(easel, concurrency_limit=3) as service:
        answers = await ask_many(service.endpoint + "?s=1.5", service.token, 20, at_once=20)

    assert told(answers) == {(200, "answered"): 3, (429, "TooManyRequests"): 17}
    refused(answers)


async def test_a_full_queue(easel: Client) -> None:
    """Two work, three wait and are answered after them, the others are 450."""
    async with serving(easel, rpc={"worker_threads": 2, "max_queue_size": 3}) as service:
        answers = await ask_many(service.endpoint + "?s=1.5", service.token, 20, at_once=20, method="POST")

    assert told(answers) == {(200, "answered"): 5, (450, "QueueFull"): 15}
    refused(answers)


async def test_a_limit_of_one_token(easel: Client) -> None:
    """Its holder is refused; others are not."""
    async with serving(easel) as service:
        made = await easel.tokens.create(NAME, "small", rate_limit=2)

        async def known() -> bool:
            return (await ask(service.endpoint, made.value)).status == 200

        await eventually(known, WAIT_S)
        limited, others = await asyncio.gather(
            ask_many(service.endpoint, made.value, 40, at_once=40),
            ask_many(service.endpoint, service.token, 40, at_once=40),
        )

    assert set(told(limited)) == {(200, "answered"), (429, "TooManyRequests")}
    assert told(others) == {(200, "answered"): 40}
    refused(limited)


async def test_what_is_large_or_long_passes(easel: Client) -> None:
    """20 MB and a stream that goes on, behind every limit, while others are refused."""
    rpc = {"worker_threads": 2, "max_queue_size": 4}
    async with serving(easel, rpc=rpc, rate_limit=50, concurrency_limit=2) as service:
        headers = {"Authorization": service.token}
        async with aiohttp.ClientSession(headers=headers) as session:

            async def stream() -> list[str]:
                async with session.get(service.endpoint + "/events?n=25&s=0.2") as answer:
                    assert answer.status == 200
                    return [line for line in (await answer.text()).splitlines() if line]

            async def large() -> int:
                async with session.post(service.endpoint, data=b"x" * 20_000_000) as answer:
                    assert answer.status == 200, await answer.text()
                    return int((await answer.json())["body_bytes"])

            streaming = asyncio.create_task(stream())

            async def one_is_free() -> bool:
                found = told(await ask_many(service.endpoint + "?s=0.3", service.token, 4, at_once=4))
                return found[200, "answered"] == 1

            await eventually(one_is_free, WAIT_S)
            assert await large() == 20_000_000
            assert not streaming.done()
            assert len(await streaming) == 25


async def test_callers_who_leave_are_counted(easel: Client) -> None:
    """As 499, and refusals by their code."""
    async with serving(easel, name=COUNTED, concurrency_limit=4) as service:
        timeout = aiohttp.ClientTimeout(total=0.3)
        async with aiohttp.ClientSession(timeout=timeout, headers={"Authorization": service.token}) as session:
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    await session.get(service.endpoint + "?s=1")
        await eventually(lambda: _counted(easel, "499", 3), WAIT_S)
        answers = await ask_many(service.endpoint + "?s=0.5", service.token, 10, at_once=10)
        await eventually(lambda: _counted(easel, "429", told(answers)[429, "TooManyRequests"]), WAIT_S)


async def _counted(easel: Client, code: str, count: int) -> bool:
    window = await easel.metrics.get(COUNTED, window_s=60)
    return count > 0 and round(sum(point.refused_by_code.get(code, 0) for point in window.points)) == count


async def test_two_gateways_share_a_limit(two_gateways: Platform) -> None:
    """Together they let through what one would; when one's process is killed it goes on to hold."""
    async with two_gateways.client() as client, serving(client, concurrency_limit=IN_FLIGHT) as service:

        async def let_through() -> int:
            # so many connections that each gateway gets more than its part
            answers = await ask_many(service.endpoint + "?s=1", service.token, 60, at_once=60)
            assert set(told(answers)) == {(200, "answered"), (429, "TooManyRequests")}
            return told(answers)[200, "answered"]

        async def exactly() -> bool:
            return await let_through() == IN_FLIGHT

        await eventually(exactly, WAIT_S)
        await two_gateways.kill("envoy-1")
        await eventually(exactly, WAIT_S)
        await asyncio.to_thread(two_gateways.easel, "gateway", "restart", "--grace", "5")
        await eventually(exactly, WAIT_S)
