"""The async client against the real gRPC APIs over canned state."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from easel_contracts.host import host_id
from easel_sdk import Client, Held, Prediction
from easel_sdk.errors import (
    AlreadyExists,
    CannotReach,
    InvalidInput,
    NotFound,
    PredictFailed,
    Refused,
    TimedOut,
    Unauthenticated,
    Unavailable,
)
from tests.flow.sdk.platform import KEY, TOKEN, Platform

SPEC = {"metadata": {"name": "ocr"}}


@pytest.fixture
async def client(platform: Platform) -> AsyncIterator[Client]:
    """A client of the platform."""
    async with Client(platform.server, KEY) as found:
        yield found


async def test_create_sends_the_text_as_it_is_and_an_idempotency_key(platform: Platform, client: Client) -> None:
    """The author's own spelling reaches control; every mutation can be repeated safely."""
    text = '{ "metadata":   {"name": "ocr"}}'

    service = await client.services.create(text)

    request = platform.asked("Services.Create")[0]
    assert service.service_name == "ocr"
    assert request.config == text
    assert len(request.idempotency_key) == 36


async def test_a_mutation_is_repeated_with_the_same_key(platform: Platform, client: Client) -> None:
    """A part that restarts is waited for; the repeated call has the key of the first."""
    platform.fail("Services.Create", grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNAVAILABLE)

    await client.services.create(SPEC)

    requests = platform.asked("Services.Create")
    assert len(requests) == 3
    assert len({r.idempotency_key for r in requests}) == 1


async def test_what_may_have_two_effects_is_not_repeated(platform: Platform, client: Client) -> None:
    """CreateToken takes no idempotency key, so it is asked once."""
    platform.fail("Events.CreateToken", grpc.StatusCode.UNAVAILABLE)

    with pytest.raises(Unavailable):
        await client.events.create_token()

    assert len(platform.asked("Events.CreateToken")) == 1


async def test_a_deadline_is_not_repeated(platform: Platform, client: Client) -> None:
    """A call that ran out of time may have had its effect."""
    platform.fail("Services.Stop", grpc.StatusCode.DEADLINE_EXCEEDED)

    with pytest.raises(TimedOut):
        await client.services.stop("ocr")

    assert len(platform.asked("Services.Stop")) == 1


async def test_errors_come_back_as_they_were_raised(platform: Platform, client: Client) -> None:
    """Class, code, hint and metadata survive the wire."""
    platform.fail("Services.Get", AlreadyExists("TAKEN", "the name is taken", "choose another", owner="x"))
    platform.fail("Services.List", Refused("NO_ROOM", "the disk is full"))

    with pytest.raises(AlreadyExists) as taken:
        await client.services.get("ocr")
    with pytest.raises(Refused, match="the disk is full"):
        await client.services.list()

    assert (taken.value.code, taken.value.hint, taken.value.metadata) == ("TAKEN", "choose another", {"owner": "x"})


async def test_field_errors_keep_hint_line_and_column(client: Client) -> None:
    """Everything that control knows about a wrong field reaches the caller."""
    with pytest.raises(InvalidInput) as found:
        await client.services.create({"name": "ocr", "cpus": 1, "mem": 2})

    first = found.value.fields[0]
    assert [f.path for f in found.value.fields] == ["cpus", "mem"]
    assert (first.hint, first.line, first.column) == ("did you mean cpu?", 3, 7)


async def test_wrong_key_and_missing_service(platform: Platform, client: Client) -> None:
    """401 and 404 have their own classes."""
    with pytest.raises(NotFound):
        await client.services.get("nothing")
    async with Client(platform.server, "wrong") as other:
        with pytest.raises(Unauthenticated, match="not known here"):
            await other.services.list()


async def test_nothing_listens(free_port: int) -> None:
    """The message names the address and what to do."""
    async with Client(f"127.0.0.1:{free_port}", KEY) as client:
        with pytest.raises(CannotReach, match=f"nothing answers at 127.0.0.1:{free_port}") as found:
            await client.services.list()

    assert "easel up" in found.value.hint


