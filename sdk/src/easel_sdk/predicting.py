"""Calls to services on the data listener, and what went wrong with them in words.

Decides where to call and with which token (both asked of the platform once, and again after a 401 or 404), and
what an error answer means: whose it is (Easel's or the model's) and which setting to change. It never repeats a
call: Envoy does, where the service says that it is safe.
"""

from __future__ import annotations

import json
import re
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx

from easel_sdk.errors import CannotReach, EaselError, NotFound, PredictFailed, TimedOut
from easel_sdk.groups import GroupsApi
from easel_sdk.services import ServicesApi

Body = bytes | str | Mapping[str, Any] | list[Any] | None
"""Bytes and texts go as they are; a mapping or list goes as JSON."""


@dataclass(frozen=True)
class Held:
    """What the gateway said of a request that waited for a replica."""

    position: int
    """In the queue when it came; 1 is the first."""
    expected_wait_s: float | None
    """None: not known."""


@dataclass(frozen=True)
class Prediction:
    """A service's answer."""

    status: int
    headers: dict[str, str]
    body: bytes = field(repr=False)

    @property
    def held(self) -> Held | None:
        """How it waited for a replica; None: it did not."""
        return held_of(self.headers)

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode(errors="replace")

    def json(self) -> Any:
        """The body as JSON data. Raises ValueError."""
        return json.loads(self.body)


@dataclass(frozen=True)
class _Place:
    url: str
    token: str


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call, ready to be sent."""

    service: str
    method: str
    path: str
    headers: dict[str, str]
    content: bytes


class Predictor:
    """Calls services through Envoy."""

    def __init__(self, services: ServicesApi, groups: GroupsApi, data_url: str, ca_file: str | None = None) -> None:
        self._services, self._groups = services, groups
        self._data_url = data_url
        self._verify = ssl.create_default_context(cafile=ca_file) if ca_file else True
        self._places: dict[str, _Place] = {}

    async def predict(self, call: Call, timeout_s: float | None) -> Prediction:
        """The whole answer. Raises PredictFailed on any status from 400."""
        async with self._answer(call, timeout_s) as response:
            body = await response.aread()
            return Prediction(response.status_code, dict(response.headers), body)

    async def stream(
        self, call: Call, timeout_s: float | None, on_start: Callable[[Prediction], None] | None = None
    ) -> AsyncIterator[bytes]:
        """The answer's body piece by piece, as it comes; status and headers go to `on_start` before."""
        async with self._answer(call, timeout_s) as response:
            if on_start is not None:
                on_start(Prediction(response.status_code, dict(response.headers), b""))
            async for chunk in response.aiter_bytes():
                yield chunk

    @asynccontextmanager
    async def _answer(self, call: Call, timeout_s: float | None) -> AsyncIterator[httpx.Response]:
        place = await self._place(call.service)
        started = time.monotonic()
        loopback = (urlsplit(place.url).hostname or "") in ("127.0.0.1", "localhost", "::1")
        timeout = httpx.Timeout(timeout_s, connect=5.0)
        try:
            async with (
                httpx.AsyncClient(timeout=timeout, trust_env=not loopback, verify=self._verify) as http,
                http.stream(
                    call.method, place.url + call.path, content=call.content, headers=_headers(call, place)
                ) as response,
            ):
                if response.status_code >= 400:
                    self._places.pop(call.service, None)
                    raise explain_answer(call, response, await response.aread(), time.monotonic() - started)
                yield response
        except httpx.ConnectError as error:
            if "CERTIFICATE" in str(error) or "SSL" in str(error):
                raise CannotReach(
                    "TLS_FAILED", f"no TLS connection to {place.url}: {error}",
                    "EASEL_CA_FILE names the PEM file of the authority that signed the certificate, and the address "
                    "must be one of the names in it",
                ) from error  # fmt: skip
            raise CannotReach(
                "CANNOT_CONNECT", f"nothing answers at {place.url} ({error})",
                "the data listener is Envoy's: `easel status` shows whether it runs",
            ) from error  # fmt: skip
        except httpx.TimeoutException as error:
            raise TimedOut("TIMED_OUT", f"{call.service} did not answer within {timeout_s:g} s (the limit of this call)"
                           if timeout_s else f"no connection to {place.url} within 5 s",
                           "give the call more time, or look at `easel metrics`") from error  # fmt: skip
        except httpx.HTTPError as error:
            raise PredictFailed(
                "CUT_SHORT", f"the answer of {call.service} was cut short after {time.monotonic() - started:.1f} s: "
                f"{error or type(error).__name__}", f"`easel logs {call.service}` may say why",
            ) from error  # fmt: skip

    async def _place(self, name: str) -> _Place:
        if name not in self._places:
            try:
                service = await self._services.get(name)
            except NotFound as error:
                self._places[name] = await self._in_group(name, error)
                return self._places[name]
            url = service.endpoint or self._data_url or (await self._services.info()).data_url
            if "/api/predict/" not in url:
                url = f"{url.rstrip('/')}/api/predict/{name}"
            self._places[name] = _Place(url.rstrip("/"), service.token or service.access_token)
        return self._places[name]

    async def _in_group(self, name: str, missing: NotFound) -> _Place:
        """Where a group is called, or (`GROUP.SERVICE`) a member by way of it; raises `missing` where there is none."""
        group_name, dot, member = name.partition(".")
        try:
            group = await self._groups.get(group_name)
        except NotFound:
            raise missing from None
        return _Place(f"{group.endpoint}{dot}{member}", group.token)


