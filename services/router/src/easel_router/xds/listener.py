"""The data listener: what happens to a request before and after its route, and how refusals look.

Pure: an Envoy's node metadata in, serialised Listeners out. The same for every service; what differs is in `render`.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from google.protobuf.wrappers_pb2 import BoolValue, UInt32Value, UInt64Value

from easel_router.xds import envoy_pb2 as pb
from easel_router.xds.counting import counts
from easel_router.xds.limiting import (
    GROUP_LIMITS_FILTER,
    LIMITS_FILTER,
    QUEUE_FULL,
    TOKEN_RATE,
    TOO_MANY_AT_ONCE,
    limits_filter,
)
from easel_router.xds.messages import (
    AUTH_FILTER,
    HOLD_FILTER,
    PICK_FILTER,
    ads,
    any_of,
    check_service,
    seconds,
)

COUNTS = "counts"
"""Key in a node's metadata: its bootstrap has the way to the monitor."""
DATA = "data"
PROBE = "probe"

NO_MEMBER = 530
"""What pick.lua answers where it has nobody to choose; callers get 503."""

_PREFIX = "type.googleapis.com/envoy."
_ROUTER = _PREFIX + "extensions.filters.http.router.v3.Router"
_MIB = 1 << 20

TIMEOUT_HEADER = "easel-timeout-seconds"
"""How long a caller is willing to wait while its request is held; the service's own limit stands above it."""
TOLD_HEADERS = ("x-request-id", "grpc-timeout", TIMEOUT_HEADER, "x-envoy-attempt-count")
"""What the router is told of a request that is held; nothing else of it leaves Envoy."""


def listeners(metadata: dict[str, object]) -> dict[str, bytes]:
    """The data listener at the node's `data_address` and its twin for the router's probes at `probe_address`.

    Both share one route table, so a probe sees what a request would.
    """
    tls = metadata.get("tls_cert"), metadata.get("tls_key")
    counted = bool(metadata.get(COUNTS))
    made = {DATA: listener(DATA, str(metadata["data_address"]), tls if all(tls) else None, counted=counted)}
    if probe := metadata.get("probe_address"):
        made[PROBE] = listener(PROBE, str(probe), None)
    return {name: one.SerializeToString(deterministic=True) for name, one in made.items()}


def listener(name: str, address: str, tls: tuple[object, object] | None, *, counted: bool = False) -> pb.Listener:
    """One listener at `unix:/path` or `host:port`."""
    chain = pb.FilterChain(
        filters=[
            pb.Filter(
                name="http",
                typed_config=any_of(
                    _PREFIX + "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                    _http(name, counted=counted),
                ),
            )
        ]
    )
    if tls:
        chain.transport_socket.CopyFrom(_tls(str(tls[0]), str(tls[1])))
    return pb.Listener(
        name=name,
        stat_prefix=name,
        address=parse_address(address),
        filter_chains=[chain],
        per_connection_buffer_limit_bytes=UInt32Value(value=_MIB),
        enable_reuse_port=BoolValue(value=not address.startswith("unix:")),
    )


def parse_address(address: str) -> pb.Address:
    """`unix:/path` (0600) or `host:port`."""
    if address.startswith("unix:"):
        return pb.Address(pipe=pb.Pipe(path=address.removeprefix("unix:"), mode=0o600))
    host, _, port = address.rpartition(":")
    return pb.Address(socket_address=pb.SocketAddress(address=host.strip("[]"), port_value=int(port)))


def _http(name: str, *, counted: bool) -> pb.HttpConnectionManager:
    extractor = pb.ScopedRoutes.ScopeKeyBuilder.FragmentBuilder.HeaderValueExtractor(
        name=":path", element_separator="/", index=3
    )  # "" / api / predict / <service>: straight from the path, a derived header would cost more than the look-up
    builder = pb.ScopedRoutes.ScopeKeyBuilder(
        fragments=[pb.ScopedRoutes.ScopeKeyBuilder.FragmentBuilder(header_value_extractor=extractor)]
    )
    upgrade = pb.HttpConnectionManager.UpgradeConfig(upgrade_type="websocket")
    return pb.HttpConnectionManager(
        stat_prefix=name,
        scoped_routes=pb.ScopedRoutes(
            name="services",
            scope_key_builder=builder,
            rds_config_source=ads(),
            scoped_rds=pb.ScopedRds(scoped_rds_config_source=ads()),
        ),
        http_filters=[
            _script(AUTH_FILTER, "auth.lua"),
            limits_filter(GROUP_LIMITS_FILTER),
            _script(PICK_FILTER, "pick.lua"),
            limits_filter(LIMITS_FILTER),
            _hold_filter(),
            pb.HttpFilter(
                name="envoy.filters.http.router",
                typed_config=any_of(_ROUTER, pb.Router(suppress_envoy_headers=True)),
            ),
        ],
        access_log=[_turned_away(), *([counts()] if counted else [])],
        upgrade_configs=[upgrade],
        http2_protocol_options=pb.Http2ProtocolOptions(
            max_concurrent_streams=UInt32Value(value=1000),
            initial_stream_window_size=UInt32Value(value=_MIB),
            initial_connection_window_size=UInt32Value(value=4 * _MIB),
        ),
        use_remote_address=BoolValue(value=True),
        server_name="easel",
        always_set_request_id_in_response=True,
        server_header_transformation=pb.HttpConnectionManager.APPEND_IF_ABSENT,
        stream_idle_timeout=seconds(300),
        request_headers_timeout=seconds(10),
        common_http_protocol_options=pb.HttpProtocolOptions(idle_timeout=seconds(3600)),
        local_reply_config=_replies(),
    )