async def test_the_data_port_is_not_the_control_port(platform: Platform) -> None:
    """Something else at the address is no reason for a hang or a riddle."""
    async with Client(f"127.0.0.1:{platform.data_port}", KEY) as client:
        with pytest.raises(Unavailable):
            await client.services.list()


async def test_list_reads_every_page(client: Client) -> None:
    """Three services come in two pages."""
    for name in ("aaa", "bbb", "ccc"):
        await client.services.create({"name": name})

    assert [s.service_name for s in await client.services.list()] == ["aaa", "bbb", "ccc"]


async def test_every_call_carries_a_trace_and_a_request_id(platform: Platform, client: Client) -> None:
    """Calls of one client share the trace id; span and request ids are their own."""
    await client.services.list()
    await client.nodes.list()

    traces = [m["traceparent"].split("-") for m in platform.metadata]
    assert traces[0][1] == traces[1][1]
    assert traces[0][2] != traces[1][2]
    assert len({m["x-request-id"] for m in platform.metadata}) == 2


async def test_local_path_on_the_same_host_is_used_in_place(platform: Platform, client: Client, tmp_path: Path) -> None:
    """Relative to the file, absolute on the wire, every line where it was."""
    platform.host_id = host_id()
    file = tmp_path / "service.json"
    file.write_text('{"name": "ocr",\n "storage": [{"mount_path": "/code",\n "local": {"path": "src"}}]\n}\n')

    await client.services.create(file)

    sent = platform.asked("Services.Create")[0].config
    assert json.loads(sent)["storage"][0]["local"] == {"path": str(tmp_path / "src")}
    assert sent.count("\n") == 4
    assert platform.uploaded == {}


async def test_local_path_for_another_host_is_uploaded(platform: Platform, client: Client, tmp_path: Path) -> None:
    """The spec names the digest of exactly the bytes that were sent."""
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "server.py").write_text("print(1)\n")
    (tmp_path / "service.json").write_text('{"name": "ocr", "storage": [{"local.path": "./src"}]}')
    platform.fail("Services.UploadCode", grpc.StatusCode.UNAVAILABLE)

    await client.services.create(tmp_path / "service.json")

    (digest,) = platform.uploaded
    assert json.loads(platform.asked("Services.Create")[0].config)["storage"] == [{"local.digest": digest}]


async def test_a_path_that_is_nowhere_is_refused_before_anything_is_made(
    platform: Platform, client: Client, tmp_path: Path
) -> None:
    """The field is named; control is never asked to create."""
    (tmp_path / "service.json").write_text('{"name": "ocr", "storage": [{"local": {"path": "src"}}]}')

    with pytest.raises(InvalidInput) as found:
        await client.services.create(tmp_path / "service.json")

    assert found.value.fields[0].path == "storage[0].local.path"
    assert "does not exist" in found.value.fields[0].message
    assert platform.asked("Services.Create") == []


async def test_events_are_taken_up_again_after_a_break(platform: Platform, client: Client) -> None:
    """None twice, none left out; the break is told."""
    platform.cut_after = 2
    gaps: list[str] = []
    seen = []

    async for event in client.events.watch(from_sequence=1, on_gap=lambda e: gaps.append(e.code)):
        seen.append(event.sequence)
        if event.sequence == 5:
            break

    assert seen == [1, 2, 3, 4, 5]
    assert len(gaps) == 2
    assert [r.from_sequence for r in platform.asked("Events.Watch")] == [1, 3, 5]


async def test_events_without_follow_end(client: Client) -> None:
    """The newest ones, then the end."""
    assert [e.sequence async for e in client.events.watch(tail=2, follow=False)] == [4, 5]


async def test_metrics_watch_goes_on_after_a_break(client: Client) -> None:
    """A restarting monitor costs seconds, not the stream."""
    points = []

    async with asyncio.timeout(10):
        async for point in client.metrics.watch("ocr"):
            points.append(point.qps)
            if len(points) == 2:
                break

    assert points == [1, 1]


