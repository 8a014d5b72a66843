"""Control's part of `easel explain`: why this status, this many, this revision."""

from __future__ import annotations

from msgspec import Struct

from easel_contracts.facts import ReplicaState
from easel_control.decide.canary import Canary
from easel_control.decide.expiry import expires_at
from easel_control.decide.hints import hint_for
from easel_control.decide.mirroring import told
from easel_control.decide.told import rolling_hint, rollout_told
from easel_control.decide.view import World, is_of, is_present, view_of, wanted_count
from easel_control.model import ServiceRow


class Why(Struct, frozen=True):
    """One reason."""

    code: str
    message: str
    hint: str = ""


class _Hints:
    """Each hint once: several lines may have the same cause."""

    def __init__(self, service: str) -> None:
        self._service = service
        self._told: set[str] = set()

    def once(self, cause: str) -> str:
        if cause in self._told:
            return ""
        self._told.add(cause)
        return hint_for(cause, self._service)


def explain(row: ServiceRow, world: World, canary: Canary | None = None) -> list[Why]:
    """The reasons, the most important first. `canary`: the one that is on."""
    hints = _Hints(row.name)
    said = row.message.partition(" Hint: ")[0]  # the status's sentence ends with the hint, which stands beside it here
    lines = [Why(row.reason or row.status, f"{row.status}: {said}", hints.once(row.reason))]
    lines.append(Why("Wanted", _wanted(row, world)))
    lines += _release(row, world)
    lines += _canary(canary) if canary is not None else []
    routed = set(world.route.replicas) if world.route is not None else set()
    for replica in world.replicas:
        where = "in the gateway's route" if replica.id in routed else "not in the gateway's route"
        of = _whose(row, replica)
        where += f", taken out of traffic ({replica.out_of_traffic})" if replica.out_of_traffic else ""
        said = f": {replica.message}" if replica.message else ""
        lines.append(Why(replica.cause or "Replica", f"{replica.id} is {replica.state}, {of}, {where}{said}",
                         hints.once(replica.cause)))  # fmt: skip
    lines += [
        Why(r.cause or "ReplicaFailed", f"{r.id} failed: {r.message or r.cause}", hints.once(r.cause))
        for r in world.failed[:3]
    ]
    mutable = [s.source for s in row.revision.sources if s.digest == "mutable"]
    if mutable:
        lines.append(Why("MutableSource", f"{', '.join(mutable)} can change under revision {row.revision.number}",
                         "a restart picks changes up"))  # fmt: skip
    if row.mirroring is not None:
        lines.append(Why("Mirroring", told(row.mirroring), f"`easel mirror {row.name}` shows it"))
    return lines + _life(row, world)


def _whose(row: ServiceRow, replica: ReplicaState) -> str:
    if is_present(row, replica):
        return "present"
    if row.rollout is not None and is_of(row.rollout.stable, replica):
        return f"revision {replica.revision}, stable until the rollout is over"
    return f"revision {replica.revision}, to be replaced"


def _release(row: ServiceRow, world: World) -> list[Why]:
    """What is rolled out, or was taken back."""
    if row.rollout is not None:
        said = rollout_told(row, view_of(row, world))
        paused = row.rollout.state == "paused"
        if row.rollout.split is not None:
            return [Why("Canary", said, f"`easel canary {row.name}` shows what it is judged by")]
        room = "; old replicas may make room, one at a time" if row.rollout.interrupt else ""
        hint = rolling_hint(row).removeprefix(" Hint: ") if paused else ""
        return [Why("RolloutPaused" if paused else "RollingOut", said + room, hint)]
    if row.reverted is not None:
        at = f"{row.reverted.at:%Y-%m-%d %H:%M:%S} UTC"
        return [Why("RolledBack", f"at {at} {row.reverted.message}", f"`easel revisions {row.name}` lists them")]
    return []


def _canary(canary: Canary) -> list[Why]:
    """What the canary waits for, and what it has seen."""
    stable, candidate = canary.evidence.stable, canary.evidence.candidate
    seen = (
        f"since {canary.started_at:%Y-%m-%d %H:%M:%S} UTC the candidate answered {candidate.requests} requests with "
        f"{candidate.errors} errors, stable {stable.requests} with {stable.errors}"
    )
    waits = [Why("CanaryWaits", canary.waits_for)] if canary.waits_for else []
    return [*waits, Why("CanarySeen", seen)]


def _life(row: ServiceRow, world: World) -> list[Why]:
    """The lock, and how long the service may stay unused."""
    lines = []
    if row.lock != "none":
        refused = "stop and delete are refused" if row.lock == "dangerous" else "every change is refused"
        lines.append(Why("Locked", f"locked ({row.lock}): {refused}", f"`easel lock {row.name} none` takes it off"))
    at = expires_at(row)
    if at is not None and row.not_running_since is not None and (world.now - row.not_running_since).days:
        since = f"not Running since {row.not_running_since:%Y-%m-%d %H:%M:%S} UTC"
        hint = f"`easel lock {row.name} dangerous` keeps it" if row.expiry_warned else ""
        lines.append(Why("Expiry", f"{since}; deleted on {at:%Y-%m-%d} if it stays so (180 days)", hint))
    return lines


def _wanted(row: ServiceRow, world: World) -> str:
    total = wanted_count(row, world.scale)
    if row.wanted != "running":
        return f"no replica: the service is {row.wanted}"
    if row.autoscaling is not None:
        return f"{total} replicas; the autoscaler decides between {row.autoscaling.min} and {row.autoscaling.max}"
    return f"{total} replicas, as metadata.instance says"
