"""Ended replicas are forgotten after a while, and their agents are told to clear away what is left of them."""

from __future__ import annotations

from collections.abc import Callable

import asyncpg

from easel_kit.clock import Clock
from easel_kit.db import UNREACHABLE
from easel_kit.telemetry import get_logger
from easel_scheduler.settings import SchedulerSettings
from easel_scheduler.store import Store

PRUNE_S = 60.0

log = get_logger("pruning")


async def prune_for_ever(
    store: Store, clock: Clock, settings: SchedulerSettings, wake: Callable[[str, str], None]
) -> None:
    """Once a minute."""
    while True:
        await clock.sleep(PRUNE_S)
        try:
            for replica_id in await store.prune(settings.keep_ended, settings.keep_ended_days):
                wake("lives", replica_id)
        except (*UNREACHABLE, asyncpg.PostgresError) as error:
            log.warning("not pruned", error=repr(error))
