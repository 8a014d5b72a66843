"""Between Envoy and the router: passes every byte on and notes when Envoy acknowledges clusters or endpoints.

The moment at which a replica "is acknowledged" is otherwise seen by the router alone. What is noted is the time just
before an acknowledgement is passed on, so what the router needs to read it counts as its own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from google.protobuf.message import DecodeError
from msgspec import Struct

from easel_router.xds import envoy_pb2 as pb
from easel_router.xds.messages import CLUSTER, ENDPOINTS

_PREFACE = len(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
_FRAME_HEAD, _MESSAGE_HEAD = 9, 5
_DATA, _PADDED = 0x0, 0x8


class Acknowledged(Struct, frozen=True):
    """One acknowledgement or refusal by Envoy."""

    at_s: float
    """time.perf_counter()"""
    kind: str
    """Type URL."""
    refused: bool


class Requests:
    """Discovery requests in what one connection sends: HTTP/2 frames → gRPC messages (RFC 9113, gRPC over HTTP/2)."""

    def __init__(self) -> None:
        self._bytes, self._skip = bytearray(), _PREFACE
        self._of_stream: dict[int, bytearray] = {}

    def feed(self, chunk: bytes) -> list[pb.DeltaDiscoveryRequest]:
        """Takes what came; the discovery requests that are complete with it."""
        self._bytes += chunk
        if len(self._bytes) < self._skip:
            return []
        del self._bytes[: self._skip]
        self._skip = 0
        found = []
        while len(self._bytes) >= _FRAME_HEAD:
            end = _FRAME_HEAD + int.from_bytes(self._bytes[:3], "big")
            if len(self._bytes) < end:
                break
            kind, flags = self._bytes[3], self._bytes[4]
            stream, payload = int.from_bytes(self._bytes[5:9], "big"), bytes(self._bytes[_FRAME_HEAD:end])
            del self._bytes[:end]
            if kind == _DATA:
                padding = payload[0] + 1 if flags & _PADDED else 0
                found += self._data(stream, payload[1 : len(payload) - padding + 1] if padding else payload)
        return found

    def _data(self, stream: int, payload: bytes) -> list[pb.DeltaDiscoveryRequest]:
        kept = self._of_stream.setdefault(stream, bytearray())
        kept += payload
        found = []
        while len(kept) >= _MESSAGE_HEAD:
            end = _MESSAGE_HEAD + int.from_bytes(kept[1:5], "big")
            if len(kept) < end:
                break
            message = bytes(kept[_MESSAGE_HEAD:end])
            del kept[:end]
            if CLUSTER.encode() in message or ENDPOINTS.encode() in message:
                found += _discovery(message)
        if not kept:
            del self._of_stream[stream]
        return found


def _discovery(message: bytes) -> list[pb.DeltaDiscoveryRequest]:
    try:
        return [pb.DeltaDiscoveryRequest.FromString(message)]
    except DecodeError:  # another method's message
        return []


class Relay:
    """Passes bytes on, both ways."""

    def __init__(self, router: str) -> None:
        self._router = router
        self.seen: list[Acknowledged] = []
        self._pumps: set[asyncio.Task[None]] = set()

    def last_before(self, at_s: float) -> float:
        """perf_counter() of the last acknowledgement before a moment."""
        return max(one.at_s for one in self.seen if one.at_s <= at_s and not one.refused)

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of Envoy's."""
        try:
            out_reader, out_writer = await asyncio.open_unix_connection(self._router)
        except OSError:  # the router is away, and so are we
            writer.close()
            return
        for pump in (self._to_router(reader, out_writer), _pump(out_reader, writer)):
            task = asyncio.create_task(pump)
            self._pumps.add(task)
            task.add_done_callback(self._pumps.discard)

    async def close(self) -> None:
        """Ends all connections."""
        for pump in list(self._pumps):
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    async def _to_router(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests = Requests()
        try:
            while chunk := await reader.read(1 << 16):
                at_s = time.perf_counter()
                writer.write(chunk)
                for request in requests.feed(chunk):
                    if request.response_nonce and request.type_url in (CLUSTER, ENDPOINTS):
                        self.seen.append(Acknowledged(at_s, request.type_url, request.HasField("error_detail")))
                await writer.drain()
        except ConnectionError:
            return
        finally:
            writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while chunk := await reader.read(1 << 16):
            writer.write(chunk)
            await writer.drain()
    except ConnectionError:
        return
    finally:
        writer.close()


@asynccontextmanager
async def relay(at: str, router: str) -> AsyncIterator[Relay]:
    """Listens at the socket `at` for Envoys, and passes on to the router's socket."""
    made = Relay(router)
    server = await asyncio.start_unix_server(made.connected, at)
    try:
        yield made
    finally:
        server.close()
        await made.close()