def make_call(
    service: str, body: Body = None, *, path: str = "", method: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Call:  # fmt: skip
    """A call; POST where there is a body, else GET, unless `method` says otherwise."""
    given = dict(headers or {})
    content, kind = _content(body)
    if kind and not any(name.lower() == "content-type" for name in given):
        given["Content-Type"] = kind
    if path and not path.startswith(("/", "?")):
        path = f"/{path}"
    return Call(service=service, method=(method or ("GET" if body is None else "POST")).upper(), path=path,
                headers=given, content=content)  # fmt: skip


def explain_answer(call: Call, response: httpx.Response, body: bytes, elapsed_s: float) -> EaselError:
    """What an error answer means, whose it is, and what to do."""
    status, said = response.status_code, _said(body)
    code = str(said.get("code") or f"HTTP_{status}")
    message = _sentence(said)
    hint = str(said.get("hint") or _hint(status, call, elapsed_s))
    name = call.service
    if status == 401:
        message = f"{name} did not accept {_token_form(call)}: {message or 'wrong token'}"
    elif status == 408:
        message = f"{name} was cut off after {elapsed_s:.1f} s: {message or 'no answer in time'}"
    else:
        shown = message or body[:500].decode(errors="replace").strip() or response.reason_phrase
        message = f"{name} answered {status}: {shown}"
    held = held_of(response.headers)
    if held is not None:
        message += f"; it waited for a replica, {held_words(held)}"
    retry_after = response.headers.get("Retry-After")
    if retry_after:
        hint += f"{'; ' if hint else ''}Retry-After: {retry_after}{' s' if retry_after.isdigit() else ''}"
    return PredictFailed(code, message, hint, status=status, body=body, headers=dict(response.headers))


def held_of(headers: Mapping[str, str]) -> Held | None:
    """What the headers of an answer say about its waiting for a replica."""
    given = {name.lower(): value for name, value in headers.items()}
    position = given.get("easel-queue-position", "")
    if not position.isdigit():
        return None
    try:
        return Held(int(position), float(given.get("easel-expected-wait-seconds", "")))
    except ValueError:
        return Held(int(position), None)


def held_words(held: Held) -> str:
    """E.g. `as number 3 in the queue, 1.2 s expected`."""
    wait = "" if held.expected_wait_s is None else f", {held.expected_wait_s:.1f} s expected"
    return f"as number {held.position} in the queue{wait}"


def _hint(status: int, call: Call, elapsed_s: float) -> str:
    name = call.service
    return {
        401: f"leave Authorization out: `easel predict` fills it in; or use the token that `easel desc {name}` shows",
        # the gateway's own 404 brings its hint
        404: f"the model's server has nothing at {call.path or '/'}; choose another path with --path, and see in "
             f"`easel logs {name}` what it was asked",
        405: f"{call.method} is not what the model's server expects; choose with --method",
        408: f"raise metadata.rpc.keepalive (milliseconds): `easel modify {name} -Dmetadata.rpc.keepalive="
             f"{max(int(elapsed_s * 2) * 1000, 60000)}`",
        413: "the body is larger than the model's server takes",
        429: "a rate limit cut it; wait and try again",
        450: "every replica's queue is full; try again, or scale up",
        503: f"no replica could take it: `easel w {name}`, `easel explain {name}`",
        504: f"the model's server took too long: `easel logs {name}`",
    }.get(status, f"the model's server said so: `easel logs {name}`" if status >= 500 else "")  # fmt: skip


def _token_form(call: Call) -> str:
    """Which of the three forms of Authorization was sent."""
    given = next((value for name, value in call.headers.items() if name.lower() == "authorization"), None)
    if given is None:
        return "the token that the platform gave (sent raw)"
    if re.match(r"(?i)bearer\s", given):
        return "the token sent as Bearer"
    return "the signature (EAS <hmac-sha1>)" if given.startswith("EAS ") else "the token sent raw"


def _sentence(said: dict[str, Any]) -> str:
    """What an error document says, whoever wrote it: `message`, or the habits of web frameworks."""
    return next((said[key] for key in ("message", "error", "detail") if isinstance(said.get(key), str)), "")


def _said(body: bytes) -> dict[str, Any]:
    try:
        said = json.loads(body)
    except ValueError:
        return {}
    if isinstance(said, dict) and isinstance(said.get("error"), dict):
        said = said["error"]
    return said if isinstance(said, dict) else {}


def _headers(call: Call, place: _Place) -> dict[str, str]:
    if any(name.lower() == "authorization" for name in call.headers):
        return call.headers
    return {"Authorization": place.token, **call.headers}


def _content(body: Body) -> tuple[bytes, str]:
    if body is None:
        return b"", ""
    if isinstance(body, bytes):
        return body, "application/octet-stream"
    if isinstance(body, str):
        return body.encode(), "application/json" if body.lstrip().startswith(
            ("{", "[")
        ) else "text/plain; charset=utf-8"
    return json.dumps(body).encode(), "application/json"
