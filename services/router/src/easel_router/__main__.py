"""`python -m easel_router`."""

from easel_kit.run import run
from easel_router.app import build
from easel_router.settings import Settings
from easel_router.subscriptions import CONSUMER, LISTENS

if __name__ == "__main__":
    run(CONSUMER, Settings, build, LISTENS)
