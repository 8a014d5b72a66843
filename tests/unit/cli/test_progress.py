"""Progress in a line."""

from __future__ import annotations

from easel_cli.progress import describe, describe_replacement, phases
from easel_proto.v1.replicas_pb2 import Replica
from easel_proto.v1.services_pb2 import Rollout, Service
from easel_sdk import Progress, Replacement


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
    at_zero = Service(status="Running", reason="ScaledToZero")
    assert look(at_zero, done=True) == "Service is running, without replicas until a request comes"
    at_zero.rollout.MergeFrom(Rollout(from_revision=3, to_revision=4))
    assert look(at_zero, done=True) == (
        "Service is running, without replicas until a request comes and begins the rollout (revision 3 → 4)"
    )


def test_a_rollout_is_told_instead_of_the_counts() -> None:
    """What gives way to what, how far, who serves; an isolated replica serves on neither side."""
    rollout = Rollout(from_revision=3, to_revision=4, share_percent=50, state="rolling",
                      message="Total 2, Pending 0, Running 2; wave 2 of 3")  # fmt: skip
    replicas = [
        Replica(revision=3, status="ready", ready=True), Replica(revision=3, status="ready", isolated=True),
        Replica(revision=4, status="starting"), Replica(revision=4, status="ready", ready=True),
    ]  # fmt: skip

    assert look(Service(status="Updating", rollout=rollout), *replicas) == (
        "Updating · revision 3 → 4, up to 50 % · old: 1 ready, 1 isolated · new: 1 ready, 1 starting · wave 2 of 3"
    )


def test_replacement_in_a_line() -> None:
    """How many are done, who serves, and why one does not; then the end."""
    coming = Replica(status="starting", message="waits for its port")
    going = Replacement(("a",), (Replica(status="ready", ready=True), coming), 2, 1.0, False)
    done = Replacement((), (), 2, 1.0, True)

    assert describe_replacement(going, 2, soft=False) == (
        "1 of 2 replaced · 1 ready, 1 starting of 2 wanted · waits for its port"
    )
    assert describe_replacement(done, 1, soft=True) == "1 replica is restarted"


def test_phases_in_their_order() -> None:
    """Unknown ones last."""
    service = Service(phase_s={"route": 0.04, "warm": 1.0, "schedule": 0.1, "fetch": 8})

    assert phases(service) == "schedule 0.1 s, fetch 8.0 s, route 0.0 s, warm 1.0 s"
