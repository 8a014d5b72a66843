"""Why a service or a group is as it is: every part's own explanation, joined; a part that does not answer is named."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from easel_proto.v1.common_pb2 import ExplainRequest, Explanation
from easel_proto.v1.groups_pb2_grpc import GroupsStub
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
    """What every part says about the service, in the order of PARTS; of a group, which only control and the router
    know, what these say. Raises control's error when it knows neither a service nor a group of this name, or when no
    part answers."""
    request = ExplainRequest(workspace=workspace, name=name)
    asked = (_ask(transport, part, stub, request) for part, stub in _STUB_OF.items())
    parts = list(await asyncio.gather(*asked))
    control = parts[0].error
    if isinstance(control, NotFound):
        group = await _ask(transport, "control", GroupsStub, request)
        if isinstance(group.error, NotFound):
            raise control
        parts = [group, *(part for part in parts if part.part == "router")]
        control = group.error
    if control is not None and all(part.error for part in parts):
        raise control
    return parts


async def _ask(
    transport: Transport, part: str, stub_of: Callable[..., Any], request: ExplainRequest
) -> PartExplanation:
    stub = stub_of(transport.channel())
    try:
        found = await transport.call(
            lambda t, m: stub.Explain(request, timeout=t, metadata=m), timeout_s=_TIMEOUT_S, retry=False
        )
    except EaselError as error:
        return PartExplanation(part, error=error)
    return PartExplanation(part, explanation=found)
