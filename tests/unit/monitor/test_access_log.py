"""Access log entries: which count, as what, for which canary and arm."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError

from easel_contracts.metrics import latency_bin
from easel_monitor import envoy_metrics_pb2 as pb
from easel_monitor.access_log import read
from easel_monitor.decide.outcomes import Outcome
from tests.unit.monitor.requests_log import entry
from tests.unit.router.embedded import pool

ERROR = Outcome(True)


def answered(ms: float) -> Outcome:
    return Outcome(False, latency_bin(ms))


def one(**how: Any) -> list[tuple[str, str, Outcome]]:
    message = pb.StreamAccessLogsMessage()
    entry(message, **how)
    return list(read(message.SerializeToString()))


@pytest.mark.parametrize(
    ("how", "outcome"),
    [
        ({}, answered(20)),
        ({"status": 404}, answered(20)),
        ({"status": 429}, answered(20)),
        ({"status": 500}, ERROR),
        ({"status": 408}, ERROR),
        ({"status": 503, "details": "no_healthy_upstream", "sent_ms": None, "answered_ms": None}, ERROR),
        ({"status": 408, "details": "response_timeout", "answered_ms": None}, ERROR),
        ({"status": 0, "details": "", "answered_ms": None}, ERROR),
        ({"upstream_remote_reset": True}, ERROR),
        ({"upstream_connection_termination": True}, ERROR),
        ({"stream_idle_timeout": True}, ERROR),
        ({"answered_ms": 1.5, "sent_all_ms": 900.0}, answered(0.5)),
        ({"sent_all_ms": 1000.0, "answered_ms": 1004.0}, answered(4)),
        ({"status": 0, "answered_ms": None, "ended_ms": 502.0, "downstream_connection_termination": True},
         answered(500)),
        ({"status": 0, "answered_ms": None, "ended_ms": 502.0, "downstream_remote_reset": True}, answered(500)),
        ({"downstream_connection_termination": True, "ended_ms": 9000.0}, answered(20)),
    ],
)  # fmt: skip
def test_what_counts_as_what(how: dict[str, Any], outcome: Outcome) -> None:
    assert one(**how) == [("c1", "stable", outcome)]


@pytest.mark.parametrize(
    "how",
    [
        {"status": 401, "details": "lua_response"},
        {"status": 404, "details": "route_not_found"},
        {"status": 429, "details": "local_rate_limited"},
        {"status": 450, "details": "upstream_overflow"},
        {"status": 0, "sent_ms": None, "sent_all_ms": None, "downstream_connection_termination": True},
        {"status": 400, "details": "", "sent_ms": None, "downstream_protocol_error": True},
        {"subject": ""},
        {"arm": "neither"},
        {"arm": ""},
    ],
)
def test_what_says_nothing_of_a_replica_is_not_counted(how: dict[str, Any]) -> None:
    assert one(**how) == []


@pytest.mark.parametrize("where", ["trailers", "headers"])
def test_how_grpc_calls_end(where: str) -> None:
    """By what a status says of the server; what is no number, or one that nobody knows, is UNKNOWN."""
    statuses = [*map(str, range(18)), "99", "-1", "x", "²"]
    found = {status: one(**{where: {"grpc-status": status}}) for status in statuses}
    errors = {"2", "4", "8", "12", "13", "14", "15", "17", "99", "-1", "x", "²"}

    assert {status for status, told in found.items() if told == [("c1", "stable", ERROR)]} == errors
    assert {status for status, told in found.items() if told == [("c1", "stable", answered(20))]} == (
        set(statuses) - errors
    )


def test_grpc_calls_that_envoy_answers() -> None:
    """A limit's refusal says nothing of a replica; that none could be reached does. Both are UNAVAILABLE under 200."""
    refused: dict[str, Any] = {"headers": {"grpc-status": "14"}, "sent_ms": None, "answered_ms": None}

    assert one(**refused, details="local_rate_limited") == []
    assert one(**refused, details="reached_concurrency_limit") == []
    assert one(**refused, details="no_healthy_upstream", no_healthy_upstream=True) == [("c1", "stable", ERROR)]
    assert one(**refused, details="upstream_reset", upstream_connection_failure=True) == [("c1", "stable", ERROR)]


def test_the_arm_that_was_picked_comes_before_the_clusters() -> None:
    assert one(arm="stable", picked="candidate")[0][1] == "candidate"


def test_an_answer_in_place_of_the_other_side_is_an_error_of_that_side() -> None:
    assert one(arm="stable", meant="candidate") == [("c1", "candidate", ERROR)]
    assert one(arm="candidate", meant="candidate") == [("c1", "candidate", answered(20))]
    assert one(arm="stable", meant="stable", picked="candidate") == [("c1", "candidate", answered(20))]


def test_what_is_told_while_a_request_runs_is_not_counted() -> None:
    message = pb.StreamAccessLogsMessage()
    entry(message).common_properties.intermediate_log_entry = True
    entry(message, arm="candidate")

    assert [arm for _, arm, _ in read(message.SerializeToString())] == ["candidate"]


def test_requests_without_a_canary_are_left_out() -> None:
    message = pb.StreamAccessLogsMessage()
    message.http_logs.log_entry.add().response.response_code.value = 200

    assert list(read(message.SerializeToString())) == []


def test_half_a_message_counts_nothing() -> None:
    message = pb.StreamAccessLogsMessage()
    entry(message)

    with pytest.raises(DecodeError):
        read(message.SerializeToString()[:-3])


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("StreamAccessLogsMessage", "envoy.service.accesslog.v3.StreamAccessLogsMessage"),
        ("StreamAccessLogsMessage.HTTPAccessLogEntries",
         "envoy.service.accesslog.v3.StreamAccessLogsMessage.HTTPAccessLogEntries"),
        ("HTTPAccessLogEntry", "envoy.data.accesslog.v3.HTTPAccessLogEntry"),
        ("AccessLogCommon", "envoy.data.accesslog.v3.AccessLogCommon"),
        ("HTTPResponseProperties", "envoy.data.accesslog.v3.HTTPResponseProperties"),
        ("ResponseFlags", "envoy.data.accesslog.v3.ResponseFlags"),
        ("Metadata", "envoy.config.core.v3.Metadata"),
        ("Struct", "google.protobuf.Struct"),
        ("Value", "google.protobuf.Value"),
        ("Duration", "google.protobuf.Duration"),
        ("UInt32Value", "google.protobuf.UInt32Value"),
    ],
)  # fmt: skip
def test_our_proto_is_a_part_of_envoys(ours: str, theirs: str) -> None:
    """Each field has the name, number and type of the definition inside the Envoy binary."""
    known = pool().FindMessageTypeByName(theirs).fields_by_name
    outer, _, inner = ours.partition(".")
    descriptor: Descriptor = pb.DESCRIPTOR.message_types_by_name[outer]
    descriptor = descriptor.nested_types_by_name[inner] if inner else descriptor

    for field in descriptor.fields:
        found = known[field.name]
        assert (field.number, field.type) == (found.number, found.type), field.full_name
