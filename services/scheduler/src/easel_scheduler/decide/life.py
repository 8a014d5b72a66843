"""What a replica that has a node needs next: start, restart, stop, or to be given up. Its agent does the rest."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct

from easel_contracts.facts import RouteState
from easel_scheduler.decide.world import Reason, Replica

RESEND_S = 5.0
"""A command without visible effect is sent again; commands are idempotent."""

LAST_GRACE_S = 5.0
"""With `enable_sigterm`, what a program gets when the grace period went by before traffic was off it."""


class Around(Struct, frozen=True, kw_only=True):
    """What is known around one replica."""

    now: datetime
    node_state: str
    run: str | None
    """The life of the agent that is connected now; None: its agent is not connected."""
    known: bool
    """The connected agent has reported this replica since it connected."""
    drained: bool
    """The router has told that no request is left, since it was last taken out of traffic."""
    route: RouteState | None
    """The newest applied route of its service."""
    sent_s: float | None
    """Seconds since the command it needs now was last sent; None: never, as far as is known."""


class Start(Struct, frozen=True):
    """Tell the agent to run it."""


class Halt(Struct, frozen=True):
    """Tell the agent to end it."""

    grace_s: float
    sigterm: bool
    idle: bool
    why: Reason


class Again(Struct, frozen=True):
    """Tell the agent to start its process anew, as the restart of this number."""

    number: int
    grace_s: float
    sigterm: bool
    why: Reason


class End(Struct, frozen=True):
    """It is gone: write a final state."""

    state: str
    why: Reason


class Rest(Struct, frozen=True):
    """Nothing to do for `after_s` seconds; None: until something happens."""

    after_s: float | None
    why: Reason


Step = Start | Halt | Again | End | Rest


def next_step(r: Replica, a: Around) -> Step:
    """The one thing to do for a replica now. Silence of an agent is never the end of a replica; its lease is."""
    if r.node is None or not r.live:
        return Rest(None, Reason("NotPlaced", "it is on no node"))
    if a.node_state == "lost":
        return End("lost", Reason("NodeLost", f"{r.node} has been silent for longer than its lease"))
    if a.run is None:
        return Rest(None, Reason("AwaitsAgent", f"the agent of {r.node} is not connected"))
    if r.run is not None and r.run != a.run:  # what it adopted has its `run` by now: reports are taken over first
        return End("lost", Reason("AgentRestarted", f"the agent of {r.node} was started anew and has it no longer"))
    if r.state == "draining":
        return _draining(r, a)
    if r.state != "placed" and not a.known:
        return End("lost", Reason("UnknownToAgent", f"the agent of {r.node} has it no longer"))
    if r.restarts_in_place and r.out_of_traffic:
        return _restarting(r, a)
    if r.state != "placed":
        return Rest(None, Reason("Running", "its agent reports changes"))
    if a.sent_s is None or a.sent_s >= RESEND_S:
        return Start()
    return Rest(RESEND_S - a.sent_s, Reason("AwaitsReport", "its agent has taken it and will report"))


def _draining(r: Replica, a: Around) -> Step:
    """DESIGN 4b.3: stop when the router has told that no request is left, or at the end of the grace period."""
    if a.sent_s is not None and a.sent_s < RESEND_S:
        return Rest(RESEND_S - a.sent_s, Reason("Stopping", "its agent ends it"))
    return _when_idle(r, a, r.draining_at or r.state_at)


def _restarting(r: Replica, a: Around) -> Step:
    """As for a drain, only that its process comes back."""
    if a.sent_s is not None and a.sent_s < RESEND_S:
        return Rest(RESEND_S - a.sent_s, Reason("Restarting", "its agent starts its process anew"))
    step = _when_idle(r, a, r.out_at or r.state_at)
    if isinstance(step, Rest):
        return step
    grace_s = 0.0 if step.idle and not step.sigterm else step.grace_s
    return Again(r.restart_asked, grace_s, step.sigterm, step.why)


def _when_idle(r: Replica, a: Around, since: datetime) -> Halt | Rest:
    """Ends its process when no request is left or the grace period, which began at `since`, is over."""
    grace_s, sigterm = r.spec.lifecycle.termination_grace_s, r.spec.lifecycle.enable_sigterm
    left_s = grace_s - (a.now - since).total_seconds()
    if r.ready_at is None:
        return Halt(max(left_s, 0.0), sigterm, True, Reason("NeverServed", "it never took a request"))
    if a.drained:
        return Halt(max(left_s, 0.0), sigterm, True, Reason("Drained", "no request is left"))
    if left_s <= 0:
        why = Reason("GraceOver", f"its grace period of {grace_s:g} s is over, and no gateway has told that no request "
                     "is left at it")  # fmt: skip
        return Halt(LAST_GRACE_S if sigterm else 0.0, sigterm, False, why)
    if sigterm and a.route is not None and r.id in a.route.draining:
        return Halt(left_s, True, False, Reason("OutOfRoute", "no new request reaches it; SIGTERM asks it to finish"))
    return Rest(left_s, Reason("Draining", f"requests in flight have {left_s:.0f} s left"))
