"""Where Envoys send copies of requests whose answers are to be compared: HTTP/1.1 on a unix socket or host:port.

A copy is answered 202 as soon as it is read; nobody waits for more. Whoever does not know the probe secret gets 403.
"""

from __future__ import annotations

import asyncio
import hmac
import os

from aiohttp import web

from easel_router.replay import Request
from easel_router.shadow import Admitted, Collector
from easel_router.xds.messages import MIRROR_HEADER, PROBE_HEADER

_LONGEST_HEAD = 64 << 10


class ShadowServer:
    """Takes copies and gives them to the collector."""

    def __init__(self, address: str, secret: str, collector: Collector) -> None:
        self._address, self._secret, self._collector = address, secret.encode(), collector
        self._runner = web.ServerRunner(
            web.Server(self._on_copy, access_log=None, max_line_size=_LONGEST_HEAD, max_field_size=_LONGEST_HEAD,
                       lingering_time=0, auto_decompress=False),
            shutdown_timeout=1,
        )  # fmt: skip

    async def start(self) -> None:
        """Listens; raises OSError where the address cannot be bound."""
        await self._runner.setup()
        if self._address.startswith("unix:"):
            path = self._address.removeprefix("unix:")
            await web.UnixSite(self._runner, path).start()
            os.chmod(path, 0o600)
        else:
            host, _, port = self._address.rpartition(":")
            await web.TCPSite(self._runner, host.strip("[]"), int(port)).start()

    async def run(self) -> None:
        """Listens for ever."""
        await self.start()
        await asyncio.Event().wait()

    async def stop(self) -> None:
        """Takes no more copies."""
        await self._runner.cleanup()

    async def _on_copy(self, request: web.BaseRequest) -> web.StreamResponse:
        given = request.headers.get(PROBE_HEADER, "")
        if not hmac.compare_digest(given.encode("utf-8", "surrogateescape"), self._secret):
            return web.Response(status=403)
        headers = {name.lower(): value for name, value in request.headers.items()}
        admitted = self._collector.admit(headers.get(MIRROR_HEADER, ""), headers, request.content_length)
        if admitted is None:
            return web.Response(status=202)
        try:
            body = await _body(request, admitted)
        except BaseException:
            self._collector.refuse(admitted, "Broken")
            raise
        if body is None:
            self._collector.refuse(admitted, "TooLarge")
            return web.Response(status=202)
        copy = Request(
            method=request.method, path=request.raw_path, headers=tuple(request.headers.items()),
            host=headers.get("host", ""), body=body,
        )  # fmt: skip
        self._collector.take(admitted, copy)
        return web.Response(status=202)


async def _body(request: web.BaseRequest, admitted: Admitted) -> bytes | None:
    """None: it is longer than is compared; then it is not read further."""
    kept = bytearray()
    async for chunk in request.content.iter_any():
        kept += chunk
        if len(kept) > admitted.body_bytes:
            return None
    return bytes(kept)
