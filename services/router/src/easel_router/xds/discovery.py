"""The two scopes by which callers in direct mode find the Envoys: EAS's Python client asks one, Go's the other.

Pure. They have no token of their own, and name no service: an Envoy that comes or goes changes these two alone.
"""

from __future__ import annotations

from importlib.resources import files

from google.protobuf.wrappers_pb2 import BoolValue

from easel_router.xds import envoy_pb2 as pb
from easel_router.xds.messages import AUTH_FILTER, HOLD_FILTER, PICK_FILTER, serialised
from easel_router.xds.scopes import left_out, script

PREFIXES = {
    "servicediscovery": "/api/v1/servicediscovery/upstreams/",
    "eas.alibaba-inc.k8s.io": "/exported/apis/eas.alibaba-inc.k8s.io/v1/upstreams/",
}
"""Scope, which is the path's third segment → what the path begins with. No service has such a name, nor a group
(easel_contracts.ids), nor a group's member."""


def render_discovery(answer: str) -> dict[str, bytes]:
    """Scope → what it is, with this answer."""
    return {name: serialised(_scope(name, prefix, answer)) for name, prefix in PREFIXES.items()}


def _scope(name: str, prefix: str, answer: str) -> pb.ScopedRouteConfiguration:
    source = files("easel_router.xds").joinpath("discovery.lua").read_text()
    asked = pb.HeaderMatcher(name=":method", string_match=pb.StringMatcher(exact="GET"))
    host = pb.VirtualHost(
        name=name,
        domains=["*"],
        routes=[
            pb.Route(
                name=name,
                match=pb.RouteMatch(prefix=prefix, headers=[asked]),
                direct_response=pb.DirectResponseAction(status=404),
            )
        ],
        typed_per_filter_config={
            AUTH_FILTER: script(source, {"answer": answer}),
            PICK_FILTER: left_out(),
            HOLD_FILTER: left_out(),
        },
    )
    return pb.ScopedRouteConfiguration(
        name=name,
        key=pb.ScopedRouteConfiguration.Key(fragments=[pb.ScopedRouteConfiguration.Key.Fragment(string_key=name)]),
        route_configuration=pb.RouteConfiguration(
            name=name, virtual_hosts=[host], validate_clusters=BoolValue(value=False)
        ),
    )
