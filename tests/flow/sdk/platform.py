"""A small platform for tests of clients: the real gRPC APIs over canned state, and a data listener.

It keeps what was asked (`calls`), fails when told to (`fail`), and moves a service on with each look at it.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc

from easel_contracts import errors
from easel_contracts.errors import EaselError, FieldError, InvalidInput
from easel_kit.grpc_errors import to_status
from easel_proto.v1 import (
    audit_pb2,
    audit_pb2_grpc,
    common_pb2,
    events_pb2,
    events_pb2_grpc,
    metrics_pb2,
    metrics_pb2_grpc,
    nodes_pb2,
    nodes_pb2_grpc,
    replicas_pb2,
    replicas_pb2_grpc,
    routes_pb2,
    routes_pb2_grpc,
    scaling_pb2,
    scaling_pb2_grpc,
    services_pb2,
    services_pb2_grpc,
)

KEY = "ek_test"
TOKEN = "secret-token"


class Platform:
    """The state behind every API."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.metadata: list[dict[str, str]] = []
        self.services: dict[str, services_pb2.Service] = {}
        self.path: dict[str, list[str]] = {}
        """Statuses that a service goes through, one with each look at it."""
        self.replicas: list[replicas_pb2.Replica] = []
        self.revisions: list[services_pb2.Revision] = []
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

    def service(self, name: str, context: grpc.ServicerContext) -> services_pb2.Service:
        """The service, or NOT_FOUND."""
        if name not in self.services:
            abort(context, errors.NotFound("SERVICE_NOT_FOUND", f"there is no service {name}", "`easel ls` lists them"))
        return self.services[name]


def abort(context: grpc.ServicerContext, error: EaselError) -> None:
    """Ends a call as Easel's processes do."""
    status = to_status(error)
    code = next(c for c in grpc.StatusCode if c.value[0] == status.code)
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(code, status.message)


