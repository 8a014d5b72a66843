"""`python -m easel_autoscaler`."""

from easel_autoscaler.app import build
from easel_autoscaler.settings import Settings
from easel_autoscaler.subscriptions import CONSUMER, LISTENS
from easel_kit.run import run

if __name__ == "__main__":
    run(CONSUMER, Settings, build, LISTENS)
