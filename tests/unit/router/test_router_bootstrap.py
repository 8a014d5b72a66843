"""Envoy's bootstrap as a value: pure, secret only where it belongs, and nothing public without its owner."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest

from easel_contracts.ids import SERVICE_NAME
from easel_router.bootstrap import BootstrapConfig, bootstrap
from easel_router.control_listener import OWNERS
from easel_router.statistics import METRICS
from easel_router.testing import public_descriptors


def config(**change: Any) -> BootstrapConfig:
    made = BootstrapConfig(
        node_id="envoy-0",
        process_token="the-token",
        xds_addr="unix:/run/xds.sock",
        sink_addr="monitor:9000",
        process_addrs={name: f"{name}:7000" for name in OWNERS},
        data_addr="127.0.0.1:8080",
        control_addr="127.0.0.1:8081",
        admin_socket="/run/admin.sock",
        probe_addr="unix:/run/probe.sock",
        descriptors=public_descriptors(),
    )
    return msgspec.structs.replace(made, **change)


def test_same_config_same_bootstrap() -> None:
    """A pure function, and JSON."""
    assert msgspec.json.encode(bootstrap(config())) == msgspec.json.encode(bootstrap(config()))


def test_every_public_api_has_its_owner() -> None:
    """Each service of the public descriptors is routed on the control listener."""
    from google.protobuf.descriptor_pb2 import FileDescriptorSet

    files = FileDescriptorSet.FromString(public_descriptors()).file
    public = {f"{f.package}.{s.name}" for f in files if f.package == "easel.v1" for s in f.service}

    assert public == {api for apis in OWNERS.values() for api in apis}


def test_names_are_resolved_and_sockets_are_not() -> None:
    """DNS for host names (compose), plain addresses otherwise."""
    clusters = {c["name"]: c["type"] for c in bootstrap(config())["static_resources"]["clusters"]}

    assert clusters["easel-xds"] == "STATIC"
    assert clusters["easel-control"] == "STRICT_DNS"


def test_the_token_goes_to_the_router_and_the_monitor_only() -> None:
    """Discovery, load reports, questions about held requests; metrics, requests under analysis."""
    assert msgspec.json.encode(bootstrap(config())).count(b"the-token") == 5
    without = bootstrap(config(sink_addr=""))
    assert msgspec.json.encode(without).count(b"the-token") == 3
    assert without["node"]["metadata"]["counts"] is False


def test_no_service_can_have_the_name_of_a_cluster_of_ours() -> None:
    """A service called `sink` or `xds` must not be taken for a part of Easel."""
    for cluster in bootstrap(config())["static_resources"]["clusters"]:
        assert not SERVICE_NAME.match(cluster["name"])


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("cluster.ocr.upstream_rq_time", True),
        ("cluster.ocr.upstream_rq_2xx", True),
        ("cluster.ocr.upstream_cx_total", False),
        ("cluster.ocr.upstream_rq_200", False),
    ],
)
def test_metrics_are_filtered(name: str, kept: bool) -> None:
    """Only what is read; each statistic costs memory per service."""
    assert bool(re.match(METRICS, name)) is kept