class Services(services_pb2_grpc.ServicesServicer):
    """control's API."""

    def __init__(self, platform: Platform) -> None:
        self._p = platform

    def GetInfo(self, request: Any, context: Any) -> Any:
        self._p.enter("Services.GetInfo", request, context)
        url = f"http://127.0.0.1:{self._p.data_port}"
        return services_pb2.Info(version="9.9", workspace="default", data_url=url, host_id=self._p.host_id)

    def Create(self, request: Any, context: Any) -> Any:
        self._p.enter("Services.Create", request, context)
        config = json.loads(request.config)
        wrong = [
            FieldError(path=key, code="UNKNOWN_KEY", message="is no key", hint="did you mean cpu?", line=3, column=7)
            for key in config
            if key not in ("name", "metadata", "storage")
        ]
        if wrong:
            abort(context, InvalidInput("the service.json has errors", tuple(wrong)))
        name = config.get("name") or config["metadata"]["name"]
        service = services_pb2.Service(
            service_name=name, status="Creating", generation=1, observed_generation=1, current_version=1,
            latest_version=1, total_instance=1, token=TOKEN, access_token=TOKEN, service_config=request.config,
            endpoint=f"http://127.0.0.1:{self._p.data_port}/api/predict/{name}",
        )  # fmt: skip
        if not request.dry_run:
            self._p.services[name] = service
        return service

    def Get(self, request: Any, context: Any) -> Any:
        self._p.enter("Services.Get", request, context)
        service = self._p.service(request.name, context)
        path = self._p.path.get(request.name)
        if path:
            service.status = path.pop(0)
            if service.status == "Running":
                service.running_instance = 1
                service.phase_s.update({"fetch": 0.5, "schedule": 0.1})
            if service.status == "Failed":
                service.reason, service.message = "CrashLoop", "the program ended with exit code 1, 3 times"
            if service.status == "TooLarge":
                service.status, service.reason = "Waiting", "TooLarge"
                service.message = "Total 1, Pending 1, Running 0; replica a: no node could take it even when empty"
        return service

    def List(self, request: Any, context: Any) -> Any:
        self._p.enter("Services.List", request, context)
        names = sorted(self._p.services)
        start = int(request.page_token or 0)
        token = str(start + 2) if start + 2 < len(names) else ""
        return services_pb2.ListServicesResponse(
            services=[self._p.services[n] for n in names[start : start + 2]], next_page_token=token
        )

    def Update(self, request: Any, context: Any) -> Any:
        self._p.enter("Services.Update", request, context)
        return self._moved(request, context, "Updating")

    def Delete(self, request: Any, context: Any) -> Any:
        self._p.enter("Services.Delete", request, context)
        service = self._moved(request, context, "Deleting")
        del self._p.services[request.name]
        return service

    def Start(self, request: Any, context: Any) -> Any:
        self._p.enter("Services.Start", request, context)
        return self._moved(request, context, "Starting")

    def Stop(self, request: Any, context: Any) -> Any:
        self._p.enter("Services.Stop", request, context)
        return self._moved(request, context, "Stopping")

    def Restart(self, request: Any, context: Any) -> Any:
        self._p.enter("Services.Restart", request, context)
        return self._moved(request, context, "Updating")

    def Scale(self, request: Any, context: Any) -> Any:
        self._p.enter("Services.Scale", request, context)
        service = self._moved(request, context, "Scaling")
        service.total_instance = request.instance
        return service

    def ListRevisions(self, request: Any, context: Any) -> Any:
        self._p.enter("Services.ListRevisions", request, context)
        return services_pb2.ListRevisionsResponse(revisions=self._p.revisions)

    def GetSchema(self, request: Any, context: Any) -> Any:
        self._p.enter("Services.GetSchema", request, context)
        return services_pb2.GetSchemaResponse(json_schema='{"type": "object"}')

    def UploadCode(self, requests: Any, context: Any) -> Any:
        self._p.enter("Services.UploadCode", None, context)
        content = b"".join(request.chunk for request in requests)
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        self._p.uploaded[digest] = content
        return services_pb2.UploadCodeResponse(digest=digest, size_bytes=len(content))

    def Explain(self, request: Any, context: Any) -> Any:
        self._p.enter("Services.Explain", request, context)
        self._p.service(request.name, context)
        return explanation("control")

    def _moved(self, request: Any, context: Any, status: str) -> services_pb2.Service:
        service = self._p.service(request.name, context)
        service.generation += 1
        service.observed_generation = service.generation
        service.status = status
        return service


class Replicas(replicas_pb2_grpc.ReplicasServicer):
    """The scheduler's API for replicas."""

    def __init__(self, platform: Platform) -> None:
        self._p = platform

    def List(self, request: Any, context: Any) -> Any:
        self._p.enter("Replicas.List", request, context)
        return replicas_pb2.ListReplicasResponse(replicas=self._p.replicas)

    def Logs(self, request: Any, context: Any) -> Iterator[Any]:
        self._p.enter("Replicas.Logs", request, context)
        for replica, data in (("ocr-1-aaaaa", b"one\ntw"), ("ocr-1-bbbbb", b"other\n"), ("ocr-1-aaaaa", b"o\nlast")):
            yield replicas_pb2.LogChunk(replica=replica, stream="stdout", data=data)

    def Explain(self, request: Any, context: Any) -> Any:
        self._p.enter("Replicas.Explain", request, context)
        return explanation("scheduler")


class Nodes(nodes_pb2_grpc.NodesServicer):
    """The scheduler's API for nodes."""

    def __init__(self, platform: Platform) -> None:
        self._p = platform

    def List(self, request: Any, context: Any) -> Any:
        self._p.enter("Nodes.List", request, context)
        return nodes_pb2.ListNodesResponse(nodes=[nodes_pb2.Node(node="local", state="ready", cpu=2, memory_mib=4096)])

    def Get(self, request: Any, context: Any) -> Any:
        self._p.enter("Nodes.Get", request, context)
        return nodes_pb2.Node(node=request.node, state="ready")

    def Explain(self, request: Any, context: Any) -> Any:
        self._p.enter("Nodes.Explain", request, context)
        return explanation("scheduler")


