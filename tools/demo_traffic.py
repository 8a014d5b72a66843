"""The demo's third part: a canary that is worse and goes back by itself, answers compared with another service's, and a
web page behind a signed link. Callers all along; how many met the bad revision is counted.
"""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from demo_parts import ROOT, Failed, Load, Platform, until

EXAMPLE, PAGE = ROOT / "examples" / "digits", ROOT / "examples" / "webapp"
NAME, OTHER, WEB = "digits", "digits_tree", "ocr_app"
CALLERS = 6


async def traffic(platform: Platform) -> dict[str, str]:
    """What was seen, line by line."""
    spec = platform.spec(EXAMPLE)
    await asyncio.to_thread(platform.show, "create", str(spec), "--wait", "--timeout", "300")
    service = platform.read("desc", NAME)
    bodies = [json.dumps({"pixels": one["pixels"]}).encode() for one in json.loads(_more())]
    load = Load(service["endpoint"], service["token"], bodies)
    load.start(CALLERS)
    try:
        seen = await canary(platform, load, json.loads(spec.read_text()))
        seen |= await mirror(platform, spec, load)
    finally:
        await load.stop()
    return seen | await page(platform)


async def canary(platform: Platform, load: Load, document: dict[str, Any]) -> dict[str, str]:
    """A revision that fails on the darkest 8 of 100 digits: it must go back by itself, having met few callers."""
    bad = _changed(platform, document, {"DIGITS_MOST_INK": "360"})
    before = time.monotonic()
    await asyncio.to_thread(
        platform.show, "canary", "start", NAME, "-s", str(bad), "--steps", "5,25,50,100", "--step-time", "15s",
        "--wait", code=1,
    )  # fmt: skip
    took_s = time.monotonic() - before
    found = platform.read("canary", "desc", NAME)
    if found["state"] != "rolled_back" or platform.read("desc", NAME)["revision"] != 1:
        raise Failed(f"the bad canary did not go back: {found['state']}, {found['message']}")
    met = load.failed_since(before)
    if others := [what for what in met if not what.startswith("500 ")]:
        raise Failed(f"{len(others)} requests failed otherwise than by the bad revision, e.g. {others[0]}")
    return {
        "bad canary": f"went back by itself after {took_s:.0f} s: {found['message']}",
        "met by it": f"{len(met)} of {load.answered + len(met)} requests",
    }


async def mirror(platform: Platform, spec: Path, load: Load) -> dict[str, str]:
    """Another model gets copies; its answers are compared, field by field."""
    document = json.loads(spec.read_text())
    other = document | {"metadata": document["metadata"] | {"name": OTHER}} | _changed_env(document, "tree")
    other["storage"] = [{"mount_path": "/code", "local": {"path": str(EXAMPLE)}}]
    file = platform.home / "other.json"
    file.write_text(json.dumps(other))
    await asyncio.to_thread(platform.show, "create", str(file), "--wait", "--timeout", "300")
    before = time.monotonic()
    await asyncio.to_thread(
        platform.show, "mirror", NAME, "--target", OTHER, "--ratio", "100", "--compare", "--no-side-effects",
        "--samples-per-s", "30", "--twice", "100", "--ignore", "score", "--ignore", "model.name",
    )  # fmt: skip

    def sure() -> bool:
        return bool(platform.read("mirror", "report", NAME)["verdict"] == "differs")

    await until("the report is sure that answers differ", sure, 120)
    await asyncio.to_thread(platform.show, "mirror", "report", NAME)
    report = platform.read("mirror", "report", NAME)
    fields = [field["path"] for field in report["fields"]]
    if fields != ["body.digit"]:
        raise Failed(f"what differs should be the digit alone, not {fields}")
    await asyncio.to_thread(platform.show, "mirror", "rm", NAME)
    if failed := load.failed_since(before):
        raise Failed(f"{len(failed)} callers felt the mirror, e.g. {failed[0]}")
    return {"mirror": f"{report['message']}; 0 callers felt it"}


async def page(platform: Platform) -> dict[str, str]:
    """The page of examples/webapp, by its signed link, and not without."""
    ocr = platform.read("desc", "ocr")
    document = json.loads((PAGE / "service.json").read_text())
    document["containers"][0]["env"] = [
        {"name": "OCR_URL", "value": ocr["endpoint"]}, {"name": "OCR_TOKEN", "value": ocr["token"]},
    ]  # fmt: skip
    document["storage"] = [{"mount_path": "/code", "local": {"path": str(PAGE)}}]
    file = platform.home / "page.json"
    file.write_text(json.dumps(document))
    await asyncio.to_thread(platform.show, "create", str(file), "--wait", "--timeout", "300")
    link = platform.easel("open", WEB, "--print").strip()
    print(f"\n{link}", flush=True)
    url = urlsplit(link)  # a browser knows that *.localhost is this machine; a resolver may not
    at, headers = f"http://127.0.0.1:{url.port}/", {"Host": url.netloc, "Accept": "text/html"}
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True), headers=headers) as session:
        async with session.get(at) as answer:
            refused = answer.status
        async with session.get(f"{at}?{url.query}") as answer:
            opened, text = answer.status, await answer.text()
    if (refused, opened) != (401, 200) or "<html" not in text:
        raise Failed(f"the page was answered {refused} without a link and {opened} with one")
    return {"web page": "401 without a link, 200 with one and with the cookie it is turned into"}


def _changed(platform: Platform, document: dict[str, Any], env: dict[str, str]) -> Path:
    """A file with another environment of the container."""
    file = platform.home / "canary.json"
    entries = [{"name": name, "value": value} for name, value in env.items()]
    file.write_text(json.dumps({"containers": [document["containers"][0] | {"env": entries}]}))
    return file


def _changed_env(document: dict[str, Any], model: str) -> dict[str, Any]:
    env = [{"name": "DIGITS_MODEL", "value": model}]
    return {"containers": [document["containers"][0] | {"env": env}]}


def _more() -> str:
    return (EXAMPLE / "samples" / "more.json").read_text()
