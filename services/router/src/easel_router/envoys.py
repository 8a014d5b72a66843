"""Which Envoys count, what they have acknowledged, and what they really answer.

An Envoy counts while it has a stream, and for a grace period after it was lost (it goes on serving what it has).
One that handed over to a newer process of its gateway counts while it finishes its requests: it must acknowledge and
report, but takes no new connection, not even a probe's.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection
from typing import cast

import aiohttp

from easel_kit.clock import Clock
from easel_kit.telemetry import get_logger
from easel_router.bootstrap import OLDER
from easel_router.xds.catalog import Versions
from easel_router.xds.messages import HASH_HEADER, PROBE_HEADER, PROBE_PATH
from easel_router.xds.server import XdsServer
from easel_router.xds.stream import Gone, Stream

_PROBE_EVERY_S = 0.002
_PROBE_SLOWEST_S = 0.1

log = get_logger("envoys")

Seen = Callable[[str, bool], Awaitable[None]]


class NoEnvoy(Exception):
    """No Envoy is connected: nothing can be acknowledged."""


class Envoys:
    """The live Envoys."""

    def __init__(self, server: XdsServer, clock: Clock, grace_s: float, probe_secret: str) -> None:
        self._server, self._clock, self._grace_s = server, clock, grace_s
        self._secret = probe_secret
        self._lost_at: dict[str, float] = {}
        self._connected: set[str] = set()
        self._changed = asyncio.Event()
        self._sessions: dict[str, tuple[str, aiohttp.ClientSession]] = {}
        self._came_and_went: asyncio.Queue[tuple[str, bool]] = asyncio.Queue()
        self.changed: Callable[[], None] = lambda: None
        """Called when an Envoy comes or goes."""
        server.on_change = self._on_change

    def expect(self, envoys: list[str]) -> None:
        """Envoys that were connected before this process started: as if lost just now."""
        for envoy in envoys:
            self._lost_at.setdefault(envoy, self._clock.monotonic())

    def live(self) -> dict[str, Stream | None]:
        """Envoys that count; None: lost, but not for long enough."""
        now = self._clock.monotonic()
        lost: dict[str, Stream | None] = {
            envoy: None for envoy, at in self._lost_at.items() if now - at < self._grace_s
        }
        connected = {envoy: stream for envoy, stream in self._server.streams.items() if stream.is_live()}
        return lost | dict(connected)

    def probe_addresses(self) -> dict[str, str]:
        """Where the router itself can send requests through an Envoy: address by name, of those that take new ones."""
        living = (stream for stream in self.live().values() if stream is not None)
        return {
            stream.envoy: address
            for stream in living
            if (address := str(stream.metadata.get("probe_address", "")))
            and not _is_replaced(stream.envoy, self._connected)
        }

    def nodes(self) -> list[dict[str, object]]:
        """Metadata of the Envoys that are connected and take new requests."""
        streams = self._server.streams
        return [stream.metadata for envoy, stream in streams.items() if not _is_replaced(envoy, streams)]

    async def everywhere(self, wanted: Versions) -> list[Stream]:
        """Waits until every live Envoy has acknowledged; raises NoEnvoy or xds.stream.Refused.

        Returns those that take new requests.
        """
        while True:
            streams = await self._all_back()
            try:
                await asyncio.gather(*(stream.acknowledged(wanted) for stream in streams))
            except Gone:
                continue
            if not {stream for stream in self.live().values() if stream} <= set(streams):
                continue  # another one came meanwhile
            return [stream for stream in streams if not _is_replaced(stream.envoy, self._connected)]

    async def probed(self, streams: list[Stream], service: str, version: str) -> None:
        """Waits until each Envoy's data listener answers with this version (empty: that it knows no such route)."""
        await asyncio.gather(*(self._probe(stream, service, version) for stream in streams))

    async def record(self, seen: Seen) -> None:
        """Tells `seen(envoy, connected)` of each coming and going, for ever."""
        while True:
            envoy, connected = await self._came_and_went.get()
            if not connected and envoy in self._sessions:
                _, session = self._sessions.pop(envoy)
                await session.close()
            try:
                await seen(envoy, connected)
            except Exception as error:  # the rows only spare a wait after the next restart
                log.warning("coming and going of an Envoy not stored", envoy=envoy, error=repr(error))

    def serving(self) -> int:
        """How many share the requests: those that count, less those that handed over."""
        live = self.live()
        return sum(not _is_replaced(envoy, live) for envoy in live)

    async def count(self, tell: Callable[[int], None]) -> None:
        """Tells `serving()` now and after each change, for ever."""
        told = None
        while True:
            changed = self._changed
            if (now := self.serving()) != told:
                told = now
                tell(now)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._next_given_up_s()):
                    await changed.wait()

    def _next_given_up_s(self) -> float | None:
        """Until one that is lost does not count any more; None: none is lost."""
        now = self._clock.monotonic()
        left = [at + self._grace_s - now for at in self._lost_at.values() if now - at < self._grace_s]
        return max(0.01, min(left)) if left else None

    async def close(self) -> None:
        """Closes the probes' connections."""
        for _, session in self._sessions.values():
            await session.close()

    def _on_change(self) -> None:
        now = {envoy for envoy, stream in self._server.streams.items() if stream.is_live()}
        for envoy in now - self._connected:
            self._came(envoy)
            self._came_and_went.put_nowait((envoy, True))
        for envoy in self._connected - now:
            if not _is_replaced(envoy, now):  # one that handed over has ended, and is not waited for
                self._lost_at[envoy] = self._clock.monotonic()
            self._came_and_went.put_nowait((envoy, False))
        self._connected = now
        self._changed.set()
        self._changed = asyncio.Event()
        self.changed()

    def _came(self, envoy: str) -> None:
        """It is not lost any more, nor are older processes of its gateway that had ended when it began."""
        living = cast("list[str]", self._server.streams[envoy].metadata.get(OLDER, []))
        ended = [lost for lost in self._lost_at if _is_replaced(lost, {envoy}) and lost not in living]
        for back in (envoy, *ended):
            self._lost_at.pop(back, None)

    async def _all_back(self) -> list[Stream]:
        while True:
            live = self.live()
            streams = [stream for stream in live.values() if stream is not None]
            if len(streams) == len(live):
                if not streams:
                    raise NoEnvoy("no Envoy is connected to the router")
                return streams
            changed = self._changed
            oldest = min(self._lost_at[envoy] for envoy, stream in live.items() if stream is None)
            left_s = max(0.01, oldest + self._grace_s - self._clock.monotonic())
            try:
                async with asyncio.timeout(left_s):
                    await changed.wait()
            except TimeoutError:
                continue

    async def _probe(self, stream: Stream, service: str, version: str) -> None:
        session, base = self._session(stream)
        wait_s = _PROBE_EVERY_S
        while not session.closed:
            try:
                async with session.get(f"{base}{PROBE_PATH}{service}", headers={PROBE_HEADER: self._secret}) as answer:
                    found = answer.headers.get(HASH_HEADER, "") if answer.status == 204 else ""
                    if found == version and answer.status in (204, 404):
                        return
            except aiohttp.ClientError as error:
                log.debug("probe not answered", envoy=stream.envoy, error=repr(error))
            replaced = _is_replaced(stream.envoy, self._connected)
            if replaced or self._server.streams.get(stream.envoy) is not stream:
                break
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 1.5, _PROBE_SLOWEST_S)
        raise Gone(stream.envoy)

    def _session(self, stream: Stream) -> tuple[aiohttp.ClientSession, str]:
        address = str(stream.metadata.get("probe_address", ""))
        kept = self._sessions.get(stream.envoy)
        if kept is None or kept[0] != address:
            connector: aiohttp.BaseConnector
            if address.startswith("unix:"):
                connector = aiohttp.UnixConnector(path=address.removeprefix("unix:"), limit=32)
            else:
                connector = aiohttp.TCPConnector(limit=32)
            timeout = aiohttp.ClientTimeout(total=2)
            kept = address, aiohttp.ClientSession(connector=connector, timeout=timeout)
            self._sessions[stream.envoy] = kept
        return kept[1], "http://probe" if address.startswith("unix:") else f"http://{address}"


def _gateway(envoy: str) -> tuple[str, int]:
    """`envoy-0.7` is the 7th process of the gateway `envoy-0`; one without a number is the only one of its name."""
    name, _, number = envoy.rpartition(".")
    return (name, int(number)) if name and number.isdecimal() else (envoy, 0)


def _is_replaced(envoy: str, among: Collection[str]) -> bool:
    """Whether a newer process of the same gateway is among them."""
    name, number = _gateway(envoy)
    return any(other == name and newer > number for other, newer in map(_gateway, among))
