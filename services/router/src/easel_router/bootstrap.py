"""Envoy's bootstrap: what an Envoy knows before, and without, the router. Pure: values in, one dict out (JSON).

The control listener is here, so that the API lives while the router is away; the data listener comes by discovery.
The result holds a process token: whoever writes it to a file makes that file 0600.
"""

from __future__ import annotations

import base64
from typing import Any

from msgspec import Struct

from easel_router.control_page import PAGE
from easel_router.decide.discovery import ADVERTISED
from easel_router.holding_listeners import SINK, XDS, internal_clusters, internal_listeners
from easel_router.statistics import sink, stats
from easel_router.xds.listener import COUNTS
from easel_router.xds.messages import SHADOW_CLUSTER
from easel_router.xds.mirroring import BUFFER, LONGEST_S, MAX_CONNECTIONS, MAX_PENDING, MAX_REQUESTS

Json = dict[str, Any]

OLDER = "older"
"""Key in a node's metadata."""
TYPE = "type.googleapis.com/envoy."
OWNERS: dict[str, tuple[str, ...]] = {
    "control": (
        "easel.v1.Services",
        "easel.v1.Groups",
        "easel.v1.Canaries",
        "easel.v1.Mirrors",
        "easel.v1.Tokens",
        "easel.v1.Audit",
    ),
    "scheduler": ("easel.v1.Replicas", "easel.v1.Nodes"),
    "autoscaler": ("easel.v1.Scaling",),
    "router": ("easel.v1.Routes", "easel.v1.Comparisons"),
    "monitor": ("easel.v1.Metrics", "easel.v1.Events"),
}
"""Which process answers which API."""


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
                _control_listener(config),
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


# --- the control listener


def _control_listener(config: BootstrapConfig) -> Json:
    cert, key = config.control_tls_cert or config.tls_cert, config.control_tls_key or config.tls_key
    chain: Json = {"filters": [{"name": "http", "typed_config": _control_http(config)}]}
    if cert and key:
        chain["transport_socket"] = _tls(cert, key)
    return {
        "name": "control",
        "address": _address(config.control_addr),
        "enable_reuse_port": not config.control_addr.startswith("unix:"),
        "per_connection_buffer_limit_bytes": 1 << 20,
        "filter_chains": [chain],
    }


def _control_http(config: BootstrapConfig) -> Json:
    return {
        "@type": TYPE + "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "control",
        "server_name": "easel",
        "use_remote_address": True,
        "stream_idle_timeout": "0s",  # logs and events are followed for hours
        "request_headers_timeout": "10s",
        "route_config": {"name": "control", "virtual_hosts": [_control_host(config)]},
        "http_filters": [
            {"name": "transcoder", "typed_config": _transcoder(config)},
            {"name": "router", "typed_config": {"@type": TYPE + "extensions.filters.http.router.v3.Router"}},
        ],
        "local_reply_config": {"mappers": _control_replies()},
    }


def _control_host(config: BootstrapConfig) -> Json:
    routes = [
        _api_route(f"/{api}/", f"easel-{owner}")
        for owner, apis in OWNERS.items()
        if owner in config.process_addrs
        for api in apis
    ]
    routes += [
        _api_route(f"/{name}/", "easel-control")
        for name in (
            "grpc.reflection.v1.ServerReflection",
            "grpc.reflection.v1alpha.ServerReflection",
            "grpc.health.v1.Health",
        )
        if "control" in config.process_addrs
    ]
    page = {"status": 200, "body": {"inline_string": PAGE}}
    html = [{"header": {"key": "content-type", "value": "text/html; charset=utf-8"}}]
    routes.append({"match": {"path": "/"}, "direct_response": page, "response_headers_to_add": html})
    return {"name": "control", "domains": ["*"], "routes": routes}


def _api_route(prefix: str, cluster: str) -> Json:
    retry = {"retry_on": "connect-failure,refused-stream", "num_retries": 3}
    return {
        "match": {"prefix": prefix},
        "route": {"cluster": cluster, "timeout": "0s", "idle_timeout": "0s", "retry_policy": retry},
    }


def _transcoder(config: BootstrapConfig) -> Json:
    """REST/JSON from the `google.api.http` options: snake_case names, streams as lines, errors as google.rpc.Status."""
    return {
        "@type": TYPE + "extensions.filters.http.grpc_json_transcoder.v3.GrpcJsonTranscoder",
        "proto_descriptor_bin": base64.b64encode(config.descriptors).decode(),
        "services": [api for owner, apis in OWNERS.items() if owner in config.process_addrs for api in apis],
        "print_options": {
            "preserve_proto_field_names": True,
            "always_print_primitive_fields": True,
            "stream_newline_delimited": True,
        },
        "convert_grpc_status": True,
        "request_validation_options": {"reject_unknown_method": False, "reject_unknown_query_parameters": True},
        "max_request_body_size": 64 << 20,
        "max_response_body_size": 64 << 20,
    }


def _control_replies() -> list[Json]:
    """Envoy's own answers on the control listener, in the same form as the APIs' errors."""
    unavailable = {"response_flag_filter": {"flags": ["UF", "UH", "UC", "NC"]}}
    return [
        {
            "filter": unavailable,
            "body_format_override": _status_json(14, "the part of Easel that answers this is not running; try again"),
        },
        {
            "filter": {"response_flag_filter": {"flags": ["NR"]}},
            "body_format_override": _status_json(5, "no such path: %REQ(:PATH)%; GET / shows what there is"),
        },
    ]


def _status_json(code: int, message: str) -> Json:
    return {"json_format": {"code": code, "message": message}, "content_type": "application/json"}


def _tls(cert: str, key: str) -> Json:
    certificate = {"certificate_chain": {"filename": cert}, "private_key": {"filename": key}}
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": TYPE + "extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": {"tls_certificates": [certificate], "alpn_protocols": ["h2", "http/1.1"]},
        },
    }


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
