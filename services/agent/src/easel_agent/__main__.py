"""`python -m easel_agent` runs the agent until SIGTERM."""

from easel_agent.app import build
from easel_agent.settings import AgentSettings
from easel_agent.subscriptions import LISTENS
from easel_kit.run import run

if __name__ == "__main__":
    run("agent", AgentSettings, build, consumer=LISTENS)
