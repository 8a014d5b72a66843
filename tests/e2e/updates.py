"""Rolling updates of several two-replica services at once, under load by callers that do not retry; all is counted."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from msgspec import Struct

from easel_sdk import Client
from tests.e2e.load import Load, steady_load
from tests.e2e.platform import Executions, deploy, remove, spec

CLIENTS = 2
"""Per service."""


class Updated(Struct, frozen=True, kw_only=True):
    """What so many updates did."""

    updates: int
    services: int
    answered: int
    failures: list[str]
    """Each with its moment and what the service was doing then."""
    twice: list[str]
    """Requests that were executed more than once."""
    took_s: float
    """The updates alone."""


class Rolling:
    """One service that is updated again and again."""

    def __init__(self, client: Client, name: str, directory: Path) -> None:
        directory.mkdir()
        self.name = name
        self._client, self._executions = client, Executions(directory)
        self._changes: list[tuple[float, str]] = []

    async def deploy(self) -> Any:
        """Two replicas that count what they execute."""
        return await deploy(self._client, self._executions.of(spec(self.name, instance=2, env={"VALUE": "v0"})))

    async def update_until_none_is_left(self, left: list[int]) -> None:
        """Restarts and new revisions in turn; each must have taken over alone before the next."""
        document: dict[str, Any] = json.loads((await self._client.services.get(self.name)).service_config)
        container = document["containers"][0]
        while left:
            number = left.pop()
            if number % 2:
                self._begins(f"restart, {number} left")
                changed = await self._client.services.restart(self.name)
            else:
                self._begins(f"VALUE=v{number}, {number} left")
                env = [e | ({"value": f"v{number}"} if e["name"] == "VALUE" else {}) for e in container["env"]]
                changed = await self._client.services.update(self.name, {"containers": [container | {"env": env}]})
            found = await self._client.wait(changed, timeout_s=120)
            assert found is not None
            assert found.status == "Running"

    def failures(self, load: Load) -> list[str]:
        """Every failure, with the update it fell into."""
        return [f"{self.name} {self._during(at)}: {what}" for at, what in load.failures]

    def twice(self) -> list[str]:
        """Requests executed more than once."""
        return [f"{self.name} {mark}" for mark, count in self._executions.counts().items() if count > 1]

    def _begins(self, what: str) -> None:
        self._changes.append((time.monotonic(), what))

    def _during(self, at: float) -> str:
        wall = time.strftime("%H:%M:%S", time.gmtime(time.time() - (time.monotonic() - at)))
        begun = next(((began, what) for began, what in reversed(self._changes) if began <= at), None)
        return f"{wall} UTC, " + (f"{at - begun[0]:.2f} s into {begun[1]}" if begun else "before the first update")


async def roll(client: Client, directory: Path, updates: int, services: int) -> Updated:
    """Makes the services, updates them so many times in all under load, removes them."""
    rolling = [Rolling(client, f"rolling_{n}", directory / f"rolling_{n}") for n in range(services)]
    loads, left = [], list(range(updates))
    try:
        async with AsyncExitStack() as stack:
            for one in rolling:
                service = await one.deploy()
                load = steady_load(service.endpoint, service.token, method="POST", clients=CLIENTS)
                loads.append(await stack.enter_async_context(load))
            began = time.monotonic()
            await asyncio.gather(*(one.update_until_none_is_left(left) for one in rolling))
            took_s = time.monotonic() - began
    finally:
        for one in rolling:
            await remove(client, one.name)
    return Updated(
        updates=updates - len(left), services=services, answered=sum(load.answered for load in loads),
        failures=[what for one, load in zip(rolling, loads, strict=True) for what in one.failures(load)],
        twice=[mark for one in rolling for mark in one.twice()], took_s=took_s,
    )  # fmt: skip
