"""Builds the router: the only place where its adapters are made."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

from easel_contracts.facts import GroupState, ReplicaState, ServiceState
from easel_kit.projection import Projection
from easel_kit.reconcile import Reconciler
from easel_kit.run import Process
from easel_proto.internal.v1 import router_pb2_grpc
from easel_proto.v1 import mirrors_pb2_grpc, routes_pb2_grpc
from easel_router.api import RoutesApi
from easel_router.apply import Applier
from easel_router.apply_groups import GroupApplier
from easel_router.coldstarts import ColdStarts, Learning
from easel_router.comparisons import Comparisons
from easel_router.comparisons_api import ComparedApi, ComparisonsApi
from easel_router.decide.snapshot import ServicePlan
from easel_router.direct import Direct
from easel_router.drains import Drains
from easel_router.envoys import Envoys
from easel_router.handlers import World
from easel_router.hold import Holds
from easel_router.inflight import TrafficApi
from easel_router.lastgood import LastGood
from easel_router.model import Known
from easel_router.replay import Budget, Replayer
from easel_router.retire import Retirements
from easel_router.settings import Settings
from easel_router.shadow import MOST_BYTES, Collector
from easel_router.shadow_server import ShadowServer
from easel_router.start import Start
from easel_router.store import Store
from easel_router.tokens import Tokens
from easel_router.told import Told
from easel_router.xds.catalog import Catalog
from easel_router.xds.listener import listeners
from easel_router.xds.load import Loads
from easel_router.xds.server import XdsServer

_BACKOFF_S = (0.1, 3.0)
"""An outage of a neighbour must not be outlived by the back-off: routes are wanted at once."""


async def build(process: Process[Settings]) -> None:
    """Wires facts, discovery, the API and the background work."""
    settings, clock = process.settings, process.clock
    store = Store(process.db, clock, settings.workspace)
    networks = tuple(name.strip() for name in settings.networks.split(",") if name.strip())
    known = Known(settings.workspace, networks)
    world = World(
        known,
        Projection(process.db, "service", ServiceState),
        Projection(process.db, "replica", ReplicaState),
        Projection(process.db, "group", GroupState),
        settings.workspace,
    )
    catalog, loads, last_good = Catalog(), Loads(), LastGood(settings.home, process.db.epoch)
    last_good.load()
    await world.load(last_good.plans)
    secret = await store.probe_secret()
    cold_starts = ColdStarts(process.db, clock, settings.workspace)
    await cold_starts.load()
    holds = Holds(known, cold_starts, clock, settings.workspace,
                  lambda service, metrics: process.publish_metrics("hold", service, metrics))  # fmt: skip
    server = XdsServer(catalog, loads, listeners, lambda token: _is_envoy(process.keyring.process(token)), holds.ask)
    envoys = Envoys(server, clock, settings.envoy_grace_s, secret)
    envoys.expect(await store.known_envoys(settings.envoy_grace_s))
    Direct(catalog, envoys)
    known.take_envoys(envoys.serving())
    tokens = Tokens(process.channel("control"), known, settings.workspace)
    told = Told(store)
    applier = Applier(
        known=known, tokens=tokens, catalog=catalog, envoys=envoys, told=told, leases=process.leases,
        last_good=last_good, holds=holds, clock=clock, probe_secret=secret, timeout_s=settings.apply_timeout_s,
    )  # fmt: skip
    groups = GroupApplier(
        known=known, tokens=tokens, catalog=catalog, envoys=envoys, told=told, leases=process.leases,
        last_good=last_good, clock=clock, probe_secret=secret, timeout_s=settings.apply_timeout_s,
    )  # fmt: skip
    applier.aside, applier.taken = groups.aside, groups.holds
    drains = Drains(known, loads, envoys, store, process.leases)
    routes = Reconciler("routes", applier.reconcile, clock, _names(known), concurrency=64, backoff_s=_BACKOFF_S)
    group_loop = Reconciler("groups", groups.reconcile, clock, _group_names(known, last_good), backoff_s=_BACKOFF_S)
    drain_loop = Reconciler("drains", drains.reconcile, clock, drains.keys, concurrency=256, backoff_s=_BACKOFF_S)
    retirements = Retirements(applier.placing, loads, envoys, clock)
    retire_loop = Reconciler("retirements", retirements.reconcile, clock, _none, concurrency=64, backoff_s=_BACKOFF_S)
    applier.emptying = retire_loop.wake
    learning = Learning(known, cold_starts, process)
    _wire(world, applier, drains, routes, drain_loop, learning)
    world.ended = cold_starts.ended
    world.wake_group = group_loop.wake
    tokens.changed = world.wake_groups

    process.subscribe({"service": world.on_service, "replica": world.on_replica, "group": world.on_group})
    process.owns("route", store.route_facts)
    process.owns("traffic", store.traffic_facts)
    api = RoutesApi(known, store, applier, groups, envoys, holds, cold_starts, clock)
    process.serve(routes_pb2_grpc.add_RoutesServicer_to_server, api, "easel.v1.Routes")
    traffic = TrafficApi(known, loads, envoys)
    process.serve(router_pb2_grpc.add_TrafficServicer_to_server, traffic, "easel.internal.v1.Traffic")

    comparisons = await _compare(process, known, envoys, secret)
    start = Start(process, known, applier, groups, tokens, last_good, store, comparisons, server)
    tasks = (start.run, routes.run, group_loop.run, drain_loop.run, retire_loop.run, last_good.run, start.prune,
             holds.wake_for_ever,
             holds.repeat_for_ever, learning.run)  # fmt: skip
    for task in tasks:
        process.background(task)
    process.background(lambda: envoys.record(lambda e, on: store.envoy_seen(e, process.holder, connected=on)))
    process.background(lambda: envoys.count(_shared_anew(known, routes, group_loop)))
    for hook in (start.stop, last_good.flush, envoys.close):
        process.on_stop(hook)
    process.watch_loop(routes)
    process.watch_loop(group_loop)
    process.watch_loop(drain_loop)
    process.watch_loop(retire_loop)
    process.gauge("held_requests", "Requests that wait for a replica", holds.total)
    _observe(process, server, envoys, applier, groups)


def _shared_anew(known: Known, routes: Reconciler, group_loop: Reconciler) -> Callable[[int], None]:
    """Limits are shared by the Envoys there are: another number changes the routes of those that have some."""

    def count(envoys: int) -> None:
        services, groups = known.take_envoys(envoys)
        for service in services:
            routes.wake(service)
        for group in groups:
            group_loop.wake(group)

    return count


async def _compare(process: Process[Settings], known: Known, envoys: Envoys, secret: str) -> Comparisons:
    """The shadow collector, its reports and their API. Hooks of the stop are in the order in which work flows."""
    clock, address = process.clock, process.settings.router_shadow_addr
    comparisons = Comparisons(known, process.db, clock, process.settings.workspace)
    await comparisons.load()
    api = ComparisonsApi(known, comparisons)
    process.serve(mirrors_pb2_grpc.add_ComparisonsServicer_to_server, api, "easel.v1.Comparisons")
    internal = ComparedApi(api)
    process.serve(router_pb2_grpc.add_ComparedServicer_to_server, internal, "easel.internal.v1.Compared")
    process.background(comparisons.run)
    if address:
        budget = Budget(MOST_BYTES)
        replayer = Replayer(envoys.probe_addresses, secret, clock, budget)
        collector = Collector(known, comparisons, replayer, budget, clock, random.Random())
        server = ShadowServer(address, secret, collector)
        process.background(server.run)
        for hook in (server.stop, collector.close, replayer.close):
            process.on_stop(hook)
        process.gauge("shadow_copies", "Copies of requests that are replayed or wait for that", collector.waiting)
    process.on_stop(comparisons.flush)
    return comparisons


def _group_names(known: Known, last_good: LastGood) -> Callable[[], Awaitable[list[str]]]:
    """Those that went while nobody looked, too."""

    async def names() -> list[str]:
        return sorted({*known.groups, *last_good.groups})

    return names


def _names(known: Known) -> Callable[[], Awaitable[list[str]]]:
    async def names() -> list[str]:
        return list(known.services)

    return names


async def _none() -> list[str]:
    """What is left is known to those who left it: a router that begins anew has nothing of that kind."""
    return []


def _wire(
    world: World, applier: Applier, drains: Drains, routes: Reconciler, drain_loop: Reconciler, learning: Learning
) -> None:
    def applied(plan: ServicePlan, took_s: float) -> None:
        learning.applied(plan, took_s)
        for replica in drains.applied(plan):
            drain_loop.wake(replica)

    world.wake = routes.wake
    applier.applied = applied


def _is_envoy(name: str | None) -> bool:
    return name is not None and name.startswith("envoy")


def _observe(
    process: Process[Settings], server: XdsServer, envoys: Envoys, applier: Applier, groups: GroupApplier
) -> None:
    def acknowledged_p99_ms() -> float:
        seen = sorted(applier.apply_ms)
        return seen[int(len(seen) * 0.99)] if seen else 0.0

    process.ready_when("routes loaded", server.loaded.is_set)
    process.gauge("envoys", "Envoys that count", lambda: len(envoys.live()))
    process.gauge("refused_routes", "Services and groups whose newest route is not in use",
                  lambda: len(applier.refused) + len(groups.refused))  # fmt: skip
    process.gauge("nacks", "Refused discovery messages of the present streams",
                  lambda: sum(s.nacks for s in server.streams.values()))  # fmt: skip
    process.gauge("apply_p99_ms", "Decision to acknowledged and probed, of the last 1000", acknowledged_p99_ms)
