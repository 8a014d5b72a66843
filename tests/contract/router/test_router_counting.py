"""What Envoy tells of requests under analysis: all of them and no others, with arm, code, duration and why."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import grpc.aio
import pytest
from google.protobuf.message_factory import GetMessageClass

from easel_contracts.spec import Match, Split
from easel_monitor.access_log import read
from easel_router.testing import PROCESS_TOKEN, Envoy, Rig, a_group, a_plan, free_port, until
from tests.flow.router.backends import Backend
from tests.unit.router import embedded

AUTH = {"authorization": "tok"}
SUBJECT = "canary-1"
SERVICE = "envoy.service.accesslog.v3.AccessLogService"
TO_CANDIDATE = Match(kind="header", name="to", value="candidate")


class Log:
    """A small server in the monitor's place: what it was told, and by whom."""

    def __init__(self) -> None:
        self.entries: list[Any] = []
        self.raw: list[bytes] = []
        self.names: set[str] = set()
        self.tokens: set[str] = set()
        found = embedded.pool().FindMessageTypeByName("envoy.service.accesslog.v3.StreamAccessLogsMessage")
        self._message = GetMessageClass(found)
        self._server: grpc.aio.Server | None = None
        self.port = 0

    async def start(self) -> None:
        self._server = grpc.aio.server()
        handler = grpc.stream_unary_rpc_method_handler(self._take)
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE, {"StreamAccessLogs": handler}),)
        )
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self._server.start()

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(0)

    async def _take(self, stream: AsyncIterator[bytes], context: Any) -> bytes:
        self.tokens |= {str(value) for key, value in context.invocation_metadata() if key == "easel-process-token"}
        async for raw in stream:
            self.raw.append(raw)
            message: Any = self._message.FromString(raw)
            if message.HasField("identifier"):
                self.names.add(message.identifier.log_name)
            self.entries += message.http_logs.log_entry
        return b""

    async def have(self, count: int) -> list[Any]:
        await until(lambda: len(self.entries) >= count, f"{count} entries")
        return self.entries


def arm(entry: Any) -> str:
    return str(entry.common_properties.custom_tags.get("arm", ""))


@pytest.fixture
async def log() -> AsyncIterator[Log]:
    made = Log()
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def counting(xds: Rig, log: Log) -> Envoy:
    return await xds.envoy(sink_addr=f"127.0.0.1:{log.port}")


async def ask(client: aiohttp.ClientSession, envoy: Envoy, path: str, **headers: str) -> int:
    async with client.post(envoy.url + path, headers=AUTH | headers, data=b"x") as answer:
        await answer.read()
        return answer.status


async def test_every_request_of_a_split_is_told_once(
    xds: Rig, counting: Envoy, log: Log, servers: list[Backend], client: aiohttp.ClientSession
) -> None:
    """The counts by arm are those of the replicas; a service without a subject is not told of."""
    split = Split(weight_permille=300, subject=SUBJECT)
    await xds.acknowledged(xds.put(a_plan("ocr", servers[0].port, candidates=(servers[1].port,), split=split)))
    await xds.acknowledged(xds.put(a_plan("quiet", servers[2].port)))
    slots = asyncio.Semaphore(16)

    async def one(n: int) -> int:
        async with slots:
            await ask(client, counting, "/api/predict/quiet")
            return await ask(client, counting, f"/api/predict/ocr{'?x=1' if n % 2 else '/y'}")

    assert set(await asyncio.gather(*(one(n) for n in range(500)))) == {200}
    entries = await log.have(500)
    await asyncio.sleep(0.5)  # a surplus would come now

    assert Counter(map(arm, entries)) == {
        "stable": servers[0].executions.total(),
        "candidate": servers[1].executions.total(),
    }
    assert {e.common_properties.metadata.filter_metadata["easel"]["subject"] for e in entries} == {SUBJECT}
    assert {e.response.response_code.value for e in entries} == {200}
    assert len(entries) == 500
    assert log.names == {"easel.counts"}
    assert log.tokens == {PROCESS_TOKEN}
    assert PROCESS_TOKEN.encode() not in b"".join(xds.server.streams[counting.node_id].listeners.values())


