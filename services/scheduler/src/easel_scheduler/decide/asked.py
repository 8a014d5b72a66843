"""What a user's word makes of a replica: to be replaced, to be started anew in its place, isolated or let back."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from msgspec.structs import replace

from easel_contracts.errors import Conflict
from easel_scheduler.decide.soft import HAS_PROCESS
from easel_scheduler.decide.world import Replica


def replaced(r: Replica, *, now: bool) -> Replica | None:
    """Marked for replacement; None: it ends already, or was marked so before. Raises Conflict."""
    _lives(r)
    if r.state == "draining" or r.replacing == "now" or (r.replacing and not now):
        return None
    return replace(r, replacing="now" if now else "surge")


def restarted(r: Replica) -> Replica | None:
    """Marked for the restart of its process; None: that is still to come. Raises Conflict."""
    _lives(r)
    if r.state not in HAS_PROCESS:
        raise Conflict(
            "NO_PROCESS", f"{r.id} is {r.state}: there is no process to start anew",
            "a soft restart needs one that is starting, ready or unready; without `soft` the replica is replaced",
        )  # fmt: skip
    # One that is under way may be past the point at which the program reads what the user has changed since.
    waits = r.restarts_in_place and not r.out_of_traffic
    return None if waits else replace(r, restart_asked=r.restart_asked + 1)


def isolated(r: Replica, *, isolated: bool, now: datetime) -> Replica | None:
    """Out of traffic, or back; None: it is so already. Raises Conflict."""
    _lives(r)
    if r.state in ("pending", "draining"):
        where = "it is on no node yet" if r.state == "pending" else "it ends, and no new request reaches it"
        raise Conflict("NOT_ISOLATABLE", f"{r.id} is {r.state}: {where}", "`easel w NAME` lists the replicas")
    if isolated == (r.out_of_traffic == "isolated"):
        return None
    return taken_out(r, "isolated", now) if isolated else replace(r, out_of_traffic="", out_at=None)


def taken_out(r: Replica, why: Literal["", "isolated", "restarting"], now: datetime) -> Replica:
    """Out of traffic from now on; what the router told of an earlier time does not count any more."""
    return replace(r, out_of_traffic=why, out_at=now if why else None, drain_number=r.drain_number + 1)


def _lives(r: Replica) -> None:
    if not r.live:
        raise Conflict("REPLICA_ENDED", f"{r.id} has ended: it is {r.state}", "`easel w NAME` lists those that live")
