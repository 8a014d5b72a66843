"""`python -m easel_monitor`."""

from easel_kit.run import run
from easel_monitor.app import build
from easel_monitor.settings import MonitorSettings
from easel_monitor.subscriptions import LISTENS

if __name__ == "__main__":
    run("monitor", MonitorSettings, build, consumer=LISTENS)