class Scaling(scaling_pb2_grpc.ScalingServicer):
    """The autoscaler's API."""

    def __init__(self, platform: Platform) -> None:
        self._p = platform

    def Get(self, request: Any, context: Any) -> Any:
        self._p.enter("Scaling.Get", request, context)
        return scaling_pb2.ScalingStatus(name=request.name, wanted=2)

    def History(self, request: Any, context: Any) -> Any:
        self._p.enter("Scaling.History", request, context)
        return scaling_pb2.ScalingHistoryResponse(decisions=[scaling_pb2.Decision(number=1, wanted=2)])

    def Explain(self, request: Any, context: Any) -> Any:
        self._p.enter("Scaling.Explain", request, context)
        return explanation("autoscaler")


class Routes(routes_pb2_grpc.RoutesServicer):
    """The router's API."""

    def __init__(self, platform: Platform) -> None:
        self._p = platform

    def Get(self, request: Any, context: Any) -> Any:
        self._p.enter("Routes.Get", request, context)
        return routes_pb2.Route(name=request.name, state="probed", envoys=1)

    def Explain(self, request: Any, context: Any) -> Any:
        self._p.enter("Routes.Explain", request, context)
        return explanation("router")


class Metrics(metrics_pb2_grpc.MetricsServicer):
    """The monitor's API for metrics."""

    def __init__(self, platform: Platform) -> None:
        self._p = platform

    def Get(self, request: Any, context: Any) -> Any:
        self._p.enter("Metrics.Get", request, context)
        point = metrics_pb2.MetricsPoint(qps=12.5, qps_by_code={"2xx": 12.0, "5xx": 0.5}, latency_p99_ms=float("nan"),
                                         latency_p50_ms=4.2, memory_mib=128)  # fmt: skip
        return metrics_pb2.MetricsWindow(name=request.name, window_s=request.window_s, summary=point, points=[point])

    def Watch(self, request: Any, context: Any) -> Iterator[Any]:
        self._p.enter("Metrics.Watch", request, context)
        yield metrics_pb2.MetricsPoint(qps=1)
        context.abort(grpc.StatusCode.UNAVAILABLE, "restarting")

    def Explain(self, request: Any, context: Any) -> Any:
        self._p.enter("Metrics.Explain", request, context)
        return explanation("monitor")


class Audit(audit_pb2_grpc.AuditServicer):
    """control's API for the audit."""

    def __init__(self, platform: Platform) -> None:
        self._p = platform

    def List(self, request: Any, context: Any) -> Any:
        self._p.enter("Audit.List", request, context)
        record = audit_pb2.AuditRecord(id=7, actor="owner", action="Services.Create", target="service/ocr")
        return audit_pb2.ListAuditResponse(records=[record], incomplete="the monitor does not answer")

    def Explain(self, request: Any, context: Any) -> Any:
        self._p.enter("Audit.Explain", request, context)
        return explanation("control")


