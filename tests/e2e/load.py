"""Steady load in the background of a test, with every answer counted."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

import aiohttp


class Load:
    """Callers that send one request after the other; failures are kept with their moment."""

    def __init__(self, url: str, token: str, method: Literal["GET", "POST"], query: str) -> None:
        self._url, self._token, self._method, self._query = url, token, method, query
        self.answered = 0
        self.failures: list[tuple[float, str]] = []
        self.executions: dict[str, int] = {}
        """How many times the server ran each answered request, by request id."""
        self._numbers = itertools.count()

    def failed(self) -> list[str]:
        """What failed so far."""
        return [what for _, what in self.failures]

    async def answered_more(self, count: int, deadline_s: float = 30) -> None:
        """Returns once so many more requests were answered."""
        goal, end = self.answered + count, time.monotonic() + deadline_s
        while self.answered < goal:
            assert time.monotonic() < end, f"no {count} answers within {deadline_s} s; failures: {self.failed()[-5:]}"
            await asyncio.sleep(0.02)

    async def call_for_ever(self, session: aiohttp.ClientSession) -> None:
        """One caller."""
        while True:
            mark = f"{self._method}{next(self._numbers)}"
            url = f"{self._url}?id={mark}&{self._query}"
            try:
                async with session.request(
                    self._method, url, data=b"x" if self._method == "POST" else None
                ) as response:
                    if response.status == 200:
                        self.answered += 1
                        self.executions[mark] = (await response.json())["count"]
                    else:
                        self.failures.append((time.monotonic(), f"{response.status} {(await response.text())[:200]}"))
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                self.failures.append((time.monotonic(), repr(error)))
                await asyncio.sleep(0.05)


@asynccontextmanager
async def steady_load(
    url: str, token: str, *, method: Literal["GET", "POST"] = "GET", clients: int = 4, query: str = "s=0.01"
) -> AsyncIterator[Load]:
    """Calls while the block runs."""
    load = Load(url, token, method, query)
    timeout = aiohttp.ClientTimeout(total=60)
    # one connection per request: aiohttp would silently repeat a request on a dead kept connection
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector, headers={"Authorization": token}) as session:
        tasks = [asyncio.create_task(load.call_for_ever(session)) for _ in range(clients)]
        try:
            yield load
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
