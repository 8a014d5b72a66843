"""easel.v1.Scaling: what was decided, why, and what the load asks for now. Reads only."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from easel_autoscaler.decide.decision import Current
from easel_autoscaler.decide.explain import Journal, explain
from easel_autoscaler.decide.load import Load
from easel_autoscaler.handlers import Scaler
from easel_autoscaler.model import Entry
from easel_autoscaler.store import KEEP_ROWS, Decided, Store
from easel_contracts.errors import FieldError, InvalidInput, NotFound
from easel_contracts.facts import ScaleInput, ServiceState
from easel_kit.clock import Clock
from easel_kit.projection import Projection
from easel_proto.v1 import common_pb2, scaling_pb2, scaling_pb2_grpc

PAGE_SIZE = 50


class ScalingApi(scaling_pb2_grpc.ScalingServicer):
    """Any copy of the autoscaler answers; the load is known to all of them."""

    def __init__(
        self, services: Projection[ServiceState], store: Store, scaler: Scaler, clock: Clock, workspace: str
    ) -> None:
        self._services, self._store, self._scaler = services, store, scaler
        self._clock, self._workspace = clock, workspace

    async def Get(self, request: scaling_pb2.GetScalingRequest, context: object) -> scaling_pb2.ScalingStatus:
        """The policy, the load it looks at, and the last decision."""
        state = await self._service(request.workspace, request.name)
        current, last = await self._decided(state)
        policy = state.autoscaling
        wanted = current.wanted if current else state.instance
        status = scaling_pb2.ScalingStatus(
            name=state.name, enabled=policy is not None, wanted=wanted,
            min=policy.min if policy else wanted, max=policy.max if policy else wanted,
        )  # fmt: skip
        load = self._load(state)
        for metric, threshold in policy.targets if policy else ():
            value = load.per_replica(metric) if load else None
            status.targets.append(_target(metric, threshold, value))
        if last:
            status.last.CopyFrom(_decision(last))
        return status

    async def History(
        self, request: scaling_pb2.ScalingHistoryRequest, context: object
    ) -> scaling_pb2.ScalingHistoryResponse:
        """The journal, newest first."""
        if not 0 <= request.page_size <= KEEP_ROWS:
            message = f"is {request.page_size}; allowed are 0 (which means {PAGE_SIZE}) to {KEEP_ROWS}"
            raise InvalidInput(
                f"page_size {message}", (FieldError(path="page_size", code="OUT_OF_RANGE", message=message),)
            )
        state = await self._service(request.workspace, request.name)
        rows = await self._store.history(state.name, state.uid, request.page_size or PAGE_SIZE)
        return scaling_pb2.ScalingHistoryResponse(decisions=[_decision(row) for row in rows])

    async def Explain(self, request: common_pb2.ExplainRequest, context: object) -> common_pb2.Explanation:
        """Why there are as many replicas as there are, and what would change that."""
        state = await self._service(request.workspace, request.name)
        current, last = await self._decided(state)
        journal = None
        if last:
            ago_s = (self._clock.now() - last.decided_at).total_seconds()
            journal = Journal(number=last.number, ago_s=max(ago_s, 0.0), before=last.before, wanted=last.wanted,
                              reason=last.reason, message=last.message)  # fmt: skip
        fleet = self._scaler.fleet
        entry = fleet.get(state.name) or Entry(state)
        now = fleet.verdict(Entry(state, current, entry.track, entry.asked), self._clock.monotonic())
        lines = explain(state, current, journal, self._load(state), now, entry.start_s)
        answer = common_pb2.Explanation(
            part="autoscaler", lines=[common_pb2.Why(code=w.code, message=w.message, hint=w.hint) for w in lines]
        )
        answer.at.FromDatetime(self._clock.now())
        return answer

    async def _service(self, workspace: str, name: str) -> ServiceState:
        state = None
        if workspace in ("", self._workspace):
            state = await self._services.get(name, self._workspace)
        if state is None or state.wanted == "deleted":
            raise NotFound("NO_SUCH_SERVICE", f"there is no service {name}", "`easel ls` lists all")
        return state

    async def _decided(self, state: ServiceState) -> tuple[Current | None, Decided | None]:
        current = await self._store.current(state.name)
        if current is None or current.uid != state.uid:
            return None, None
        rows = await self._store.history(state.name, state.uid, 1)
        return current, rows[0] if rows else None

    def _load(self, state: ServiceState) -> Load | None:
        return self._scaler.windows.load(state.name, self._clock.monotonic())


def _target(metric: str, threshold: float, value: float | None) -> scaling_pb2.ScaleTarget:
    return scaling_pb2.ScaleTarget(
        metric=metric, threshold=threshold, current=value or 0.0, has_current=value is not None
    )


def _decision(row: Decided) -> scaling_pb2.Decision:
    at = Timestamp()
    at.FromDatetime(row.decided_at)
    inputs: list[ScaleInput] = list(row.inputs)
    return scaling_pb2.Decision(
        number=row.number, at=at, before=row.before, wanted=row.wanted, reason=row.reason, message=row.message,
        inputs=[_target(given.metric, given.threshold, given.current) for given in inputs],
    )  # fmt: skip