class Events(events_pb2_grpc.EventsServicer):
    """The monitor's API for events."""

    def __init__(self, platform: Platform) -> None:
        self._p = platform

    def Watch(self, request: Any, context: Any) -> Iterator[Any]:
        self._p.enter("Events.Watch", request, context)
        found = self._p.events[-request.tail :] if request.tail else []
        if request.from_sequence:
            found = [event for event in self._p.events if event.sequence >= request.from_sequence]
        for sent, event in enumerate(found):
            if sent == self._p.cut_after:
                context.abort(grpc.StatusCode.UNAVAILABLE, "restarting")
            yield event
        if request.follow:
            closed = threading.Event()
            context.add_callback(closed.set)
            closed.wait(20)

    def CreateToken(self, request: Any, context: Any) -> Any:
        self._p.enter("Events.CreateToken", request, context)
        return events_pb2.EventsToken(nats_url="nats://127.0.0.1:4222", nkey_seed="SU", subject="easel.fact.>")

    def CreateWebhook(self, request: Any, context: Any) -> Any:
        self._p.enter("Events.CreateWebhook", request, context)
        return events_pb2.Webhook(id="w1", url=request.url, secret="shh")

    def ListWebhooks(self, request: Any, context: Any) -> Any:
        self._p.enter("Events.ListWebhooks", request, context)
        return events_pb2.ListWebhooksResponse(webhooks=[events_pb2.Webhook(id="w1", url="http://x")])

    def DeleteWebhook(self, request: Any, context: Any) -> Any:
        self._p.enter("Events.DeleteWebhook", request, context)
        return events_pb2.DeleteWebhookResponse()

    def Explain(self, request: Any, context: Any) -> Any:
        self._p.enter("Events.Explain", request, context)
        return explanation("monitor")


def explanation(part: str) -> common_pb2.Explanation:
    """What a part says of itself."""
    return common_pb2.Explanation(
        part=part, lines=[common_pb2.Why(code="Fine", message=f"{part} is content", hint=f"ask {part}")]
    )


def _event(number: int) -> events_pb2.Event:
    return events_pb2.Event(sequence=number, type="replica.ready", key="ocr", reason="ReplicaReady",
                            message=f"event {number}", data_json='{"state": "ready"}')  # fmt: skip


class Data(BaseHTTPRequestHandler):
    """The data listener: /api/predict/<name>/<what>."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Says nothing."""

    def do_GET(self) -> None:
        self.do_POST()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        what = self.path.rsplit("/", 1)[-1]
        if self.headers.get("Authorization") not in (TOKEN, f"Bearer {TOKEN}"):
            self._answer(401, {"code": "Unauthorized", "message": "Invalid token"})
        elif what == "slow":
            self._answer(408, {"code": "Timeout", "message": "no first byte within metadata.rpc.keepalive = 5000 ms"})
        elif what == "none":
            self._answer(503, {"code": "NoReplica", "message": "no replica is ready", "hint": "`easel explain ocr`"})
        elif what == "broken":
            self._answer(500, {"detail": "the model raised"})
        elif what == "drip":
            self._drip()
        else:
            echo = {"path": self.path, "method": self.command, "body": body.decode(errors="replace"),
                    "type": self.headers.get("Content-Type"), "extra": self.headers.get("X-Extra")}  # fmt: skip
            self._answer(200, echo)

    def _answer(self, status: int, document: Any) -> None:
        content = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _drip(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for piece in (b"one ", b"two ", b"three"):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n\r\n")


@contextmanager
def running() -> Iterator[Platform]:
    """A platform on free ports of this machine."""
    platform = Platform()
    server = grpc.server(futures.ThreadPoolExecutor(16))
    services_pb2_grpc.add_ServicesServicer_to_server(Services(platform), server)
    replicas_pb2_grpc.add_ReplicasServicer_to_server(Replicas(platform), server)
    nodes_pb2_grpc.add_NodesServicer_to_server(Nodes(platform), server)
    scaling_pb2_grpc.add_ScalingServicer_to_server(Scaling(platform), server)
    routes_pb2_grpc.add_RoutesServicer_to_server(Routes(platform), server)
    metrics_pb2_grpc.add_MetricsServicer_to_server(Metrics(platform), server)
    audit_pb2_grpc.add_AuditServicer_to_server(Audit(platform), server)
    events_pb2_grpc.add_EventsServicer_to_server(Events(platform), server)
    platform.control_port = server.add_insecure_port("127.0.0.1:0")
    data = ThreadingHTTPServer(("127.0.0.1", 0), Data)
    data.daemon_threads = True
    platform.data_port = data.server_port
    threading.Thread(target=data.serve_forever, args=(0.02,), daemon=True).start()
    server.start()
    try:
        yield platform
    finally:
        server.stop(0.2).wait()
        data.shutdown()
        data.server_close()
