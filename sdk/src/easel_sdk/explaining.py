"""Why a service is as it is: every part's own explanation, joined; a part that does not answer is named."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from easel_proto.v1.common_pb2 import ExplainRequest, Explanation
from easel_proto.v1.metrics_pb2_grpc import MetricsStub
from easel_proto.v1.replicas_pb2_grpc import ReplicasStub
from easel_proto.v1.routes_pb2_grpc import RoutesStub
from easel_proto.v1.scaling_pb2_grpc import ScalingStub
from easel_proto.v1.services_pb2_grpc import ServicesStub
from easel_sdk.errors import EaselError, NotFound
from easel_sdk.transport import Transport

_STUB_OF: dict[str, Callable[..., Any]] = {
    "control": ServicesStub,
    "scheduler": ReplicasStub,
    "autoscaler": ScalingStub,
    "router": RoutesStub,
    "monitor": MetricsStub,
}
PARTS = tuple(_STUB_OF)
_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class PartExplanation:
    """What one part said: an explanation, or the error it answered with."""

    part: str
    explanation: Explanation | None = None
    error: EaselError | None = None


async def explain(transport: Transport, workspace: str, name: str) -> list[PartExplanation]:
    """What every part says about the service, in the order of PARTS. Raises control's error when it knows no
    such service, or when no part answers."""
    request = ExplainRequest(workspace=workspace, name=name)
    parts = list(await asyncio.gather(*(_ask(transport, part, request) for part in PARTS)))
    control = parts[0].error
    if control is not None and (isinstance(control, NotFound) or all(part.error for part in parts)):
        raise control
    return parts


async def _ask(transport: Transport, part: str, request: ExplainRequest) -> PartExplanation:
    stub = _STUB_OF[part](transport.channel())
    try:
        found = await transport.call(
            lambda t, m: stub.Explain(request, timeout=t, metadata=m), timeout_s=_TIMEOUT_S, retry=False
        )
    except EaselError as error:
        return PartExplanation(part, error=error)
    return PartExplanation(part, explanation=found)
