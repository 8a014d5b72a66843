"""Health and reflection at one address, for APIs of several processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from easel_kit.grpc import Server, channel
from easel_kit.introspection import REFLECTION, REFLECTION_ALPHA
from easel_kit.keyring import Keyring
from easel_proto.v1 import audit_pb2_grpc, metrics_pb2_grpc

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


class _Audit(audit_pb2_grpc.AuditServicer):
    List: Any = None
    Explain: Any = None


class _Metrics(metrics_pb2_grpc.MetricsServicer):
    Get: Any = None
    Watch: Any = None
    Explain: Any = None


def serving(address: str, register: Any, servicer: Any, name: str) -> Server:
    server = Server(address, Keyring(None))
    server.add(register, servicer, name)
    return server


async def test_another_process_is_asked_and_a_dead_one_does_not_serve(short_path: Path) -> None:
    """SERVING while it lives, NOT_SERVING once it is gone, SERVING when it is back; watchers are told of each."""
    there, here = f"unix:{short_path}/monitor.sock", f"unix:{short_path}/control.sock"
    control = serving(here, audit_pb2_grpc.add_AuditServicer_to_server, _Audit(), "easel.v1.Audit")
    behind = channel(there)
    control.describe("easel.v1.Metrics", behind)

    def monitor() -> Server:
        return serving(there, metrics_pb2_grpc.add_MetricsServicer_to_server, _Metrics(), "easel.v1.Metrics")

    first = monitor()
    await first.start()
    await control.start()
    async with grpc.aio.insecure_channel(here, options=[("grpc.default_authority", "localhost")]) as outside:
        stub: Any = health_pb2_grpc.HealthStub(outside)

        async def of(name: str) -> int:
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=name))
            return int(answer.status)

        watch = stub.Watch(health_pb2.HealthCheckRequest(service="easel.v1.Metrics"), timeout=20)
        seen = [(await watch.read()).status]
        assert (await of("easel.v1.Audit"), await of("easel.v1.Metrics"), await of("")) == (SERVING,) * 3
        await first.stop(0)
        assert (await of("easel.v1.Audit"), await of("easel.v1.Metrics")) == (SERVING, NOT_SERVING)
        seen.append((await watch.read()).status)
        second = monitor()
        await second.start()
        seen.append((await watch.read()).status)
        assert seen == [SERVING, NOT_SERVING, SERVING]
        watch.cancel()
    await control.stop(0)
    await second.stop(0)
    await behind.close(None)


async def test_both_versions_of_reflection_tell_the_same(short_path: Path) -> None:
    """A client of v1 and one of v1alpha get every described API."""
    here = f"unix:{short_path}/control.sock"
    control = serving(here, audit_pb2_grpc.add_AuditServicer_to_server, _Audit(), "easel.v1.Audit")
    control.describe("easel.v1.Metrics", channel(f"unix:{short_path}/nobody.sock"))
    await control.start()
    listing = reflection_pb2.ServerReflectionRequest(list_services="*")
    file = reflection_pb2.ServerReflectionRequest(file_containing_symbol="easel.v1.Metrics")
    answers = []
    async with grpc.aio.insecure_channel(here, options=[("grpc.default_authority", "localhost")]) as outside:
        for service in (REFLECTION, REFLECTION_ALPHA):
            call: Any = outside.stream_stream(
                f"/{service}/ServerReflectionInfo",
                request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
                response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
            )
            answers.append([answer async for answer in call(iter([listing, file]))])
    await control.stop(0)

    assert answers[0] == answers[1]
    names = {service.name for service in answers[0][0].list_services_response.service}
    assert {"easel.v1.Audit", "easel.v1.Metrics"} <= names
    assert answers[0][1].file_descriptor_response.file_descriptor_proto
