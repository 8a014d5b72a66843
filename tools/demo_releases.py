"""The demo's second half: a service that is changed, badly changed, sent to zero and woken, with callers all along.

Its callers POST and do not retry, and the service does not declare that a request may run twice: what is lost is seen.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
from demo_parts import ROOT, Failed, Load, Platform, until

EXAMPLE = ROOT / "examples" / "filetype"
NAME = "filetype"
CALLERS = 4
WAITING = 20
"""Requests that come at once while there is no replica."""


async def releases(platform: Platform) -> dict[str, str]:
    """What was seen, line by line."""
    spec = platform.spec(EXAMPLE)
    document = json.loads(spec.read_text())
    await asyncio.to_thread(platform.show, "create", str(spec), "--wait", "--timeout", "300")
    await asyncio.to_thread(platform.show, "scale", NAME, "2", "--wait")
    service = platform.read("desc", NAME)
    seen = await updates(platform, service, document)
    return seen | await zero(platform, service)


async def updates(platform: Platform, service: dict[str, Any], document: dict[str, Any]) -> dict[str, str]:
    """A good update and a bad one under load."""
    seen = {}
    load = Load(service["endpoint"], service["token"], [(EXAMPLE / "README.md").read_bytes()])
    load.start(CALLERS)
    try:
        good = changed(platform, document, env=[{"name": "GREETING", "value": "hello"}])
        before = time.monotonic()
        await asyncio.to_thread(platform.show, "modify", NAME, "-s", str(good), "--wait")
        seen["update"] = told(load, before, f"revision {platform.read('desc', NAME)['revision']} took over")
        bad = changed(platform, document, command="python not_there.py", rollout={"revert_after_seconds": 2})
        before = time.monotonic()
        await asyncio.to_thread(platform.show, "modify", NAME, "-s", str(bad), "--wait", code=1)
        found = platform.read("desc", NAME)
        if found["revision"] != 2 or found["latest_version"] != 3:
            raise Failed(f"the bad update did not revert: revision {found['revision']} of {found['latest_version']}")
        seen["bad update"] = told(load, before, "paused, then reverted to revision 2 by itself")
        await asyncio.to_thread(platform.show, "rollout", NAME)
    finally:
        await load.stop()
    return seen


def changed(
    platform: Platform, document: dict[str, Any], rollout: dict[str, Any] | None = None, **container: Any
) -> Path:
    """A file with what `easel modify` shall change."""
    file = platform.home / "change.json"
    content: dict[str, Any] = {"containers": [document["containers"][0] | container]}
    file.write_text(json.dumps(content | ({"rollout": rollout} if rollout else {})))
    return file


def told(load: Load, since: float, what: str) -> str:
    """The counts of one step; a lost request ends the demo."""
    failed = load.failed_since(since)
    if failed:
        raise Failed(f"{what}: {len(failed)} requests failed, e.g. {failed[0]}")
    return f"{what}; 0 of {load.answered} requests failed"


async def zero(platform: Platform, service: dict[str, Any]) -> dict[str, str]:
    """Nobody asks: no replica. Then many ask at once."""
    await asyncio.to_thread(
        platform.show, "autoscale", NAME, "-Dmin=0", "-Dmax=2", "-Dstrategies.qps=100",
        "-Dbehavior.onZero.scaleDownGracePeriodSeconds=3",
    )  # fmt: skip

    def asleep() -> bool:
        return not platform.read("w", NAME) and platform.read("desc", NAME)["reason"] == "ScaledToZero"

    took_s = await until("no replica", asleep, 60)
    print(f"\n{WAITING} requests at once, while there is no replica", flush=True)
    started = time.monotonic()
    answers = await ask_together(service, WAITING)
    woken_s = time.monotonic() - started
    counts = Counter(status for status, _ in answers)
    if set(counts) != {200}:
        raise Failed(f"held requests were answered {dict(counts)}")
    last = max(int(position) for _, position in answers if position)
    await asyncio.to_thread(platform.show, "explain", NAME)
    return {
        "to zero": f"{took_s:.1f} s after the last request",
        "held requests": f"{WAITING} of {WAITING} answered {woken_s:.1f} s after they came; places 1 to {last}",
    }


async def ask_together(service: dict[str, Any], count: int) -> list[tuple[int, str]]:
    """(status, place in the line) of so many requests."""
    headers = {"Authorization": service["token"]}
    async with aiohttp.ClientSession(headers=headers) as session:

        async def one() -> tuple[int, str]:
            async with session.post(service["endpoint"], data=b"%PDF-1.7 held") as answer:
                await answer.read()
                return answer.status, answer.headers.get("easel-queue-position", "")

        return await asyncio.gather(*(one() for _ in range(count)))
