"""Control's rows as frozen values. No I/O; secrets appear only sealed."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from msgspec import Struct

from easel_contracts.facts import ServiceState
from easel_contracts.spec import Autoscaling, RevisionSpec, RolloutPolicy

Wanted = Literal["running", "stopped", "deleted"]


class ServiceRow(Struct, frozen=True, kw_only=True):
    """A service as control holds it."""

    workspace: str
    name: str
    uid: str
    row_version: int
    generation: int
    observed_generation: int = 0
    wanted: Wanted = "running"
    instance: int
    instance_generation: int
    revision: RevisionSpec
    revision_generation: int
    """Generation since which replicas are of this revision and restart."""
    autoscaling: Autoscaling | None = None
    autoscaling_generation: int = 0
    rolling: RolloutPolicy = RolloutPolicy()
    token_sealed: bytes
    token_version: int = 1
    config_sealed: bytes
    """The admitted configuration with environment values, as JSON."""
    config_shown: str
    """The same without token and environment values."""
    labels: dict[str, str] = {}
    workspace_id: str = ""
    status: str = "Creating"
    reason: str = ""
    message: str = ""
    total: int = 0
    """Replicas wanted, whoever decided it, when the status was last written."""
    running: int = 0
    """Of these, ready and reachable through the gateway."""
    settled: int = 0
    """`total` when the service was last complete; 0: not since it was started."""
    phase_s: dict[str, float] = {}
    begun_at: datetime
    """When the present revision, start or restart was asked for."""
    created_at: datetime
    updated_at: datetime


class RevisionRow(Struct, frozen=True, kw_only=True):
    """An immutable revision."""

    workspace: str
    name: str
    number: int
    state: str
    spec: RevisionSpec
    config_shown: str
    env_sealed: bytes
    """JSON: name → {"value": …} or {"secret": name}."""
    created_at: datetime


def service_state(row: ServiceRow) -> ServiceState:
    """What a fact says of the service: no secret in it."""
    return ServiceState(
        uid=row.uid, name=row.name, generation=row.generation, wanted=row.wanted, instance=row.instance,
        revision=row.revision, autoscaling=row.autoscaling, autoscaling_generation=row.autoscaling_generation,
        instance_generation=row.instance_generation, token_version=row.token_version, rolling=row.rolling,
        status=row.status, reason=row.reason, message=row.message, created_at=row.created_at,
    )  # fmt: skip
