"""Decides what a row of probe results means, and when the next probe is due. Thresholds as in Kubernetes."""

from __future__ import annotations

from msgspec import Struct

from easel_contracts.spec import ExecCheck, HttpCheck, Probe, TcpCheck

FAST_PERIOD_S = 0.05
"""Period while a program starts, so that probing adds little to a cold start."""
FAST_FOR_S = 20.0
"""So long every 50 ms; then slower, so that a program that loads for minutes is not disturbed."""


class ProbeState(Struct, frozen=True, kw_only=True):
    """Results so far. `verdict` is None until a threshold has been reached once."""

    successes: int = 0
    failures: int = 0
    verdict: bool | None = None
    detail: str = ""
    """Why the last probe failed."""


def observe(state: ProbeState, probe: Probe, failure: str | None) -> ProbeState:
    """The state after one more result; `failure` is None when the probe passed."""
    if failure is None:
        successes = state.successes + 1
        verdict = True if successes >= probe.success_threshold else state.verdict
        return ProbeState(successes=successes, verdict=verdict)
    failures = state.failures + 1
    verdict = False if failures >= probe.failure_threshold else state.verdict
    return ProbeState(failures=failures, verdict=verdict, detail=failure)


def startup_budget_s(probe: Probe | None, default_s: float) -> float:
    """How long a program may take to pass its startup probe.

    Kubernetes counts failures, one per period; probes here are faster, so the same allowance is counted in time.
    """
    if probe is None:
        return default_s
    return probe.initial_delay_s + probe.period_s * probe.failure_threshold


def starting_period_s(started_for_s: float, last_probe_s: float) -> float:
    """Seconds to the next probe of a starting program; a probe never takes more than a fifth of the time."""
    period = FAST_PERIOD_S if started_for_s < FAST_FOR_S else 5 * FAST_PERIOD_S
    return max(period, 4 * last_probe_s)


def target_port(check: HttpCheck | TcpCheck | ExecCheck, declared: int, own: int) -> int:
    """The port a check means: the replica's own, also where the spec repeats the declared one (DESIGN 4b.5)."""
    if isinstance(check, ExecCheck) or check.port in (None, declared):
        return own
    return check.port or own
