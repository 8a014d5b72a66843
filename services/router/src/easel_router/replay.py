"""Sends a copy of a request to one side of a comparison, by way of a live Envoy's probe listener."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

import aiohttp
from msgspec import Struct
from multidict import CIMultiDict
from yarl import URL

from easel_contracts.spec import Comparison
from easel_kit.clock import Clock
from easel_router.decide.arms import Arm
from easel_router.decide.compare import Answer
from easel_router.decide.compare.answers import HEADERS
from easel_router.xds.messages import ARM_HEADER, PROBE_HEADER

LONGEST_S = 59.0
"""A replay that takes longer is not compared. Shorter than the gateway's own limit on copies: a 408 of the gateway is
an answer only where the service's callers would get it, too."""
_CONNECTIONS = 64

_NOT_PASSED_ON = frozenset(
    {
        "accept-encoding", "connection", "content-length", "expect", "forwarded", "host", "keep-alive",
        "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer", "transfer-encoding",
        "traceparent", "tracestate", "upgrade", "x-request-id",
    }
)  # fmt: skip
"""Of one connection, or of the one request that this is a copy of."""
_OF_EASEL = ("x-easel-", "x-envoy-")

_REFUSALS = frozenset({"HoldQueueFull", "NoReadyReplica", "NotFound", "QueueFull", "ServiceFailed", "TooManyRequests",
                       "Unauthorized", "Unavailable", "WakingUp"})  # fmt: skip
"""Codes with which the gateway answers itself: such an answer is neither side's."""


class NotReplayed(Exception):
    """A copy got no answer that could be compared. `why` is a constant."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class Budget:
    """Bytes that bodies may hold together."""

    def __init__(self, most: int) -> None:
        self._left = most

    def take(self, size: int) -> bool:
        """Whether so many more may be held; then they are."""
        if size > self._left:
            return False
        self._left -= size
        return True

    def give_back(self, size: int) -> None:
        """So many are held no more."""
        self._left += size


class Request(Struct, frozen=True, kw_only=True):
    """A copy, as the replica would have got it."""

    method: str
    path: str
    """With query, encoded as it came."""
    headers: tuple[tuple[str, str], ...]
    host: str = ""
    body: bytes = b""


class Replayed(Struct, frozen=True, kw_only=True):
    """An answer, whole."""

    answer: Answer
    took_ms: float


class Replayer:
    """Calls services through an Envoy, as nobody else may: without a token, at the side that is asked for."""

    def __init__(self, addresses: Callable[[], Mapping[str, str]], secret: str, clock: Clock, budget: Budget) -> None:
        """`addresses`: the probe address of each live Envoy, by name."""
        self._addresses, self._secret, self._clock, self._budget = addresses, secret, clock, budget
        self._sessions: dict[str, aiohttp.ClientSession] = {}

    async def replay(self, service: str, arm: Arm, request: Request, how: Comparison) -> Replayed:
        """The whole answer of a side of a service's comparison, whichever service that is; raises NotReplayed.

        The caller gives the bytes of its body back to the budget."""
        session, base = await self._session()
        url = URL(f"{base}/api/predict/{service}{request.path}", encoded=True)
        headers = self._headers(request, arm)
        began = self._clock.monotonic()
        try:
            async with session.request(
                request.method, url, headers=headers, data=request.body or None, allow_redirects=False
            ) as got:
                body = await self._body(got, how.body_kib << 10)
                took_ms = (self._clock.monotonic() - began) * 1000
                kept = {name: value for name in HEADERS if (value := ", ".join(got.headers.getall(name, ())))}
                answer = Answer(status=got.status, headers=kept, body=body)
        except TimeoutError:
            raise NotReplayed("TimedOut") from None
        except (aiohttp.ClientError, OSError):
            raise NotReplayed("Unreachable") from None
        if _is_refusal(answer):
            self._budget.give_back(len(answer.body))
            raise NotReplayed("Refused")
        return Replayed(answer=answer, took_ms=took_ms)

    async def close(self) -> None:
        """Closes the connections."""
        for session in self._sessions.values():
            await session.close()

    def _headers(self, request: Request, arm: Arm) -> CIMultiDict[str]:
        passed = CIMultiDict(
            (name, value)
            for name, value in request.headers
            if name.lower() not in _NOT_PASSED_ON and not name.lower().startswith(_OF_EASEL)
        )
        passed["host"] = request.host or "easel"
        passed["accept-encoding"] = "identity"
        passed[PROBE_HEADER], passed[ARM_HEADER] = self._secret, arm
        return passed

    async def _body(self, got: aiohttp.ClientResponse, most: int) -> bytes:
        """The body; raises NotReplayed where it is longer than `most` bytes, and does not read on."""
        kept = bytearray()
        try:
            async for chunk in got.content.iter_any():
                if len(kept) + len(chunk) > most:
                    got.close()
                    raise NotReplayed("TooLarge")
                if not self._budget.take(len(chunk)):
                    got.close()
                    raise NotReplayed("Busy")
                kept += chunk
        except BaseException:
            self._budget.give_back(len(kept))
            raise
        return bytes(kept)

    async def _session(self) -> tuple[aiohttp.ClientSession, str]:
        living = self._addresses()
        for gone in self._sessions.keys() - set(living.values()):
            await self._sessions.pop(gone).close()
        if not living:
            raise NotReplayed("NoEnvoy")
        address = living[min(living)]
        is_path = address.startswith("unix:")
        if address not in self._sessions:
            connector: aiohttp.BaseConnector
            if is_path:
                connector = aiohttp.UnixConnector(path=address.removeprefix("unix:"), limit=_CONNECTIONS)
            else:
                connector = aiohttp.TCPConnector(limit=_CONNECTIONS)
            self._sessions[address] = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),  # callers' cookies are theirs
                timeout=aiohttp.ClientTimeout(total=LONGEST_S),
                auto_decompress=False,
                skip_auto_headers=("accept", "content-type", "user-agent"),
            )
        return self._sessions[address], "http://probe" if is_path else f"http://{address}"


def _is_refusal(answer: Answer) -> bool:
    if answer.status < 400 or not answer.headers.get("content-type", "").startswith("application/json"):
        return False
    try:
        told = json.loads(answer.body)
    except (ValueError, RecursionError):
        return False
    if not isinstance(told, dict) or not {"code", "message", "request_id"} <= told.keys():
        return False
    return told["code"] in _REFUSALS or "queue_position" in told  # the latter was held in vain
