"""Builds the agent: the only place that makes adapters."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
from collections.abc import Sequence
from functools import partial
from typing import Any

from easel_agent import cgroups, isolation
from easel_agent.archives import CodeStore, FetchCode
from easel_agent.control_client import ControlSecrets
from easel_agent.docker.build import NoDocker, docker_runtime
from easel_agent.docker.engine import EngineAway, EngineError
from easel_agent.environments import Environments
from easel_agent.fetching import Fetching
from easel_agent.fleet import Fleet
from easel_agent.handlers import AgentApi, What
from easel_agent.inventory import Inventory
from easel_agent.launching import Preparer
from easel_agent.limits import Limits
from easel_agent.model import Isolation
from easel_agent.port_ledger import PortLedger
from easel_agent.process_runtime import ProcessRuntime
from easel_agent.processes import Children, become_subreaper
from easel_agent.runtime import Node, Secrets, Survivor
from easel_agent.sampler import Caches, Publish, Sampler
from easel_agent.sandbox import FIRST_UID, Sandbox
from easel_agent.settings import AgentSettings
from easel_agent.sources import ObjectStores, SourceLimits, Sources
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
        sandbox = Sandbox(found, settings.hidden())
        inherited = {name: os.environ[name] for name in settings.inherit.split() if name in os.environ}
        self.environments = Environments(
            home, sandbox, children, keep=settings.environments_kept, timeout_s=settings.build_timeout_s,
            uid=BUILD_USER if found.own_uid else None, env=os.environ,
        )  # fmt: skip
        self.code = CodeStore(home / "code", fetch_code, settings.archives_kept)
        self.sources = Sources(home / "sources", source_limits(settings), ObjectStores(settings.object_stores_file))
        node = Node(
            home=home, node_id=settings.node_id(), run_id=uuid7(), network=settings.network,
            processes_per_replica=settings.processes_per_replica, startup_limit_s=settings.startup_limit_s,
        )  # fmt: skip
        fetching = Fetching(node.node_id, self.code, self.sources)
        start = random.randint(settings.first_port, settings.last_port)
        ledger = PortLedger(settings.first_port, settings.last_port, settings.address, start=start)
        preparer = Preparer(
            node=node, address=settings.address, ledger=ledger, sandbox=sandbox, environments=self.environments,
            fetching=fetching, secrets=secrets, inherited=inherited,
        )  # fmt: skip
        groups = limits or cgroups.find(group_name(settings)) or LimitsWatched()
        processes = ProcessRuntime(node=node, preparer=preparer, children=children, limits=groups,
                                   isolation=found.sentence)  # fmt: skip
        self.docker = docker_runtime(settings, node=node, group=group_name(settings), fetching=fetching,
                                     secrets=secrets, clock=clock, hidden=sandbox.hidden, env=os.environ)  # fmt: skip
        self.fleet = Fleet(node=node, runtimes={"process": processes, "docker": self.docker or NoDocker()},
                           inventory=Inventory(home / "inventory.json"), clock=clock,
                           log_file_bytes=settings.log_file_mib << 20, log_files=settings.log_files)  # fmt: skip
        processes.remember = self.fleet.remember_pid
        if self.docker is not None:
            self.docker.events.on_changed = self.fleet.node_changed
        caches = Caches(environments=self.environments, code=self.code, sources=self.sources,
                        packages=self.docker.packages if self.docker else None, limits=groups,
                        sweep=self._sweep)  # fmt: skip
        self.sampler = Sampler(fleet=self.fleet, children=children, clock=clock, publish=publish,
                               workspace=settings.workspace, caches=caches,
                               logs_total_bytes=settings.logs_total_mib << 20)  # fmt: skip
        cpu, memory_mib = settings.capacity()
        self.parent_group: str | None = None
        if settings.cpu or settings.memory_mib:
            self.parent_group = groups.enclose(cpu=settings.cpu, memory_mib=settings.memory_mib)
            if self.docker is not None:
                self.docker.parent_group = self.parent_group or ""
        self.what = What(
            address=settings.address, cpu=cpu, memory_mib=memory_mib, gpus=settings.gpus_found(),
            limits=groups.sentence, capacity=partial(self._capacity, settings), isolation=found,
        )  # fmt: skip
        self.api = AgentApi(self.fleet, self.what, self.docker)

    def _capacity(self, settings: AgentSettings) -> str:
        """Whether what this node promises is kept from others on the same machine."""
        if not settings.cpu and not settings.memory_mib:
            return "whole machine"
        if self.parent_group is None:
            return "accounted: no control group can be made that holds its replicas to their sums"
        if self.docker is not None and not self.docker.events.why_not and not self.docker.enclosed_in():
            return "accounted: its containers lie in control groups of the engine's own"
        return "enforced: its replicas together get no more, by a control group"

    def _sweep(self) -> None:
        if self.docker is not None and not self.docker.events.why_not:
            self.docker.sweep()

    async def keep(self) -> None:
        """Runs as long as the agent."""
        try:
            await self.fleet.keep()
        finally:
            self.sources.close()

    async def begin(self) -> list[str]:
        """Adopt containers of an earlier run, clear away everything else of it; the names of what was cleared away."""
        survivors: Sequence[Survivor] = ()
        if self.docker is not None:
            with contextlib.suppress(EngineAway, EngineError):
                survivors = await self.docker.survivors(self.fleet.expected())
        left = self.fleet.clear_leftovers(frozenset(survivor.run.replica for survivor in survivors))
        await self.fleet.adopt(survivors)
        await self.sampler.prune()
        return left


def source_limits(settings: AgentSettings) -> SourceLimits:
    """The settings of what is fetched."""
    return SourceLimits(
        git_timeout_s=settings.git_timeout_s, git_max_mib=settings.git_max_mib,
        git_trees_kept=settings.git_trees_kept, image_trees_kept=settings.image_trees_kept,
        objects_timeout_s=settings.objects_timeout_s, objects_parallel=settings.objects_parallel,
        objects_cache_mib=settings.objects_cache_mib,
    )  # fmt: skip


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
    left = await agent.begin()
    process.log.info("agent", isolation=found.sentence, limits=agent.what.limits, node=agent.fleet.node.node_id,
                     left_by_earlier_run=len(left), adopted=len(agent.fleet.replicas))  # fmt: skip
    process.serve(agent_pb2_grpc.add_AgentServicer_to_server, agent.api, "easel.internal.v1.Agent")
    process.background(agent.sampler.run)
    if agent.docker is not None:
        process.background(agent.docker.events.run)
    process.background(agent.keep)
    process.gauge("replicas", "Replicas on this node", lambda: float(len(agent.fleet.replicas)))
    process.gauge("environments_building", "Python environments being made now", lambda: agent.environments.building)
    process.gauge("starts_failed", "Runs that ended before they were ready, since start",
                  lambda: agent.fleet.starts_failed)  # fmt: skip
    process.gauge("watchers", "Schedulers that follow this node; 0: nobody hears of its replicas", agent.fleet.watchers)
