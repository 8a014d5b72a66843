"""`python -m easel_control`."""

from easel_control.app import build
from easel_control.settings import Settings
from easel_control.subscriptions import CONSUMER, LISTENS
from easel_kit.run import run

if __name__ == "__main__":
    run(CONSUMER, Settings, build, LISTENS)
