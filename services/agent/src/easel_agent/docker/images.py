"""Gets images: from the engine's own store, or from their registry with a login, progress and a time limit."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from functools import partial
from typing import Any

from msgspec import Struct

from easel_agent.decide.image_errors import explain_pull
from easel_agent.decide.references import LOCAL, parse, pin_of, pinned
from easel_agent.docker.engine import Engine, EngineError
from easel_agent.model import Refusal
from easel_agent.runtime import CannotPrepare
from easel_agent.sources.sharing import Flights
from easel_contracts.spec import Image
from easel_kit.clock import Clock

AT_A_TIME = 3
"""Pulls; the engine itself fetches three layers of each at a time."""
TELL_EVERY_S = 5.0
"""Progress of a pull: each is a report of the replica, and so a fact."""
MIB = 1024 * 1024
Event = Callable[[str], None]
Login = Callable[[], Awaitable[str]]
"""`user:password` in base64, empty for none; asked for when an image has to be pulled."""


class Found(Struct, frozen=True, kw_only=True):
    """An image that the engine has."""

    id: str
    pin: str
    config: dict[str, Any]
    """As the image's maker wrote it: User, Entrypoint, Cmd, Env, Healthcheck."""


class Images:
    """One for the agent. The same image is pulled once at a time, whoever asks."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._engine, self._clock = engine, clock
        self._flights: Flights[Found] = Flights()
        self._slots = asyncio.Semaphore(AT_A_TIME)

    async def get(self, image: Image, pin: str | None, login: Login, event: Event) -> Found:
        """The image, pulled where that is needed. Raises CannotPrepare, or EngineAway."""
        wanted = pinned(image.reference, pin) if pin else image.reference
        if image.pull != "Always" or pin:
            found = await self.find(wanted, image.reference)
            if found is not None:
                return found
        if image.pull == "Never" or (pin or "").startswith(LOCAL):
            raise _not_here(image, pin)
        known = await login()
        # Others with the same login wait for this pull, and hear of its progress.
        return await self._flights.share(f"{wanted} {known}", event, partial(self._pulled, image, wanted, known))

    async def _pulled(self, image: Image, wanted: str, login: str, event: Event) -> Found:
        async with self._slots:
            await self._pull(image, wanted, login, event)
            found = await self.find(wanted, image.reference)
        if found is None:
            raise CannotPrepare(Refusal(cause="image", message=f"The image {wanted} was pulled and is not there."))
        return found

    async def listed(self) -> list[dict[str, Any]]:
        """Everything in the engine's store. Raises EngineAway."""
        found: list[dict[str, Any]] = await self._engine.ask("GET", "images/json")
        return found

    async def find(self, wanted: str, reference: str) -> Found | None:
        """The image in the engine's store, without pulling. Raises EngineAway."""
        try:
            seen = await self._engine.ask("GET", f"images/{wanted}/json")
        except EngineError as error:
            if error.status == 404:
                return None
            raise CannotPrepare(Refusal(cause="image", message=f"The image {wanted}: {error.message}.")) from error
        pin = pin_of(reference, seen["Id"], seen.get("RepoDigests") or ())
        return Found(id=seen["Id"], pin=pin, config=seen.get("Config") or {})

    async def _pull(self, image: Image, wanted: str, login: str, event: Event) -> None:
        name = parse(wanted)
        parameters = {"fromImage": wanted} if name.digest else {"fromImage": name.repository, "tag": name.tag}
        headers = {"X-Registry-Auth": registry_header(login, name.host)} if login else {}
        event(f"pulling {wanted}")
        began = self._clock.monotonic()
        try:
            async with asyncio.timeout(image.pull_timeout_s):
                lines = self._engine.lines("POST", "images/create", params=parameters, headers=headers)
                async with aclosing(lines) as progress:
                    await self._follow(progress, wanted, event)
        except TimeoutError:
            message = (f"The image {wanted} was not pulled within {image.pull_timeout_s:g} s; allow more by "
                       "pull_timeout_seconds, or pull it on the node beforehand.")  # fmt: skip
            raise CannotPrepare(Refusal(cause="image", message=message)) from None
        except EngineError as error:
            raise CannotPrepare(explain_pull(wanted, error.message, with_login=bool(login))) from error
        event(f"pulled {wanted} in {self._clock.monotonic() - began:.1f} s")

    async def _follow(self, progress: Any, wanted: str, event: Event) -> None:
        layers: dict[str, tuple[int, int]] = {}
        told = self._clock.monotonic()
        async for line in progress:
            if "error" in line:
                raise EngineError(0, str(line["error"]))
            seen = line.get("progressDetail") or {}
            if line.get("status") == "Downloading" and seen.get("total"):
                layers[line.get("id", "")] = (seen.get("current", 0), seen["total"])
            if layers and self._clock.monotonic() - told >= TELL_EVERY_S:
                told = self._clock.monotonic()
                done, total = (sum(each) / MIB for each in zip(*layers.values(), strict=True))
                event(f"pulling {wanted}: {done:.0f} of {total:.0f} MiB")


def registry_header(login: str, host: str) -> str:
    """Credentials as the engine wants them. `login`: `user:password` in base64; anything else is sent as a password."""
    try:
        user, _, password = base64.b64decode(login, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        user, password = "", login
    text = json.dumps({"username": user, "password": password, "serveraddress": host})
    return base64.urlsafe_b64encode(text.encode()).decode()


def _not_here(image: Image, pin: str | None) -> CannotPrepare:
    if (pin or "").startswith(LOCAL):
        message = (f"The image {image.reference} was built on another node and is in no registry; this node does not "
                   f"have it ({pin}). Push it to a registry, or load it into this node's engine.")  # fmt: skip
    else:
        message = f"The image {pin or image.reference} is not on this node, and pull_policy is Never."
    return CannotPrepare(Refusal(cause="image", message=message))
