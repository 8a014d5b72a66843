"""A gateway's processes follow one another on real Envoys: on purpose without a loss, after crashes all the same."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from easel_contracts.errors import Conflict, Refused, Unavailable
from easel_kit.testing import eventually
from easel_router.testing import until
from easel_standalone import gateway as gateway_module
from tests.flow.router.backends import runs
from tests.flow.standalone.gateways import OneGateway, one_gateway
from tests.steady import steady


def running(pid: int) -> bool:
    """Whether a process still runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def ended(pid: int) -> None:
    """Returns when a process has."""
    await eventually(lambda: not running(pid))


async def another(one: OneGateway, before: int) -> None:
    """Returns when a process answers that is not the one before."""
    await eventually(lambda: one.gateway.current.pid not in (None, before))
    await one.ready()


def has_ended(pid: int) -> bool:
    """Whether it does not run any more."""
    return not running(pid)


def is_followed(one: OneGateway, pid: int) -> bool:
    """Whether another process is the gateway's."""
    return one.gateway.current.pid not in (None, pid)


async def a_request_that_waits(one: OneGateway) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """In flight at a model server until it is released."""
    reader, writer = await asyncio.open_connection("127.0.0.1", one.config.port)
    writer.write(b"GET /api/predict/ocr/wait HTTP/1.1\r\nhost: easel\r\nauthorization: tok\r\n\r\n")
    await until(lambda: any(server.active for server in one.servers), "in flight")
    return reader, writer


async def test_a_restart_loses_nothing_and_the_old_process_ends_when_it_is_done(short_path: Path) -> None:
    """Again and again; its successor survives that, and so do those who come after it."""
    async with one_gateway(short_path) as one:
        async with steady(one.config.port) as load:
            for _ in range(3):
                await load.answered_more(100)
                before = one.pid
                done = await one.gateway.replace(grace_s=3600)
                assert (done.how, done.cut, done.pid) == ("handed over", 0, one.pid)
                await ended(before)
                await load.answered_more(100)
        assert load.failed == {}
        load.assert_nothing_ran_twice(runs(one.servers))
        assert one.gateway.current.restarts == 0
        assert list(one.gateway.children) == ["envoy"]
        assert len(one.memory()) == 1
    assert one.memory() == []


async def test_what_runs_has_its_grace(short_path: Path) -> None:
    """The old process is shown with what it still has, and another restart is refused; then its time is over."""
    async with one_gateway(short_path) as one:
        reader, writer = await a_request_that_waits(one)
        old = one.pid
        await one.gateway.replace(grace_s=4)
        finishing = next(child for name, child in one.gateway.children.items() if name != "envoy")
        with pytest.raises(Conflict, match=f"pid {old}.*connections: .*, at most [0-4] s more"):
            await one.gateway.replace(grace_s=4)
        await eventually(lambda: "connections: 1" in finishing.why_not_ready)
        assert finishing.state == "finishing"

        assert await reader.read() == b""  # cut, and told
        await ended(old)
        writer.close()
        assert any("1 connections" in line and "are closed" in line for line in one.said)
        async with steady(one.config.port) as load:
            await load.answered_more(20)
        assert load.failed == {}


async def test_a_request_in_flight_is_answered_by_the_old_process(short_path: Path) -> None:
    """However many restarts of the callers' kind come before: it ends with its last answer, not before."""
    async with one_gateway(short_path) as one:
        reader, writer = await a_request_that_waits(one)
        old = one.pid
        await one.gateway.replace(grace_s=3600)
        await eventually(lambda: len(one.gateway.children) == 2)
        assert running(old)
        for server in one.servers:
            server.release()

        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        writer.close()
        await ended(old)


async def test_a_killed_process_begins_anew_and_can_hand_over_again(short_path: Path) -> None:
    """Whatever it shared before lies around: epochs begin anew."""
    async with one_gateway(short_path) as one:
        await one.gateway.replace(grace_s=3600)
        for _ in range(2):
            before = one.pid
            os.kill(before, signal.SIGKILL)
            await another(one, before)
        await eventually(lambda: len(one.gateway.children) == 1)
        async with steady(one.config.port) as load:
            await load.answered_more(50)
            done = await one.gateway.replace(grace_s=3600)
            await load.answered_more(50)

    assert (done.how, load.failed) == ("handed over", {})


