"""What a canary is judged by, asked from those who know: exact counts from the monitor, compared answers from the
router. An answer that does not come is said, and stands for no data: nothing is decided from it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import grpc.aio
from msgspec.structs import replace

from easel_control.decide.canary import Canary
from easel_control.decide.canary_seconds import Reading
from easel_control.decide.canary_steps import Verdict
from easel_control.decide.evidence import Counts, Second
from easel_proto.internal.v1 import monitor_pb2, monitor_pb2_grpc, router_pb2_grpc
from easel_proto.v1 import mirrors_pb2

TIMEOUT_S = 2.0
VERDICTS: dict[str, Verdict] = {"same": "same", "differs": "differs", "not_enough_data": "not_enough_data"}


class CanarySources:
    """The monitor's and the router's word."""

    def __init__(self, monitor: grpc.aio.Channel, router: grpc.aio.Channel) -> None:
        self._counts: Any = monitor_pb2_grpc.CountsStub(monitor)
        self._compared: Any = router_pb2_grpc.ComparedStub(router)

    async def counts(self, canary: Canary) -> tuple[Reading, str]:
        """(seconds after the last one looked at, why there are none where the monitor does not answer)."""
        asked = monitor_pb2.ReadCountsRequest(
            workspace=canary.workspace, subject=canary.id, after_unix_s=canary.through_unix_s
        )
        try:
            answer = await self._counts.Read(asked, timeout=TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            return Reading(), f"the monitor does not tell its counts: {error.details() or error.code().name}"
        return Reading(seconds=seconds(answer.seconds), final_through_s=answer.final_through_unix_s), ""

    async def compared(self, canary: Canary) -> tuple[Verdict, str]:
        """(verdict on the compared answers of the service, in words)."""
        asked = mirrors_pb2.ReportRequest(workspace=canary.workspace, name=canary.name)
        try:
            answer = await self._compared.Report(asked, timeout=TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            return "away", f"the router does not tell them: {error.details() or error.code().name}"
        return VERDICTS.get(answer.verdict, "not_enough_data"), answer.message or answer.verdict


def seconds(told: Iterable[monitor_pb2.ArmSecond]) -> tuple[Second, ...]:
    """Both arms of each second together, by time."""
    found: dict[int, Second] = {}
    for arm in told:
        counts = Counts(arm.requests, arm.errors, dict(arm.latency_bins))
        second = found.get(arm.unix_s, Second(arm.unix_s))
        side = {"candidate": counts} if arm.arm == "candidate" else {"stable": counts}
        found[arm.unix_s] = replace(second, **side)
    return tuple(found[at] for at in sorted(found))
