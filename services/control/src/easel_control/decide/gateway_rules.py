"""Groups and limits in a service.json: their rules, and the policy that a sound configuration asks for."""

from __future__ import annotations

from typing import Any

from easel_contracts.ids import RESERVED_NAMES
from easel_contracts.spec import GatewayPolicy
from easel_control.decide.check import Checker

LIMITS = ("rate_limit", "concurrency_limit")
POLICY = "networking.gateway_policy"


def check_gateway(to: Checker, config: dict[str, Any], wrong: frozenset[str]) -> None:
    """Errors go to `to`; keys in `wrong` are not complained about again."""
    metadata = config.get("metadata", {})
    for key in ("name", "group"):
        if metadata.get(key) in RESERVED_NAMES:
            to.add(f"metadata.{key}", "RESERVED", f"{metadata[key]} is a path of the gateway's own",
                   "give it another name")  # fmt: skip
    if "group" in metadata and metadata["group"] == metadata.get("name"):
        to.add("metadata.group", "CONFLICT", "a group cannot have the name of a service: both are reached by it",
               "give the group another name")  # fmt: skip
    rpc = metadata.get("rpc", {})
    if "max_queue_size" in rpc and "worker_threads" not in rpc and "metadata.rpc.worker_threads" not in wrong:
        to.add("metadata.rpc.max_queue_size", "CONFLICT",
               "requests wait in a replica's queue only while its worker_threads are busy, and these are not given",
               "give metadata.rpc.worker_threads too (5 is EAS's default), or leave max_queue_size out")  # fmt: skip
    policy = config.get("networking", {}).get("gateway_policy", {})
    for name in LIMITS:
        limit = policy.get(name, {})
        if limit.get("enable") is True and "limit" not in limit and f"{POLICY}.{name}.limit" not in wrong:
            to.add(f"{POLICY}.{name}.limit", "MISSING", "the limit is enabled, and there is none (0 is none)",
                   f'"{name}": {{"enable": true, "limit": 100}}, or "enable": false')  # fmt: skip


def policy_of(config: dict[str, Any]) -> GatewayPolicy:
    """What a sound configuration asks of the gateway."""
    metadata = config["metadata"]
    rpc = metadata.get("rpc", {})
    rate, concurrency = (_limit(config.get("networking", {}).get("gateway_policy", {}).get(name)) for name in LIMITS)
    return GatewayPolicy(
        rate_limit_qps=rate,
        concurrency_limit=concurrency,
        replica_rate_limit_qps=rpc.get("rate_limit", 0),
        worker_threads=rpc.get("worker_threads", 0),
        max_queue_size=rpc.get("max_queue_size", GatewayPolicy().max_queue_size),
        web=metadata.get("enable_webservice", False),
    )


def _limit(section: dict[str, Any] | None) -> int:
    """0: no limit."""
    if section is None or section.get("enable") is False:
        return 0
    limit: int = section.get("limit", 0)
    return limit
