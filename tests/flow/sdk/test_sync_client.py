"""The sync face: the same answers, also where a loop is running already."""

from __future__ import annotations

import asyncio
import inspect
import threading

import pytest

from easel_sdk import Client, SyncClient, to_dict
from easel_sdk.errors import NotFound
from easel_sdk.sync import LoopThread
from tests.flow.sdk.platform import KEY, Platform


def test_the_whole_way_without_a_loop(platform: Platform) -> None:
    """Create, wait, look, call, stream."""
    with SyncClient(platform.server, KEY) as easel:
        service = easel.services.create({"name": "ocr"})
        platform.path["ocr"] = ["Running"]
        ready = easel.wait("ocr", generation=service.generation, timeout_s=10)
        answer = easel.predict("ocr", "hello")

        assert ready is not None
        assert ready.status == "Running"
        assert answer.json()["body"] == "hello"
        assert [s.service_name for s in easel.services.list()] == ["ocr"]
        assert b"".join(easel.predict_stream("ocr", path="drip")) == b"one two three"
        assert easel.explain("ocr")[0].part == "control"


async def test_inside_a_running_loop(platform: Platform) -> None:
    """As in a Jupyter cell: called from a coroutine of a loop that runs."""
    with SyncClient(platform.server, KEY) as easel:
        easel.services.create({"name": "ocr"})

        assert asyncio.get_running_loop().is_running()
        assert easel.services.get("ocr").service_name == "ocr"


def test_leaving_a_stream_early_ends_it(platform: Platform) -> None:
    """A follow without end can be left, and the client closed."""
    with SyncClient(platform.server, KEY) as easel:
        for event in easel.events.watch(from_sequence=1):
            if event.sequence == 2:
                break

        assert easel.services.list() == []


def test_errors_are_the_same(platform: Platform) -> None:
    """Raised in the caller's thread."""
    with SyncClient(platform.server, KEY) as easel, pytest.raises(NotFound):
        easel.services.get("nothing")


def test_close_ends_the_thread_and_may_be_repeated(platform: Platform) -> None:
    """Nothing is left behind."""
    easel = SyncClient(platform.server, KEY)
    easel.services.list()
    easel.close()
    easel.close()

    assert not [t for t in threading.enumerate() if t.name == "easel-sdk"]


def test_an_interrupt_cancels_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while waiting does not leave the work running."""
    thread = LoopThread()
    started, cancelled = threading.Event(), threading.Event()

    async def work() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    def interrupted(self: object, timeout: float | None = None) -> None:
        started.wait(5)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("concurrent.futures.Future.result", interrupted)
        with pytest.raises(KeyboardInterrupt):
            thread.run(work())

    assert cancelled.wait(5)
    thread.close()


def test_every_async_method_has_a_sync_one(platform: Platform) -> None:
    """Same names, same parameters, same documentation."""
    client, easel = Client(platform.server, KEY), SyncClient(platform.server, KEY)
    pairs = [(client, easel)]
    pairs += [(getattr(client, name), getattr(easel, name)) for name in vars(easel) if hasattr(client, name)]
    compared = 0
    for one, other in pairs:
        for name, method in inspect.getmembers(type(one), inspect.isfunction):
            if name.startswith("_") or name == "close":
                continue
            if inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method):
                twin = getattr(type(other), name)
                assert list(inspect.signature(twin).parameters) == list(inspect.signature(method).parameters)
                assert inspect.getdoc(twin) == inspect.getdoc(method)
                compared += 1
    easel.close()

    assert compared > 30


def test_to_dict_has_every_field_by_its_proto_name(platform: Platform) -> None:
    """Zero values too; numbers stay numbers."""
    with SyncClient(platform.server, KEY) as easel:
        found = to_dict(easel.services.create({"name": "ocr"}))

    assert found["generation"] == 1
    assert found["gpu"] == 0
    assert found["create_time"] is None
    assert found["labels"] == []
    assert found["phase_s"] == {}
