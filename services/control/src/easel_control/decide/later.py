"""Keys that EAS documents and Easel does not carry out yet: path → the feature. Each is refused by that name.

Values listed as `neutral` ask for nothing and pass, so that an exported service.json with its defaults written out
is not refused for them.
"""

from __future__ import annotations

from typing import Any

from easel_control.decide.key import Key


def _later(path: str, feature: str, *neutral: Any) -> Key:
    return Key(path=path, kind="map", later=feature, neutral=neutral)


PROCESSOR = "deployment by processor"
GPU = "shares of a GPU"
POOLS = "resource groups and pools"
SPOT = "preemptible machines"
GATEWAY = "dedicated gateways"
NETWORKS = "cloud networks and load balancers"
ASYNC = "asynchronous services and the queue"

TOP = (
    _later("cloud", "cloud resources and networks", {}),
    _later("networking.gateway", GATEWAY, "", "default"),
    *(_later(f"networking.{name}", NETWORKS, *neutral) for name, neutral in (
        ("vpc_id", ("",)), ("vswitch_id", ("",)), ("security_group_id", ("",)), ("destination_cidrs", ("",)),
        ("default_route", ("",)), ("nlb", ([],)), ("nacos", ([],)), ("path", ("",)),
        ("disable_internet_endpoint", (False,)))),
    *(_later(name, PROCESSOR, "") for name in (
        "model_path", "oss_endpoint", "model_entry", "model_config", "processor", "processor_path", "processor_entry",
        "processor_mainclass", "processor_type", "data_image", "processor_image")),
    _later("warm_up_data_path", "warm-up of models", ""),
    _later("runtime.enable_crash_block", "keeping a crashed replica for inspection", False),
    _later("unit.size", "services of several machines per replica", 1),
    _later("aimaster", "services of several machines per replica", {}),
    _later("sinker", "recording of requests and answers", {}),
    _later("confidential", "encrypted mounts", {}),
    _later("features", "EAS feature switches", {}),
    _later("options", "EAS options", {}),
    _later("queue", ASYNC, {}),
    _later("metrics", "metrics a service reports itself", {}, []),
)  # fmt: skip

METADATA = (
    _later("metadata.gpu_memory", GPU, 0),
    _later("metadata.gpu_core_percentage", GPU, 0),
    _later("metadata.cuda", "CUDA mounted from the machine (use an image that has it)", ""),
    _later("metadata.qos", "shared CPU (BestEffort)", ""),
    _later("metadata.resource", POOLS, ""),
    _later("metadata.resource_burstable", POOLS, False),
    _later("metadata.resource_rebalancing", POOLS, False),
    _later("metadata.quota_id", POOLS, ""),
    _later("metadata.quota_type", POOLS, ""),
    _later("metadata.rdma", "RDMA networks", 0),
    _later("metadata.type", ASYNC, "", "Standard"),
    _later("metadata.workload_type", "elastic jobs", ""),
    _later("metadata.disk", "limits of the system disk", ""),
    _later("metadata.region", "regions", ""),
    _later("metadata.gateway", GATEWAY, "", "default"),
    _later("metadata.rpc.batching", "batching in the server", False),
    _later("metadata.rpc.io_threads", "processor threads"),
    _later("metadata.rpc.max_batch_size", "batching in the server"),
    _later("metadata.rpc.max_batch_timeout", "batching in the server"),
    _later("metadata.rpc.decompressor", "decompression of bodies", ""),
    _later("metadata.rpc.proxy_path", ASYNC, ""),
    _later("metadata.rpc.enable_jemalloc", "preloading of jemalloc", 0),
    _later("metadata.scheduling.spread.policy", "spreading over hosts and zones", "default"),
)  # fmt: skip

CONTAINERS = tuple(
    _later(f"containers[].resources.{of}.{name}", feature)
    for of in ("limits", "requests")
    for name, feature in (
        ("gpu", "GPUs per container (use `metadata.gpu`)"),
        ("nvidia.com/gpu", "GPUs per container (use `metadata.gpu`)"),
        ("ephemeral-storage", "limits of the system disk"),
    )
)

STORAGE = (
    _later("storage[].dataset", "PAI datasets"),
    _later("storage[].nfs.resourceGroup", POOLS, ""),
)

SCALING = (
    *(_later(f"autoscaler.strategies.{name}", f"scaling on {name}") for name in (
        "qps1k", "cpu", "gpu", "gpu[util]", "memory", "queue[backlog]", "queue[avgbacklog]")),
    _later("autoscaler.scaleStrategies[].service", "scaling on another service's metric", ""),
    _later("cronscaler", "timetables", {}),
)  # fmt: skip

LATER = (*TOP, *METADATA, *CONTAINERS, *STORAGE, *SCALING)
"""Every documented key that is not built yet."""

LATER_METRICS = ("qps1k", "cpu", "gpu", "gpu[util]", "memory", "queue[backlog]", "queue[avgbacklog]")
"""Autoscaler metrics EAS documents; `custom[...]` too, by its prefix."""

LATER_PREFIXES = {"autoscaler.strategies.custom[": "scaling on a metric the service reports itself"}
"""Beginnings of paths → the feature, where names are open."""
