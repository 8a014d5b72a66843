"""What a user's word makes of a replica, and whether replicas would fit."""

from __future__ import annotations

from typing import Any

import pytest

from easel_contracts.errors import Conflict
from easel_scheduler.decide import asked
from easel_scheduler.decide.fits import fits
from easel_scheduler.decide.shown import said
from tests.unit.scheduler.build import T0, at, node, replica, revision


def test_a_replacement_is_asked_for_once_and_may_become_urgent() -> None:
    """Again changes nothing; `now` overrides; what ends already needs no mark."""
    marked = asked.replaced(replica(), now=False)
    assert marked is not None
    assert marked.replacing == "surge"
    assert asked.replaced(marked, now=False) is None
    urgent = asked.replaced(marked, now=True)
    assert urgent is not None
    assert urgent.replacing == "now"
    assert asked.replaced(urgent, now=False) is None
    assert asked.replaced(replica("a", "draining"), now=True) is None


def test_a_restart_in_place_needs_a_process() -> None:
    """Waiting for its turn it is asked for once; under way, once more."""
    first = asked.restarted(replica())
    assert first is not None
    assert first.restart_asked == 1
    assert asked.restarted(first) is None
    again = asked.restarted(asked.taken_out(first, "restarting", T0))
    assert again is not None
    assert again.restart_asked == 2
    for state in ("pending", "placed", "fetching", "draining"):
        with pytest.raises(Conflict, match="no process"):
            asked.restarted(replica("a", state))


def test_isolated_and_let_back() -> None:
    """Each isolation has its number; twice changes nothing."""
    out = asked.isolated(replica(), isolated=True, now=at(3))
    assert out is not None
    assert (out.out_of_traffic, out.out_at, out.drain_number, out.state) == ("isolated", at(3), 1, "ready")
    assert asked.isolated(out, isolated=True, now=at(4)) is None
    assert said(out).code == "Isolated"
    back = asked.isolated(out, isolated=False, now=at(5))
    assert back is not None
    assert (back.out_of_traffic, back.drain_number) == ("", 1)
    assert asked.isolated(back, isolated=False, now=at(5)) is None


@pytest.mark.parametrize("given", [{"state": "pending"}, {"state": "draining"}, {"state": "failed"}])
def test_what_cannot_be_isolated(given: dict[str, Any]) -> None:
    """On no node, about to end, ended."""
    with pytest.raises(Conflict):
        asked.isolated(replica("a", **given), isolated=True, now=T0)


def test_fits_says_how_many_would_and_what_is_short() -> None:
    """By the filters that place."""
    nodes = (node("n1", cpu_reserved=6.0), node("n2", state="not_ready"))
    assert fits(revision(), 2, nodes) is None
    short = fits(revision(), 3, nodes)
    assert short is not None
    assert short.code == "NoCapacity"
    assert short.message.startswith("2 of 3 replicas would find room: ")
    assert "n1: short by 1 cores" in short.message
    never = fits(revision(cpu=9), 1, (node(),))
    assert never is not None
    assert never.code == "TooLarge"
