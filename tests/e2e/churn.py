"""Changes of services while parts of the platform die: each is asked for until it is answered, and must count once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from easel_contracts.errors import Unavailable
from easel_contracts.ids import uuid7
from easel_kit.testing import eventually
from easel_sdk import Client
from easel_sdk.errors import NotFound, TimedOut
from tests.e2e.platform import spec

ANSWERED_S = 60.0
"""Longest time until a change is answered, with parts dying on the way."""


class Churn:
    """One service that is created, scaled, changed, stopped, started, deleted, and created again."""

    def __init__(self, client: Client, name: str) -> None:
        self._client, self.name = client, name
        self.generation = 0
        self.changes = 0
        self.unanswered = 0
        """Attempts that ended without an answer and were repeated."""

    async def round(self) -> None:
        """Every change once; ends with the service running one replica."""
        services, name = self._client.services, self.name
        await self._change(lambda key: services.create(spec(name), idempotency_key=key))
        await self._change(lambda key: services.scale(name, 2, idempotency_key=key))
        command = f"python model_server.py {self.changes}"
        await self._change(
            lambda key: services.update(name, {"containers": [{"port": 8000, "command": command}]}, idempotency_key=key)
        )
        await self._change(lambda key: services.stop(name, idempotency_key=key))
        await self._change(lambda key: services.start(name, idempotency_key=key))
        await self._change(lambda key: services.scale(name, 1, idempotency_key=key))
        await self._until("running")

    async def end(self) -> None:
        """Deletes it and waits until it is gone."""
        await self._change(lambda key: self._client.services.delete(self.name, idempotency_key=key))
        await self._until("deleted")

    async def settled(self) -> None:
        """Waits until the last change is in force, and compares what is with what was answered."""
        await self._until("running")
        now = await self._client.services.get(self.name)
        assert now.generation == self.generation
        assert now.running_instance == now.total_instance == 1

        async def alone() -> bool:
            return len(await self._client.replicas.list(self.name)) == 1

        await eventually(alone, ANSWERED_S)

    async def _change(self, ask: Callable[[str], Awaitable[Any]]) -> None:
        key = uuid7()
        async with asyncio.timeout(ANSWERED_S):
            while True:
                try:
                    answer = await ask(key)
                    break
                except (Unavailable, TimedOut):
                    self.unanswered += 1
                    await asyncio.sleep(0.1)
        # The first goes on from what an earlier service of the name had.
        wanted = self.generation + 1 if self.changes else answer.generation
        assert answer.generation == wanted, f"{self.name}: {answer.generation} instead of {wanted}"
        self.generation = answer.generation
        self.changes += 1

    async def _until(self, wanted: Any) -> None:
        async with asyncio.timeout(3 * ANSWERED_S):
            while True:
                try:
                    await self._client.wait(self.name, wanted, generation=self.generation, timeout_s=ANSWERED_S)
                    return
                except NotFound:
                    assert wanted == "deleted"
                    return
                except (Unavailable, TimedOut):
                    await asyncio.sleep(0.2)


@asynccontextmanager
async def churning(client: Client, names: list[str]) -> AsyncIterator[list[Churn]]:
    """Rounds of changes of these services while the block runs; raises what a change raised."""
    churns = [Churn(client, name) for name in names]
    stop = asyncio.Event()

    async def go_on(churn: Churn) -> None:
        await churn.round()
        while not stop.is_set():
            await churn.end()
            await churn.round()

    async with asyncio.TaskGroup() as group:
        for churn in churns:
            group.create_task(go_on(churn))
        try:
            yield churns
        finally:
            stop.set()
    for churn in churns:
        await churn.settled()
