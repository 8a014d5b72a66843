"""A service's replicas by what is to become of them, and how many of each there may be.

target: of the revision that is wanted · stable: of the one that serves until that one does, while a rollout is on ·
leftover: of any other, never made again · marked: somebody asked for their replacement · isolated: they count as
nothing. What drains already is none of these.
"""

from __future__ import annotations

from collections.abc import Collection

from msgspec import Struct

from easel_contracts.facts import Rollout, RouteState, ServiceState
from easel_contracts.spec import RevisionSpec
from easel_scheduler.decide.world import Identity, Replica, Snapshot


class Parts(Struct, frozen=True, kw_only=True):
    """All live replicas that do not drain, and which of them the applied route names."""

    target: tuple[Replica, ...] = ()
    stable: tuple[Replica, ...] = ()
    leftover: tuple[Replica, ...] = ()
    marked: tuple[Replica, ...] = ()
    isolated: tuple[Replica, ...] = ()
    routed: frozenset[str] = frozenset()
    replacing: bool = False
    """The replacement of one of them was asked for, or of one that drains by now."""

    @property
    def active(self) -> tuple[Replica, ...]:
        """Those that count."""
        return self.target + self.stable + self.leftover + self.marked

    def available(self, r: Replica) -> bool:
        """Whether it answers requests: ready, not taken out of traffic, and named by the applied route."""
        return r.in_traffic and r.id in self.routed

    def serving(self, replicas: Collection[Replica]) -> int:
        """How many of them answer requests."""
        return sum(self.available(r) for r in replicas)

    def without(self, gone: Collection[str]) -> Parts:
        """The others."""

        def left(replicas: tuple[Replica, ...]) -> tuple[Replica, ...]:
            return tuple(r for r in replicas if r.id not in gone)

        return Parts(target=left(self.target), stable=left(self.stable), leftover=left(self.leftover),
                     marked=left(self.marked), isolated=left(self.isolated), routed=self.routed,
                     replacing=self.replacing)  # fmt: skip


class Limits(Struct, frozen=True, kw_only=True):
    """How many replicas there shall be, and how far from that a rollout may go."""

    wanted: int
    target: int
    """Of those wanted, how many of the target revision; the others are of the stable one."""
    kept: int = 0
    """Replicas of the stable revision that are kept for the share of the requests that is theirs, whatever serves of
    the target. 0 where requests are not split."""
    surge: int
    """Replicas above `wanted` while others are replaced, or kept beside what is new."""
    unavailable: int
    """Replicas that may be missing meanwhile."""
    spec: RevisionSpec
    """The target revision."""
    stable: RevisionSpec | None = None
    """None: no rollout is on."""
    paused: bool = False
    interrupt: bool = False
    """Where nothing fits beside the old replicas, one may be missing."""

    @property
    def beside(self) -> int:
        """How many of the stable revision there are at least."""
        return max(self.wanted - self.target, self.kept)

    @property
    def may_miss(self) -> int:
        """Replicas that may be missing where the new ones find no room beside the old."""
        return max(self.unavailable, 1 if self.interrupt else 0)


def limits(service: ServiceState, wanted: int, route: RouteState | None = None) -> Limits:
    """What the service's rollout allows. `route`: what the gateway does, of which a split's live weight counts."""
    rollout, rolling = service.rollout, service.rolling
    on = rollout is not None and _identity(service, rollout.stable) != _identity(service, service.revision)
    if rollout is None or not on:
        return Limits(wanted=wanted, target=wanted, surge=rolling.surge(wanted),
                      unavailable=rolling.unavailable(wanted), spec=service.revision)  # fmt: skip
    target = min(-(-rollout.share_percent * wanted // 100), wanted)
    kept = kept_for_traffic(rollout, wanted, route, max(rolling.unavailable(wanted), int(rollout.interrupt)))
    return Limits(
        wanted=wanted, target=target, kept=kept, surge=max(rolling.surge(wanted), target + kept - wanted),
        unavailable=rolling.unavailable(wanted), spec=service.revision, stable=rollout.stable,
        paused=rollout.state == "paused", interrupt=rollout.interrupt,
    )  # fmt: skip


def kept_for_traffic(rollout: Rollout, wanted: int, route: RouteState | None, may_miss: int) -> int:
    """Replicas of the stable revision for the requests that go to it, rounded up: by the weight decided or the one
    that is live, whichever leaves it more. Fewer by what may be missing, but one at least while requests reach it.
    All of them where the rollout says so."""
    if rollout.keep_stable:
        return wanted
    if rollout.split is None:
        return 0
    live = (route.split_permille if route is not None else None) or 0
    theirs = -(-(1000 - min(rollout.split.weight_permille, live)) * wanted // 1000)
    return max(theirs - may_miss, min(theirs, 1))


def parts(s: Snapshot, service: ServiceState, m: Limits) -> Parts:
    """Every live replica in its part."""
    live = [r for r in s.replicas if r.live and r.state != "draining"]
    target = _identity(service, m.spec)
    stable = _identity(service, m.stable) if m.stable is not None else None
    found: dict[str, list[Replica]] = {name: [] for name in ("target", "stable", "leftover", "marked", "isolated")}
    for r in live:
        if r.out_of_traffic == "isolated":
            found["isolated"].append(r)
        elif r.replacing:
            found["marked"].append(r)
        elif r.identity == target:
            found["target"].append(r)
        else:
            found["stable" if r.identity == stable else "leftover"].append(r)
    routed = frozenset(s.route.replicas) if s.route is not None else frozenset[str]()
    replacing = any(r.live and r.replacing for r in s.replicas)
    return Parts(routed=routed, replacing=replacing, **{name: tuple(replicas) for name, replicas in found.items()})


def identity_of(service_uid: str, spec: RevisionSpec) -> Identity:
    """Of replicas that run this revision."""
    return Identity(service_uid, spec.number, spec.restart_nonce)


def _identity(service: ServiceState, spec: RevisionSpec) -> Identity:
    return identity_of(service.uid, spec)
