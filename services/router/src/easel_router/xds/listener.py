"""The data listener: what happens to a request before and after its route, and how refusals look.

Pure: an Envoy's node metadata in, serialised Listeners out. The same for every service; what differs is in `render`.
"""

from __future__ import annotations

from importlib.resources import files

from google.protobuf.wrappers_pb2 import BoolValue, UInt32Value, UInt64Value

from easel_router.xds import envoy_pb2 as pb
from easel_router.xds.conditions import at_least, both, either, flags, grpc_status, status
from easel_router.xds.counting import counts
from easel_router.xds.limiting import (
    GROUP_LIMITS_FILTER,
    LIMITS_FILTER,
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
from easel_router.xds.replies import replies
from easel_router.xds.web import by_host, host_header

COUNTS = "counts"
"""Key in a node's metadata: its bootstrap has the way to the monitor."""
DATA = "data"
PROBE = "probe"
WEB = "web"

_PREFIX = "type.googleapis.com/envoy."
_ROUTER = _PREFIX + "extensions.filters.http.router.v3.Router"
_MIB = 1 << 20

TIMEOUT_HEADER = "easel-timeout-seconds"
"""How long a caller is willing to wait while its request is held; the service's own limit stands above it."""
TOLD_HEADERS = ("x-request-id", "grpc-timeout", TIMEOUT_HEADER, "x-envoy-attempt-count")
"""What the router is told of a request that is held; nothing else of it leaves Envoy."""


def listeners(metadata: dict[str, object]) -> dict[str, bytes]:
    """The data listener at the node's `data_address`, its twin for the router's probes at `probe_address`, and that of
    web applications at `web_address`, where a node has these.

    They share one route table, so a probe sees what a request would.
    """
    tls = metadata.get("tls_cert"), metadata.get("tls_key")
    counted = bool(metadata.get(COUNTS))
    where = {DATA: metadata["data_address"], WEB: metadata.get("web_address")}
    made = {
        name: listener(name, str(address), tls if all(tls) else None, counted=counted)
        for name, address in where.items()
        if address
    }
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
    by_path = pb.ScopedRoutes.ScopeKeyBuilder.FragmentBuilder.HeaderValueExtractor(
        name=":path", element_separator="/", index=3
    )  # "" / api / predict / <service>: straight from the path, a derived header would cost more than the look-up
    builder = pb.ScopedRoutes.ScopeKeyBuilder(
        fragments=[pb.ScopedRoutes.ScopeKeyBuilder.FragmentBuilder(header_value_extractor=by_path)]
    )
    upgrade = pb.HttpConnectionManager.UpgradeConfig(upgrade_type="websocket")
    return pb.HttpConnectionManager(
        stat_prefix=name,
        scoped_routes=pb.ScopedRoutes(
            name="services",
            scope_key_builder=by_host() if name == WEB else builder,
            rds_config_source=ads(),
            scoped_rds=pb.ScopedRds(scoped_rds_config_source=ads()),
        ),
        http_filters=_filters(limited=name != PROBE),
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
        local_reply_config=replies(web=name == WEB),
        early_header_mutation_extensions=[host_header()] if name == WEB else [],
    )


def _filters(*, limited: bool) -> list[pb.HttpFilter]:
    """Who may call, then how much, then whether there is a replica. What the router asks itself takes nothing from
    callers' limits."""
    return [
        _script(AUTH_FILTER, "hashing.lua", "auth.lua", "browser.lua"),
        *([limits_filter(GROUP_LIMITS_FILTER)] if limited else []),
        _script(PICK_FILTER, "pick.lua"),
        *([limits_filter(LIMITS_FILTER)] if limited else []),
        _hold_filter(),
        pb.HttpFilter(
            name="envoy.filters.http.router", typed_config=any_of(_ROUTER, pb.Router(suppress_envoy_headers=True))
        ),
    ]


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
    0 is a caller who left before anything was answered (499), and a gRPC call is refused with 200."""
    tags = {"service": "%ROUTE_NAME%", "code": "%RESPONSE_CODE%", "via": "%RESPONSE_CODE_DETAILS%"}
    stat = pb.StatsLog.Stat(
        name="local_reply", tags=[pb.StatsLog.Tag(name=name, value_format=value) for name, value in tags.items()]
    )
    counter = pb.StatsLog.Counter(stat=stat, value_fixed=UInt64Value(value=1))
    log = pb.StatsLog(counters=[counter], stats_scope=pb.Scope(prefix="easel"))
    left, refused = both(flags("DC", "DR"), status(0)), pb.GrpcStatusFilter
    return pb.AccessLog(
        name="easel.turned_away",
        filter=either(either(at_least(400), left), grpc_status(refused.RESOURCE_EXHAUSTED, refused.UNAVAILABLE)),
        typed_config=any_of(_PREFIX + "extensions.access_loggers.stats.v3.Config", log),
    )


def _script(name: str, *parts: str) -> pb.HttpFilter:
    """A Lua filter. Its script says itself when the route is to be chosen again."""
    source = "\n".join(files("easel_router.xds").joinpath(part).read_text() for part in parts)
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
