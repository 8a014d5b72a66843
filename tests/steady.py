"""Callers that send one POST after the other and repeat nothing; what was answered, what failed and how is counted.

Bare HTTP/1.1 over asyncio streams: a client library would repeat a request on a connection that turned out to be dead.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from easel_kit.testing import eventually

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Steady:
    """What callers of one service met."""

    def __init__(self, port: int, service: str, token: str) -> None:
        self._port, self._service, self._token = port, service, token
        self._numbers = itertools.count()
        self.answered: list[str] = []
        """Ids of requests answered with 200."""
        self.failed: dict[str, str] = {}
        """Id → what happened instead."""

    async def answered_more(self, count: int) -> None:
        """Returns once so many more requests were answered."""
        goal = len(self.answered) + count
        await eventually(lambda: len(self.answered) >= goal, 60)

    async def call_for_ever(self, caller: str, *, keep_alive: bool) -> None:
        """One caller: a connection for all of its requests as long as the gateway keeps it, or one for each."""
        connection: Connection | None = None
        while True:
            mark = f"{caller}-{next(self._numbers)}"
            try:
                connection = connection or await asyncio.open_connection("127.0.0.1", self._port)
                status, closes = await self._ask(connection, mark, keep_alive=keep_alive)
            except (OSError, asyncio.IncompleteReadError) as error:
                self.failed[mark] = type(error).__name__
                closes = True
                await asyncio.sleep(0.005)
            else:
                if status == 200:
                    self.answered.append(mark)
                else:
                    self.failed[mark] = str(status)
            if connection is not None and closes:
                connection[1].close()
                connection = None

    async def _ask(self, connection: Connection, mark: str, *, keep_alive: bool) -> tuple[int, bool]:
        reader, writer = connection
        head = (
            f"POST /api/predict/{self._service}?id={mark} HTTP/1.1\r\nhost: easel\r\nx-id: {mark}\r\n"
            f"authorization: {self._token}\r\ncontent-length: 1\r\n"
            f"connection: {'keep-alive' if keep_alive else 'close'}\r\n\r\nx"
        )
        writer.write(head.encode())
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines[1:] if ": " in line)
        await reader.readexactly(int(headers["content-length"]))
        return int(lines[0].split(" ")[1]), not keep_alive or headers.get("connection") == "close"

    def assert_nothing_ran_twice(self, runs: Counter[str]) -> None:
        """What was answered ran once, what failed at most once. `runs`: what the model servers counted, by id."""
        assert {runs[mark] for mark in self.answered} == {1}
        assert {runs[mark] for mark in self.failed} <= {0, 1}


@asynccontextmanager
async def steady(
    port: int, service: str = "ocr", token: str = "tok", *, name: str = "", keeping: int = 6, connecting: int = 6
) -> AsyncIterator[Steady]:
    """So many callers that keep their connection, and so many that make one for each request."""
    made = Steady(port, service, token)
    callers = [made.call_for_ever(f"{name}k{n}", keep_alive=True) for n in range(keeping)]
    callers += [made.call_for_ever(f"{name}c{n}", keep_alive=False) for n in range(connecting)]
    tasks = [asyncio.create_task(caller) for caller in callers]
    try:
        yield made
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
