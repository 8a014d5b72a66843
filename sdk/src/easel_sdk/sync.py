"""The sync face: the same client for programs without an event loop of their own, and for notebooks.

A loop of its own runs in a background thread, so that it works inside a program (Jupyter) whose loop is running.
It decides nothing: every method hands the async one's work to that loop and waits.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Generator, Iterator
from types import TracebackType
from typing import Any, Self, TypeVar

from easel_contracts.ids import DEFAULT_WORKSPACE
from easel_sdk.client import Client
from easel_sdk.discovery import Target
from easel_sdk.sync_face import ClientFace

R = TypeVar("R")


class LoopThread:
    """An event loop in a daemon thread, until closed."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="easel-sdk", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, R]) -> R:
        """The result; a KeyboardInterrupt here cancels the work there."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def iterate(self, work: AsyncIterator[R]) -> Iterator[R]:
        """The items as they come; leaving the iteration early ends the work."""
        return self._iterate(work)

    def _iterate(self, work: AsyncIterator[R]) -> Generator[R, None, None]:
        try:
            while True:
                try:
                    item = self.run(_next(work))
                except StopAsyncIteration:
                    return
                yield item
        finally:
            if isinstance(work, AsyncGenerator):
                self.run(work.aclose())

    @property
    def is_closed(self) -> bool:
        """Whether it has ended."""
        return not self._thread.is_alive()

    def close(self) -> None:
        """Ends the loop and its thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=5)
        if not self._loop.is_running():
            self._loop.close()


class SyncClient(ClientFace):
    """A platform, sync. `with SyncClient() as easel: easel.services.list()`. Arguments as of `Client`."""

    def __init__(
        self,
        server: str | None = None,
        access_key: str | None = None,
        home: str | os.PathLike[str] | None = None,
        *,
        workspace: str = DEFAULT_WORKSPACE,
        target: Target | None = None,
    ) -> None:
        client = Client(server, access_key, home, workspace=workspace, target=target)
        self.target = client.target
        self._thread = LoopThread()
        super().__init__(client, self._thread)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection and ends the background thread."""
        if not self._thread.is_closed:
            self._thread.run(self._client.close())
            self._thread.close()


async def _next(work: AsyncIterator[R]) -> R:
    return await anext(work)
