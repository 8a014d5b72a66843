"""The shadow collector on its socket, with a small HTTP server in the place of Envoy's probe listener."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from easel_contracts.spec import CANDIDATE
from easel_kit.testing import eventually
from easel_router.comparisons_api import to_proto
from easel_router.shadow import AT_A_TIME, MOST_BYTES, MOST_WAITING
from tests.contract.router.shadow_rig import Rig, by_arm, served


@pytest.fixture
async def rig(short_path: Path) -> AsyncIterator[Rig]:
    made = Rig(short_path)
    async with served(made.gateway.handle, f"{short_path}/probe.sock"):
        await made.server.start()
        try:
            yield made
        finally:
            await made.server.stop()
            await made.collector.close()
            await made.replayer.close()
            assert made.budget.take(MOST_BYTES), "somebody has not given back what its body held"


async def test_a_copy_is_replayed_to_both_sides_as_it_came(rig: Rig) -> None:
    rig.service()
    status = await rig.copy(
        "/v1/x?q=a%20b", b'{"n": 1}', authorization="Bearer tok", cookie="c=1", x_id="7",
        content_type="application/json",
        x_request_id="r", x_envoy_attempt_count="1", traceparent="00-1", accept_encoding="gzip",
    )  # fmt: skip
    assert status == 202
    await rig.counted(1)
    assert sorted(rig.gateway.calls) == [
        ("candidate", "POST", "/api/predict/ocr/v1/x?q=a%20b"), ("stable", "POST", "/api/predict/ocr/v1/x?q=a%20b"),
    ]  # fmt: skip
    assert rig.gateway.bodies == [b'{"n": 1}'] * 2
    for headers in rig.gateway.headers:
        assert headers["authorization"] == "Bearer tok"
        assert (headers["cookie"], headers["x-id"], headers["host"]) == ("c=1", "7", "a.test")
        assert headers["content-type"] == "application/json"
        assert headers["accept-encoding"] == "identity"
        assert not {"x-request-id", "x-easel-mirror", "x-envoy-attempt-count", "traceparent"} & set(headers)


async def test_what_differs_is_reported_by_field_with_an_example(rig: Rig) -> None:
    rig.service(ignore=("at",))
    rig.gateway.answer = by_arm({"label": "cat", "at": 1}, {"label": "dog", "at": 2})
    await rig.copy("/x?token=hush", b'{"n": 1}', authorization="Bearer tok", cookie="c=1")
    told = to_proto("ocr", await rig.counted(1))
    assert (told.target, told.samples, told.differ, [f.path for f in told.fields]) == (
        CANDIDATE, 1, 1, ["body.label"],
    )  # fmt: skip
    (example,) = told.fields[0].examples
    assert (example.stable, example.candidate) == ('"cat"', '"dog"')
    assert example.request == 'POST /x?token=***\n{"n": 1}'
    assert "tok" not in str(told).replace("token", "")


async def test_a_share_of_the_samples_goes_to_stable_twice(rig: Rig) -> None:
    rig.service(twice_percent=100.0)
    numbers = iter(range(100))

    async def restless(request: web.Request) -> web.StreamResponse:
        return web.json_response({"label": "cat", "at": next(numbers)})

    rig.gateway.answer = restless
    for _ in range(3):
        await rig.copy()
    tally = (await rig.counted(3)).tally
    assert (tally.twice, tally.itself) == (3, 3)
    assert [arm for arm, _, _ in rig.gateway.calls].count("stable") == 6
    assert {name: (f.differ, f.itself) for name, f in tally.fields.items()} == {"body.at": (3, 3)}


async def test_neither_side_is_always_asked_first(rig: Rig) -> None:
    rig.service()
    for number in range(40):
        await rig.copy()
        await rig.counted(number + 1)
    first = [arm for arm, _, _ in rig.gateway.calls[::2]]
    assert 5 < first.count("stable") < 35


async def test_another_service_is_the_candidate_at_the_path_of_the_first(rig: Rig) -> None:
    rig.service("ocr2", CANDIDATE)
    rig.service("ocr", "ocr2")
    await rig.copy("/x")
    await rig.counted(1)
    assert {(arm, path) for arm, _, path in rig.gateway.calls} == {
        ("stable", "/api/predict/ocr/x"), ("candidate", "/api/predict/ocr/x"),
    }  # fmt: skip


async def test_only_the_gateway_may_send_copies(rig: Rig) -> None:
    rig.service()
    assert await rig.copy(x_easel_probe="guess") == 403
    assert await rig.copy(x_easel_probe="") == 403
    assert stat.S_IMODE(rig.socket.stat().st_mode) == 0o600
    assert rig.gateway.calls == []
    assert rig.report().tally.not_compared == {}


async def test_copies_of_what_is_not_compared_are_dropped(rig: Rig) -> None:
    assert await rig.copy(service="unknown") == 202
    assert rig.comparisons.report("unknown") is None
    assert rig.gateway.calls == []


async def test_bodies_over_the_bound_are_counted_and_not_read(rig: Rig) -> None:
    rig.service(body_kib=1)
    sent = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(10_000):
            sent += 4096
            yield bytes(4096)

    assert await rig.copy(body=b"x" * 1024) == 202
    await rig.counted(1)
    try:
        await rig.copy(body=b"x" * 1025)
        await rig.copy(body=chunks())
    except aiohttp.ClientError:
        pass  # the collector closes the connection under a body that it does not read
    await rig.counted(1, TooLarge=2)
    assert sent < 40_960_000


async def test_a_copy_that_breaks_off_leaves_its_place(rig: Rig) -> None:
    rig.service()
    _, writer = await asyncio.open_unix_connection(str(rig.socket))
    writer.write(
        b"POST /x HTTP/1.1\r\nhost: a\r\nx-easel-probe: hush\r\nx-easel-mirror: ocr\r\ncontent-length: 9\r\n\r\nhalf"
    )
    await eventually(lambda: rig.collector.waiting() == 1)
    writer.transport.abort()
    await rig.counted(0, Broken=1)
    assert rig.collector.waiting() == 0


async def test_an_answer_over_the_bound_is_not_compared(rig: Rig) -> None:
    rig.service(body_kib=1)
    rig.gateway.answer = by_arm("x", "x" * 2000)
    await rig.copy()
    await rig.counted(0, TooLarge=1)


async def test_copies_over_the_rate_are_counted(rig: Rig) -> None:
    rig.service(samples_per_s=0.001)
    for _ in range(4):
        await rig.copy()
    await rig.counted(1, TooMany=3)


async def test_what_cannot_be_repeated_is_counted(rig: Rig) -> None:
    rig.service()
    await rig.copy(method="GET", connection="upgrade", upgrade="websocket")
    await rig.copy(content_type="application/grpc+proto")
    await rig.counted(0, WebSocket=1, Grpc=1)


async def test_a_side_without_a_replica_is_not_waited_for(rig: Rig) -> None:
    rig.service()
    rig.replica("ocr", 2, "unready")
    await rig.copy()
    await rig.counted(0, NoReplica=1)
    assert rig.gateway.calls == []


async def test_the_gateways_own_refusal_is_neither_sides_answer(rig: Rig) -> None:
    rig.service()
    refusal = {"code": "NoReadyReplica", "message": "none", "request_id": "r"}

    async def refused(request: web.Request) -> web.StreamResponse:
        if request.headers["x-easel-arm"] == "candidate":
            return web.json_response(refusal, status=503)
        return web.json_response({"label": "cat"})

    rig.gateway.answer = refused
    await rig.copy()
    await rig.counted(0, Refused=1)
    # an answer of the model with that status is one
    refusal.pop("request_id")
    await rig.copy()
    assert "status" in (await rig.counted(1, Refused=1)).tally.fields


async def test_a_side_that_breaks_off_and_an_envoy_that_is_away_are_counted(rig: Rig) -> None:
    rig.service()

    async def cut(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    rig.gateway.answer = cut
    await rig.copy()
    await rig.counted(0, Unreachable=1)
    rig.addresses.clear()
    await rig.copy()
    await rig.counted(0, Unreachable=1, NoEnvoy=1)


async def test_what_waits_is_bounded(rig: Rig) -> None:
    """A side that does not answer costs so many copies and requests at a time, and no more."""
    rig.service()
    gate = asyncio.Event()

    async def stuck(request: web.Request) -> web.StreamResponse:
        await gate.wait()
        return web.json_response(1)

    rig.gateway.answer = stuck
    for _ in range(MOST_WAITING + 5):
        await rig.copy()
    await rig.counted(0, Busy=5)
    assert rig.collector.waiting() == MOST_WAITING
    await eventually(lambda: rig.gateway.active == 2 * AT_A_TIME)
    gate.set()
    await rig.counted(MOST_WAITING, Busy=5)
    assert rig.gateway.most == 2 * AT_A_TIME
    assert rig.collector.waiting() == 0


async def test_bodies_together_are_bounded(rig: Rig) -> None:
    """A request that finds no room is not read; an answer that finds none is not compared."""
    rig.service()
    held = MOST_BYTES - 3000
    assert rig.budget.take(held)
    rig.gateway.answer = by_arm("x" * 1000, "x" * 1000)
    await rig.copy(body=b"x" * 3001)
    await rig.counted(0, Busy=1)
    await rig.copy(body=b"x" * 1500)
    await rig.counted(0, Busy=2)
    await rig.copy(body=b"x" * 10)
    await rig.counted(1, Busy=2)
    rig.budget.give_back(held)


async def test_a_sample_between_other_sides_does_not_count(rig: Rig) -> None:
    """While a copy is replayed its service gets other options: what comes back is not about them."""
    rig.service()
    gate = asyncio.Event()

    async def stuck(request: web.Request) -> web.StreamResponse:
        await gate.wait()
        return web.json_response(1)

    rig.gateway.answer = stuck
    await rig.copy()
    await eventually(lambda: rig.gateway.active == 2)
    rig.service(tolerance=0.5)
    gate.set()
    await eventually(lambda: rig.collector.waiting() == 0)
    assert rig.report().tally.samples == 0
    assert rig.report().sides.how.tolerance == 0.5
    await rig.copy()
    await rig.counted(1)


async def test_big_answers_are_compared_too(rig: Rig) -> None:
    rig.service()
    rig.gateway.answer = by_arm({"v": [0.1] * 9000}, {"v": [0.1] * 8999 + [0.2]})
    await rig.copy()
    assert list((await rig.counted(1)).tally.fields) == ["body.v[]"]


async def test_odd_headers_and_methods_do_no_harm(rig: Rig) -> None:
    rig.service()
    await rig.copy("/x", b"", method="REPORT")
    await rig.counted(1)
    reader, writer = await asyncio.open_unix_connection(str(rig.socket))
    writer.write(b"GET /x HTTP/1.1\r\nhost: a\r\nx-easel-probe: hush\r\nx-easel-mirror: ocr\r\nx-odd: \xff\xfe\r\n\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 202")
    writer.close()
    await rig.counted(2)
