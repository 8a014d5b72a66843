"""Envoy's bootstrap: what an Envoy knows before, and without, the router. Pure: values in, one dict out (JSON).

The control listener is here, so that the API lives while the router is away; the data listener comes by discovery.
The result holds a process token: whoever writes it to a file makes that file 0600.
"""

from __future__ import annotations

from msgspec import Struct

from easel_router.control_listener import OWNERS, TYPE, Json, control_listener
from easel_router.decide.discovery import ADVERTISED
from easel_router.holding_listeners import SINK, XDS, internal_clusters, internal_listeners
from easel_router.statistics import sink, stats
from easel_router.xds.listener import COUNTS
from easel_router.xds.messages import SHADOW_CLUSTER
from easel_router.xds.mirroring import BUFFER, LONGEST_S, MAX_CONNECTIONS, MAX_PENDING, MAX_REQUESTS

OLDER = "older"
"""Key in a node's metadata."""


class BootstrapConfig(Struct, frozen=True, kw_only=True):
    """Everything an Envoy's bootstrap depends on. Addresses are `unix:/path` or `host:port`."""

    node_id: str
    """Unique among the Envoys of one router. `envoy-0.7` is the 7th process of the gateway `envoy-0`: once it lives,
    those with a smaller number only finish what they have."""
    process_token: str
    """Envoy's own, sent to router and monitor."""
    xds_addr: str
    sink_addr: str
    """Where the monitor takes metrics; empty: nowhere."""
    process_addrs: dict[str, str]
    """control, scheduler, autoscaler, router, monitor → their gRPC address."""
    data_addr: str
    control_addr: str
    web_addr: str = ""
    """Where web applications are reached by their host names; empty: nowhere."""
    admin_socket: str
    """Path of the admin interface's socket (0600)."""
    probe_addr: str
    """Where the router asks this very Envoy what it serves; a unix socket, or an address only the router reaches."""
    descriptors: bytes
    """The public APIs' descriptor set (proto/easel_proto/v1/descriptors.binpb)."""
    shadow_addr: str = ""
    """Where the router takes copies of requests whose answers are compared (HTTP/1.1); empty: nowhere."""
    tls_cert: str = ""
    tls_key: str = ""
    """Paths; both listeners speak TLS when they are set."""
    control_tls_cert: str = ""
    control_tls_key: str = ""
    """For the control listener alone; empty: as the data listener."""
    advertised_addr: str = ""
    """`host:port` at which others reach the data listener (direct mode); empty: as `data_addr` says, where that is an
    address of one host."""
    older: tuple[str, ...] = ()
    """Node ids of the gateway's earlier processes that still finish requests when this one begins."""
    max_connections: int = 20_000
    metrics_interval_s: float = 1.0


def bootstrap(config: BootstrapConfig) -> Json:
    """The configuration of one Envoy, to be written as JSON."""
    return {
        "node": {"id": config.node_id, "cluster": "easel", "metadata": _metadata(config)},
        "admin": {"address": {"pipe": {"path": config.admin_socket, "mode": 0o600}}},
        "dynamic_resources": {
            "ads_config": _ads(config),
            "cds_config": _from_ads(),
            "lds_config": _from_ads(),
        },
        "cluster_manager": {"load_stats_config": _grpc_source(config) | {"api_type": "GRPC"}},
        "static_resources": {
            "clusters": [
                *(_grpc_cluster(name, addr) for name, addr in _clusters(config).items()),
                *internal_clusters(counted=bool(config.sink_addr)),
                *([_shadow_cluster(config.shadow_addr)] if config.shadow_addr else []),
            ],
            "listeners": [
                _control(config),
                *internal_listeners(config.process_token, counted=bool(config.sink_addr)),
            ],
        },
        "bootstrap_extensions": [
            {
                "name": "envoy.bootstrap.internal_listener",
                "typed_config": {"@type": TYPE + "extensions.bootstrap.internal_listener.v3.InternalListener"},
            }
        ],
        "stats_sinks": [sink(SINK, config.process_token)] if config.sink_addr else [],
        "stats_flush_interval": f"{config.metrics_interval_s}s",
        "stats_config": stats(),
        "deferred_stat_options": {"enable_deferred_creation_stats": True},
        "layered_runtime": {"layers": [{"name": "static", "static_layer": {"re2.max_program_size.error_level": 1000}}]},
        "overload_manager": _overload(config.max_connections),
    }


