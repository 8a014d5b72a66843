"""The reconcile loop: one key at a time, nothing lost, errors retried, Stale at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from easel_kit.clock import SystemClock
from easel_kit.db import Stale
from easel_kit.reconcile import Reconcile, Reconciler
from easel_kit.run import Process
from easel_kit.settings import ProcessSettings
from easel_kit.testing import ManualClock, eventually


async def no_keys() -> Iterable[str]:
    return []


@asynccontextmanager
async def running(
    reconcile: Reconcile, clock: ManualClock | None = None, **options: float
) -> AsyncIterator[Reconciler]:
    loop = Reconciler("test", reconcile, clock or SystemClock(), no_keys, **options)  # type: ignore[arg-type]
    task = asyncio.create_task(loop.run())
    await asyncio.sleep(0)
    try:
        yield loop
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_a_wake_during_a_run_has_the_key_looked_at_again() -> None:
    """A key woken while it is being reconciled runs once more afterwards, never twice at once."""
    runs: list[str] = []
    at_once: list[int] = []
    gate = asyncio.Event()

    async def reconcile(key: str) -> None:
        at_once.append(1)
        assert len(at_once) == 1
        runs.append(key)
        await gate.wait()
        at_once.pop()

    async with running(reconcile) as loop:
        loop.wake("a")
        await eventually(lambda: runs == ["a"])
        loop.wake("a")
        loop.wake("a")
        await asyncio.sleep(0)
        gate.set()
        await eventually(lambda: runs == ["a", "a"])


async def test_keys_do_not_wait_for_each_other() -> None:
    """A key that hangs does not hold up another."""
    done: list[str] = []
    gate = asyncio.Event()

    async def reconcile(key: str) -> None:
        if key == "slow":
            await gate.wait()
        done.append(key)

    async with running(reconcile) as loop:
        loop.wake("slow")
        loop.wake("quick")
        await eventually(lambda: done == ["quick"])
        gate.set()
        await eventually(lambda: done == ["quick", "slow"])


async def test_an_error_is_tried_again_and_counted() -> None:
    """A key that raises comes back with growing delay until it succeeds; then its failures are forgotten."""
    tries: list[str] = []

    async def reconcile(key: str) -> None:
        tries.append(key)
        if len(tries) < 3:
            raise RuntimeError("not yet")

    async with running(reconcile, backoff_s=(0.001, 0.01)) as loop:  # type: ignore[arg-type]
        loop.wake("a")
        await eventually(lambda: len(tries) == 3 and not loop.failing())


async def test_stale_is_tried_again_at_once() -> None:
    """Stale means somebody else was first: reload and decide again, without back-off."""
    tries: list[str] = []

    async def reconcile(key: str) -> None:
        tries.append(key)
        if len(tries) == 1:
            raise Stale

    clock = ManualClock()
    async with running(reconcile, clock) as loop:
        loop.wake("a")
        await eventually(lambda: len(tries) == 2)

        assert loop.failing() == {}


async def test_a_key_that_asks_for_later_is_woken_then_and_not_before() -> None:
    """The returned delay is kept by the loop's clock, and an earlier wake-up wins."""
    runs: list[float] = []
    clock = ManualClock()

    async def reconcile(key: str) -> float | None:
        runs.append(clock.monotonic())
        return 5.0 if len(runs) == 1 else None

    async with running(reconcile, clock) as loop:
        loop.wake("a")
        await eventually(lambda: len(runs) == 1)
        clock.move(4.9)
        loop.wake("other", after_s=100)  # has the loop look at its clock
        await asyncio.sleep(0.01)
        assert len(runs) == 1
        clock.move(0.2)
        loop.wake("another", after_s=100)
        await eventually(lambda: len(runs) == 2)


async def test_its_age_is_told_from_the_start_on(short_path: Path) -> None:
    """`/metrics` tells how long ago a key was reconciled; before the first one, how long the process waits for it."""
    clock = ManualClock()
    settings = ProcessSettings(
        home=short_path, nats_url="nats://127.0.0.1:1", agent_addr=f"unix:{short_path}/agent.sock"
    )  # fmt: skip
    process: Process[ProcessSettings] = Process("agent", settings, (), clock)
    clock.move(5)

    async def reconcile(key: str) -> None:
        return None

    loop = Reconciler("status", reconcile, clock, no_keys)
    process.watch_loop(loop)
    clock.move(7)
    waiting = metrics_of(process)
    loop.last_success = clock.monotonic()
    clock.move(2)

    assert waiting["easel_reconcile_status_age_seconds"] == 7
    assert metrics_of(process)["easel_reconcile_status_age_seconds"] == 2
    assert waiting["easel_reconcile_status_failing"] == 0


def metrics_of(process: Process[ProcessSettings]) -> dict[str, float]:
    return {sample.name: sample.value for family in process.health.collect() for sample in family.samples}


async def test_a_cancel_at_the_moment_of_a_wake_ends_the_loop() -> None:
    """Python 3.11's wait_for loses a cancellation that meets a result; the loop must end all the same."""

    async def reconcile(key: str) -> None:
        return None

    loop = Reconciler("test", reconcile, SystemClock(), no_keys)
    loop.wake("later", after_s=100)
    task = asyncio.create_task(loop.run())
    for _ in range(5):
        await asyncio.sleep(0)
    loop.wake("a")
    task.cancel()

    done, _ = await asyncio.wait({task}, timeout=5)

    assert done
