"""Speaks with one Docker engine, by aiodocker. Everything the agent asks an engine goes through here.

What is kept away from the rest (measured, aiodocker 0.27):
- A followed stream that is left early keeps its connection for ever, and a client with a hundred of them answers
  nothing any more. Here the client has no such limit, and a stream's connection is closed with its context.
- After the engine died, a client's event stream stays silent. Here every failure to connect leaves a new client behind;
  the old one is closed when its last stream has ended, as a stream whose client is closed before waits for ever.
- Errors come as many kinds. Here they are two: EngineAway (it does not answer: try again) and EngineError (it refused).
"""

from __future__ import annotations

import asyncio
import json
import os
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiodocker
import aiohttp
from aiodocker.exceptions import DockerError

from easel_agent.decide.image_errors import is_shutting_down
from easel_contracts.errors import Unavailable

ANSWER_S = 60.0
"""Longest wait for a call that is not a stream; starting a container may take long on a busy machine."""
NOT_CONNECTED = 900
"""aiodocker's status where no connection could be made."""
FRAME_HEADER = struct.Struct(">BxxxL")


class EngineAway(Unavailable):
    """The engine does not answer."""

    def __init__(self, why: str) -> None:
        super().__init__("ENGINE_AWAY", f"the Docker engine does not answer ({why})")


class EngineError(Exception):
    """The engine refused; `status` is HTTP's, 0 for an error that came in the middle of a stream."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


class Engine:
    """One engine at a unix socket."""

    def __init__(self, url: str) -> None:
        """`url`: `unix:///var/run/docker.sock`."""
        self.url = url
        self._path = url.removeprefix("unix://")
        self._ended = False
        self._client: _Client | None = None

    async def ask(self, method: str, path: str, *, params: Mapping[str, Any] | None = None, data: Any = None,
                  timeout_s: float = ANSWER_S) -> Any:  # fmt: skip
        """One call, its answer decoded. Raises EngineAway or EngineError."""
        async with self._answer(method, path, params=params, data=data, headers={}, total_s=timeout_s) as response:
            body = await response.read()
        return json.loads(body) if response.content_type == "application/json" and body else body

    async def lines(self, method: str, path: str, *, params: Mapping[str, Any] | None = None,
                    headers: Mapping[str, str] | None = None) -> AsyncGenerator[dict[str, Any], None]:  # fmt: skip
        """A stream of JSON objects, to its end or until the iterator is closed (use `aclosing`)."""
        async with self._answer(method, path, params=params, headers=headers or {}) as response:
            buffer = bytearray()
            async for piece in response.content.iter_any():
                buffer += piece
                *whole, rest = bytes(buffer).split(b"\n")
                buffer = bytearray(rest)
                for line in whole:
                    if line.strip():
                        yield json.loads(line)

    async def frames(self, path: str, *, params: Mapping[str, Any] | None = None, method: str = "GET",
                     data: Any = None) -> AsyncGenerator[tuple[int, bytes], None]:  # fmt: skip
        """A multiplexed stream: (1 for stdout or 2 for stderr, piece)."""
        async with self._answer(method, path, params=params, data=data, headers={}) as response:
            while True:
                try:
                    kind, length = FRAME_HEADER.unpack(await response.content.readexactly(FRAME_HEADER.size))
                    yield kind, await response.content.readexactly(length)
                except asyncio.IncompleteReadError:
                    return

    async def pieces(self, path: str, *, params: Mapping[str, Any] | None = None) -> AsyncGenerator[bytes, None]:
        """A stream of bytes, such as an archive of files."""
        async with self._answer("GET", path, params=params, headers={}) as response:
            async for piece in response.content.iter_chunked(1 << 16):
                yield piece

    def silence(self) -> str:
        """Why it does not answer, as far as its socket tells; the same words as long as that is the same."""
        if os.path.exists(self._path) and not os.access(self._path, os.R_OK | os.W_OK):
            return f"the Docker engine's socket {self._path} may not be opened by the agent's user"
        return f"no Docker engine answers at {self.url}"

    async def end(self) -> None:
        """No more is asked. Streams that are still read end by themselves, or with their readers."""
        self._ended = True
        if self._client is not None:
            client = self._client
            self._retire(client)
            await client.close_unused()

    def _retire(self, client: _Client) -> None:
        """The next call makes a new one."""
        client.retired = True
        if self._client is client:
            self._client = None

    @asynccontextmanager
    async def _answer(self, method: str, path: str, *, headers: Mapping[str, str],
                      params: Mapping[str, Any] | None = None, data: Any = None, total_s: float | None = None,
                      ) -> AsyncIterator[aiohttp.ClientResponse]:  # fmt: skip
        """The response; its connection is closed where it was not read to the end."""
        response: aiohttp.ClientResponse | None = None
        body = None if data is None else json.dumps(data)
        timeout = aiohttp.ClientTimeout(total=total_s, sock_connect=ANSWER_S)
        client = self._connected()
        client.uses += 1
        try:
            response = await client.docker._do_query(
                path, method, params=dict(params or {}), data=body, headers=dict(headers), timeout=timeout
            )
            yield response
        except DockerError as error:
            if error.status == NOT_CONNECTED:
                self._retire(client)
                raise EngineAway("no connection") from error
            if is_shutting_down(str(error.message)):
                raise EngineAway("it ends") from error
            raise EngineError(error.status, str(error.message)) from error
        except TimeoutError as error:
            self._retire(client)
            raise EngineAway("it took too long") from error
        except (aiohttp.ClientError, OSError) as error:
            self._retire(client)
            raise EngineAway(type(error).__name__) from error
        finally:
            if response is not None:
                response.close()
            client.uses -= 1
            await client.close_unused()

    def _connected(self) -> _Client:
        if self._ended:
            raise EngineAway("this agent ends")
        if self._client is None:
            self._client = _Client(self._path)
        return self._client


class _Client:
    """One of aiodocker's, with its connections."""

    def __init__(self, path: str) -> None:
        self._connector = aiohttp.UnixConnector(path, limit=0)
        self.docker = aiodocker.Docker(url="unix://localhost", connector=self._connector)
        self.uses, self.retired = 0, False

    async def close_unused(self) -> None:
        """Once nobody uses it and nobody will."""
        if self.retired and not self.uses:
            await self.docker.close()
            await self._connector.close()  # a client closes only what it made itself
