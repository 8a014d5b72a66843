"""A gateway as the supervisor runs it, before an xDS server of the test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from easel_kit.testing import free_port
from easel_migrate.secret_files import write_file
from easel_router.testing import PROCESS_TOKEN, Rig, a_plan, rig, until
from easel_standalone import envoy
from easel_standalone.child import Plan
from easel_standalone.decide.gateways import Process
from easel_standalone.gateway import Gateway
from easel_standalone.home import Home
from easel_standalone.keys import Keys
from easel_standalone.plans import Plans
from easel_standalone.stores.postgres import Postgres, choose_user
from tests.flow.router.backends import Backend, backends


class OneGateway:
    """A home with one gateway, its routes and two model servers."""

    def __init__(self, root: Path, xds: Rig, servers: list[Backend]) -> None:
        self.xds, self.servers = xds, servers
        self.home = Home(root)
        self.config = msgspec.structs.replace(self.home.config(), port=free_port(), control_port=free_port())
        keys = Keys(self.home)
        keys.ensure()
        write_file(keys.token("envoy"), PROCESS_TOKEN.encode())
        self._keys = keys
        self._plans = Plans(self.home, self.config, keys, Postgres(self.home, keys, choose_user()))
        self.said: list[str] = []
        self.broken: list[str] = []
        """Further arguments for processes that are made from now on."""
        envoy.clear(self.home, self.config)
        self.gateway = Gateway(self.home, self.config, "envoy", self._plan, lambda: None, self.said.append)

    def _plan(self, process: Process, grace_s: float) -> Plan:
        plan = self._plans.envoy(process, grace_s)
        return msgspec.structs.replace(plan, command=[*plan.command, *self.broken])

    def listen_with(self, certificate: Path, key: Path) -> None:
        """TLS for processes that are made from now on."""
        config = msgspec.structs.replace(self.config, tls_cert=str(certificate), tls_key=str(key))
        self._plans = Plans(self.home, config, self._keys, Postgres(self.home, self._keys, choose_user()))

    @property
    def pid(self) -> int:
        """Of the process that takes new connections."""
        pid = self.gateway.current.pid
        assert pid is not None
        return pid

    def memory(self) -> list[str]:
        """What its processes share, by name."""
        ids = envoy.ids_of(self.home, self.config, "envoy")
        names = [Process(gateway="envoy", number=0, base_id=base_id).shared_memory for base_id in ids]
        return [name for name in names if (envoy.SHARED_MEMORY / name).exists()]

    async def ready(self) -> None:
        """The gateway answers."""
        await until(lambda: self.gateway.current.pid, "a process")
        while not await self.gateway.current.check():
            await until(lambda: self.gateway.current.pid, "a process")


@asynccontextmanager
async def one_gateway(root: Path) -> AsyncIterator[OneGateway]:
    """A gateway that answers for the service `ocr`; all of its processes have ended in the end."""
    Home(root).prepare()
    async with rig(Home(root).run) as xds, backends(2) as servers:
        made = OneGateway(root, xds, servers)
        xds.put(a_plan("ocr", *(server.port for server in servers)))
        made.gateway.start()
        try:
            await made.ready()
            yield made
        finally:
            await made.gateway.stop()
