"""easel.v1.Metrics: what was measured, for people and programs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from easel_contracts.errors import FieldError, InvalidInput, NotFound
from easel_contracts.ids import DEFAULT_WORKSPACE
from easel_kit.clock import Clock
from easel_monitor.decide import point as points
from easel_monitor.decide.cell import Cell
from easel_monitor.decide.explain import Known, explain
from easel_monitor.frames import Collector
from easel_monitor.inventory import Inventory, Key
from easel_monitor.recorder import Recorder
from easel_proto.v1 import common_pb2, metrics_pb2, metrics_pb2_grpc

WINDOW_S = 60
WINDOW_MOST_S = 3600


class MetricsApi(metrics_pb2_grpc.MetricsServicer):
    """Reads the recorder; changes nothing."""

    def __init__(self, inventory: Inventory, recorder: Recorder, collector: Collector, clock: Clock) -> None:
        self._inventory, self._recorder, self._collector = inventory, recorder, collector
        self._clock = clock

    async def Get(self, request: metrics_pb2.GetMetricsRequest, context: Any) -> metrics_pb2.MetricsWindow:
        """The last window, as a sum and as points; a service that nobody measured has neither."""
        key = self._key(request.workspace, request.name)
        window_s = request.window_s or WINDOW_S
        if not 1 <= window_s <= WINDOW_MOST_S:
            message = f"{window_s} is not between 1 and {WINDOW_MOST_S} seconds"
            raise InvalidInput(
                f"window_s: {message}", (FieldError(path="window_s", code="OUT_OF_RANGE", message=message),)
            )
        cells = self._recorder.window(key, window_s)
        answer = metrics_pb2.MetricsWindow(name=request.name, window_s=window_s, points=[_point(c) for c in cells])
        if (total := points.summary(cells)) is not None:
            answer.summary.CopyFrom(_point(total))
        return answer

    async def Watch(
        self, request: metrics_pb2.WatchMetricsRequest, context: Any
    ) -> AsyncIterator[metrics_pb2.MetricsPoint]:
        """The newest second at once, then each one as it ends."""
        key = self._key(request.workspace, request.name)
        with self._recorder.watch(key) as seconds:
            newest = self._recorder.history(key).seconds.newest()
            if newest is not None:
                yield _point(newest)
            while True:
                yield _point(await seconds.get())

    async def Explain(self, request: common_pb2.ExplainRequest, context: Any) -> common_pb2.Explanation:
        """Who reports, what is missing, what stands out in the last minute."""
        key = self._key(request.workspace, request.name)
        known = Known(
            service=request.name,
            window_s=WINDOW_S,
            cell=points.summary(self._recorder.window(key, WINDOW_S)),
            envoys=self._collector.envoys,
            envoy_silence_s=self._collector.silence_s(),
            rejected=self._collector.rejected.get(key, 0),
            answered_by_envoy=self._collector.answered_by_envoy(),
        )
        lines = [common_pb2.Why(code=line.code, message=line.message, hint=line.hint) for line in explain(known)]
        at = Timestamp()
        at.FromDatetime(self._clock.now())
        return common_pb2.Explanation(part="monitor", lines=lines, at=at)

    def _key(self, workspace: str, name: str) -> Key:
        key = (workspace or DEFAULT_WORKSPACE, name)
        if not self._inventory.exists(key):
            raise NotFound("NO_SUCH_SERVICE", f"there is no service {name}", "`easel ls` lists all")
        return key


def _point(cell: Cell) -> metrics_pb2.MetricsPoint:
    p = points.point(cell)
    return metrics_pb2.MetricsPoint(
        at=Timestamp(seconds=p.at_unix_s),
        qps_by_code=p.qps_by_code,
        qps=p.qps,
        in_flight=p.in_flight,
        latency_p50_ms=p.latency_p50_ms,
        latency_p90_ms=p.latency_p90_ms,
        latency_p99_ms=p.latency_p99_ms,
        latency_p999_ms=p.latency_p999_ms,
        cpu_cores=p.cpu_cores,
        memory_mib=p.memory_mib,
        replicas_ready=p.replicas_ready,
        replicas_total=p.replicas_total,
        retries_per_s=p.retries_per_s,
        timeouts_per_s=p.timeouts_per_s,
        refused_by_code=p.refused_by_code,
    )
