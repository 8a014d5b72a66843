"""The stores go away and come back: nothing is lost, doubled or left silent."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from easel_kit.testing import accepts, binary, eventually, free_port
from easel_proto.v1.events_pb2 import Event, WatchEventsRequest
from tests.flow.monitor.rig import METADATA, Rig, monitor, surroundings


class Nats:
    """A nats-server of this test's own, that can be killed and started again on its data."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self.config = directory / "own-nats.conf"
        self.config.write_text(
            f'listen: "127.0.0.1:{self.port}"\njetstream {{ store_dir: "{directory}/own-js", sync_interval: always }}\n'
        )
        self.child: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.child = subprocess.Popen([binary("nats-server"), "-c", str(self.config)], stderr=subprocess.DEVNULL)

    def kill(self) -> None:
        assert self.child is not None
        self.child.send_signal(signal.SIGKILL)
        self.child.wait()


@contextmanager
def own_nats(directory: Path) -> Iterator[Nats]:
    server = Nats(directory)
    server.start()
    try:
        yield server
    finally:
        server.kill()


async def follow(rig: Rig, seen: list[Event], first: int) -> None:
    call = rig.events.Watch(WatchEventsRequest(from_sequence=first, follow=True, entity="node"), metadata=METADATA)
    async for event in call:
        seen.append(event)


async def tell(rig: Rig, address: str) -> None:
    """A fact, told until it is stored (once: its owner's relay does the same)."""

    async def stored() -> bool:
        try:
            await rig.node(address=address)
        except Exception:
            return False
        return True

    await eventually(stored)


async def test_a_follower_outlives_a_killed_nats(short_path: Path, postgres_dsn: str) -> None:
    """One and the same Watch goes on after `kill -9` of NATS, in order, without gap or double."""
    with own_nats(short_path) as server:
        await eventually(lambda: accepts(server.port))
        async with surroundings(short_path, server.url, postgres_dsn) as rig, monitor(rig):
            first = await rig.node(address="a0")
            seen: list[Event] = []
            following = asyncio.create_task(follow(rig, seen, first))
            for i in range(1, 5):
                await tell(rig, f"a{i}")
            await eventually(lambda: len(seen) == 5)
            server.kill()
            server.start()
            await eventually(lambda: accepts(server.port))
            for i in range(5, 10):
                await tell(rig, f"a{i}")
            await eventually(lambda: len({json.loads(e.data_json)["address"] for e in seen}) == 10)

            sequences = [e.sequence for e in seen]
            assert sequences == sorted(set(sequences))
            assert not following.done()
            following.cancel()
