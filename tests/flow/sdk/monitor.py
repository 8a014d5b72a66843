"""The monitor's APIs, for tests of clients."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import grpc

from easel_proto.v1 import events_pb2, events_pb2_grpc, metrics_pb2, metrics_pb2_grpc
from tests.flow.sdk.state import Platform


class Metrics(metrics_pb2_grpc.MetricsServicer):
    """The monitor's API for metrics."""

    def __init__(self, platform: Platform) -> None:
        self._p = platform

    def Get(self, request: Any, context: Any) -> Any:
        self._p.enter("Metrics.Get", request, context)
        point = metrics_pb2.MetricsPoint(qps=12.5, qps_by_code={"2xx": 12.0, "5xx": 0.5}, latency_p99_ms=float("nan"),
                                         latency_p50_ms=4.2, memory_mib=128)  # fmt: skip
        return metrics_pb2.MetricsWindow(name=request.name, window_s=request.window_s, summary=point, points=[point])

    def Watch(self, request: Any, context: Any) -> Iterator[Any]:
        self._p.enter("Metrics.Watch", request, context)
        yield metrics_pb2.MetricsPoint(qps=1)
        context.abort(grpc.StatusCode.UNAVAILABLE, "restarting")

    def Explain(self, request: Any, context: Any) -> Any:
        self._p.enter("Metrics.Explain", request, context)
        return self._p.explanation("monitor")


class Events(events_pb2_grpc.EventsServicer):
    """The monitor's API for events."""

    def __init__(self, platform: Platform) -> None:
        self._p = platform

    def Watch(self, request: Any, context: Any) -> Iterator[Any]:
        self._p.enter("Events.Watch", request, context)
        found = self._p.events[-request.tail :] if request.tail else []
        if request.from_sequence:
            found = [event for event in self._p.events if event.sequence >= request.from_sequence]
        for sent, event in enumerate(found):
            if sent == self._p.cut_after:
                context.abort(grpc.StatusCode.UNAVAILABLE, "restarting")
            yield event
        if request.follow:
            closed = threading.Event()
            context.add_callback(closed.set)
            closed.wait(20)

    def CreateToken(self, request: Any, context: Any) -> Any:
        self._p.enter("Events.CreateToken", request, context)
        return events_pb2.EventsToken(nats_url="nats://127.0.0.1:4222", nkey_seed="SU", subject="easel.fact.>")

    def CreateWebhook(self, request: Any, context: Any) -> Any:
        self._p.enter("Events.CreateWebhook", request, context)
        return events_pb2.Webhook(id="w1", url=request.url, secret="shh")

    def ListWebhooks(self, request: Any, context: Any) -> Any:
        self._p.enter("Events.ListWebhooks", request, context)
        return events_pb2.ListWebhooksResponse(webhooks=[events_pb2.Webhook(id="w1", url="http://x")])

    def DeleteWebhook(self, request: Any, context: Any) -> Any:
        self._p.enter("Events.DeleteWebhook", request, context)
        return events_pb2.DeleteWebhookResponse()

    def Explain(self, request: Any, context: Any) -> Any:
        self._p.enter("Events.Explain", request, context)
        return self._p.explanation("monitor")
