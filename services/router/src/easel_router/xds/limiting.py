"""Limits as Envoy's filters: two places in the chain, filled per scope with what that scope needs.

`easel.group_limits` stands before a group's pick of a member, `easel.limits` after it, so that a request to a group
meets both. A place is left out of the chain for scopes that have no limit. Where the chain was made without a scope, it
stays in: the auth filter may then choose one, and its limits are found when the request gets there.

What stands in a place has a bucket and a counter of its own per scope, shared by all of the scope's routes. Envoy makes
them anew with every change of the scope, and only then: see docs/mechanisms/limits.md.
"""

from __future__ import annotations

import math

from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import UInt32Value

from easel_router.decide.limits import Limits, Rate, Room, TokenRate
from easel_router.xds import envoy_pb2 as pb
from easel_router.xds.auth import label
from easel_router.xds.messages import EXTENSIONS, METADATA, any_of, seconds
from easel_router.xds.scopes import left_out

LIMITS_FILTER = "easel.limits"
GROUP_LIMITS_FILTER = "easel.group_limits"

QUEUE_FULL, TOO_MANY_AT_ONCE, TOKEN_RATE = pb.InsufficientStorage, pb.LoopDetected, pb.NotExtended
"""What the filters answer, to be told apart; callers see 450 and 429 (`replies`). Envoy's configuration has no 450."""

_HTTP = EXTENSIONS + "filters.http."
_MATCHING = EXTENSIONS + "common.matching.v3."
_SKIP = EXTENSIONS + "filters.common.matcher.action.v3.SkipFilter"
_NEVER_S = 86_400.0
_ALL = Rate(tokens=1_000_000_000, every_s=1, burst=1_000_000_000, why="")
"""For requests whose token has no limit: Envoy wants some bucket for them."""
TOKEN = "token"
"""Dynamic metadata (`easel`): the name of the token a request came with."""


def limits_filter(name: str) -> pb.HttpFilter:
    """A place in the listener's chain; what a scope says nothing of goes on."""
    composite = any_of(_HTTP + "composite.v3.Composite", pb.Composite())
    place = pb.ExtensionWithMatcher(
        extension_config=pb.TypedExtensionConfig(name="composite", typed_config=composite),
        xds_matcher=_whatever_the_request(Any(type_url=_SKIP)),
    )
    return pb.HttpFilter(name=name, typed_config=any_of(_MATCHING + "ExtensionWithMatcher", place))


def of_service(limits: Limits) -> dict[str, Any]:
    """What a service's virtual host says of the two places."""
    return {LIMITS_FILTER: _filled(limits), GROUP_LIMITS_FILTER: left_out()}


def of_group(limits: Limits, group: str) -> dict[str, Any]:
    """What a group's virtual host says of the first place; the second stays in for the member that is picked."""
    return {GROUP_LIMITS_FILTER: _filled(limits, group)}


def in_group(limits: Limits, group: str) -> dict[str, Any]:
    """The same of a member's own endpoint in the group, where of the group's limits only those of its tokens count."""
    return of_group(Limits(tokens=limits.tokens), group)


def words(limits: Limits) -> dict[str, str]:
    """Metadata of the virtual host (`easel`) for the texts of refusals."""
    kinds = {"rate": limits.rate, "concurrency": limits.concurrency, "queue": limits.queue}
    return {name: kind.why for name, kind in kinds.items() if kind is not None}


def _filled(limits: Limits, group: str = "") -> Any:
    filters = []
    if limits.tokens:
        filters.append(_token_rates(limits.tokens, group))
    if limits.rate is not None:
        filters.append(_rate(limits.rate))
    if limits.concurrency is not None:
        filters.append(_room("concurrency", limits.concurrency, TOO_MANY_AT_ONCE))
    if limits.queue is not None:
        filters.append(_room("queue", limits.queue, QUEUE_FULL))
    if not filters:
        return left_out()
    action = pb.ExecuteFilterAction(filter_chain=pb.HttpFilterChain(typed_config=filters))
    matcher = _whatever_the_request(any_of(_HTTP + "composite.v3.ExecuteFilterAction", action))
    per_route = pb.ExtensionWithMatcherPerRoute(xds_matcher=matcher)
    return any_of(_MATCHING + "ExtensionWithMatcherPerRoute", per_route)


