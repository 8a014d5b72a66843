"""A real router process (a child, so that it can be killed) on real stores and Envoys; the test speaks for the rest."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc.aio
import msgspec
import nats
from nats.aio.msg import Msg

from easel_contracts import facts
from easel_contracts.facts import (
    Cause,
    Endpoint,
    Entity,
    EntityState,
    Fact,
    GroupMember,
    GroupState,
    KeyState,
    ReplicaState,
    Rollout,
    ServiceState,
)
from easel_contracts.ids import uuid7
from easel_contracts.metrics import HoldMetrics
from easel_contracts.spec import Autoscaling, GatewayPolicy, Mirroring, Resources, RevisionSpec, Split, Traffic
from easel_kit.keyring import sha256_hex
from easel_kit.testing import eventually, fresh_database, fresh_streams, process_environment
from easel_proto.internal.v1 import control_pb2, control_pb2_grpc
from easel_router.bootstrap import BootstrapConfig, bootstrap
from easel_router.subscriptions import LISTENS
from easel_router.testing import Envoy, public_descriptors, two_free_ports

KEY = "ek_test_" + "0" * 32
ENVOY_TOKEN = "envoy-process-token"


class _Secrets(control_pb2_grpc.SecretsServicer):
    def __init__(self) -> None:
        self.tokens: dict[str, tuple[str, int]] = {}
        self.groups: dict[str, tuple[str, int]] = {}
        self.calls = 0

    GetEnvironment: Any = None
    GetCode: Any = None

    async def GetTokens(self, request: Any, context: object) -> Any:
        self.calls += 1
        return control_pb2.GetTokensResponse(
            tokens=self._of(request.services, self.tokens), groups=self._of(request.groups, self.groups)
        )

    def _of(self, names: Any, kept: dict[str, tuple[str, int]]) -> list[control_pb2.TokenOf]:
        return [
            control_pb2.TokenOf(service=name, token=kept[name][0], version=kept[name][1])
            for name in names
            if name in kept
        ]


class Platform:
    """What a test needs around one router."""

    def __init__(self, path: Path, nats_url: str, dsn: str) -> None:
        self.path, self._nats_url = path, nats_url
        self.env = process_environment(path, nats_url, {"router": dsn})["router"]
        peers_file = Path(self.env["EASEL_PEERS_FILE"])
        peers = json.loads(peers_file.read_text()) | {"envoy": sha256_hex(ENVOY_TOKEN)}
        peers_file.write_text(json.dumps(peers))
        self.secrets = _Secrets()
        self.told: list[Fact] = []
        """Every fact on the bus, in order."""
        self.held: list[HoldMetrics] = []
        """Every message about held requests."""
        self.envoys: list[Envoy] = []
        self._versions = 0
        self._generations: dict[str, int] = {}
        self._uids: dict[str, str] = {}
        self._replicas: dict[str, ReplicaState] = {}
        self._router: asyncio.subprocess.Process | None = None
        self._control: grpc.aio.Server | None = None

    async def open(self) -> None:
        self._bus = await nats.connect(self._nats_url)
        await self._bus.subscribe("easel.fact.>", cb=self._on_fact)
        await self._bus.subscribe("easel.metric.*.hold.>", cb=self._on_held)
        await self.start_control()
        await self.tell("key", "created", "test", KeyState(id="test", sha256=sha256_hex(KEY)))

    async def close(self) -> None:
        for envoy in self.envoys:
            await envoy.stop()
        await self.kill_router()
        await self.stop_control()
        await self._bus.close()

    async def start_control(self) -> None:
        self._control = grpc.aio.server()
        control_pb2_grpc.add_SecretsServicer_to_server(self.secrets, self._control)
        self._control.add_insecure_port(self.env["EASEL_CONTROL_ADDR"])
        await self._control.start()

    async def stop_control(self) -> None:
        if self._control is not None:
            await self._control.stop(0)
            self._control = None

    async def start_router(self) -> None:
        log = (self.path / "router.log").open("ab")
        env = {**os.environ, **self.env}
        self._router = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "easel_router", env=env, stdout=log, stderr=log
        )

    async def kill_router(self, how: signal.Signals = signal.SIGKILL) -> None:
        if self._router is not None and self._router.returncode is None:
            self._router.send_signal(how)
            await self._router.wait()
        self._router = None

    def router_log(self) -> str:
        return (self.path / "router.log").read_text()

    async def start_envoy(self, node_id: str = "envoy-0", data_port: int = 0) -> Envoy:
        data, control = two_free_ports()
        envoy = Envoy(self.path, node_id, data_port or data, control)
        self.envoys.append(envoy)
        await envoy.start(self.envoy_config(envoy))
        return envoy

    def envoy_config(self, envoy: Envoy) -> dict[str, Any]:
        return bootstrap(
            BootstrapConfig(
                node_id=envoy.node_id,
                process_token=ENVOY_TOKEN,
                xds_addr=self.env["EASEL_ROUTER_XDS_ADDR"],
                shadow_addr=self.env["EASEL_ROUTER_SHADOW_ADDR"],
                sink_addr="",
                process_addrs={"router": self.env["EASEL_ROUTER_ADDR"], "control": self.env["EASEL_CONTROL_ADDR"]},
                data_addr=f"127.0.0.1:{envoy.data_port}",
                control_addr=f"127.0.0.1:{envoy.control_port}",
                admin_socket=str(self.path / f"{envoy.node_id}.admin"),
                probe_addr=f"unix:{self.path}/{envoy.node_id}.probe",
                descriptors=public_descriptors(),
            )
        )

    # --- the other owners

    async def tell(self, entity: Entity, verb: str, key: str, state: EntityState) -> None:
        self._versions += 1
        fact = Fact(
            id=uuid7(), entity=entity, verb=verb, workspace="default", key=key, epoch=1,
            generation=getattr(state, "generation", 1), row_version=self._versions, at=datetime.now(UTC),
            cause=Cause(actor="test", reason="Test"), data=facts.raw(state),
        )  # fmt: skip
        await self._bus.jetstream().publish(fact.subject, facts.encode(fact))

    async def service(
        self, name: str, verb: str = "created", *, wanted: Any = "running", token: str = "tok", version: int = 1,
        status: str = "Running", reason: str = "", message: str = "", intercept: bool | None = None,
        revision: int = 1, rollout: bool = False, split: Split | None = None,
        gateway: GatewayPolicy | None = None, mirroring: Mirroring | None = None, **traffic: Any,
    ) -> None:  # fmt: skip
        """A rollout is from the revision before; `split` is its split."""
        self.secrets.tokens[name] = (token, version)
        self._generations[name] = self._generations.get(name, 0) + 1
        before, spec = (
            RevisionSpec(number=n, port=8000, resources=Resources(cpu=1, memory_mib=1), traffic=Traffic(**traffic))
            for n in (revision - 1, revision)
        )
        on = Rollout(stable=before, share_percent=50, split=split) if rollout or split else None
        if verb == "created":
            self._uids[name] = uuid7()
        state = ServiceState(
            uid=self._uids[name], name=name, generation=self._generations[name], wanted=wanted, instance=1,
            revision=spec, token_version=version, status=status, reason=reason, message=message, rollout=on,
            gateway=gateway or GatewayPolicy(),
            mirroring=mirroring,
            autoscaling=None if intercept is None else Autoscaling(
                min=0, max=3, targets=(("qps", 1.0),), intercept_traffic=intercept),
        )  # fmt: skip
        await self.tell("service", verb, name, state)

    async def group(
        self, name: str, *members: str, verb: str = "updated", token: str = "group-tok", version: int = 1, **more: Any
    ) -> None:
        """A group all of whose members take part."""
        self.secrets.groups[name] = (token, version)
        made = tuple(GroupMember(service=member, state="grouping") for member in sorted(members))
        state = GroupState(uid=name, name=name, generation=self._versions, members=made, token_version=version, **more)
        await self.tell("group", verb, name, state)

    async def replica(self, service: str, port: int, state: str = "ready", revision: int = 1, **more: Any) -> str:
        replica = f"{service}-{revision}-{port}"
        self._replicas[replica] = made = ReplicaState(
            id=replica, service=service, revision=revision, generation=1, state=state, row_version=self._versions + 1,
            endpoints=(Endpoint(network="host", ip="127.0.0.1", port=port),), **more,
        )  # fmt: skip
        await self.tell("replica", state, service, made)
        return replica

    # --- what the router said

    async def _on_fact(self, message: Msg) -> None:
        self.told.append(facts.decode(message.data))

    async def _on_held(self, message: Msg) -> None:
        self.held.append(msgspec.msgpack.decode(message.data, type=HoldMetrics))

    def routes(self, service: str, verb: str = "applied") -> list[facts.RouteState]:
        return [
            facts.state_of(f, facts.RouteState)
            for f in self.told
            if f.entity == "route" and f.verb == verb and f.key == service
        ]

    async def holding(self, service: str) -> None:
        """Waits until requests to it are held."""

        def check() -> bool:
            newest = self.routes(service)[-1:]
            return bool(newest) and newest[0].holding and not newest[0].replicas

        await eventually(check)

    def drained(self) -> list[str]:
        return [facts.state_of(f, facts.TrafficState).replica for f in self.told if f.entity == "traffic"]

    async def applied(self, service: str, *replicas: str, draining: tuple[str, ...] = ()) -> facts.RouteState:
        """Waits until the newest applied route has exactly these replicas."""

        def check() -> facts.RouteState:
            newest = self.routes(service)[-1:]
            assert newest, self.router_log()[-2000:]
            assert sorted(newest[0].replicas) == sorted(replicas), newest
            assert newest[0].draining == draining, newest
            return newest[0]

        found = await eventually(check)
        assert isinstance(found, facts.RouteState)
        return found


@asynccontextmanager
async def platform(path: Path, nats_url: str, postgres_dsn: str) -> AsyncIterator[Platform]:
    """A router and one Envoy, both up."""
    async with fresh_database(postgres_dsn, "easel_router") as dsns:
        await fresh_streams(nats_url, {"router": LISTENS})
        made = Platform(path, nats_url, dsns["router"])
        await made.open()
        try:
            await made.start_router()
            await made.start_envoy()
            yield made
        finally:
            await made.close()
