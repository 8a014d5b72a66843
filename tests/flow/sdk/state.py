"""The state behind the platform for tests of clients: what was asked is kept, calls fail when told to."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import grpc

from easel_contracts import errors
from easel_contracts.errors import EaselError
from easel_kit.grpc_errors import to_status
from easel_proto.v1 import (
    canaries_pb2,
    common_pb2,
    events_pb2,
    groups_pb2,
    mirrors_pb2,
    nodes_pb2,
    replicas_pb2,
    routes_pb2,
    scaling_pb2,
    services_pb2,
    tokens_pb2,
)

KEY = "ek_test"
TOKEN = "secret-token"

Step = str | Callable[[services_pb2.Service], None]
"""What a look at a service finds: another status, or whatever the function makes of it."""


class Platform:
    """The state behind every API."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.metadata: list[dict[str, str]] = []
        self.services: dict[str, services_pb2.Service] = {}
        self.groups: dict[str, groups_pb2.Group] = {}
        self.path: dict[str, list[Step]] = {}
        """What a service goes through, a step with each look at it."""
        self.replicas: list[replicas_pb2.Replica] = []
        self.replicas_path: list[list[replicas_pb2.Replica]] = []
        """What the replicas become, a step with each look at them."""
        self.runtimes: list[nodes_pb2.NodeRuntime] = []
        self.images = nodes_pb2.ListImagesResponse()
        self.revisions: list[services_pb2.Revision] = []
        self.differences: list[services_pb2.Difference] = []
        self.rollout: services_pb2.Rollout | None = None
        """What the next update, restart or switch begins."""
        self.warnings: list[str] = []
        """What the next switch warns of."""
        self.route = routes_pb2.Route(state="probed", envoys=1)
        self.scaling = scaling_pb2.ScalingStatus(wanted=2)
        self.decisions = [scaling_pb2.Decision(number=1, wanted=2)]
        self.tokens: dict[str, list[tokens_pb2.AccessToken]] = {}
        """Of each service or group."""
        self.mirrors: dict[str, mirrors_pb2.Mirror] = {}
        self.canaries: list[canaries_pb2.Canary] = []
        """What a watch sees, look by look; the last one is what is."""
        self.reports: dict[str, mirrors_pb2.ComparisonReport] = {}
        self.explanations: dict[str, list[common_pb2.Why]] = {}
        """What a part says instead of being content."""
        self.events = [_event(n) for n in range(1, 6)]
        self.cut_after: int | None = None
        self.uploaded: dict[str, bytes] = {}
        self.host_id = ""
        self.control_port = self.data_port = 0
        self._failures: dict[str, list[Any]] = {}

    @property
    def server(self) -> str:
        """Address of the control listener."""
        return f"127.0.0.1:{self.control_port}"

    def fail(self, method: str, *how: EaselError | grpc.StatusCode) -> None:
        """The next calls of `Api.Method` fail so, in this order."""
        self._failures.setdefault(method, []).extend(how)

    def asked(self, method: str) -> list[Any]:
        """Requests that came for `Api.Method`."""
        return [request for name, request in self.calls if name == method]

    def enter(self, method: str, request: Any, context: grpc.ServicerContext) -> None:
        """Notes a call; refuses or fails it."""
        metadata = {str(key): str(value) for key, value in context.invocation_metadata()}
        self.calls.append((method, request))
        self.metadata.append(metadata)
        if metadata.get("authorization") != f"Bearer {KEY}":
            abort(context, errors.Unauthenticated("WRONG_ACCESS_KEY", "the access key is not known here", "--home"))
        if self._failures.get(method):
            how = self._failures[method].pop(0)
            if isinstance(how, EaselError):
                abort(context, how)
            context.abort(how, "told to")

    def write_home(self, home: Path) -> Path:
        """The files that `easel up` leaves."""
        (home / "keys").mkdir(parents=True)
        (home / "keys" / "access-key").write_text(KEY + "\n")
        urls = {"control_url": f"http://{self.server}", "data_url": f"http://127.0.0.1:{self.data_port}"}
        (home / "config.json").write_text(json.dumps(urls | {"ca_file": "", "control_port": self.control_port}))
        return home

    def explanation(self, part: str) -> common_pb2.Explanation:
        """What a part says of itself."""
        content = [common_pb2.Why(code="Fine", message=f"{part} is content", hint=f"ask {part}")]
        return common_pb2.Explanation(part=part, lines=self.explanations.get(part, content))

    def service(self, name: str, context: grpc.ServicerContext) -> services_pb2.Service:
        """The service, or NOT_FOUND."""
        if name not in self.services:
            abort(context, errors.NotFound("SERVICE_NOT_FOUND", f"there is no service {name}", "`easel ls` lists them"))
        return self.services[name]


def abort(context: grpc.ServicerContext, error: EaselError) -> NoReturn:
    """Ends a call as Easel's processes do."""
    status = to_status(error)
    code = next(c for c in grpc.StatusCode if c.value[0] == status.code)
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(code, status.message)


def _event(number: int) -> events_pb2.Event:
    return events_pb2.Event(sequence=number, type="replica.ready", key="ocr", reason="ReplicaReady",
                            message=f"event {number}", data_json='{"state": "ready"}')  # fmt: skip
