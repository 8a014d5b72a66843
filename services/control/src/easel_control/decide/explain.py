"""Control's part of `easel explain`: why this status, this many, this revision."""

from __future__ import annotations

from msgspec import Struct

from easel_control.decide.hints import hint_for
from easel_control.decide.status import World, is_present, wanted_count
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


def explain(row: ServiceRow, world: World) -> list[Why]:
    """The reasons, the most important first."""
    hints = _Hints(row.name)
    said = row.message.partition(" Hint: ")[0]  # the status's sentence ends with the hint, which stands beside it here
    lines = [Why(row.reason or row.status, f"{row.status}: {said}", hints.once(row.reason))]
    lines.append(Why("Wanted", _wanted(row, world)))
    routed = set(world.route.replicas) if world.route is not None else set()
    for replica in world.replicas:
        of = "present" if is_present(row, replica) else f"revision {replica.revision}, to be replaced"
        where = "in the gateway's route" if replica.id in routed else "not in the gateway's route"
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
    return lines


def _wanted(row: ServiceRow, world: World) -> str:
    total = wanted_count(row, world.scale)
    if row.wanted != "running":
        return f"no replica: the service is {row.wanted}"
    if row.autoscaling is not None:
        return f"{total} replicas; the autoscaler decides between {row.autoscaling.min} and {row.autoscaling.max}"
    return f"{total} replicas, as metadata.instance says"
