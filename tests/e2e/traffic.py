"""What tests of traffic have in common: single calls, calls counted by who answered, canaries begun and awaited."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import aiohttp
from msgspec import Struct

from easel_kit.testing import eventually
from easel_sdk import Client
from easel_sdk.types import CanaryPlan

WAIT_S = 60
FAST: dict[str, Any] = {"steps_permille": [200, 500, 1000], "step_time_s": 1, "metrics": ["errors"], "min_requests": 20,
        "error_limit_percent": 10.0}  # fmt: skip
"""A canary that makes up its mind within seconds of load."""


class Answer(Struct, frozen=True):
    """What a caller got."""

    status: int
    body: dict[str, Any]
    headers: Mapping[str, str]

    @property
    def who(self) -> str:
        """VALUE of the replica that answered, else the code of the refusal."""
        return str(self.body.get("value") or self.body.get("code"))


async def ask_many(
    url: str, token: str, count: int, *, at_once: int = 8, method: str = "GET", headers: dict[str, str] | None = None
) -> list[Answer]:
    """So many requests, `at_once` of them at a time, each on a connection of its own; none is repeated."""
    connector = aiohttp.TCPConnector(limit=at_once, force_close=True)
    sent = {"Authorization": token} | (headers or {})
    async with aiohttp.ClientSession(connector=connector, headers=sent) as session:

        async def one() -> Answer:
            async with session.request(method, url, data=b"x" if method == "POST" else None) as answer:
                return Answer(answer.status, json.loads(await answer.text()), answer.headers.copy())

        return await asyncio.gather(*(one() for _ in range(count)))


async def ask(url: str, token: str, *, method: str = "GET", headers: dict[str, str] | None = None) -> Answer:
    """One request."""
    return (await ask_many(url, token, 1, method=method, headers=headers))[0]


async def answered_by(url: str, token: str, count: int, headers: dict[str, str] | None = None) -> Counter[str]:
    """Who answered so many requests."""
    return Counter(answer.who for answer in await ask_many(url, token, count, headers=headers))


async def changed_env(easel: Client, name: str, **values: str) -> dict[str, Any]:
    """What an update sends to give the container these environment values beside those it has."""
    container = json.loads((await easel.services.get(name)).service_config)["containers"][0]
    kept = [entry for entry in container["env"] if entry["name"] not in values]
    return {"containers": [container | {"env": kept + [{"name": n, "value": v} for n, v in values.items()]}]}


async def start_canary(easel: Client, name: str, values: dict[str, str], **plan: Any) -> Any:
    """A canary of a revision with other environment values."""
    change = await changed_env(easel, name, **values)
    return await easel.canaries.start(name, change, plan=CanaryPlan(**(FAST | plan)))


async def canary_is(easel: Client, name: str, *, state: str = "", permille: int | None = None) -> Any:
    """The canary as soon as it is in this state and this weight is live."""

    async def there() -> Any:
        found = await easel.canaries.get(name)
        assert state in ("", found.state), found
        assert permille is None or (found.weight_permille, found.realised_permille) == (permille, permille), found
        return found

    return await eventually(there, WAIT_S)


async def canary_over(easel: Client, name: str) -> Any:
    """The canary when nothing of it is open any more."""

    async def ended() -> Any:
        found = await easel.canaries.get(name)
        assert found.HasField("end_time"), found
        return found

    return await eventually(ended, WAIT_S)
