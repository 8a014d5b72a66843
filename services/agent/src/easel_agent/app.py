"""Builds the agent: the only place that makes adapters."""

from __future__ import annotations

import hashlib
import os
import random
from typing import Any

from easel_agent import cgroups, isolation
from easel_agent.archives import CodeStore, FetchCode
from easel_agent.control_client import ControlSecrets
from easel_agent.environments import Environments
from easel_agent.fleet import Fleet
from easel_agent.handlers import AgentApi
from easel_agent.inventory import Inventory
from easel_agent.launching import Node, Preparer, Secrets
from easel_agent.limits import Limits
from easel_agent.model import Isolation
from easel_agent.port_ledger import PortLedger
from easel_agent.processes import Children, become_subreaper
from easel_agent.sampler import Publish, Sampler
from easel_agent.sandbox import FIRST_UID, Sandbox
from easel_agent.settings import AgentSettings
from easel_agent.watched import LimitsWatched
from easel_contracts.ids import uuid7
from easel_kit.clock import Clock
from easel_kit.run import Process
from easel_proto.internal.v1 import agent_pb2_grpc

BUILD_USER = FIRST_UID + 30_000


class Agent:
    """The agent's parts, put together."""

    def __init__(self, settings: AgentSettings, found: Isolation, children: Children, clock: Clock, secrets: Secrets,
                 fetch_code: FetchCode, publish: Publish, limits: Limits | None = None) -> None:  # fmt: skip
        home = settings.home.resolve()
        cpu, memory_mib = settings.capacity()
        sandbox = Sandbox(found, settings.hidden())
        inherited = {name: os.environ[name] for name in settings.inherit.split() if name in os.environ}
        self.environments = Environments(
            home, sandbox, children, keep=settings.environments_kept, timeout_s=settings.build_timeout_s,
            uid=BUILD_USER if found.own_uid else None, env=os.environ,
        )  # fmt: skip
        self.code = CodeStore(home / "code", fetch_code, settings.archives_kept)
        node = Node(
            home=home, node_id=settings.node_id(), run_id=uuid7(), address=settings.address, network=settings.network,
            isolation=found.sentence, limits=limits or cgroups.find(group_name(settings)) or LimitsWatched(),
            children=children, processes_per_replica=settings.processes_per_replica,
            startup_limit_s=settings.startup_limit_s, started=lambda _replica: None,
        )  # fmt: skip
        start = random.randint(settings.first_port, settings.last_port)
        ledger = PortLedger(settings.first_port, settings.last_port, settings.address, start=start)
        preparer = Preparer(
            node=node, ledger=ledger, sandbox=sandbox,
            environments=self.environments, code=self.code, secrets=secrets, inherited=inherited,
        )  # fmt: skip
        self.fleet = Fleet(node=node, preparer=preparer, inventory=Inventory(home / "inventory.json"), clock=clock,
                           log_file_bytes=settings.log_file_mib << 20, log_files=settings.log_files)  # fmt: skip
        self.sampler = Sampler(fleet=self.fleet, children=children, clock=clock, publish=publish,
                               workspace=settings.workspace, environments=self.environments, code=self.code,
                               logs_total_bytes=settings.logs_total_mib << 20)  # fmt: skip
        self.api = AgentApi(self.fleet, found, cpu, memory_mib)


def group_name(settings: AgentSettings) -> str:
    """One parent control group per home, so that two platforms on a machine do not meet."""
    return "easel-" + hashlib.sha256(str(settings.home.resolve()).encode()).hexdigest()[:10]


async def build(process: Process[Any]) -> None:
    """Register the agent's parts with its process."""
    settings: AgentSettings = process.settings
    settings.home.mkdir(parents=True, exist_ok=True, mode=0o711)
    os.chmod(settings.home, 0o711)  # replicas' users pass through to their own directories
    become_subreaper()
    children = Children()
    found = await isolation.find(settings.home.resolve(), settings.hidden(), children, root=os.geteuid() == 0)
    secrets = ControlSecrets(process.channel("control"))
    agent = Agent(settings, found, children, process.clock, secrets, secrets.code, process.publish_metrics)
    left = agent.fleet.clear_leftovers()
    await agent.sampler.prune()
    process.log.info("agent", isolation=found.sentence, limits=agent.fleet.node.limits.sentence,
                     node=agent.fleet.node.node_id, left_by_earlier_run=len(left))  # fmt: skip
    process.serve(agent_pb2_grpc.add_AgentServicer_to_server, agent.api, "easel.internal.v1.Agent")
    process.background(agent.sampler.run)
    process.background(agent.fleet.keep)
    process.gauge("replicas", "Replicas on this node", lambda: float(len(agent.fleet.replicas)))
    process.gauge("environments_building", "Python environments being made now", lambda: agent.environments.building)
    process.gauge("starts_failed", "Runs that ended before they were ready, since start",
                  lambda: agent.fleet.starts_failed)  # fmt: skip
    process.gauge("watchers", "Schedulers that follow this node; 0: nobody hears of its replicas", agent.fleet.watchers)
