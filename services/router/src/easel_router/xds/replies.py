"""Bodies of what Envoy answers itself: code, message, hint and request id, the same on every path. Pure."""

from __future__ import annotations

from functools import cache

from easel_router.xds import envoy_pb2 as pb
from easel_router.xds.conditions import at_least, both, either, flags, is_grpc, status
from easel_router.xds.limiting import QUEUE_FULL, TOKEN_RATE, TOO_MANY_AT_ONCE

NO_MEMBER = 530
"""What pick.lua answers where it has nobody to choose; callers get 503."""

_LIMIT = (
    "no answer began within %METADATA(VIRTUAL_HOST:easel:limit_s)% s, the service's limit (metadata.rpc.keepalive)",
    "raise metadata.rpc.keepalive (milliseconds), or make the model answer sooner",
)
_RATE = (
    "the rate limit is reached: %METADATA(VIRTUAL_HOST:easel:rate)%",
    "send less often, or raise networking.gateway_policy.rate_limit.limit or metadata.rpc.rate_limit; of a group:"
    " easel group limit --rate",
)
_TOKEN_RATE = (
    "the rate limit of this token (%DYNAMIC_METADATA(easel:token)%) is reached",
    "send less often with it, or have its limit raised",
)
_CONCURRENCY = (
    "the limit of requests in flight is reached: %METADATA(VIRTUAL_HOST:easel:concurrency)%",
    "wait for answers before sending more, or raise networking.gateway_policy.concurrency_limit.limit; of a group:"
    " easel group limit --concurrency",
)
_QUEUE = (
    "the replicas' queue is full: %METADATA(VIRTUAL_HOST:easel:queue)%",
    "send again later, add replicas, or raise metadata.rpc.max_queue_size or metadata.rpc.worker_threads",
)
_NO_SERVICE = ("no such service: %REQ(:PATH)%", "calls go to /api/predict/NAME[/rest]; `easel ls` lists the services")
_NO_HOST = (
    "no web application has the host name %REQ(:AUTHORITY)%",
    "its first part is the service's name, with - for _; metadata.enable_webservice makes a service a web application",
)
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Not open to you</title>
<meta name="viewport" content="width=device-width"></head>
<body style="font-family: system-ui, sans-serif; max-width: 40em; margin: 4em auto; padding: 0 1em">
<h1>Not open to you</h1>
<p>%LOCAL_REPLY_BODY%</p>
<p><small>401, request %REQ(X-REQUEST-ID)%</small></p>
</body></html>
"""
"""For browsers. The sentence is a script's own: nothing of the request is in it."""
_CUT = "the replica's connection broke in mid-request ({}), and this request may not be repeated safely"
_CUT_HINT = "send it again; with an Idempotency-Key header, or retry: safe, Easel does that itself"


@cache
def replies(*, web: bool) -> pb.LocalReplyConfig:
    """First match wins. `web`: of the listener that tells services by their hosts.

    To a gRPC call 429 is UNAVAILABLE, which a client may repeat; of 450 Envoy would make UNKNOWN."""
    return pb.LocalReplyConfig(
        mappers=[
            _mapper(both(flags("UAEX"), status(504)), "RequestTimeout", *_LIMIT, status=408),
            _as_it_is(flags("UAEX")),
            _mapper(flags("UT"), "RequestTimeout", *_LIMIT, status=408),
            _mapper(flags("SI"), "RequestTimeout", *_LIMIT, status=408),
            _mapper(
                flags("UH", "NC"),
                "NoReadyReplica",
                "%METADATA(VIRTUAL_HOST:easel:without_replica)%",
                "`easel explain %METADATA(VIRTUAL_HOST:easel:service)%` says why; send it again when one is ready",
            ),
            _mapper(both(status(QUEUE_FULL), is_grpc()), "QueueFull", *_QUEUE, status=429),
            _mapper(status(QUEUE_FULL), "QueueFull", *_QUEUE, status=450),
            _mapper(either(flags("UO"), status(TOO_MANY_AT_ONCE)), "TooManyRequests", *_CONCURRENCY, status=429),
            _mapper(status(TOKEN_RATE), "TooManyRequests", *_TOKEN_RATE, status=429),
            _mapper(status(429), "TooManyRequests", *_RATE),
            _mapper(
                flags("UF"),
                "ReplicaUnreachable",
                "no replica accepted the connection (%RESPONSE_CODE_DETAILS%)",
                "`easel w %METADATA(VIRTUAL_HOST:easel:service)%` shows the replicas, `easel logs` what they say",
            ),
            _mapper(flags("UC", "UR", "LR"), "ReplicaGone", _CUT.format("%RESPONSE_CODE_DETAILS%"), _CUT_HINT),
            _mapper(
                flags("UPE"),
                "BadAnswer",
                "the replica's answer is not HTTP/1.1",
                "does it speak HTTP at this port? gRPC calls need metadata.enable_grpc: true",
            ),
            _page(both(status(401), _wants_html())),
            _mapper(
                status(401),
                "Unauthorized",
                "%LOCAL_REPLY_BODY%",
                "`easel desc NAME` shows the token; a service's token opens no other service",
            ),
            _mapper(status(404), "NotFound", *(_NO_HOST if web else _NO_SERVICE)),
            _mapper(status(413), "PayloadTooLarge", "the request's body is too large", "send less at once"),
            _mapper(status(408), "RequestTimeout", "the request did not arrive in time", "send it again"),
            _mapper(
                status(NO_MEMBER),
                "NoMember",
                "%LOCAL_REPLY_BODY%",
                "`easel release SERVICE` has a member take part",
                status=503,
            ),
            _mapper(status(503), "Unavailable", "%LOCAL_REPLY_BODY%", "try again"),
            _mapper(at_least(400), "Refused", "%LOCAL_REPLY_BODY% (%RESPONSE_CODE_DETAILS%)", ""),
        ]
    )


def _mapper(
    filter_: pb.AccessLogFilter, code: str, message: str, hint: str, status: int | None = None
) -> pb.ResponseMapper:
    body = pb.SubstitutionFormatString(content_type="application/json")
    fields = {"code": code, "message": message, "request_id": "%REQ(X-REQUEST-ID)%"}
    body.json_format.update(fields | ({"hint": hint} if hint else {}))
    made = pb.ResponseMapper(filter=filter_, body_format_override=body)
    if status is not None:
        made.status_code.value = status
    return made


def _page(filter_: pb.AccessLogFilter) -> pb.ResponseMapper:
    text = pb.DataSource(inline_string=_PAGE)
    body = pb.SubstitutionFormatString(text_format_source=text, content_type="text/html; charset=utf-8")
    return pb.ResponseMapper(filter=filter_, body_format_override=body)


def _wants_html() -> pb.AccessLogFilter:
    html = pb.HeaderMatcher(name="accept", string_match=pb.StringMatcher(contains="text/html"))
    return pb.AccessLogFilter(header_filter=pb.HeaderFilter(header=html))


def _as_it_is(filter_: pb.AccessLogFilter) -> pb.ResponseMapper:
    """The router's own words about a request it held are JSON already."""
    text = pb.DataSource(inline_string="%LOCAL_REPLY_BODY%")
    body = pb.SubstitutionFormatString(text_format_source=text, content_type="application/json")
    return pb.ResponseMapper(filter=filter_, body_format_override=body)
