"""EAS's own Python client, in an environment of its own (it pins an old protobuf): it signs, and finds its gateway."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from easel_sdk import Client
from tests.e2e.platform import Platform, deploy, remove, spec

CALLER = Path(__file__).parent / "served" / "eas_caller.py"
PACKAGES = ("eas-prediction==0.36", "protobuf<=3.20.3")


@pytest.fixture(scope="module")
def eas_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has the client library."""
    directory = tmp_path_factory.mktemp("eas")
    subprocess.run([sys.executable, "-m", "venv", directory], check=True)
    python = directory / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
    return python


@pytest.fixture
async def service(easel: Client) -> AsyncIterator[Any]:
    """A service that answers."""
    try:
        yield await deploy(easel, spec("eas_called"))
    finally:
        await remove(easel, "eas_called")


@pytest.mark.parametrize("mode", ["gateway", "direct"])
@pytest.mark.parametrize("path", ["", "/sub/path", "?id=a%20b"])
def test_signed_calls_are_answered(platform: Platform, eas_python: Path, service: Any, mode: str, path: str) -> None:
    answer = called(eas_python, "eas_called" + path, service.token, platform.data_url, mode)

    assert json.loads(answer["body"])["method"] == "POST"


@pytest.mark.parametrize("mode", ["gateway", "direct"])
@pytest.mark.parametrize("token", ["wrong", ""])
def test_other_signatures_are_not(platform: Platform, eas_python: Path, service: Any, mode: str, token: str) -> None:
    answer = called(eas_python, "eas_called", token, platform.data_url, mode)

    assert answer["code"] == 401
    assert "Unauthorized" in answer["message"]


def called(python: Path, *arguments: str) -> dict[str, Any]:
    """What the client made of it."""
    done = subprocess.run([python, CALLER, *arguments], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
