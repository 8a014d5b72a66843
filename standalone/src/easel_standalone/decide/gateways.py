"""Which process of a gateway follows which, and when one that was replaced may end. Pure.

A gateway is an Envoy as clients know it; all gateways of a platform listen at the same ports. Each of its processes has
a number of its own, also after `down` and `up`, so that the router can tell them apart (`envoy.7`).

A successor takes the listening sockets over from its predecessor (Envoy's hot restart: same base id, next epoch), so no
connection is lost, not even one that waits to be accepted. A process without a living predecessor begins with epoch 0.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection

from msgspec import Struct
from msgspec.structs import replace

DRAIN_S = 5
"""Over so long a time a replaced process closes its connections, each after an answer."""
QUIET_CHECKS = 2
"""Looks in a row that find no connection, after which a replaced process has nothing left."""
BASE_IDS = 3
"""Per gateway: two processes may hand over while a third begins beside them."""
_LATER_S = 60
"""So long after the supervisor should have ended a predecessor its successor does it."""
_EPOCHS = 3
"""Of how many epochs Envoy tells the sockets apart."""
_BASE_ID_BITS = 27
"""Envoy multiplies by ten, in a signed number of 32 bits."""


class Process(Struct, frozen=True, kw_only=True):
    """One process of a gateway."""

    gateway: str
    number: int
    base_id: int
    """Names what a predecessor and its successor share (memory, sockets); unique on the machine."""
    epoch: int = 0
    older: tuple[str, ...] = ()
    """Node ids of those that still finish requests when this one begins."""

    @property
    def node_id(self) -> str:
        """How the router knows it."""
        return f"{self.gateway}.{self.number}"

    @property
    def shared_memory(self) -> str:
        """Name of the memory that predecessor and successor share; Envoy leaves it behind."""
        return f"envoy_shared_memory_{self.base_id * 10}"

    @property
    def parents_socket(self) -> str:
        """Suffix of the socket at which this process speaks to its predecessor."""
        return f"_parent_{self.base_id * 10 + (self.epoch - 1) % _EPOCHS}"


def base_ids(home: str, gateway: str) -> tuple[int, ...]:
    """A gateway's base ids. `home`: what no other platform on the machine has, nor one in another container."""
    return tuple(
        int.from_bytes(hashlib.sha256(f"{home}\0{gateway}\0{n}".encode()).digest()[:4]) >> (32 - _BASE_ID_BITS)
        for n in range(BASE_IDS)
    )


def successor(of: Process, number: int) -> Process:
    """The process that takes over from a living one."""
    return replace(of, number=number, epoch=of.epoch + 1, older=(of.node_id,))


def anew(process: Process, ids: Collection[int], living: Collection[Process]) -> Process:
    """The same process once more, after its end; `living`: the gateway's other processes, whose memory is theirs."""
    taken = {other.base_id for other in living}
    free = next(base_id for base_id in ids if base_id not in taken)
    return replace(process, base_id=free, epoch=0, older=tuple(other.node_id for other in living))


def hot_restart(process: Process, sockets: str, grace_s: float, drain_s: int = DRAIN_S) -> list[str]:
    """Envoy's arguments: who takes over from whom. `sockets`: path prefix, in a directory that is the user's alone.

    What a predecessor counts while it finishes is not asked for: Envoy 1.40 stops for ever where it asks one that has
    ended.
    """
    return [
        "--base-id", str(process.base_id), "--restart-epoch", str(process.epoch),
        "--socket-path", sockets, "--socket-mode", "600",
        "--drain-time-s", str(drain_s), "--parent-shutdown-time-s", str(int(grace_s) + _LATER_S),
        "--skip-hot-restart-parent-stats", "--skip-hot-restart-on-no-parent",
    ]  # fmt: skip


def may_end(waited_s: float, quiet_checks: int, grace_s: float) -> bool:
    """Whether a replaced process is done: nobody is connected, or its time is over."""
    return waited_s >= grace_s or quiet_checks >= QUIET_CHECKS
