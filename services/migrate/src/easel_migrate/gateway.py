"""The file that an Envoy is started with: the router's pure function, fed with a platform's addresses.

Decides which processes have a public API; what the listeners do is the router's matter.
"""

from __future__ import annotations

from importlib.resources import files
from urllib.parse import urlsplit

import msgspec

from easel_migrate.keys import Keys
from easel_router.bootstrap import BootstrapConfig, bootstrap
from easel_router.control_listener import OWNERS


def advertised(data_url: str) -> str:
    """`host:port` of the URL by which callers know a platform: what its Envoys tell those who come in direct mode."""
    url = urlsplit(data_url)
    if not url.hostname:
        return ""
    host = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
    return f"{host}:{url.port or (443 if url.scheme == 'https' else 80)}"


def bootstrap_file(keys: Keys, *, process_addrs: dict[str, str], xds_addr: str, sink_addr: str, shadow_addr: str,
                   data_addr: str, control_addr: str, admin_socket: str, probe_addr: str, tls_cert: str = "",
                   tls_key: str = "", advertised_addr: str = "", web_addr: str = "", node_id: str = "envoy-0",
                   older: tuple[str, ...] = ()) -> bytes:  # fmt: skip
    """Envoy's bootstrap as JSON. It holds a process token: the file must be readable by Envoy only."""
    config = BootstrapConfig(
        node_id=node_id,
        older=older,
        process_token=keys.process_token("envoy"),
        xds_addr=xds_addr,
        sink_addr=sink_addr,
        shadow_addr=shadow_addr,
        process_addrs={process: process_addrs[process] for process in OWNERS},
        data_addr=data_addr,
        advertised_addr=advertised_addr,
        web_addr=web_addr,
        control_addr=control_addr,
        admin_socket=admin_socket,
        probe_addr=probe_addr,
        descriptors=files("easel_proto").joinpath("v1/descriptors.binpb").read_bytes(),
        tls_cert=tls_cert,
        tls_key=tls_key,
    )
    return msgspec.json.encode(bootstrap(config))
