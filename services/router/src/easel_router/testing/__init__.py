"""A real Envoy beside an xDS server in this process, for tests and benchmarks. No product code imports this."""

from __future__ import annotations

from easel_router.testing.envoy import Envoy, free_port, two_free_ports, until
from easel_router.testing.plans import a_group, a_plan
from easel_router.testing.rig import PROBE_SECRET, PROCESS_TOKEN, Rig, public_descriptors, rig

__all__ = [
    "PROBE_SECRET",
    "PROCESS_TOKEN",
    "Envoy",
    "Rig",
    "a_group",
    "a_plan",
    "free_port",
    "public_descriptors",
    "rig",
    "two_free_ports",
    "until",
]
