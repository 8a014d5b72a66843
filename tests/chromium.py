"""A browser for tests: Debian's Chromium, driven by Playwright, which brings its driver but no browser along."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import Browser, async_playwright

_LOCK = Path(tempfile.gettempdir()) / "easel-chromium.lock"


def chromium() -> str:
    """Its path. Root installs it where it is missing; for others the test is skipped."""
    if found := shutil.which("chromium"):
        return found
    if os.geteuid() or not shutil.which("apt-get"):
        pytest.skip("needs chromium, which only root can install")
    with _LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not shutil.which("chromium"):
            subprocess.run(["apt-get", "-qq", "update"], check=True, capture_output=True)
            install = ["apt-get", "-qq", "install", "--yes", "--no-install-recommends", "chromium"]
            subprocess.run(install, check=True, capture_output=True)
    return shutil.which("chromium") or pytest.fail("chromium was installed and is not there")


@asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    """A headless browser without a past."""
    async with async_playwright() as playwright:
        # root has no sandbox of Chromium's; the pages are our own
        made = await playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        try:
            yield made
        finally:
            await made.close()
