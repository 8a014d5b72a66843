"""What no plan may do, whatever the world looks like."""

from __future__ import annotations

from easel_contracts.facts import ServiceState
from easel_scheduler.decide.parts import Limits, Parts, limits, parts
from easel_scheduler.decide.wanted import wanted
from easel_scheduler.decide.world import Plan, Snapshot


def check_promises(s: Snapshot, found: Plan) -> None:
    """Every promise of a plan, against the snapshot it was made from."""
    assert s.service is not None
    want = wanted(s.service, s.scale).count
    m = limits(s.service, want, s.route)
    p = parts(s, s.service, m)
    ended = {d.replica: d.why.code for d in found.drain} | {x.replica: x.why.code for x in found.stop}
    _check_count(found, m, p, ended)
    _check_kinds(s.service, found, m)
    if want:
        _check_availability(s, m, p, ended)
        _check_paused(m, p, ended)
    _check_isolated(s.service, p, ended)
    _check_words(found, ended)


def _check_count(found: Plan, m: Limits, p: Parts, ended: dict[str, str]) -> None:
    """Never more than wanted + surge by what is made."""
    left = [r for r in p.active if r.id not in ended]
    surge = max(m.surge, 1) if p.marked else m.surge
    if found.create:
        assert len(left) + len(found.create) <= m.wanted + surge, "more active replicas than wanted + surge"
    assert not (m.wanted == 0 and found.create)


def _check_kinds(service: ServiceState, found: Plan, m: Limits) -> None:
    """Only revisions that are wanted are made; while a rollout is paused only the stable one."""
    for new in found.create:
        assert new.spec in (service.revision, m.stable), "a revision that nobody wants is made"
        assert not (m.paused and new.spec == service.revision), "the new revision goes on in a paused rollout"


def _check_availability(s: Snapshot, m: Limits, p: Parts, ended: dict[str, str]) -> None:
    """A replica that serves ends only while enough others do, and for a revision only once that one serves."""
    asked = {r.id for r in p.marked if r.replacing == "now"}
    spent = [r for r in p.active if p.available(r) and r.id in ended and r.id not in asked]
    if not spent:
        return
    left = p.serving([r for r in p.active if r.id not in ended])
    if any(ended[r.id] == "MakesRoom" for r in spent):
        since = min((r.created_at for r in p.target if r.ready_at is None), default=s.now)
        before = [r for r in s.replicas if r.cause == "MakesRoom" and r.draining_at and r.draining_at >= since]
        placed = sum(r.node is not None for r in p.active) + len(before)
        assert left >= min(m.wanted, placed) - m.may_miss, "more are missing than may be"
        return
    assert left >= m.wanted - (m.unavailable if m.surge else m.may_miss), "more are missing than may be"
    if m.surge and not p.serving(p.target):
        assert left >= m.wanted, "a healthy replica was spent on a revision that does not serve"


def _check_paused(m: Limits, p: Parts, ended: dict[str, str]) -> None:
    spent = [r for r in p.stable if r.id in ended]
    if m.paused and spent:
        assert {ended[r.id] for r in spent} == {"ScaleIn"}
        assert len(p.active) > m.wanted + m.surge, "a stable replica was spent in a paused rollout"


def _check_isolated(service: ServiceState, p: Parts, ended: dict[str, str]) -> None:
    for r in p.isolated:
        if r.id in ended:
            assert r.replacing or service.wanted != "running" or r.service_uid != service.uid


def _check_words(found: Plan, ended: dict[str, str]) -> None:
    touched = [*ended, *(x.replica for x in found.place), *(x.replica for x in found.take_out)]
    assert len(touched) == len(set(touched)), "a replica is told two things at once"
    assert len(ended) == len(found.drain) + len(found.stop)
    assert len(found.take_out) <= 1, "two processes of a service are started anew at once"
    whys = [x.why for x in found.create] + [x.why for x in found.place] + [x.why for x in found.drain]
    whys += [x.why for x in found.stop] + [x.why for x in found.take_out] + [x.why for x in found.wait]
    assert all(why.code and why.message for why in whys)