async def test_explain_names_the_part_that_does_not_answer(platform: Platform, client: Client) -> None:
    """The others' answers are there all the same."""
    await client.services.create(SPEC)
    platform.fail("Routes.Explain", grpc.StatusCode.UNAVAILABLE)

    parts = {p.part: p for p in await client.explain("ocr")}

    assert list(parts) == ["control", "scheduler", "autoscaler", "router", "monitor"]
    assert parts["router"].explanation is None
    assert isinstance(parts["router"].error, Unavailable)
    assert [p for p in parts.values() if p.error] == [parts["router"]]


async def test_explain_of_no_service_is_not_found(client: Client) -> None:
    """Other parts may have something to say about a name that control does not know: that is no answer."""
    with pytest.raises(NotFound):
        await client.explain("nothing")


async def test_predict_fills_in_url_and_token(client: Client) -> None:
    """A mapping goes as JSON, by POST."""
    await client.services.create(SPEC)

    found = await client.predict("ocr", {"x": 1}, path="v1/run?a=b", headers={"X-Extra": "e"})

    assert found.status == 200
    assert found.json() == {"path": "/api/predict/ocr/v1/run?a=b", "method": "POST", "body": '{"x": 1}',
                            "type": "application/json", "extra": "e"}  # fmt: skip


async def test_predict_without_a_body_is_a_get(client: Client) -> None:
    """A look at the service's root."""
    await client.services.create(SPEC)

    assert (await client.predict("ocr")).json()["method"] == "GET"


async def test_predict_streams_the_answer(client: Client) -> None:
    """Pieces come as the service sends them."""
    await client.services.create(SPEC)

    assert b"".join([c async for c in client.predict_stream("ocr", path="/drip")]) == b"one two three"


async def test_predict_tells_how_it_was_held(client: Client) -> None:
    """Position and expected wait of a request that waited for a replica; None of one that did not."""
    await client.services.create(SPEC)
    started: list[Prediction] = []

    assert (await client.predict("ocr", path="held")).held == Held(3, 1.25)
    assert (await client.predict("ocr")).held is None
    assert [c async for c in client.predict_stream("ocr", path="held", on_start=started.append)] == [b"{}"]
    assert [(s.status, s.held) for s in started] == [(200, Held(3, 1.25))]


@pytest.mark.parametrize(
    ("path", "headers", "says", "hint"),
    [
        ("", {"Authorization": "Bearer no"}, "the token sent as Bearer: Invalid token", "easel desc ocr"),
        ("", {"authorization": "EAS abc"}, "the signature", "easel desc ocr"),
        ("slow", {}, "metadata.rpc.keepalive = 5000 ms", "easel modify ocr -Dmetadata.rpc.keepalive="),
        ("none", {}, "no replica is ready", "`easel explain ocr`"),
        ("full", {}, "2 of 2 requests wait for a replica of ocr already", "Retry-After: 12 s"),
        (
            "late",
            {},
            "= 5000 ms; it waited for a replica, as number 3 in the queue, 1.2 s expected",
            "easel modify ocr",
        ),
        ("broken", {}, "ocr answered 500: the model raised", "easel logs ocr"),
    ],
)
async def test_predict_says_what_went_wrong(
    client: Client, path: str, headers: dict[str, str], says: str, hint: str
) -> None:
    """Whose error it is, which token form failed, which setting to change."""
    await client.services.create(SPEC)

    with pytest.raises(PredictFailed) as found:
        await client.predict("ocr", b"x", path=path, headers=headers)

    assert says in found.value.message
    assert hint in found.value.hint


async def test_predict_uses_a_token_sent_by_the_caller(client: Client) -> None:
    """Authorization given by the caller is not replaced."""
    await client.services.create(SPEC)

    assert (await client.predict("ocr", headers={"Authorization": f"Bearer {TOKEN}"})).status == 200


async def test_the_home_directory_is_enough(platform: Platform, tmp_path: Path) -> None:
    """What `easel up` wrote names address and key."""
    async with Client(home=platform.write_home(tmp_path / "home")) as client:
        assert await client.services.list() == []
