"""When replicas count as replaced or restarted."""

from __future__ import annotations

import pytest

from easel_proto.v1.replicas_pb2 import Replica
from easel_proto.v1.services_pb2 import Service
from easel_sdk.replacing import seen

A = Replica(name="a", status="ready", ready=True, pid=1)
B = Replica(name="b", status="ready", ready=True, pid=2)
C = Replica(name="c", status="ready", ready=True, pid=3)
COMING = Replica(name="c", status="starting", pid=3)


def look(before: list[Replica], now: list[Replica], *, soft: bool = False) -> tuple[tuple[str, ...], bool]:
    """(who is left, whether it is done) of a service that wants two replicas."""
    found = seen(before, now, Service(wanted_instance=2), soft=soft, elapsed_s=0.0)
    return found.left, found.done


@pytest.mark.parametrize(
    ("now", "left", "done"),
    [
        ([A, B], ("a",), False),
        ([A, B, C], ("a",), False),
        ([B, COMING], (), False),
        ([B, C], (), True),
        ([B, Replica(name="c", ready=True, isolated=True)], (), False),
    ],
)
def test_replaced(now: list[Replica], left: tuple[str, ...], done: bool) -> None:
    """The old one is gone and as many as wanted take traffic: an isolated one does not."""
    assert look([A], now) == (left, done)


@pytest.mark.parametrize(
    ("now", "left", "done"),
    [
        ([A, B], ("a",), False),
        ([Replica(name="a", status="starting", pid=9), B], ("a",), False),
        ([Replica(name="a", status="ready", ready=True, pid=9), COMING], (), True),
        ([Replica(name="a", isolated=True, pid=9), B], (), True),
        ([COMING, B], (), False),
        ([C, B], (), True),
    ],
)
def test_restarted_in_place(now: list[Replica], left: tuple[str, ...], done: bool) -> None:
    """Another process answers; one that was lost on the way must have a successor."""
    assert look([A], now, soft=True) == (left, done)
