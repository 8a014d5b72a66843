"""What the scopes of services and of groups have in common: probe, hash, filters switched on or off. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache

from google.protobuf.any_pb2 import Any
from msgspec import Struct

from easel_router.xds import envoy_pb2 as pb
from easel_router.xds.messages import (
    AUTH_FILTER,
    EXTENSIONS,
    HASH_HEADER,
    OWN_ROUTE,
    PROBE_HEADER,
    PROBE_PATH,
    any_of,
)

_LUA_PER_ROUTE = EXTENSIONS + "filters.http.lua.v3.LuaPerRoute"
_FILTER_CONFIG = "type.googleapis.com/envoy.config.route.v3.FilterConfig"
_EXT_AUTHZ_PER_ROUTE = EXTENSIONS + "filters.http.ext_authz.v3.ExtAuthzPerRoute"


class Resources(Struct, frozen=True, kw_only=True):
    """The resources of one service or group by type URL and name: serialised Any bodies, ready to send."""

    by_type: dict[str, dict[str, bytes]]
    hash: str
    """Of all of them."""
    route_hash: str
    """Of the scopes alone; the probe answers it. Replicas that come and go leave a service's scope, and so whatever
    Envoy counts in it, as it is."""


def digest(parts: list[bytes]) -> str:
    """The hash of serialised resources."""
    made = hashlib.blake2b(digest_size=12)
    for part in parts:
        made.update(len(part).to_bytes(8, "big") + part)
    return made.hexdigest()


def probe(name: str, secret: str) -> pb.Route:
    """Answers which snapshot is live here, to the router alone: others get the same 404 as for any unknown path."""
    return pb.Route(
        name=OWN_ROUTE + "probe",
        match=pb.RouteMatch(
            path=PROBE_PATH + name,
            headers=[pb.HeaderMatcher(name=PROBE_HEADER, string_match=pb.StringMatcher(exact=secret))],
        ),
        direct_response=pb.DirectResponseAction(status=204),
        response_headers_to_add=[pb.HeaderValueOption(header=pb.HeaderValue(key=HASH_HEADER, value="0" * 24))],
        typed_per_filter_config={AUTH_FILTER: lua_off()},
    )


def stamp(scope: pb.ScopedRouteConfiguration, version: str) -> None:
    """Has the probe, the last of its routes, answer with this hash."""
    (host,) = scope.route_configuration.virtual_hosts
    host.routes[-1].response_headers_to_add[0].header.value = version


def lua(context: Mapping[str, str]) -> Any:
    """A script's context."""
    made = pb.LuaPerRoute()
    made.filter_context.update(context)
    return any_of(_LUA_PER_ROUTE, made)


def script(source: str, context: Mapping[str, str]) -> Any:
    """Another script in the place of the filter's own."""
    made = pb.LuaPerRoute(source_code=pb.DataSource(inline_string=source))
    made.filter_context.update(context)
    return any_of(_LUA_PER_ROUTE, made)


@cache
def lua_off() -> Any:
    """The script does not run."""
    return any_of(_LUA_PER_ROUTE, pb.LuaPerRoute(disabled=True))


@cache
def left_out() -> Any:
    """The filter is not made for such requests: that of holding is a tenth of what Envoy does for one."""
    return any_of(_FILTER_CONFIG, pb.FilterConfig(disabled=True))


@cache
def not_held() -> Any:
    """For requests whose chain has the filter because it was made before their route was found."""
    return any_of(_EXT_AUTHZ_PER_ROUTE, pb.ExtAuthzPerRoute(disabled=True))


def held(settings: pb.CheckSettings) -> Any:
    """Switches the hold filter on."""
    return any_of(_EXT_AUTHZ_PER_ROUTE, pb.ExtAuthzPerRoute(check_settings=settings))
