"""The control listener: the public APIs by gRPC and as REST/JSON, each passed on to its process. Pure."""

from __future__ import annotations

import base64
from typing import Any

from easel_router.control_page import PAGE

Json = dict[str, Any]
Apis = dict[str, tuple[str, ...]]
"""Process → the APIs that it answers."""

TYPE = "type.googleapis.com/envoy."
OWNERS: Apis = {
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


def control_listener(address: Json, apis: Apis, descriptors: bytes, *, tls: tuple[str, str] | None) -> Json:
    """The listener at an address of Envoy's; `descriptors`: the public APIs' descriptor set, `tls`: paths of
    certificate and key."""
    chain: Json = {"filters": [{"name": "http", "typed_config": _control_http(apis, descriptors)}]}
    if tls is not None:
        chain["transport_socket"] = _tls(*tls)
    return {
        "name": "control",
        "address": address,
        "enable_reuse_port": "pipe" not in address,
        "per_connection_buffer_limit_bytes": 1 << 20,
        "filter_chains": [chain],
    }


def _control_http(apis: Apis, descriptors: bytes) -> Json:
    return {
        "@type": TYPE + "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "control",
        "server_name": "easel",
        "use_remote_address": True,
        "stream_idle_timeout": "0s",  # logs and events are followed for hours
        "request_headers_timeout": "10s",
        "route_config": {"name": "control", "virtual_hosts": [_control_host(apis)]},
        "http_filters": [
            {"name": "transcoder", "typed_config": _transcoder(apis, descriptors)},
            {"name": "router", "typed_config": {"@type": TYPE + "extensions.filters.http.router.v3.Router"}},
        ],
        "local_reply_config": {"mappers": _control_replies()},
    }


def _control_host(apis: Apis) -> Json:
    routes = [_api_route(f"/{api}/", f"easel-{owner}") for owner, names in apis.items() for api in names]
    routes += [
        _api_route(f"/{name}/", "easel-control")
        for name in (
            "grpc.reflection.v1.ServerReflection",
            "grpc.reflection.v1alpha.ServerReflection",
            "grpc.health.v1.Health",
        )
        if "control" in apis
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


def _transcoder(apis: Apis, descriptors: bytes) -> Json:
    """REST/JSON from the `google.api.http` options: snake_case names, streams as lines, errors as google.rpc.Status."""
    return {
        "@type": TYPE + "extensions.filters.http.grpc_json_transcoder.v3.GrpcJsonTranscoder",
        "proto_descriptor_bin": base64.b64encode(descriptors).decode(),
        "services": [api for names in apis.values() for api in names],
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