LONGEST_HOLD_S = 86_400.0
"""The longest keepalive that a service may have; each route has its own."""


def _hold_filter() -> pb.HttpFilter:
    """Asks the router whether a request may go on, and waits for the answer; a route without replicas switches it on.

    Other routes leave it out of the chain. Where no route is found it stays in: the Lua filter may then choose one, and
    a filter that was left out could not hold. No body is read meanwhile. 504 is what an answer that never comes is
    called, to be told from the router's own.
    """
    authz = pb.ExtAuthz(
        grpc_service=check_service(LONGEST_HOLD_S),
        transport_api_version=pb.V3,
        status_on_error=pb.HttpStatus(code=pb.GatewayTimeout),
        allowed_headers=pb.ListStringMatcher(patterns=[pb.StringMatcher(exact=name) for name in TOLD_HEADERS]),
    )
    return pb.HttpFilter(
        name=HOLD_FILTER,
        typed_config=any_of(_PREFIX + "extensions.filters.http.ext_authz.v3.ExtAuthz", authz),
    )


def _turned_away() -> pb.AccessLog:
    """Counts answers from 400 on by service, code and cause: Envoy charges no cluster for what it answers itself. Code
    0 is a caller who left before anything was answered (499)."""
    tags = {"service": "%ROUTE_NAME%", "code": "%RESPONSE_CODE%", "via": "%RESPONSE_CODE_DETAILS%"}
    stat = pb.StatsLog.Stat(
        name="local_reply", tags=[pb.StatsLog.Tag(name=name, value_format=value) for name, value in tags.items()]
    )
    counter = pb.StatsLog.Counter(stat=stat, value_fixed=UInt64Value(value=1))
    log = pb.StatsLog(counters=[counter], stats_scope=pb.Scope(prefix="easel"))
    left = _both(_flags("DC", "DR"), _status(0))
    return pb.AccessLog(
        name="easel.turned_away",
        filter=_either(_at_least(400), left),
        typed_config=any_of(_PREFIX + "extensions.access_loggers.stats.v3.Config", log),
    )


def _script(name: str, file: str) -> pb.HttpFilter:
    """A Lua filter. Its script says itself when the route is to be chosen again."""
    source = files("easel_router.xds").joinpath(file).read_text()
    lua = pb.Lua(default_source_code=pb.DataSource(inline_string=source), clear_route_cache=BoolValue(value=False))
    return pb.HttpFilter(name=name, typed_config=any_of(_PREFIX + "extensions.filters.http.lua.v3.Lua", lua))


def _tls(cert: str, key: str) -> pb.TransportSocket:
    certificate = pb.TlsCertificate(
        certificate_chain=pb.DataSource(filename=cert), private_key=pb.DataSource(filename=key)
    )
    context = pb.DownstreamTlsContext(
        common_tls_context=pb.CommonTlsContext(tls_certificates=[certificate], alpn_protocols=["h2", "http/1.1"])
    )
    return pb.TransportSocket(
        name="envoy.transport_sockets.tls",
        typed_config=any_of(_PREFIX + "extensions.transport_sockets.tls.v3.DownstreamTlsContext", context),
    )


# --- bodies of what Envoy answers itself

_LIMIT = (
    "no answer began within %METADATA(VIRTUAL_HOST:easel:limit_s)% s, the service's limit (metadata.rpc.keepalive)",
    "raise metadata.rpc.keepalive (milliseconds), or make the model answer sooner",
)
_RATE = (
    "the rate limit is reached: %METADATA(VIRTUAL_HOST:easel:rate)%",
    "send less often, or raise networking.gateway_policy.rate_limit.limit or metadata.rpc.rate_limit",
)
_TOKEN_RATE = (
    "the rate limit of this token (%DYNAMIC_METADATA(easel:token)%) is reached",
    "send less often with it, or have its limit raised",
)
_CONCURRENCY = (
    "the limit of requests in flight is reached: %METADATA(VIRTUAL_HOST:easel:concurrency)%",
    "wait for answers before sending more, or raise networking.gateway_policy.concurrency_limit.limit",
)
_QUEUE = (
    "the replicas' queue is full: %METADATA(VIRTUAL_HOST:easel:queue)%",
    "send again later, add replicas, or raise metadata.rpc.max_queue_size or metadata.rpc.worker_threads",
)
_CUT = "the replica's connection broke in mid-request ({}), and this request may not be repeated safely"
_CUT_HINT = "send it again; with an Idempotency-Key header, or retry: safe, Easel does that itself"


