"""On what Easel runs. Decides before anything is written whether this machine can."""

from __future__ import annotations

import platform
import sys

from easel_contracts.errors import Refused

GLIBC = (2, 31)
"""Oldest that Envoy's wheel runs on (manylinux_2_31)."""
SUPPORTED = "Linux on x86-64 with glibc 2.31 or newer (Debian 11, Ubuntu 20.04, RHEL 9 and later)"


def require_supported(system: str = sys.platform, machine: str = "", libc: tuple[str, str] | None = None) -> None:
    """Raises Refused on a machine that is not supported."""
    machine = machine or platform.machine()
    name, version = libc if libc is not None else platform.libc_ver()
    if system != "linux" or machine not in ("x86_64", "AMD64"):
        raise Refused(
            "PLATFORM_NOT_SUPPORTED", f"`easel up` does not run on {system} {machine}",
            f"it runs on {SUPPORTED}; elsewhere use deploy/compose, or a platform on another machine with --server",
        )  # fmt: skip
    if name != "glibc" or tuple(int(part) for part in version.split(".")[:2]) < GLIBC:
        found = f"{name} {version}".strip() or "another C library (musl?)"
        raise Refused("PLATFORM_NOT_SUPPORTED", f"`easel up` does not run with {found}", f"it runs on {SUPPORTED}")
