"""A platform for each test, and the command line pointed at it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from easel_cli.main import app
from tests.flow.sdk.platform import Platform, running

Easel = Callable[..., Result]


@pytest.fixture(autouse=True)
def short_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The platform moves on with each look, so none needs to be waited for."""
    monkeypatch.setattr("easel_sdk.looking.LOOK_EVERY_S", 0.02)


@pytest.fixture
def platform() -> Iterator[Platform]:
    """A small platform with the real APIs."""
    with running() as found:
        yield found


@pytest.fixture
def easel(platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Easel:
    """Runs `easel ARGUMENTS` against the platform, found by its home; raises what is no exit."""
    for name in ("EASEL_SERVER", "EASEL_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("EASEL_HOME", str(platform.write_home(tmp_path / "home")))
    monkeypatch.setenv("COLUMNS", "200")
    runner = CliRunner()

    def run(*arguments: str, input: str | None = None) -> Result:
        return runner.invoke(app, list(arguments), input=input, catch_exceptions=False)

    return run


def json_of(result: Result) -> Any:
    """The answer on stdout."""
    return json.loads(result.stdout)
