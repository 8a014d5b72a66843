"""A service's row for tests of decisions."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from msgspec.structs import replace

from easel_contracts.facts import ReplicaState, RouteState
from easel_contracts.spec import Resources, RevisionSpec, RolloutPolicy
from easel_control.decide.change import Content
from easel_control.decide.view import World
from easel_control.model import ServiceRow

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SPEC = RevisionSpec(number=1, resources=Resources(cpu=1.0, memory_mib=512), port=8000, command="python app.py")


def row(**changes: Any) -> ServiceRow:
    made = ServiceRow(
        workspace="default", name="ocr", uid="u", row_version=1, generation=1, instance=2, instance_generation=1,
        revision=SPEC, revision_generation=1, token_sealed=b"t", config_sealed=b"c", config_shown="{}", begun_at=NOW,
        created_at=NOW, updated_at=NOW,
    )  # fmt: skip
    return replace(made, **changes)


def content(**changes: Any) -> Content:
    made = Content(
        revision=replace(SPEC, number=0), instance=2, autoscaling=None, rolling=RolloutPolicy(), token_sealed=None,
        secrets_changed=False, config_sealed=b"c2", config_shown="{}", config_changed=False, labels={}, workspace_id="",
    )  # fmt: skip
    return replace(made, **changes)


def replica(identity: str, state: str = "ready", **more: Any) -> ReplicaState:
    return ReplicaState(**{"id": identity, "service": "ocr", "revision": 1, "generation": 1, "state": state, **more})


def world(*replicas: ReplicaState, routed: tuple[str, ...] = (), **more: Any) -> World:
    route = RouteState(service="ocr", generation=1, state="probed", version="v", replicas=routed)
    return World(**{"replicas": replicas, "route": route, "now": NOW, **more})
