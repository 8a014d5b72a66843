"""Asks the scheduler, before a rollout begins, whether a new replica would find room beside those that run.

An answer that does not come refuses nothing: the rollout waits for room by itself, and says so.
"""

from __future__ import annotations

from typing import Any

import grpc.aio
import msgspec

from easel_contracts.errors import Refused
from easel_contracts.spec import RevisionSpec
from easel_control.decide.hints import hint_for
from easel_control.decide.releases import base_of
from easel_control.decide.rollout import NEVER_FITS
from easel_control.decide.view import View, view_of
from easel_control.model import ServiceRow
from easel_control.worlds import Worlds
from easel_kit.telemetry import get_logger
from easel_proto.internal.v1 import scheduler_pb2, scheduler_pb2_grpc

TIMEOUT_S = 2.0

log = get_logger("placement")


class Placement:
    """The scheduler's word on room."""

    def __init__(self, worlds: Worlds, scheduler: grpc.aio.Channel) -> None:
        self._worlds = worlds
        self._scheduler: Any = scheduler_pb2_grpc.PlacementStub(scheduler)

    async def refuse_interruption(self, row: ServiceRow, spec: RevisionSpec) -> None:
        """Raises Refused where replicas that answer would have to end before one of `spec` could start."""
        view = view_of(row, await self._worlds.of(row.workspace, row.name))
        if not _would_surge(row, view):
            return
        asked = scheduler_pb2.FitsRequest(
            workspace=row.workspace, service=row.name, revision_msgpack=msgspec.msgpack.encode(spec), replicas=1
        )
        try:
            answer = await self._scheduler.Fits(asked, timeout=TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            log.warning("the scheduler did not say whether there is room", service=row.name, error=error.details())
            return
        if answer.fits:
            return
        if answer.reason in (NEVER_FITS, "NoRuntime"):
            hint = hint_for(answer.reason, row.name)
        else:
            hint = (
                "--allow-interruption lets old replicas make room, one at a time; so does "
                "metadata.rolling_strategy.max_unavailable 1; or make room: " + hint_for("NoCapacity", row.name)
            )
        running = len(view.serving) + len(view.older_serving)
        raise Refused(
            "WOULD_INTERRUPT",
            f"a new replica finds no room beside the {running} that answer, so {row.name} would be interrupted: "
            f"{answer.message}",
            hint, reason=answer.reason,
        )  # fmt: skip


def _would_surge(row: ServiceRow, view: View) -> bool:
    """Whether the change needs room beside what answers now. What a failed rollout left is removed first."""
    left = row.rollout is not None and any(r.node for r in (*view.serving, *view.coming))
    answers = bool(view.serving or view.older_serving)
    return base_of(row) is not None and answers and not left and row.rolling.unavailable(view.total) == 0
