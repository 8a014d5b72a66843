"""Progress in a line."""

from __future__ import annotations

from easel_cli.progress import describe, phases
from easel_proto.v1.replicas_pb2 import Replica
from easel_proto.v1.services_pb2 import Service
from easel_sdk import Progress


def look(service: Service | None, *replicas: Replica, done: bool = False) -> str:
    """The line of one look."""
    return describe(Progress(service, replicas, 1.0, done))


def test_states_are_counted() -> None:
    """In EASCMD's words, then what the replicas are at."""
    service = Service(service_name="ocr", status="Waiting", total_instance=3)
    replicas = [Replica(status="ready", ready=True), Replica(status="starting"),
                Replica(status="fetching", message="installing")]  # fmt: skip

    assert look(service, *replicas) == (
        "Waiting [Total: 3, Pending: 2, Running: 1] · 1 fetching, 1 starting · installing"
    )


def test_the_services_own_message_is_told_when_replicas_are_silent() -> None:
    """E.g. before there are any."""
    assert (
        look(Service(status="Creating", message="admitted")) == "Creating [Total: 0, Pending: 0, Running: 0] · admitted"
    )


def test_ends() -> None:
    """Running, stopped, gone."""
    assert look(Service(status="Running"), done=True) == "Service is running"
    assert look(None, done=True) == "Service was deleted successfully"


def test_phases_in_their_order() -> None:
    """Unknown ones last."""
    service = Service(phase_s={"route": 0.04, "warm": 1.0, "schedule": 0.1, "fetch": 8})

    assert phases(service) == "schedule 0.1 s, fetch 8.0 s, route 0.0 s, warm 1.0 s"