def _whatever_the_request(action: Any) -> pb.Matcher:
    on_no_match = pb.Matcher.OnMatch(action=pb.TypedExtensionConfig(name="always", typed_config=action))
    return pb.Matcher(on_no_match=on_no_match)


def _token_rates(tokens: tuple[TokenRate, ...], group: str) -> pb.TypedExtensionConfig:
    """By the name that the auth filter found; a token without a limit is not counted."""
    known_as = pb.RateLimit.Action.Metadata(
        descriptor_key=TOKEN,
        metadata_key=pb.MetadataKey(key=METADATA, path=[pb.MetadataKey.PathSegment(key=TOKEN)]),
        skip_if_absent=True,
    )
    limit = _rate_limit("token_rate", _ALL)
    limit.status.code = TOKEN_RATE
    wait_s = max(math.ceil(each.rate.every_s / each.rate.tokens) for each in tokens)  # Envoy says it with 429 alone
    limit.response_headers_to_add.add(header=pb.HeaderValue(key="retry-after", value=str(wait_s)))
    limit.rate_limits.append(pb.RateLimit(actions=[pb.RateLimit.Action(metadata=known_as)]))
    for each in tokens:
        entry = pb.RateLimitEntry(key=TOKEN, value=label(each.token, group))
        limit.descriptors.append(pb.LocalRateLimitDescriptor(entries=[entry], token_bucket=_bucket(each.rate)))
    return _filter("token_rate", "local_ratelimit.v3.LocalRateLimit", limit)


def _rate(rate: Rate) -> pb.TypedExtensionConfig:
    return _filter("rate", "local_ratelimit.v3.LocalRateLimit", _rate_limit("rate", rate))


def _rate_limit(name: str, rate: Rate) -> pb.LocalRateLimit:
    always = pb.RuntimeFractionalPercent(default_value=pb.FractionalPercent(numerator=100))
    return pb.LocalRateLimit(
        stat_prefix=name,
        token_bucket=_bucket(rate),
        filter_enabled=always,
        filter_enforced=always,
        rate_limited_as_resource_exhausted=True,
        enable_retry_after_header=True,
    )


def _bucket(rate: Rate) -> pb.TokenBucket:
    """Envoy's bucket fills continuously, so tokens over seconds is exact and even."""
    return pb.TokenBucket(
        max_tokens=rate.burst, tokens_per_fill=UInt32Value(value=rate.tokens), fill_interval=seconds(rate.every_s)
    )


def _room(name: str, room: Room, status: pb.StatusCode.ValueType) -> pb.TypedExtensionConfig:
    """A filter that looks for the best limit itself, with nothing to look for: the least and the most are equal."""
    count = UInt32Value(value=room.requests)
    controller = pb.AdaptiveConcurrency.Controller(
        concurrency_limit_params=pb.AdaptiveConcurrency.Controller.Limit(
            max_concurrency_limit=count, min_concurrency_limit=count, concurrency_update_interval=seconds(_NEVER_S)
        ),
        min_rtt_calc_params=pb.AdaptiveConcurrency.Controller.MinimumRoundTrip(
            fixed_value=seconds(1), min_concurrency=count
        ),
    )
    limit = pb.AdaptiveConcurrency(
        gradient_controller_config=controller, concurrency_limit_exceeded_status=pb.HttpStatus(code=status)
    )
    return _filter(name, "adaptive_concurrency.v3.AdaptiveConcurrency", limit)


def _filter(name: str, type_name: str, config: Message) -> pb.TypedExtensionConfig:
    return pb.TypedExtensionConfig(name=f"easel.{name}", typed_config=any_of(_HTTP + type_name, config))
