"""Which replicas go first (DESIGN §5): not ready, then of an older revision, then those with the fewest requests in
flight, then the newest."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from msgspec import Struct

from easel_scheduler.decide.parts import Parts
from easel_scheduler.decide.world import Identity, Replica

Rank = tuple[bool, bool, bool, int]


class Pool(Struct, frozen=True):
    """Candidates, and how many of them may go at most."""

    replicas: tuple[Replica, ...]
    most: int


class Picked(Struct, frozen=True):
    """Who goes."""

    replicas: tuple[Replica, ...] = ()
    asks: bool = False
    """It was decided among equals that answer requests, without knowing how many each has in flight."""
    words: Mapping[str, str] = {}
    """Replica → why this one; none where there was no choice."""


class Ranking(Struct, frozen=True):
    """What orders the candidates."""

    routed: frozenset[str]
    outdated: frozenset[str]
    """Of no revision that is wanted, or to be replaced: they go before the others."""
    born: Mapping[Identity, int]
    """Generation of the first replica of each revision."""
    in_flight: Mapping[str, int] | None

    def of(self, r: Replica) -> Rank:
        """Lower goes first. Equal ranks are told apart by requests in flight, then by age. Replicas under notice of
        preemption, and then those on borrowed capacity, belong after the revision, at the end of this tuple."""
        return (r.in_traffic, r.id in self.routed, r.id not in self.outdated, self.born[r.identity])


def ranking(p: Parts, in_flight: Mapping[str, int] | None) -> Ranking:
    """For a service's replicas."""
    born: dict[Identity, int] = {}
    for r in p.active:
        born[r.identity] = min(r.generation, born.get(r.identity, r.generation))
    outdated = frozenset(r.id for r in (*p.leftover, *p.marked))
    return Ranking(p.routed, outdated, born, in_flight)


def pick(pools: tuple[Pool, ...], count: int, ranks: Ranking) -> Picked:
    """The first `count` of all pools, from each at most what it may lose."""
    if count <= 0:
        return Picked()
    peers: dict[Rank, list[Replica]] = defaultdict(list)
    for pool in pools:
        for r in pool.replicas:
            peers[ranks.of(r)].append(r)
    requests = {rank: _requests(found, ranks) for rank, found in peers.items()}

    def order(x: tuple[int, Replica]) -> tuple[Rank, int, float, str]:
        r = x[1]
        rank = ranks.of(r)
        return (rank, requests[rank].get(r.id, 0), -r.created_at.timestamp(), r.id)

    left = {i: pool.most for i, pool in enumerate(pools)}
    chosen: list[Replica] = []
    for i, r in sorted(((i, r) for i, pool in enumerate(pools) for r in pool.replicas), key=order):
        if len(chosen) < count and left[i] > 0:
            left[i] -= 1
            chosen.append(r)
    return _picked(chosen, peers, requests, ranks)


def _requests(peers: list[Replica], ranks: Ranking) -> dict[str, int]:
    """Requests in flight of equals; empty unless known of all of them: an unknown number is not zero."""
    known = ranks.in_flight or {}
    return {r.id: known[r.id] for r in peers} if all(r.id in known for r in peers) else {}


def _picked(
    chosen: list[Replica], peers: Mapping[Rank, list[Replica]], requests: Mapping[Rank, dict[str, int]], ranks: Ranking
) -> Picked:
    ids = {r.id for r in chosen}
    asks, words = False, {}
    for rank, found in peers.items():
        going = [r for r in found if r.id in ids]
        a_choice = 0 < len(going) < len(found) and rank[0] and rank[1]
        asks = asks or (a_choice and ranks.in_flight is None)
        for r in going:
            words[r.id] = _words(r, len(going), len(found), requests[rank], ranks) if a_choice else _idle_words(rank)
    return Picked(tuple(chosen), asks, words)


def _idle_words(rank: Rank) -> str:
    if not rank[0]:
        return "it was not ready"
    return "" if rank[1] else "no request reached it"


def _words(r: Replica, going: int, among: int, requests: dict[str, int], ranks: Ranking) -> str:
    if requests and going == 1:
        return f"of {among} ready replicas this one had the fewest requests in flight: {requests[r.id]}"
    if requests:
        return (f"of {among} ready replicas these {going} had the fewest requests in flight, "
                f"this one {requests[r.id]}")  # fmt: skip
    newest = "it is the newest" if going == 1 else f"it is one of the {going} newest"
    if ranks.in_flight is None:
        return f"of {among} ready replicas {newest}"
    return f"of {among} ready replicas {newest}; how many requests each had in flight is not known"
