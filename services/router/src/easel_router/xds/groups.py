"""A group's plan as Envoy's scopes: pure, same plan, same bytes.

`/api/predict/GROUP` and `/api/predict/GROUP.SERVICE`: who may call, and among whom pick.lua chooses. The path it makes
leads to the member's own scope, where everything else is. The filters behind it are in the chain whatever the group's
scope needs, as Envoy makes the chain before.
"""

from __future__ import annotations

from google.protobuf.any_pb2 import Any
from google.protobuf.wrappers_pb2 import BoolValue

from easel_router.decide.groups import WHOLE, GroupPlan, Member, MemberSplit, endpoint
from easel_router.xds import envoy_pb2 as pb
from easel_router.xds.auth import keys
from easel_router.xds.limiting import GROUP_LIMITS_FILTER, in_group, of_group, words
from easel_router.xds.messages import AUTH_FILTER, HOLD_FILTER, PICK_FILTER, ROUTE, serialised
from easel_router.xds.scopes import Resources, digest, left_out, lua, lua_off, not_held, probe, stamp


def render_group(plan: GroupPlan, probe_secret: str) -> Resources:
    """The scopes of a group and of its members in it. The group's answers the probe for all: they are sent together."""
    scopes = {plan.group: _scope(plan.group, keys(plan.tokens, group=plan.group), _choice(plan))}
    _limit(scopes[plan.group], of_group(plan.limits, plan.group), words(plan.limits))
    for member in plan.members:
        name = endpoint(plan.group, member.service)
        opened_by = keys(plan.tokens, group=plan.group, member=member.tokens)
        scopes[name] = _scope(name, opened_by, _only(plan, member))
        _limit(scopes[name], in_group(plan.limits, plan.group), {})
    probed, asks = scopes[plan.group], probe(plan.group, probe_secret)
    asks.typed_per_filter_config[PICK_FILTER].CopyFrom(lua_off())
    probed.route_configuration.virtual_hosts[0].routes.append(asks)
    made = digest([serialised(scopes[name]) for name in plan.scopes])
    stamp(probed, made)
    by_type = {ROUTE: {name: serialised(scope) for name, scope in scopes.items()}}
    return Resources(by_type=by_type, hash=made, route_hash=made)


def _scope(name: str, opened_by: dict[str, str], choice: str) -> pb.ScopedRouteConfiguration:
    base = f"/api/predict/{name}"
    return front(name, name, (pb.RouteMatch(prefix=base + "/"), pb.RouteMatch(path=base)), opened_by, choice)


def front(
    name: str, key: str, matches: tuple[pb.RouteMatch, ...], opened_by: dict[str, str], choice: str
) -> pb.ScopedRouteConfiguration:
    """A scope in front of services' own ones: who may call, and which service pick.lua then makes the path of.

    The route is only there to be replaced. What a script needs stands twice: its context, and, for requests whose scope
    was found late, the virtual host's metadata (see render.py)."""
    metadata = pb.Metadata()
    metadata.filter_metadata[AUTH_FILTER].update(opened_by)
    metadata.filter_metadata["easel"].update({"service": name})
    replaced = pb.DirectResponseAction(status=503)
    host = pb.VirtualHost(
        name=name,
        domains=["*"],
        routes=[pb.Route(name=name, match=match, direct_response=replaced) for match in matches],
        typed_per_filter_config={
            AUTH_FILTER: lua(opened_by),
            PICK_FILTER: lua({"group": choice}),
            GROUP_LIMITS_FILTER: left_out(),
        },
        metadata=metadata,
    )
    return pb.ScopedRouteConfiguration(
        name=name,
        key=pb.ScopedRouteConfiguration.Key(fragments=[pb.ScopedRouteConfiguration.Key.Fragment(string_key=key)]),
        route_configuration=pb.RouteConfiguration(
            name=name,
            virtual_hosts=[host],
            validate_clusters=BoolValue(value=False),
            typed_per_filter_config={HOLD_FILTER: not_held()},
        ),
    )


def _limit(scope: pb.ScopedRouteConfiguration, filters: dict[str, Any], told: dict[str, str]) -> None:
    (host,) = scope.route_configuration.virtual_hosts
    for name, config in filters.items():
        host.typed_per_filter_config[name].CopyFrom(config)
    host.metadata.filter_metadata["easel"].update(told)


def _choice(plan: GroupPlan) -> str:
    """Lines for pick.lua: a word, and what belongs to it."""
    members = [f"member {share.weight} {share.service}" for share in plan.shares]
    return "\n".join([f"name {plan.group}", *members, *(_split(plan.split) if plan.split else [])])


def _split(split: MemberSplit) -> list[str]:
    made = [f"candidate {split.candidate}", f"permille {split.permille}"]
    if split.match is not None:
        made.append(f"match {split.match.kind} {split.match.name} {split.match.value}")
    if split.sticky is not None:
        made.append(f"sticky {split.sticky.kind} {split.sticky.name}")
    return made + ([f"subject {split.subject}"] if split.subject else [])


def _only(plan: GroupPlan, member: Member) -> str:
    return f"name {plan.group}\nmember {WHOLE} {member.service}"
