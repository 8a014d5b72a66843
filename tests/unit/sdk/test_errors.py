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
    answer = AioRpcError(grpc.StatusCode.UNIMPLEMENTED, Metadata(), Metadata(), details=details, debug_error_string="")

    error = from_rpc(answer, "127.0.0.1:8080")

    assert isinstance(error, CannotReach)
    assert error.code == "NOT_A_CONTROL_PORT"
    assert says in error.message
    assert "control port" in error.hint


@pytest.mark.parametrize(
    "reason",
    [
        "Tls handshake failed (TSI_PROTOCOL_FAILURE): CERTIFICATE_VERIFY_FAILED: self signed certificate",
        "Custom verification check failed with error: UNAUTHENTICATED: Hostname Verification Check failed.",
    ],
)
def test_a_certificate_that_is_not_trusted_is_not_nothing(reason: str) -> None:
    """Something answers: the reason is TLS's, and the hint names the setting."""
    details = f"failed to connect to all addresses; last error: UNKNOWN: ipv4:10.0.0.1:8081: {reason}"
    answer = AioRpcError(grpc.StatusCode.UNAVAILABLE, Metadata(), Metadata(), details=details, debug_error_string="")

    error = from_rpc(answer, "host:8081")

    assert error.code == "TLS_FAILED"
    assert reason in error.message
    assert "EASEL_CA_FILE" in error.hint


def test_tls_that_was_not_asked_for_is_suggested() -> None:
    """A TLS listener closes a plain connection: that is not nothing either."""
    details = "failed to connect to all addresses; last error: UNAVAILABLE: ipv4:10.0.0.1:8081: Socket closed"
    answer = AioRpcError(grpc.StatusCode.UNAVAILABLE, Metadata(), Metadata(), details=details, debug_error_string="")

    assert "https://host:8081" in from_rpc(answer, "host:8081").hint
