"""`python -m easel_scheduler` runs the scheduler."""

from __future__ import annotations

from easel_kit.run import run
from easel_scheduler.app import build
from easel_scheduler.settings import SchedulerSettings
from easel_scheduler.subscriptions import CONSUMER, LISTENS

if __name__ == "__main__":
    run(CONSUMER, SchedulerSettings, build, LISTENS)
