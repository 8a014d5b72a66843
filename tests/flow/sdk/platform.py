"""A small platform for tests of clients: the real gRPC APIs over canned state, and a data listener.

It keeps what was asked (`calls`), fails when told to (`fail`), and moves a service on with each look at it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from concurrent import futures
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from typing import Any

import grpc

from easel_proto.v1 import (
    audit_pb2_grpc,
    canaries_pb2_grpc,
    events_pb2_grpc,
    groups_pb2_grpc,
    metrics_pb2_grpc,
    mirrors_pb2_grpc,
    nodes_pb2_grpc,
    replicas_pb2_grpc,
    routes_pb2_grpc,
    scaling_pb2_grpc,
    services_pb2_grpc,
    tokens_pb2_grpc,
)
from tests.flow.sdk.canaries import Canaries
from tests.flow.sdk.comparisons import Comparisons
from tests.flow.sdk.control import Audit, Services
from tests.flow.sdk.fleet import Nodes, Replicas, Routes, Scaling
from tests.flow.sdk.groups import Groups
from tests.flow.sdk.monitor import Events, Metrics
from tests.flow.sdk.state import KEY, TOKEN, Platform
from tests.flow.sdk.tokens_and_mirrors import Mirrors, Tokens

__all__ = ["KEY", "TOKEN", "Platform", "running"]


_HELD = {"Easel-Queue-Position": "3", "Easel-Expected-Wait-Seconds": "1.25"}


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
        elif what == "full":
            self._answer(503, {"code": "HoldQueueFull", "message": "2 of 2 requests wait for a replica of ocr already"},
                         {"Retry-After": "12"})  # fmt: skip
        elif what == "late":
            self._answer(408, {"code": "HoldTimeout", "message": "no replica within metadata.rpc.keepalive = 5000 ms"},
                         _HELD)  # fmt: skip
        elif what == "held":
            self._answer(200, {}, _HELD)
        elif what == "broken":
            self._answer(500, {"detail": "the model raised"})
        elif what == "drip":
            self._drip()
        else:
            echo = {"path": self.path, "method": self.command, "body": body.decode(errors="replace"),
                    "type": self.headers.get("Content-Type"), "extra": self.headers.get("X-Extra")}  # fmt: skip
            self._answer(200, echo)

    def _answer(self, status: int, document: Any, headers: Mapping[str, str] = MappingProxyType({})) -> None:
        content = json.dumps(document).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
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
    groups_pb2_grpc.add_GroupsServicer_to_server(Groups(platform), server)
    replicas_pb2_grpc.add_ReplicasServicer_to_server(Replicas(platform), server)
    nodes_pb2_grpc.add_NodesServicer_to_server(Nodes(platform), server)
    scaling_pb2_grpc.add_ScalingServicer_to_server(Scaling(platform), server)
    routes_pb2_grpc.add_RoutesServicer_to_server(Routes(platform), server)
    metrics_pb2_grpc.add_MetricsServicer_to_server(Metrics(platform), server)
    audit_pb2_grpc.add_AuditServicer_to_server(Audit(platform), server)
    events_pb2_grpc.add_EventsServicer_to_server(Events(platform), server)
    tokens_pb2_grpc.add_TokensServicer_to_server(Tokens(platform), server)
    mirrors_pb2_grpc.add_MirrorsServicer_to_server(Mirrors(platform), server)
    mirrors_pb2_grpc.add_ComparisonsServicer_to_server(Comparisons(platform), server)
    canaries_pb2_grpc.add_CanariesServicer_to_server(Canaries(platform), server)
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