async def test_codes_durations_and_flags_arrive(
    xds: Rig, counting: Envoy, log: Log, servers: list[Backend], client: aiohttp.ClientSession
) -> None:
    """Also of answers that Envoy gives itself, once it knows who asks; what is turned away before is no evidence."""
    split = Split(weight_permille=0, match=TO_CANDIDATE, subject=SUBJECT)
    plan = a_plan("ocr", servers[0].port, candidates=(servers[1].port,), split=split, keepalive_ms=600)
    await xds.acknowledged(xds.put(plan))
    await ask(client, counting, "/api/predict/ocr", authorization="wrong")
    await ask(client, counting, "/api/predict/ocr/status?code=500", to="candidate")
    await ask(client, counting, "/api/predict/ocr/sleep?s=0.3")
    await ask(client, counting, "/api/predict/ocr/sleep?s=9", to="candidate")
    failed, slow, late = await log.have(3)

    assert [(arm(e), e.response.response_code.value) for e in (failed, slow, late)] == [
        ("candidate", 500), ("stable", 200), ("candidate", 408),
    ]  # fmt: skip
    first_byte = slow.common_properties.time_to_first_upstream_rx_byte.ToMilliseconds()
    assert 250 < first_byte < 600
    assert slow.common_properties.time_to_last_downstream_tx_byte.ToMilliseconds() >= first_byte
    assert late.common_properties.response_flags.upstream_request_timeout
    assert not late.common_properties.HasField("time_to_first_upstream_rx_byte")


async def test_the_arm_is_who_answered(
    xds: Rig, counting: Envoy, log: Log, servers: list[Backend], client: aiohttp.ClientSession
) -> None:
    """A dead candidate whose requests the stable side answered is not taken for a good one: they were meant for it."""
    split = Split(weight_permille=500, match=TO_CANDIDATE, subject=SUBJECT)
    await xds.acknowledged(xds.put(a_plan("ocr", servers[0].port, candidates=(free_port(),), split=split)))
    assert [await ask(client, counting, "/api/predict/ocr", to="candidate") for _ in range(5)] == [200] * 5
    entries = await log.have(5)

    assert Counter(map(arm, entries)) == {"stable": 5}
    assert {e.common_properties.custom_tags["meant"] for e in entries} == {"candidate"}


async def test_what_a_group_picked_comes_before_the_members_own_arm(
    xds: Rig, counting: Envoy, log: Log, servers: list[Backend], client: aiohttp.ClientSession
) -> None:
    """Requests of a canary between members are counted as its candidate, whichever replica of that member answered."""
    old, new = a_plan("old", servers[0].port), a_plan("new", servers[1].port)
    group = a_group("both", old, new, split=Split(weight_permille=1000, subject=SUBJECT), candidate="new")
    for plan in (old, new):
        await xds.acknowledged(xds.put(plan))
    await xds.acknowledged(xds.put_group(group))
    for _ in range(5):
        assert await ask(client, counting, "/api/predict/both/x", authorization="group-tok") == 200
    entries = await log.have(5)

    assert Counter(map(arm, entries)) == {"candidate": 5}
    assert servers[1].executions.total() == 5


async def test_callers_that_leave_are_told_of(
    xds: Rig, counting: Envoy, log: Log, servers: list[Backend], client: aiohttp.ClientSession
) -> None:
    """Without a code, with the flag that says whose doing it was."""
    split = Split(weight_permille=0, match=TO_CANDIDATE, subject=SUBJECT)
    await xds.acknowledged(xds.put(a_plan("ocr", servers[0].port, candidates=(servers[1].port,), split=split)))
    running = asyncio.create_task(ask(client, counting, "/api/predict/ocr/wait", to="candidate"))
    await until(lambda: servers[1].active == 1, "in flight")
    running.cancel()
    (entry,) = await log.have(1)

    assert entry.common_properties.response_flags.downstream_connection_termination
    assert arm(entry) == "candidate"


