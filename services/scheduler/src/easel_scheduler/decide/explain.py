"""Why a service's replicas are as many, where and what they are: the plan's own reasons, for people."""

from __future__ import annotations

from msgspec import Struct

from easel_scheduler.decide.parts import limits, parts
from easel_scheduler.decide.plan import plan
from easel_scheduler.decide.rollout_words import rollout_words
from easel_scheduler.decide.shown import said
from easel_scheduler.decide.wanted import wanted
from easel_scheduler.decide.world import Replica, Snapshot

GATEWAY_IDLE_S = 4.0
"""The gateway closes a connection to a replica after so long without a request, or earlier."""


class Line(Struct, frozen=True):
    """One reason."""

    code: str
    message: str
    hint: str = ""


HINTS = {
    "NoCapacity": "`easel ls` and the nodes' reservations show who holds what; lower metadata.cpu or metadata.memory",
    "TooLarge": "lower metadata.cpu or metadata.memory to what a node has in all, or add a larger node",
    "NoNode": "start an agent, or see with `easel status` why it is not connected",
    "CrashLoop": "read its last lines: `easel logs NAME --previous`",
    "OutOfMemory": "raise metadata.memory, or make the program use less",
    "ImageFailed": "see that the image's name and tag are right, and that dockerAuth is a login that may pull it",
    "NoRuntime": "start an engine on a node (its agent sees it by itself), or deploy code instead of an image",
    "WrongPort": "listen on the port in the environment variable PORT",
    "RequirementsFailed": "try the requirements with pip on the same Python version",
    "ProbeFailed": "see that the probe's path and port answer, and how long the program needs to start",
    "BackOff": "fix the cause and update the service: a new revision does not wait",
    "AwaitsRoute": "if it lasts, see `easel explain` of the router's part",
    "RolloutPaused": "`easel rollout NAME resume` goes on, `easel rollout NAME revert` takes it back",
    "NoRoomBeside": "add a node, or stop or scale in another service",
    "Isolated": "`easel unisolate NAME REPLICA` lets it back, `easel dw NAME REPLICA` ends it",
    "AwaitsSuccessor": "if there is no room for a successor: `easel dw NAME REPLICA --now` ends it without one",
}
"""Reason → what to do."""


def explain(s: Snapshot) -> tuple[Line, ...]:
    """How many and why, then each replica, then what is awaited."""
    if s.service is None:
        return tuple(Line(w.why.code, w.why.message) for w in plan(s).wait)
    want = wanted(s.service, s.scale)
    lines = [Line(want.code, f"{want.count} replicas wanted: {want.message}")]
    m = limits(s.service, want.count, s.route)
    if (rollout := rollout_words(parts(s, s.service, m), m)) is not None:
        lines.append(Line(rollout.code, rollout.message, HINTS.get(rollout.code, "")))
    live = sorted((r for r in s.replicas if r.live), key=lambda r: r.created_at)
    for r in live:
        lines += _replica(r)
    ended = [r for r in s.replicas if r.state in ("failed", "lost")]
    if ended:
        newest = max(ended, key=lambda r: r.ended_at or r.state_at)
        when = f"{newest.ended_at or newest.state_at:%Y-%m-%d %H:%M:%S} UTC"
        lines.append(Line(newest.cause, f"last ended: {newest.id} {newest.state} at {when}: {newest.message}",
                          HINTS.get(newest.cause, "")))  # fmt: skip
    waits = [w for w in plan(s).wait if w.replica is None]
    lines += [Line(w.why.code, w.why.message, HINTS.get(w.why.code, "")) for w in waits]
    return tuple(lines)


def _replica(r: Replica) -> list[Line]:
    where = f"on {r.node}" if r.node else "on no node"
    since = f"since {r.state_at:%H:%M:%S} UTC"
    why = said(r)
    what = f"{r.id} (revision {r.spec.number}) is {r.state} {where} {since}" + (
        f": {why.message}" if why.message else ""
    )
    lines = [Line(why.code or r.state.capitalize(), what, HINTS.get(why.code, ""))]
    if r.keep_alive_s is not None:
        lines.append(_keep_alive_too_short(r, r.keep_alive_s))
    if r.placement and r.node:
        lines.append(Line("Placed", f"{r.id}: {r.placement}"))
    if r.node or not r.message:
        lines += [Line(f"Refused_{x.filter}", f"{r.id}: {x.node} did not take it: {x.message}") for x in r.refusals]
    return lines


def _keep_alive_too_short(r: Replica, keep_alive_s: float) -> Line:
    return Line(
        "KeepAliveTooShort",
        f"{r.id}: its server closes idle connections after {keep_alive_s:g} s; the gateway keeps them for up to "
        f"{GATEWAY_IDLE_S:g} s, or less where it knows of a shorter time, so a request may be sent on one that is just "
        "being closed. GET, HEAD, PUT, DELETE and requests with an Idempotency-Key are then sent again; another POST "
        "is not, unless the service declares that safe, and is answered 503",
        f"have the server keep idle connections for longer than {GATEWAY_IDLE_S:g} s, e.g. uvicorn "
        "--timeout-keep-alive 65, gunicorn --keep-alive 65",
    )  # fmt: skip