async def test_the_new_process_dies_while_the_old_one_finishes(short_path: Path) -> None:
    """The old one keeps its request; the new one begins beside it and takes calls; nothing is left in the end."""
    async with one_gateway(short_path) as one:
        reader, writer = await a_request_that_waits(one)
        old = one.pid
        await one.gateway.replace(grace_s=3600)
        new = one.pid
        os.kill(new, signal.SIGKILL)
        await another(one, new)
        async with steady(one.config.port) as load:
            await load.answered_more(50)
        assert load.failed == {}
        for server in one.servers:
            server.release()
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        writer.close()
        await ended(old)
    assert one.memory() == []


async def test_the_old_process_dies_while_it_finishes(short_path: Path) -> None:
    """Its successor does not notice, and can hand over itself: it tells its predecessor to end, whom nobody is."""
    async with one_gateway(short_path) as one:
        _, writer = await a_request_that_waits(one)
        old = one.pid
        await one.gateway.replace(grace_s=3600)
        os.kill(old, signal.SIGKILL)
        await eventually(lambda: len(one.gateway.children) == 1)
        async with steady(one.config.port) as load:
            await load.answered_more(50)
            done = await one.gateway.replace(grace_s=3600)
            await load.answered_more(50)
        writer.close()

    assert (done.how, load.failed, one.gateway.current.restarts) == ("handed over", {}, 0)


async def test_a_successor_that_dies_at_once_begins_beside_the_old_one(short_path: Path) -> None:
    """The old process has no admin interface left by then, and cannot be drained: its connections are cut, and told."""
    async with one_gateway(short_path) as one:
        old = one.pid
        async with steady(one.config.port, keeping=2, connecting=2) as load:
            await load.answered_more(20)
            replacing = asyncio.create_task(one.gateway.replace(grace_s=3600))
            coming = await eventually(lambda: [c for c in one.gateway.children.values() if c.pid not in (None, old)])
            log = one.home.log("envoy")
            await eventually(lambda: "shutting down admin due to child startup" in log.read_text())
            os.kill(coming[0].pid, signal.SIGKILL)
            done = await replacing
            await load.answered_more(100)
            failed = dict(load.failed)
            await load.answered_more(100)

        assert load.failed == failed, "failures went on"
        load.assert_nothing_ran_twice(runs(one.servers))
        assert not running(old)
        assert done.pid == one.pid
        assert set(failed.values()) <= {"IncompleteReadError", "ConnectionResetError", "BrokenPipeError"}
        if done.how == "handed over":  # it died a moment too late: that is the test before the last
            assert failed == {}


async def test_a_configuration_that_is_not_accepted_changes_nothing(short_path: Path) -> None:
    """Asked beforehand: the present process keeps even its admin interface."""
    async with one_gateway(short_path) as one:
        old = one.pid
        key = short_path / "tls.key"
        key.write_text("not a key")
        one.listen_with(key, key)
        with pytest.raises(Refused, match="the present one goes on"):
            await one.gateway.replace(grace_s=3600)

        assert one.pid == old
        assert await one.gateway.current.check()
        assert list(one.gateway.children) == ["envoy"]


async def test_a_successor_that_never_becomes_ready_is_given_up(
    short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The present process goes on with its calls."""
    monkeypatch.setattr(gateway_module, "START_S", 3.0)
    async with one_gateway(short_path) as one:
        old = one.pid
        one.broken = ["--no-such-option"]
        with pytest.raises(Unavailable, match="the present one goes on"):
            await one.gateway.replace(grace_s=3600)

        assert one.pid == old
        async with steady(one.config.port) as load:
            await load.answered_more(20)
        assert load.failed == {}
        one.broken = []
        assert (await one.gateway.replace(grace_s=3600)).pid == one.pid
