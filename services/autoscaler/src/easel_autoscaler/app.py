"""Builds the autoscaler: the only place where its adapters are made."""

from __future__ import annotations

from easel_autoscaler.api import ScalingApi
from easel_autoscaler.handlers import Scaler
from easel_autoscaler.settings import Settings
from easel_autoscaler.store import Store
from easel_contracts.facts import ServiceState
from easel_kit.projection import Projection
from easel_kit.run import Process
from easel_proto.v1 import scaling_pb2_grpc


async def build(process: Process[Settings]) -> None:
    """Wires facts, metrics, the API and the background work."""
    workspace = process.settings.workspace
    services = Projection(process.db, "service", ServiceState)
    store = Store(process.db, process.clock, workspace)
    scaler = Scaler(services, store, process.leases, process.clock, workspace)
    process.subscribe({"service": scaler.on_service})
    process.on_metrics("service", scaler.on_metrics)
    process.on_metrics("hold", scaler.on_hold)
    process.owns("scale", store.facts)
    api = ScalingApi(services, store, scaler, process.clock, workspace)
    process.serve(scaling_pb2_grpc.add_ScalingServicer_to_server, api, "easel.v1.Scaling")
    process.background(scaler.reconciler.run)
    process.background(scaler.activator.run)
    process.background(scaler.watch_load)
    process.background(scaler.prune)
    process.gauge("services_heard", "Services whose metrics arrive", lambda: len(scaler.windows))
    process.gauge("decisions", "Decisions stored since start", lambda: scaler.decisions)
    process.watch_loop(scaler.reconciler)
    process.watch_loop(scaler.activator)
