"""Envoy's questions about held requests (envoy.service.auth.v3.Authorization), as raw bytes; `hold` answers them."""

from __future__ import annotations

import json
import math
from collections.abc import Awaitable, Callable

import grpc

from easel_router.decide.holding import Refuse
from easel_router.hold import Asked, Go
from easel_router.xds import envoy_pb2 as pb
from easel_router.xds.listener import TIMEOUT_HEADER

SERVICE = "envoy.service.auth.v3.Authorization"

POSITION_HEADER = "easel-queue-position"
EXPECTED_HEADER = "easel-expected-wait-seconds"
_TRY_LIMIT_HEADER = "x-envoy-upstream-rq-per-try-timeout-ms"

Context = grpc.aio.ServicerContext[bytes, bytes]
Ask = Callable[[Asked], Awaitable[Go | Refuse]]
Admit = Callable[[Context], Awaitable[None]]


def handler(ask: Ask, admit: Admit) -> grpc.GenericRpcHandler[bytes, bytes]:
    """The gRPC service; `admit` lets only Envoys in."""

    async def check(payload: bytes, context: Context) -> bytes:
        await admit(context)
        request = pb.CheckRequest.FromString(payload).attributes
        answer = await ask(asked_of(request))
        made = _denied(answer, request) if isinstance(answer, Refuse) else _ok(answer, request)
        return made.SerializeToString()

    return grpc.method_handlers_generic_handler(SERVICE, {"Check": grpc.unary_unary_rpc_method_handler(check)})


def asked_of(request: pb.AttributeContext) -> Asked:
    """The question in our words. The route names the service, or the hold listener's address does that was called."""
    headers = request.request.http.headers
    named = request.context_extensions.get("service", "")
    return Asked(
        service=named or request.destination.address.envoy_internal_address.endpoint_id,
        request_id=headers.get("x-request-id", ""),
        arrived_unix_s=request.request.time.ToNanoseconds() / 1e9,
        timeout_header=headers.get(TIMEOUT_HEADER, ""),
        grpc_timeout=headers.get("grpc-timeout", ""),
        retried=not named,
        attempt=int(headers.get("x-envoy-attempt-count", "1")),
    )


def _ok(answer: Go, request: pb.AttributeContext) -> pb.CheckResponse:
    """What is left of the time limit goes along where each try has a clock of its own."""
    made = pb.OkHttpResponse(response_headers_to_add=_told(answer.wait.position, answer.wait.expected_s)
                             if answer.wait else [])  # fmt: skip
    if request.context_extensions.get("clock") == "try":
        made.headers.append(_header(_TRY_LIMIT_HEADER, str(max(math.ceil(answer.left_s * 1000), 1))))
    return pb.CheckResponse(status=pb.RpcStatus(code=0), ok_response=made)


def _denied(answer: Refuse, request: pb.AttributeContext) -> pb.CheckResponse:
    body: dict[str, object] = {"code": answer.code, "message": answer.message, "hint": answer.hint}
    body["request_id"] = request.request.http.headers.get("x-request-id", "")
    if answer.position is not None:
        body["queue_position"] = answer.position
    if answer.expected_s is not None:
        body["expected_wait_s"] = round(answer.expected_s, 2)
    headers = [*_told(answer.position, answer.expected_s), _header("retry-after", str(answer.retry_after_s))]
    denied = pb.DeniedHttpResponse(
        status=pb.HttpStatus(code=answer.status),  # type: ignore[arg-type]
        headers=headers,
        body=json.dumps(body, ensure_ascii=False),
    )
    return pb.CheckResponse(
        status=pb.RpcStatus(code=grpc.StatusCode.PERMISSION_DENIED.value[0]), denied_response=denied
    )


def _told(position: int | None, expected_s: float | None) -> list[pb.HeaderValueOption]:
    found = []
    if position is not None:
        found.append(_header(POSITION_HEADER, str(position)))
    if expected_s is not None:
        found.append(_header(EXPECTED_HEADER, f"{expected_s:.2f}"))
    return found


def _header(key: str, value: str) -> pb.HeaderValueOption:
    return pb.HeaderValueOption(
        header=pb.HeaderValue(key=key, value=value), append_action=pb.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
    )
