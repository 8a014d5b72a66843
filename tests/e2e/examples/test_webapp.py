"""examples/webapp in a real browser: opened by a link, an image read, shut out when the link or the token is over."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from easel_kit.testing import free_port
from easel_sdk.web_links import web_link
from tests.chromium import browser, chromium
from tests.e2e.platform import Platform

ROOT = Path(__file__).parents[3]
SIGN = ROOT / "examples" / "ocr" / "samples" / "sign.png"
WORDS = re.compile(r"EMERGENCY EXIT\s+Push bar to open")


@pytest.fixture
def platform(short_path: Path) -> Iterator[Platform]:
    """With the listener for host names."""
    short_path.chmod(0o755)  # replicas run as users of their own
    made = Platform(short_path / "home")
    made.up("--web-port", str(free_port()))
    try:
        yield made
    finally:
        made.down()


async def deploy(platform: Platform) -> None:
    """Both examples, as their READMEs say."""
    await asyncio.to_thread(platform.easel, "create", str(ROOT / "examples/ocr/service.json"), "--wait")
    ocr = platform.read("desc", "ocr")
    env = [f"-Dcontainers[0].env[0].value={ocr['endpoint']}", f"-Dcontainers[0].env[1].value={ocr['token']}"]
    await asyncio.to_thread(platform.easel, "create", str(ROOT / "examples/webapp/service.json"), *env, "--wait")


async def read_the_sign(page: Page) -> None:
    """Chooses the image; its text appears, and the WebSocket counts it."""
    await page.locator("#file").set_input_files(SIGN)
    await expect(page.locator("#text")).to_have_text(WORDS, timeout=60_000)
    await expect(page.locator("#readings")).to_contain_text(re.compile(r"[1-9]\d* images read"))


@pytest.mark.timeout(600)
async def test_the_page_in_a_browser(platform: Platform) -> None:
    """By host name and by path; then an expired link, a closed door without one, and the end by rotating the token."""
    chromium()  # before anything is begun: it may have to be installed
    await deploy(platform)
    link = platform.easel("open", "ocr_app", "--print").strip()
    base = platform.config()["web_url"].replace("://", "://ocr-app.") + "/"
    assert link.startswith(base + "?easel_link=")
    async with browser() as chrome, platform.client() as client:
        context = await chrome.new_context()
        page = await context.new_page()
        await page.goto(link)
        assert page.url == base  # the link is in no history
        await read_the_sign(page)
        assert await page.evaluate("document.cookie") == ""
        await page.goto(base)  # the session, without a link
        await expect(page.locator("h1")).to_have_text("Read an image")

        service = await client.services.get("ocr_app")
        service.web_endpoint = ""
        by_path = await context.new_page()
        await by_path.goto(web_link(service, now_unix_s=time.time(), ttl_s=60))
        assert by_path.url == service.endpoint + "/"
        await read_the_sign(by_path)

        stranger = await (await chrome.new_context()).new_page()
        expired = web_link(await client.services.get("ocr_app"), now_unix_s=time.time() - 100, ttl_s=50)
        for address, why in ((expired, "this link has expired"), (base, "a link or a token opens")):
            answer = await stranger.goto(address)
            assert answer is not None
            assert answer.status == 401
            await expect(stranger.locator("body")).to_contain_text(why)
            await expect(stranger.locator("body")).to_contain_text("easel open ocr_app")

        await asyncio.to_thread(platform.easel, "token", "rotate", "ocr_app", "--overlap", "0")
        await expect(page.locator("h1")).to_have_text("Read an image")
        deadline = time.monotonic() + 20
        while (answer := await page.goto(base)) is not None and answer.status == 200:
            assert time.monotonic() < deadline, "the session outlived its token"
            await asyncio.sleep(0.1)
        await expect(page.locator("body")).to_contain_text("this session is not valid any more")
        await page.goto(platform.easel("open", "ocr_app", "--print").strip())
        await expect(page.locator("h1")).to_have_text("Read an image")
