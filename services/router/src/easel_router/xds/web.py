"""A web application by its host name: pure, plan in, scope out.

The listener `web` finds the scope by the first label of the host, and this one opens the service to browsers; what
pick.lua then makes of the request leads to the service's own scope, as from a group. So limits, holding, canary and all
else are the same, and count together, whichever way a request came.
"""

from __future__ import annotations

from easel_router.decide.groups import WHOLE
from easel_router.decide.snapshot import ServicePlan
from easel_router.xds import envoy_pb2 as pb
from easel_router.xds.auth import keys
from easel_router.xds.groups import front
from easel_router.xds.messages import any_of

HOST_HEADER = "x-easel-host"
"""Only inside Envoy: `/` and the request's host, and after pick.lua the service's name. By it the scope is chosen; the
slash keeps hosts apart from names of services."""


def web_scope(service: str) -> str:
    """Name of the scope of a service's host."""
    return f"web/{service}"


def label(service: str) -> str:
    """The first label of the host: a name in the domain name system has no underscore."""
    return service.replace("_", "-")


def render_web(plan: ServicePlan) -> pb.ScopedRouteConfiguration:
    """The scope of a web application's host."""
    opened_by = keys(plan.tokens, web=plan.service, home="/")
    choice = f"name {plan.service}\nmember {WHOLE} {plan.service}\nweb /"
    everything = (pb.RouteMatch(prefix="/"),)
    return front(web_scope(plan.service), f"/{label(plan.service)}", everything, opened_by, choice)


def by_host() -> pb.ScopedRoutes.ScopeKeyBuilder:
    """The key: up to the first dot."""
    fragment = pb.ScopedRoutes.ScopeKeyBuilder.FragmentBuilder
    extractor = fragment.HeaderValueExtractor(name=HOST_HEADER, element_separator=".", index=0)
    return pb.ScopedRoutes.ScopeKeyBuilder(fragments=[fragment(header_value_extractor=extractor)])


def host_header() -> pb.TypedExtensionConfig:
    """Sets the header before the route is chosen."""
    told = pb.HeaderValueOption(
        header=pb.HeaderValue(key=HOST_HEADER, value="/%REQ(:AUTHORITY)%"),
        append_action=pb.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD,
    )
    made = pb.EarlyHeaderMutation(mutations=[pb.EarlyHeaderMutation.Mutation(append=told)])
    return pb.TypedExtensionConfig(name="easel.host", typed_config=any_of(_EARLY, made))


_EARLY = "type.googleapis.com/envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation"
