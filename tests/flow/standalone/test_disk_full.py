"""A full disk: facts wait, and flow again by themselves once there is space."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import nats.errors
import nats.js.errors
import pytest

from easel_kit import streams
from easel_kit.testing import eventually
from easel_standalone import supervisor as supervising
from tests.flow.standalone.stores import Stores


@pytest.fixture
def small_disk(short_path: Path) -> Iterator[Path]:
    """A file system of 64 MiB."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(short_path)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small file system needs root")
    yield short_path
    subprocess.run(["umount", "-l", str(short_path)], check=True)


async def test_bus_takes_facts_again_when_there_is_space(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """nats-server keeps refusing after a full disk until it is started again; the supervisor does that."""
    monkeypatch.setattr(supervising, "CHECK_S", 0.1)
    stores = Stores(small_disk / "h")
    child = stores.supervisor.add(stores.plans.nats())
    keeping = asyncio.create_task(stores.supervisor.keep())
    try:
        await stores.supervisor.wait_ready([child])
        client = await stores.client("migrate")
        await streams.ensure_stream(client.jetstream(), streams.stream_configs()[0])
        control = await stores.client("control")

        async def told() -> bool:
            try:
                await control.jetstream().publish("easel.fact.default.service.ocr.created", b"x" * 4096, timeout=0.5)
            except (nats.errors.Error, nats.js.errors.Error, TimeoutError):
                return False
            return True

        assert await told()
        filler = small_disk / "filler"
        _fill(filler)
        await eventually(_not(told))
        filler.unlink()

        await eventually(told)

        assert child.restarts == 1
        await client.close()
        await control.close()
    finally:
        stores.supervisor.stop_asked.set()
        await keeping
        await stores.supervisor.stop()


def _not(question: Callable[[], Awaitable[bool]]) -> Callable[[], Awaitable[bool]]:
    async def answer() -> bool:
        return not await question()

    return answer


def _fill(file: Path) -> None:
    with open(file, "wb", buffering=0) as filler:
        try:
            while True:
                filler.write(b"\0" * 65536)
        except OSError:
            return
