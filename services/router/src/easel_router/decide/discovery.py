"""Where callers in EAS's direct mode send their requests: to the Envoys, since those check who may. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

ADVERTISED = "advertised_address"
"""Key in a node's metadata: its data listener's address as others reach it, where that is not the one it binds."""
_ANY = ("0.0.0.0", "::", "")


def address(metadata: Mapping[str, object]) -> tuple[str, int] | None:
    """An Envoy's host and port for others; None: it has told none that others could use."""
    for key in (ADVERTISED, "data_address"):
        told = str(metadata.get(key, ""))
        host, _, port = told.rpartition(":")
        host = host.strip("[]")
        if not told.startswith("unix:") and host not in _ANY and port.isdecimal():
            return host, int(port)
    return None


def answer(nodes: Iterable[Mapping[str, object]]) -> str:
    """What a caller is told: each address once, all with one weight."""
    found = sorted({where for metadata in nodes if (where := address(metadata)) is not None})
    items = [{"ip": host, "port": port, "weight": 100} for host, port in found]
    return json.dumps({"endpoints": {"items": items}}, separators=(",", ":"))
