"""A process of its own that writes down each fact it handles, and kills itself after DIE_AFTER of them."""

from __future__ import annotations

import os
import signal

from easel_contracts.facts import Fact
from easel_kit.run import Process, run
from easel_kit.settings import ProcessSettings


async def build(process: Process[ProcessSettings]) -> None:
    """One handler: a row for each time a fact is handled; its table is made by the test."""
    left = int(os.environ["DIE_AFTER"])

    async def on_scale(fact: Fact) -> None:
        nonlocal left
        async with process.db.connection() as connection:
            await connection.execute("INSERT INTO handled (key, number) VALUES ($1, $2)", fact.key, fact.row_version)
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    process.subscribe({"scale": on_scale})


if __name__ == "__main__":
    run("scheduler", ProcessSettings, build, ("scale",))
