"""How an agent's report changes a replica. Reports may come twice or late: older ones change nothing.

A replica belongs to the life of the agent that started it (`run`), until a later one reports that it adopted it.
"""

from __future__ import annotations

from datetime import datetime

from msgspec.structs import replace

from easel_contracts.facts import Endpoint
from easel_contracts.runtime import FailureCause, ReplicaReport
from easel_contracts.states import REPLICA, step
from easel_scheduler.decide.world import Replica

CAUSES: dict[FailureCause, str] = {
    "none": "",
    "exit": "Exited",
    "oom": "OutOfMemory",
    "crash_loop": "CrashLoop",
    "probe": "ProbeFailed",
    "requirements": "RequirementsFailed",
    "mount": "MountFailed",
    "code": "CodeUnavailable",
    "command": "CommandFailed",
    "wrong_port": "WrongPort",
    "image": "ImageFailed",
    "internal": "AgentError",
}
"""The agent's words → reasons as users see them."""


def fold(r: Replica, report: ReplicaReport, now: datetime) -> Replica | None:
    """The replica after the report (row_version as before), or None when it changes nothing.

    Raises IllegalTransition where the table of states does not allow it.
    """
    if not r.live or r.node is None:
        return None
    if r.run == report.agent_run_id and report.sequence <= r.sequence:
        return None
    adopted = report.adopted and r.run is not None and r.run != report.agent_run_id
    if r.run is not None and r.run != report.agent_run_id and not adopted:
        return None
    state, cause = _next(r, report)
    step("replica", REPLICA, r.state, state)
    entered = now if state != r.state else r.state_at
    restart_done = max(r.restart_done, min(report.restart_number, r.restart_asked))
    back = r.out_of_traffic == "restarting" and state == "ready" and restart_done >= r.restart_asked
    restarts_before = r.restarts if adopted and report.restarts < r.restarts else 0 if adopted else r.restarts_before
    endpoint = Endpoint(network=report.network, ip=report.ip, port=report.port)
    folded = replace(
        r,
        run=report.agent_run_id,
        sequence=report.sequence,
        state=state,
        state_at=entered,
        ready_at=now if state == "ready" and r.ready_at is None else r.ready_at,
        ended_at=now if state in ("stopped", "failed", "lost") else None,
        endpoints=(endpoint,) if report.port and report.ip else r.endpoints,
        pid=report.pid,
        container=report.container,
        restarts=restarts_before + report.restarts,
        restarts_before=restarts_before,
        cause=cause,
        message=_message(r, report, state),
        exit_code=report.exit_code if report.exit_code is not None else r.exit_code,
        phase_s={**r.phase_s, **report.phase_s},
        log_tail=report.log_tail or r.log_tail,
        isolation=report.isolation or r.isolation,
        limits=report.limits or r.limits,
        keep_alive_s=report.keep_alive_s,
        pins={**r.pins, **report.pins},
        restart_done=restart_done,
        out_of_traffic="" if back else r.out_of_traffic,
        out_at=None if back else r.out_at,
    )
    return None if replace(folded, sequence=r.sequence) == r else folded


def _next(r: Replica, report: ReplicaReport) -> tuple[str, str]:
    """(state, cause) that follow from the report."""
    cause = CAUSES[report.cause]
    draining = r.state == "draining"
    if report.phase == "failed":
        return "failed", cause or "Exited"
    if report.phase == "stopped":
        return ("stopped", r.cause) if draining else ("lost", "StoppedByAgent")
    if draining:
        return "draining", r.cause
    if report.phase == "running" and report.ready:
        return "ready", ""
    served = r.state in ("ready", "unready")
    if report.phase == "running":
        return ("unready", cause or "ReadinessFailed") if served else ("starting", cause)
    if report.phase == "stopping":
        return ("unready", "Stopping") if served else (r.state, cause)
    if report.phase == "fetching" and not served:
        return "fetching", cause
    return "starting", cause


def _message(r: Replica, report: ReplicaReport, state: str) -> str:
    if state == "draining":
        return r.message
    if state == "stopped":
        return report.message or r.message
    if state == "lost":
        return report.message or "its agent ended it without being told to, as when the agent itself is stopped"
    return report.message
