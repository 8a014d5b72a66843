"""Canaries between their rows and what the API says."""

from __future__ import annotations

from easel_control.decide.canary import Canary
from easel_control.decide.canary_plan import Asked, Plan
from easel_control.decide.evidence import Counts, quantile_ms, shown
from easel_proto.v1 import canaries_pb2


def asked(plan: canaries_pb2.CanaryPlan) -> Asked:
    """What a request asks for."""
    match, sticky = plan.match, plan.sticky
    return Asked(
        steps_permille=tuple(plan.steps_permille), step_time_s=plan.step_time_s, metrics=tuple(plan.metrics),
        min_requests=plan.min_requests, time_limit_s=plan.time_limit_s, on_breach=plan.on_breach,
        match=(match.kind, match.name, match.value) if plan.HasField("match") else None,
        sticky=(sticky.kind, sticky.name) if plan.HasField("sticky") else None,
        keep_stable=plan.keep_stable, error_limit_percent=plan.error_limit_percent,
        latency_limit_ratio=plan.latency_limit_ratio, mirror_gate=plan.mirror_gate, manual=plan.manual,
    )  # fmt: skip


def canary_view(canary: Canary) -> canaries_pb2.Canary:
    """A canary with its counts, evidence and journal."""
    view = canaries_pb2.Canary(
        id=canary.id, name=canary.name, kind=canary.kind, state=canary.state, reason=canary.reason,
        message=canary.message, stable_revision=canary.stable_revision, candidate=canary.candidate,
        candidate_revision=canary.candidate_revision, plan=_plan(canary.plan), step=canary.step,
        weight_permille=canary.weight_permille, realised_permille=canary.realised_permille or 0,
        stable=_counts(canary.evidence.stable), candidate_counts=_counts(canary.evidence.candidate),
        evidence=_evidence(canary), waits_for=canary.waits_for,
    )  # fmt: skip
    for note in canary.journal:
        line = view.journal.add(reason=note.reason, message=note.message, weight_permille=note.weight_permille)
        line.at.FromDatetime(note.at)
    view.start_time.FromDatetime(canary.started_at)
    view.step_time.FromDatetime(canary.step_at)
    if canary.ended_at is not None:
        view.end_time.FromDatetime(canary.ended_at)
    return view


def _plan(plan: Plan) -> canaries_pb2.CanaryPlan:
    view = canaries_pb2.CanaryPlan(
        steps_permille=plan.steps_permille, step_time_s=plan.step_time_s, metrics=plan.metrics,
        min_requests=plan.min_requests, time_limit_s=plan.time_limit_s, on_breach=plan.on_breach,
        keep_stable=plan.keep_stable, error_limit_percent=plan.error_percent, mirror_gate=plan.mirror_gate,
        latency_limit_ratio=plan.latency_ratio, manual=plan.manual,
    )  # fmt: skip
    if plan.match is not None:
        view.match.CopyFrom(
            canaries_pb2.TrafficMatch(kind=plan.match.kind, name=plan.match.name, value=plan.match.value)
        )
    if plan.sticky is not None:
        view.sticky.CopyFrom(canaries_pb2.TrafficSticky(kind=plan.sticky.kind, name=plan.sticky.name))
    return view


def _counts(counts: Counts) -> canaries_pb2.ArmCounts:
    return canaries_pb2.ArmCounts(
        requests=counts.requests, errors=counts.errors, p50_ms=quantile_ms(counts, 0.5),
        p95_ms=quantile_ms(counts, 0.95), p99_ms=quantile_ms(counts, 0.99),
    )  # fmt: skip


def _evidence(canary: Canary) -> list[canaries_pb2.CanaryEvidence]:
    return [
        canaries_pb2.CanaryEvidence(
            kind=row.kind, log10_e=row.log10_e, limit_log10_e=row.limit_log10_e, rate_ratio=row.rate_ratio,
            threshold_ms=row.threshold_ms, stable_events=row.stable_events, candidate_events=row.candidate_events,
            not_worse_ratio=row.not_worse_ratio,
        )
        for row in shown(canary.evidence, canary.plan.limits)
    ]  # fmt: skip
