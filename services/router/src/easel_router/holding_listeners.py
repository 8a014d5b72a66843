"""Envoy's own, internal listeners: for requests that have to wait, and as ways to others. Pure: values in, parts of the
bootstrap out.

`hold`: where a request goes that is being retried and finds no living replica (the second priority of every service's
cluster). It asks the router like any held request, and answers "try again" when a replica is there.

`check`: every such question goes through it, because only a route can repeat a question for as long as it takes: a
router that was killed is asked again when it is back, twice a second, and a held request outlives it.

`counts`: what is told of requests under analysis goes through it to the monitor. It adds the process token, which the
data listener must not hold.
"""

from __future__ import annotations

from typing import Any

from easel_router.xds.listener import LONGEST_HOLD_S, TOLD_HEADERS
from easel_router.xds.messages import CHECK_CLUSTER, COUNTS_CLUSTER, GO_HEADER, HOLD_FILTER, HOLD_LISTENER

Json = dict[str, Any]

XDS = "easel-xds"
SINK = "easel-sink"
_CHECK_LISTENER = "check"
_COUNTS_LISTENER = "counts"
_TYPE = "type.googleapis.com/envoy."
_HTTP = _TYPE + "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_PLENTY = 1_000_000


def internal_listeners(process_token: str, *, counted: bool) -> list[Json]:
    """The listeners; the process token goes with every question, and with what is counted."""
    made = [_listener(HOLD_LISTENER, _hold()), _listener(_CHECK_LISTENER, _check(process_token))]
    return [*made, _listener(_COUNTS_LISTENER, _counts(process_token))] if counted else made


def internal_clusters(*, counted: bool) -> list[Json]:
    """The ways to the listeners `check` and `counts`."""
    made = [_way_to(CHECK_CLUSTER, _CHECK_LISTENER)]
    return [*made, _way_to(COUNTS_CLUSTER, _COUNTS_LISTENER)] if counted else made


def _way_to(cluster: str, listener: str) -> Json:
    limits = dict.fromkeys(("max_connections", "max_pending_requests", "max_requests", "max_retries"), _PLENTY)
    address = {"envoy_internal_address": {"server_listener_name": listener}}
    return {
        "name": cluster,
        "type": "STATIC",
        "connect_timeout": "1s",
        "circuit_breakers": {"thresholds": [limits]},
        "typed_extension_protocol_options": {
            _OPTIONS: {
                "@type": _TYPE + "extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
        "load_assignment": {
            "cluster_name": cluster,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    }


def _listener(name: str, http: Json) -> Json:
    config = {"@type": _HTTP, "stat_prefix": name} | http
    return {
        "name": name,
        "internal_listener": {},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": config}]}],
    }


def _hold() -> Json:
    """Waits, then says "try again"; a try is not the client's last word, so no limit is its own here."""
    again = {
        "match": {"prefix": "/"},
        "direct_response": {"status": 425},
        "response_headers_to_add": [{"header": {"key": GO_HEADER, "value": "1"}}],
    }
    asks = {
        "@type": _TYPE + "extensions.filters.http.ext_authz.v3.ExtAuthz",
        "grpc_service": {"envoy_grpc": {"cluster_name": CHECK_CLUSTER}, "timeout": f"{LONGEST_HOLD_S:g}s"},
        "transport_api_version": "V3",
        "allowed_headers": {"patterns": [{"exact": name} for name in TOLD_HEADERS]},
    }
    return {
        "stream_idle_timeout": "0s",
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "route_config": {"name": HOLD_LISTENER, "virtual_hosts": [_host(again)]},
        "http_filters": [{"name": HOLD_FILTER, "typed_config": asks}, _ROUTER],
    }


def _check(process_token: str) -> Json:
    """Envoy's retries, without end; the time limit is that of who asks."""
    retry = {
        "retry_on": "connect-failure,refused-stream,reset,5xx,unavailable,cancelled,internal",
        "num_retries": _PLENTY,
        "retry_back_off": {"base_interval": "0.025s", "max_interval": "0.5s"},
    }
    ask = {
        "match": {"prefix": "/"},
        "route": {"cluster": XDS, "timeout": "0s", "idle_timeout": "0s", "retry_policy": retry},
    }
    return _passes_on(_CHECK_LISTENER, ask, process_token)


def _counts(process_token: str) -> Json:
    """Streams without an end; one that breaks is begun anew by who logs."""
    tell = {"match": {"prefix": "/"}, "route": {"cluster": SINK, "timeout": "0s", "idle_timeout": "0s"}}
    return _passes_on(_COUNTS_LISTENER, tell, process_token)


def _passes_on(name: str, route: Json, process_token: str) -> Json:
    token = {"header": {"key": "easel-process-token", "value": process_token}}
    return {
        "codec_type": "HTTP2",
        "stream_idle_timeout": "0s",
        "http2_protocol_options": {"max_concurrent_streams": 2**31 - 1},
        "route_config": {"name": name, "virtual_hosts": [_host(route | {"request_headers_to_add": [token]})]},
        "http_filters": [_ROUTER],
    }


def _host(route: Json) -> Json:
    return {"name": "all", "domains": ["*"], "routes": [route]}


_ROUTER = {"name": "router", "typed_config": {"@type": _TYPE + "extensions.filters.http.router.v3.Router"}}