def _metadata(config: BootstrapConfig) -> Json:
    """What the router needs to make this Envoy's data listener."""
    made: Json = {"data_address": config.data_addr, "probe_address": config.probe_addr, OLDER: list(config.older)}
    made[COUNTS] = bool(config.sink_addr)
    if config.web_addr:
        made["web_address"] = config.web_addr
    if config.advertised_addr:
        made[ADVERTISED] = config.advertised_addr
    if config.tls_cert and config.tls_key:
        made |= {"tls_cert": config.tls_cert, "tls_key": config.tls_key}
    return made


# --- the router


def _from_ads() -> Json:
    return {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"}


def _ads(config: BootstrapConfig) -> Json:
    return _grpc_source(config) | {"api_type": "DELTA_GRPC"}


def _grpc_source(config: BootstrapConfig) -> Json:
    """Quick to come back: Envoy's own back-off grows to seconds."""
    retry = {"retry_back_off": {"base_interval": "0.1s", "max_interval": "1s"}}
    return {
        "transport_api_version": "V3",
        "grpc_services": [
            {
                "envoy_grpc": {"cluster_name": XDS, "retry_policy": retry},
                "initial_metadata": [{"key": "easel-process-token", "value": config.process_token}],
            }
        ],
    }


# --- clusters. A dash keeps their names apart from those of services, which have none.


def _clusters(config: BootstrapConfig) -> dict[str, str]:
    made = {XDS: config.xds_addr} | {f"easel-{name}": addr for name, addr in sorted(config.process_addrs.items())}
    return made | ({SINK: config.sink_addr} if config.sink_addr else {})


def _shadow_cluster(address: str) -> Json:
    """Limits as small as those of any target of copies: a router that is away or slow costs dropped copies."""
    limits = {"max_connections": MAX_CONNECTIONS, "max_pending_requests": MAX_PENDING, "max_requests": MAX_REQUESTS}
    options: Json = {"http_protocol_options": {}}
    made = _cluster(SHADOW_CLUSTER, address, limits, options, {"max_stream_duration": f"{LONGEST_S:g}s"})
    return made | {"per_connection_buffer_limit_bytes": BUFFER}


def _grpc_cluster(name: str, address: str) -> Json:
    plenty = {
        "max_connections": 10_000,
        "max_pending_requests": 10_000,
        "max_requests": 100_000,
        "max_retries": 100_000,
    }
    options = {"http2_protocol_options": {"connection_keepalive": {"interval": "5s", "timeout": "3s"}}}
    return _cluster(name, address, plenty, options, {})


def _cluster(name: str, address: str, limits: Json, protocol: Json, common: Json) -> Json:
    return {
        "name": name,
        "type": "STATIC" if address.startswith("unix:") or _is_ip(address) else "STRICT_DNS",
        "connect_timeout": "1s",
        "circuit_breakers": {"thresholds": [limits]},
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": TYPE + "extensions.upstreams.http.v3.HttpProtocolOptions",
                "common_http_protocol_options": common,
                "explicit_http_config": protocol,
            }
        },
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(address)}}]}],
        },
    }


def _address(address: str) -> Json:
    if address.startswith("unix:"):
        return {"pipe": {"path": address.removeprefix("unix:")}}
    host, _, port = address.rpartition(":")
    return {"socket_address": {"address": host.strip("[]"), "port_value": int(port)}}


def _is_ip(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    return ":" in host or host.replace(".", "").isdigit()


# --- listeners


def _control(config: BootstrapConfig) -> Json:
    cert, key = config.control_tls_cert or config.tls_cert, config.control_tls_key or config.tls_key
    apis = {owner: OWNERS[owner] for owner in OWNERS if owner in config.process_addrs}
    return control_listener(
        _address(config.control_addr), apis, config.descriptors, tls=(cert, key) if cert and key else None
    )


# --- limits


def _overload(max_connections: int) -> Json:
    monitor = {
        "@type": TYPE + "extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
        "max_active_downstream_connections": max_connections,
    }
    return {
        "resource_monitors": [
            {"name": "envoy.resource_monitors.global_downstream_max_connections", "typed_config": monitor}
        ]
    }
