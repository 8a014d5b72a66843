"""Mirrors as callers see them: not at all, whatever becomes of the copies; and what a comparison of answers says."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from easel_kit.testing import eventually
from easel_sdk import Client
from easel_sdk.errors import NotFound
from easel_sdk.types import CompareOptions
from tests.e2e.load import Load, steady_load
from tests.e2e.platform import Executions, Platform, deploy, remove, spec
from tests.e2e.traffic import WAIT_S, answered_by

NAME = "mirrored"
ITS_OWN = ["pid", "uid", "replica", "count"]
"""What no two replicas answer alike."""


@pytest.fixture
async def service(easel: Client, tmp_path: Path) -> AsyncIterator[Any]:
    """Two replicas; each execution is counted."""
    found = await deploy(easel, own(tmp_path).of(spec(NAME, instance=2, env={"VALUE": "stable"})))
    yield found
    await remove(easel, NAME)


def own(directory: Path) -> Executions:
    """The executions of the service itself."""
    return executions_of(directory, NAME)


def executions_of(directory: Path, name: str) -> Executions:
    made = directory / name
    made.mkdir(exist_ok=True)
    return Executions(made)


async def target(easel: Client, directory: Path, name: str, **env: str) -> Executions:
    """One more service, which counts what it executes."""
    counted = executions_of(directory, name)
    await deploy(easel, counted.of(spec(name, env={"VALUE": name} | env)))
    return counted


async def copies_come(counted: Executions) -> None:
    """Returns when it has executed some."""
    await eventually(lambda: sum(counted.counts().values()) > 10, WAIT_S)


def assert_callers_felt_nothing(load: Load, directory: Path) -> None:
    """All were answered; nothing of theirs was executed twice by the service."""
    assert load.failed() == []
    assert {mark: count for mark, count in own(directory).counts().items() if count > 1} == {}


async def test_whatever_becomes_of_the_copies(easel: Client, service: Any, tmp_path: Path) -> None:
    """Of four targets one is good, one slow, one answers 500, one hangs and then dies, and one is deleted meanwhile."""
    names = ["copies_slow", "copies_500", "copies_hung", "copies_good"]
    try:
        slow = await target(easel, tmp_path, names[0], DELAY_S="5")
        failing = await target(easel, tmp_path, names[1], FAIL_PERCENT="100")
        await target(easel, tmp_path, names[2])
        good = await target(easel, tmp_path, names[3])
        (hung,) = [r for r in await easel.replicas.list(names[2]) if r.ready]
        async with steady_load(service.endpoint, service.token, method="POST", clients=3) as load:
            await easel.mirrors.set(NAME, names, 100)
            for counted in (slow, failing, good):
                await copies_come(counted)
            os.kill(hung.pid, signal.SIGSTOP)
            await load.answered_more(200)
            os.kill(hung.pid, signal.SIGKILL)
            await load.answered_more(100)
            await easel.services.stop(names[2])
            await load.answered_more(100)
            await remove(easel, names[3])
            await load.answered_more(100)
            left = (await easel.mirrors.get(NAME)).targets
            failing.forget()
            await copies_come(failing)
        assert await answered_by(service.endpoint, service.token, 20) == {"stable": 20}
    finally:
        for name in names:
            await remove(easel, name)

    assert_callers_felt_nothing(load, tmp_path)
    assert sorted(left) == sorted(names[:3])
    assert max(good.counts().values()) == 1
    assert set(good.counts()) <= set(own(tmp_path).counts())
    with pytest.raises(NotFound):
        await easel.mirrors.get(NAME)


async def test_a_ratio_and_none(easel: Client, service: Any, tmp_path: Path) -> None:
    """A part of the requests is copied; at 0 none is, and the settings stay."""
    try:
        copies = await target(easel, tmp_path, "copies_some")
        async with steady_load(service.endpoint, service.token, method="POST", clients=3) as load:
            await easel.mirrors.set(NAME, ["copies_some"], 30)
            await eventually(lambda: copies.counts(), WAIT_S)
            before, copied = load.answered, sum(copies.counts().values())
            await load.answered_more(400)
            share = (sum(copies.counts().values()) - copied) / (load.answered - before)
            assert 0.15 <= share <= 0.45, share  # 0.3 ± 0.023
            await easel.mirrors.set(NAME, ["copies_some"], 0)

            async def none_comes() -> bool:
                copied = sum(copies.counts().values())
                await load.answered_more(100)
                return sum(copies.counts().values()) == copied

            await eventually(none_comes, WAIT_S)
        assert list((await easel.mirrors.get(NAME)).targets) == ["copies_some"]
    finally:
        await remove(easel, "copies_some")

    assert_callers_felt_nothing(load, tmp_path)


async def test_a_comparison_names_the_field(platform: Platform, easel: Client, service: Any, tmp_path: Path) -> None:
    """`value` differs and nothing else does; the command line shows an example. Callers feel nothing."""
    try:
        await target(easel, tmp_path, "copies_other")
        options = CompareOptions(samples_per_s=50, twice_percent=100, no_side_effects=True, ignore=ITS_OWN)
        async with steady_load(service.endpoint, service.token, clients=3) as load:
            made = await easel.mirrors.set(NAME, ["copies_other"], 100, compare=options)
            assert any("executed by copies_other and, again, by mirrored" in warning for warning in made.warnings)

            async def sure() -> Any:
                report = await easel.comparisons.report(NAME)
                return report.verdict == "differs" and report

            report = await eventually(sure, WAIT_S)
            await load.answered_more(20)
        shown = await asyncio.to_thread(platform.easel, "mirror", "report", NAME)
    finally:
        await remove(easel, "copies_other")

    assert load.failed() == []
    (field,) = report.fields
    assert (field.path, field.differ_from_itself) == ("body.value", 0)
    assert field.differ == report.samples
    assert {(e.stable, e.candidate) for e in field.examples} == {('"stable"', '"copies_other"')}
    assert "body.value" in shown
    assert '"copies_other"' in shown