async def test_the_log_comes_back_after_the_monitor(
    xds: Rig, counting: Envoy, log: Log, servers: list[Backend], client: aiohttp.ClientSession
) -> None:
    """Requests are answered meanwhile, and told of again once it is there."""
    split = Split(weight_permille=500, subject=SUBJECT)
    await xds.acknowledged(xds.put(a_plan("ocr", servers[0].port, candidates=(servers[1].port,), split=split)))
    await ask(client, counting, "/api/predict/ocr")
    await log.have(1)
    await log.stop()
    assert [await ask(client, counting, "/api/predict/ocr") for _ in range(20)] == [200] * 20
    await log.start()
    log.entries.clear()
    deadline = asyncio.get_running_loop().time() + 15
    while not log.entries and asyncio.get_running_loop().time() < deadline:
        await ask(client, counting, "/api/predict/ocr")
        await asyncio.sleep(0.05)

    assert log.entries


class _Ending(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    """Ends calls with the status that the request names; with an answer before it where the method is a stream."""

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        async def ended(request: bytes, context: Any) -> None:
            code = next(code for code in grpc.StatusCode if code.name == request.decode())
            if code is not grpc.StatusCode.OK:
                await context.abort(code, "as asked")

        async def unary(request: bytes, context: Any) -> bytes:
            await ended(request, context)
            return b"fine"

        async def stream(request: bytes, context: Any) -> AsyncIterator[bytes]:
            yield b"begun"
            await ended(request, context)

        if str(details.method).endswith("Stream"):
            return grpc.unary_stream_rpc_method_handler(stream)
        return grpc.unary_unary_rpc_method_handler(unary)


async def test_how_grpc_calls_end_is_told_and_understood(xds: Rig, counting: Envoy, log: Log) -> None:
    """In trailers and where there is nothing but headers; the monitor counts what speaks against the server."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((_Ending(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    split = Split(weight_permille=0, match=TO_CANDIDATE, subject=SUBJECT)
    await xds.acknowledged(xds.put(a_plan("ocr", port, candidates=(free_port(),), split=split, grpc=True)))
    metadata = (("authorization", "tok"), ("x-easel-service", "ocr"))
    codes = [grpc.StatusCode.OK, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNAVAILABLE]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{counting.data_port}") as channel:
        for code in codes:
            name = code.name.encode()
            unary = channel.unary_unary("/pkg.Model/Predict", None, None)(name, metadata=metadata, timeout=15)
            assert await unary.code() is code
            stream = channel.unary_stream("/pkg.Model/Stream", None, None)(name, metadata=metadata, timeout=15)
            assert await stream.read() == b"begun"
            assert await stream.code() is code
    entries = await log.have(2 * len(codes))
    await server.stop(0)

    statuses = [str(code.value[0]) for code in codes for _ in ("unary", "stream")]
    assert [
        e.response.response_trailers.get("grpc-status") or e.response.response_headers["grpc-status"] for e in entries
    ] == statuses
    assert {bool(e.response.response_trailers) for e in entries} == {True, False}
    assert {e.response.response_code.value for e in entries} == {200}
    counted = [(arm, outcome.error) for raw in log.raw for _, arm, outcome in read(raw)]
    assert counted == [("stable", status in {"13", "14"}) for status in statuses]


async def test_a_grpc_call_that_reaches_no_replica_is_an_error(xds: Rig, counting: Envoy, log: Log) -> None:
    """Although HTTP has 200 for it."""
    split = Split(weight_permille=0, match=TO_CANDIDATE, subject=SUBJECT)
    plan = a_plan("ocr", free_port(), candidates=(free_port(),), split=split, grpc=True, keepalive_ms=3000)
    await xds.acknowledged(xds.put(plan))
    metadata = (("authorization", "tok"), ("x-easel-service", "ocr"))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{counting.data_port}") as channel:
        call = channel.unary_unary("/pkg.Model/Predict", None, None)(b"OK", metadata=metadata, timeout=15)
        assert await call.code() is grpc.StatusCode.UNAVAILABLE
    (entry,) = await log.have(1)

    assert entry.response.response_code.value == 200
    assert [outcome.error for raw in log.raw for _, _, outcome in read(raw)] == [True]
