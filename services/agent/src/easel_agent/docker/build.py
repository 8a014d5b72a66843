"""Puts the Docker runtime together, or what stands in its place where there is no engine."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from easel_agent.decide.indexes import pip_settings
from easel_agent.docker.engine import Engine
from easel_agent.docker.events import Events
from easel_agent.docker.images import Images
from easel_agent.docker.network import Network
from easel_agent.docker.packages import Packages
from easel_agent.docker.runtime import AGENT, DockerRuntime
from easel_agent.environments import pip_config
from easel_agent.fetching import Fetching
from easel_agent.model import Refusal
from easel_agent.runtime import CannotPrepare, Node, Prepared, Program, Secrets
from easel_agent.settings import AgentSettings
from easel_kit.clock import Clock

if TYPE_CHECKING:
    from easel_agent.replica import Replica

NOT_CONFIGURED = "no Docker engine is configured on this node (EASEL_AGENT_DOCKER)"


class NoDocker:
    """A node without an engine; see runtime.Runtime."""

    isolation = limits = ""

    async def prepare(self, replica: Replica) -> Prepared:
        """See Runtime."""
        raise CannotPrepare(Refusal(cause="image", message=f"An image needs a Docker engine: {NOT_CONFIGURED}."))

    async def start(self, replica: Replica, prepared: Prepared) -> Program:
        """Never comes so far."""
        raise AssertionError("nothing is prepared")

    async def release(self, replica: Replica) -> None:
        """Nothing was taken."""

    async def close(self) -> None:
        """Nothing is open."""


def docker_runtime(settings: AgentSettings, *, node: Node, group: str, fetching: Fetching, secrets: Secrets,
                   clock: Clock, hidden: Collection[str], env: Mapping[str, str]) -> DockerRuntime | None:  # fmt: skip
    """The runtime; None where no engine is configured."""
    socket = settings.docker_socket()
    if socket is None:
        return None
    engine = Engine(f"unix://{socket}")
    labels = {AGENT: group}
    network = Network(engine, group, labels, given=settings.docker_network)
    packages = Packages(
        engine, node.home / "packages", keep=settings.environments_kept, timeout_s=settings.build_timeout_s,
        network=network, labels=labels, pip=pip_settings(env, pip_config(env)),
    )  # fmt: skip
    return DockerRuntime(
        node=node, engine=engine, events=Events(engine, f"{AGENT}={group}", clock), images=Images(engine, clock),
        network=network, packages=packages, fetching=fetching, secrets=secrets, clock=clock, group=group,
        gpus=settings.gpus_found(), hidden=[*hidden, str(socket.resolve())],
        log_bytes=settings.log_file_mib << 20, inherited={"TZ": env["TZ"]} if "TZ" in env else {},
    )  # fmt: skip
