"""EAS's formula on written examples."""

from __future__ import annotations

import pytest

from easel_autoscaler.decide.recommend import recommend
from tests.unit.autoscaler.made import load, policy


@pytest.mark.parametrize(
    ("ready", "qps", "wants"),
    [(2, 23, 5), (5, 2, 1), (1, 10, 1), (1, 11, 1), (1, 11.1, 2), (3, 10.9, 3), (3, 9.1, 3), (3, 6.6, 2), (2, 0, 1)],
)
def test_formula(ready: int, qps: float, wants: int) -> None:
    """ceil(ready × metric ÷ threshold) with 10 % tolerance; the first two rows are EAS's own examples."""
    found = recommend(policy(qps=10.0), ready, load(ready, qps=qps))

    assert found is not None
    assert found.wants == wants


def test_sentence_has_the_numbers() -> None:
    """The message shows the whole computation."""
    found = recommend(policy(qps=10.0), 2, load(2, qps=23.0))

    assert found is not None
    assert found.message == "qps 23 per replica over 10 s on 2 replicas is above 10: ceil(2 × 23 / 10) = 5"


def test_highest_target_wins() -> None:
    """Each target is computed; the maximum counts and is the one that is explained."""
    found = recommend(policy(qps=10.0, concurrency=2.0), 2, load(2, qps=23.0, concurrency=8.0))

    assert found is not None
    assert found.wants == 8
    assert "concurrency 8 per replica over 5 s" in found.message
    assert [given.wants for given in found.inputs] == [5, 8]


def test_limits() -> None:
    """Nothing outside [min, max] is asked for, and the sentence says which limit it was."""
    most = recommend(policy(1, 3), 2, load(2, qps=23.0))
    least = recommend(policy(2, 5), 2, load(2, qps=0.0))

    assert most is not None
    assert least is not None
    assert (most.wants, least.wants) == (3, 2)
    assert most.message.endswith("limited to max 3")
    assert least.message.endswith("limited to min 2")


def test_starting_replicas_are_not_asked_for_twice() -> None:
    """3 wanted, 1 ready with the load of 3: three are enough."""
    found = recommend(policy(concurrency=2.0), 3, load(1, concurrency=6.0))

    assert found is not None
    assert found.wants == 3
    assert found.message.endswith("is within 10% of 2 for the 3 wanted")


def test_unknown_target_never_takes_away() -> None:
    """While one target is unknown, another may ask for more but not for less."""
    two = policy(qps=10.0, concurrency=2.0)
    less, more = recommend(two, 4, load(4, concurrency=0.5)), recommend(two, 2, load(2, concurrency=6.0))

    assert less is not None
    assert more is not None
    assert (less.wants, more.wants) == (4, 6)


def test_nothing_known() -> None:
    """No ready replica, or no value: no recommendation."""
    assert recommend(policy(), 2, load(0, qps=0.0)) is None
    assert recommend(policy(), 2, load(2)) is None
