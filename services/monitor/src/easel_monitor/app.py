"""Builds the monitor: the only place where its parts meet their adapters."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import nats.errors
from nats.aio.msg import Msg

from easel_contracts.ids import metric_subject
from easel_contracts.metrics import ServiceMetrics
from easel_kit.bus import Bus
from easel_kit.reconcile import Reconciler
from easel_kit.run import Process
from easel_kit.streams import DEAD, FACTS
from easel_kit.telemetry import get_logger
from easel_kit.trail import TrailApi
from easel_monitor import subscriptions
from easel_monitor.access_log import AccessLog
from easel_monitor.arm_counts import ArmCounts
from easel_monitor.counts_api import CountsApi
from easel_monitor.events_api import Channel, EventsApi
from easel_monitor.factlog import FactLog, Head
from easel_monitor.frames import Collector
from easel_monitor.handlers import MetricsApi
from easel_monitor.intake import service_of
from easel_monitor.inventory import Inventory
from easel_monitor.recorder import Publish, Recorder
from easel_monitor.rollups import Keeper
from easel_monitor.settings import MonitorSettings
from easel_monitor.sink import Sink, serve
from easel_monitor.store import ArmSeconds, Rollups, Webhooks
from easel_monitor.vault import open_vault
from easel_monitor.webhooks import Deliverer
from easel_proto.internal.v1.audit_pb2_grpc import add_AuditTrailServicer_to_server
from easel_proto.internal.v1.monitor_pb2_grpc import add_CountsServicer_to_server
from easel_proto.v1.events_pb2_grpc import add_EventsServicer_to_server
from easel_proto.v1.metrics_pb2_grpc import add_MetricsServicer_to_server

FACTS_POLL_S = 5.0
DEAD_POLL_S = 15.0
"""How soon a stream is looked at again where no message of it was heard."""

log = get_logger("monitor")


async def build(process: Process[MonitorSettings]) -> None:
    """Registers everything; called once, after the stores answered."""
    inventory = Inventory(process.db, process.settings.workspace)
    await inventory.load()
    process.subscribe(subscriptions.table(inventory))
    recorder = Recorder(inventory, process.clock, _publisher(process.bus))
    collector = Collector(process.clock, recorder.on_frame)
    await _metrics(process, inventory, recorder, collector)
    await _events(process)


async def _metrics(
    process: Process[MonitorSettings], inventory: Inventory, recorder: Recorder, collector: Collector
) -> None:
    keeper = Keeper(recorder, inventory, Rollups(process.db), process.clock)
    await keeper.load()
    await process.bus.client.subscribe("easel.metric.*.replica.>", cb=_on_replica(recorder))

    def is_ours(token: str) -> bool:
        return process.keyring.process(token) is not None

    sink = Sink(collector, process.clock, service_of(process.settings.workspace), is_ours)
    counts = await _counts(process)
    server = await serve(sink, AccessLog(counts.take, is_ours), process.settings.monitor_sink_addr)

    async def stop() -> None:
        await server.stop(0)
        await keeper.save()
        await counts.save(ending=True)

    api = MetricsApi(inventory, recorder, collector, process.clock)
    process.on_stop(stop)
    process.background(collector.run)
    process.background(keeper.run)
    process.serve(add_MetricsServicer_to_server, api, "easel.v1.Metrics")
    process.gauge("monitor_envoys", "Envoys that stream their statistics now", lambda: collector.envoys)
    process.gauge("monitor_silence_seconds", "Since the last report of any Envoy; -1: none yet",
                  lambda: -1.0 if (silence := collector.silence_s()) is None else silence)  # fmt: skip
    process.gauge("monitor_services", "Services whose metrics are kept", lambda: len(recorder.histories))
    process.gauge("monitor_rings_bytes", "Memory of the last hour's rings",
                  lambda: sum(h.memory_bytes() for h in recorder.histories.values()))  # fmt: skip


async def _counts(process: Process[MonitorSettings]) -> ArmCounts:
    store = ArmSeconds(process.db, process.settings.workspace)
    counts = ArmCounts(process.clock, store)
    await counts.load()
    process.background(counts.run)
    api = CountsApi(counts, store, process.settings.workspace)
    process.serve(add_CountsServicer_to_server, api, "easel.internal.v1.Counts")
    process.gauge("monitor_canary_requests", "Requests of canaries counted since start", lambda: counts.requests)
    return counts


async def _events(process: Process[MonitorSettings]) -> None:
    settings = process.settings
    facts = _channel(process, FACTS, "easel.fact.>", FACTS_POLL_S)
    dead = _channel(process, DEAD, "easel.dead.>", DEAD_POLL_S)
    vault = open_vault(_key_file(settings))
    store = Webhooks(process.db)
    deliverer = Deliverer(
        store, facts.source, facts.head, vault, process.clock, lambda key: process.leases.token_for(key) is not None,
        allow_link_local=settings.webhook_allow_link_local, timeout_s=settings.webhook_timeout_s,
    )  # fmt: skip
    loop = Reconciler("webhooks", deliverer.reconcile, process.clock, deliverer.keys, concurrency=32)

    async def wake_on_facts() -> None:
        seen = -1
        while True:
            await facts.head.wait_beyond(seen)
            seen = facts.head.sequence
            for identity in deliverer.known:
                loop.wake(identity)

    for run in (facts.head.run, dead.head.run, loop.run, wake_on_facts):
        process.background(run)
    process.on_stop(deliverer.close)
    api = EventsApi(facts, dead, store, vault, settings, process.clock, loop.wake)
    process.serve(add_EventsServicer_to_server, api, "easel.v1.Events")
    process.serve(add_AuditTrailServicer_to_server, TrailApi(process.db, "monitor"), "easel.internal.v1.AuditTrail")
    process.watch_loop(loop)
    process.gauge("webhooks_failing", "Webhooks whose last try failed", lambda: float(len(deliverer.failing)))
    process.gauge("webhooks_delivered", "Facts accepted by receivers since start", lambda: deliverer.delivered)


def _channel(process: Process[MonitorSettings], stream: str, everything: str, poll_s: float) -> Channel:
    client = process.bus.client
    source = FactLog(client, stream)
    return Channel(source, Head(source, client, everything, process.clock, poll_s), everything)


def _publisher(bus: Bus) -> Publish:
    """Publishes a service's second; while NATS is away seconds are lost, and that is said once."""
    away = False

    async def publish(metrics: ServiceMetrics) -> None:
        nonlocal away
        subject = metric_subject(metrics.workspace, "service", metrics.service)
        try:
            await bus.publish_core(subject, msgspec.msgpack.encode(metrics))
        except nats.errors.Error as error:
            if not away:
                log.warning("metrics not published", error=repr(error))
            away = True
        else:
            away = False

    return publish


def _on_replica(recorder: Recorder) -> Callable[[Msg], Awaitable[None]]:
    """Bare nats-py: a message per replica and second is the monitor's most frequent input."""

    async def receive(message: Msg) -> None:
        try:
            recorder.on_replica(message.data)
        except msgspec.MsgspecError as error:
            log.warning("replica metrics not understood", subject=message.subject, error=str(error))

    return receive


def _key_file(settings: MonitorSettings) -> Path:
    return settings.webhook_key_file or settings.home / "webhook.key"
