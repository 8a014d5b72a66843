"""The health checks of a container: exactly one kind each, and `health_check` for the two that are absent."""

from __future__ import annotations

from typing import Any

from easel_contracts.spec import ExecCheck, HttpCheck, Probe, TcpCheck
from easel_control.decide.check import Checker
from easel_control.decide.keys import BY_PATH

KINDS = ("http_get", "tcp_socket", "exec")
NAMES = ("startup_check", "liveness_check", "readiness_check", "health_check")


def probes_of(
    to: Checker, at: str, container: dict[str, Any], wrong: frozenset[str] = frozenset()
) -> tuple[Probe | None, Probe | None, Probe | None]:
    """(startup, liveness, readiness) of a container; errors go to `to`, probes with wrong keys are passed over."""
    port = container.get("port", BY_PATH["containers[].port"].default)
    sound = [name for name in NAMES if name in container and not any(p.startswith(f"{at}.{name}") for p in wrong)]
    made = {name: _probe(to, f"{at}.{name}", name, container[name], port) for name in sound}
    if made.get("health_check") and "liveness_check" in made and "readiness_check" in made:
        to.add(f"{at}.health_check", "CONFLICT", "`liveness_check` and `readiness_check` say it all already",
               "leave health_check out")  # fmt: skip
    both = made.get("health_check")
    for name in ("startup_check", "liveness_check"):
        probe = made.get(name)
        if probe and probe.success_threshold != 1:
            to.add(f"{at}.{name}.success_threshold", "OUT_OF_RANGE", "must be 1 here, as in Kubernetes")
    return made.get("startup_check"), made.get("liveness_check", both), made.get("readiness_check", both)


def _probe(to: Checker, at: str, name: str, section: dict[str, Any], port: int) -> Probe | None:
    kinds = [kind for kind in KINDS if kind in section]
    if len(kinds) != 1:
        to.add(at, "CONFLICT" if kinds else "MISSING",
               f"{' and '.join(kinds) or 'no check'} given; exactly one of {', '.join(KINDS)} is needed")  # fmt: skip
        return None

    def get(key: str) -> Any:
        return section.get(key, BY_PATH[f"containers[].{name}.{key}"].default)

    return Probe(
        check=_check(kinds[0], section[kinds[0]], port),
        initial_delay_s=float(get("initial_delay_seconds")),
        period_s=float(get("period_seconds")),
        timeout_s=float(get("timeout_seconds")),
        success_threshold=get("success_threshold"),
        failure_threshold=get("failure_threshold"),
    )


def _check(kind: str, section: dict[str, Any], port: int) -> HttpCheck | TcpCheck | ExecCheck:
    if kind == "exec":
        return ExecCheck(command=tuple(section["command"]))
    other = section.get("port")
    own = None if other == port else other
    if kind == "tcp_socket":
        return TcpCheck(port=own)
    return HttpCheck(path=section.get("path", "/"), port=own, scheme=section.get("scheme", "HTTP"))