@cache
def _replies() -> pb.LocalReplyConfig:
    """First match wins."""
    return pb.LocalReplyConfig(
        mappers=[
            _mapper(_both(_flags("UAEX"), _status(504)), "RequestTimeout", *_LIMIT, status=408),
            _as_it_is(_flags("UAEX")),
            _mapper(_flags("UT"), "RequestTimeout", *_LIMIT, status=408),
            _mapper(_flags("SI"), "RequestTimeout", *_LIMIT, status=408),
            _mapper(
                _flags("UH", "NC"),
                "NoReadyReplica",
                "%METADATA(VIRTUAL_HOST:easel:without_replica)%",
                "`easel explain %METADATA(VIRTUAL_HOST:easel:service)%` says why; send it again when one is ready",
            ),
            _mapper(_status(QUEUE_FULL), "QueueFull", *_QUEUE, status=450),
            _mapper(_either(_flags("UO"), _status(TOO_MANY_AT_ONCE)), "TooManyRequests", *_CONCURRENCY, status=429),
            _mapper(_status(TOKEN_RATE), "TooManyRequests", *_TOKEN_RATE, status=429),
            _mapper(_status(429), "TooManyRequests", *_RATE),
            _mapper(
                _flags("UF"),
                "ReplicaUnreachable",
                "no replica accepted the connection (%RESPONSE_CODE_DETAILS%)",
                "`easel w %METADATA(VIRTUAL_HOST:easel:service)%` shows the replicas, `easel logs` what they say",
            ),
            _mapper(_flags("UC", "UR", "LR"), "ReplicaGone", _CUT.format("%RESPONSE_CODE_DETAILS%"), _CUT_HINT),
            _mapper(
                _flags("UPE"),
                "BadAnswer",
                "the replica's answer is not HTTP/1.1",
                "does it speak HTTP at this port? gRPC calls need metadata.enable_grpc: true",
            ),
            _mapper(
                _status(401),
                "Unauthorized",
                "%LOCAL_REPLY_BODY%",
                "`easel desc NAME` shows the token; a service's token opens no other service",
            ),
            _mapper(
                _status(404),
                "NotFound",
                "no such service: %REQ(:PATH)%",
                "calls go to /api/predict/NAME[/rest]; `easel ls` lists the services",
            ),
            _mapper(_status(413), "PayloadTooLarge", "the request's body is too large", "send less at once"),
            _mapper(_status(408), "RequestTimeout", "the request did not arrive in time", "send it again"),
            _mapper(
                _status(NO_MEMBER),
                "NoMember",
                "%LOCAL_REPLY_BODY%",
                "`easel release SERVICE` has a member take part",
                status=503,
            ),
            _mapper(_status(503), "Unavailable", "%LOCAL_REPLY_BODY%", "try again"),
            _mapper(_at_least(400), "Refused", "%LOCAL_REPLY_BODY% (%RESPONSE_CODE_DETAILS%)", ""),
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


def _as_it_is(filter_: pb.AccessLogFilter) -> pb.ResponseMapper:
    """The router's own words about a request it held are JSON already."""
    text = pb.DataSource(inline_string="%LOCAL_REPLY_BODY%")
    body = pb.SubstitutionFormatString(text_format_source=text, content_type="application/json")
    return pb.ResponseMapper(filter=filter_, body_format_override=body)


def _both(one: pb.AccessLogFilter, other: pb.AccessLogFilter) -> pb.AccessLogFilter:
    return pb.AccessLogFilter(and_filter=pb.AndFilter(filters=[one, other]))


def _either(one: pb.AccessLogFilter, other: pb.AccessLogFilter) -> pb.AccessLogFilter:
    return pb.AccessLogFilter(or_filter=pb.OrFilter(filters=[one, other]))


def _flags(*flags: str) -> pb.AccessLogFilter:
    return pb.AccessLogFilter(response_flag_filter=pb.ResponseFlagFilter(flags=flags))


def _status(code: int) -> pb.AccessLogFilter:
    return _compare(pb.ComparisonFilter.EQ, code)


def _at_least(code: int) -> pb.AccessLogFilter:
    return _compare(pb.ComparisonFilter.GE, code)


def _compare(op: pb.ComparisonFilter.Op.ValueType, code: int) -> pb.AccessLogFilter:
    value = pb.RuntimeUInt32(default_value=code, runtime_key=f"easel.reply.{code}")
    return pb.AccessLogFilter(
        status_code_filter=pb.StatusCodeFilter(comparison=pb.ComparisonFilter(op=op, value=value))
    )
