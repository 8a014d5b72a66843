"""What the SDK makes of answers that no part of Easel's API wrote."""

from __future__ import annotations

import grpc
import pytest
from grpc.aio import AioRpcError, Metadata

from easel_sdk.errors import CannotReach, from_rpc


@pytest.mark.parametrize(
    ("details", "says"),
    [
        ('{"code":"NotFound","message":"no such service: /easel.v1.Services/List"}', "is a platform's data listener"),
        ("Received http2 header with status: 404", "is not a platform's control listener"),
    ],
)
def test_the_wrong_port_is_named(details: str, says: str) -> None:
    """Asking the data listener, or something else, says which port to name; no raw answer is shown as the reason."""
    answer = AioRpcError(grpc.StatusCode.UNIMPLEMENTED, Metadata(), Metadata(), details=details)

    error = from_rpc(answer, "127.0.0.1:8080")

    assert isinstance(error, CannotReach)
    assert error.code == "NOT_A_CONTROL_PORT"
    assert says in error.message
    assert "control port" in error.hint
