"""Where the platform is and with which key it is called. The one place that knows the files `easel up` writes.

Decides between what was given, the environment and the home directory, in this order. It never talks to the
platform and never writes a file.

Files: `<home>/config.json` ({"control_url", "data_url", "port", "control_port", "ca_file"?}) and
`<home>/keys/access-key`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from easel_contracts.host import host_id
from easel_sdk.errors import CannotReach, NoAccessKey

__all__ = ["DEFAULT_HOME", "Target", "discover", "home_directory", "host_id", "parse_server"]

DEFAULT_HOME = "~/.easel"
DEFAULT_CONTROL_PORT = 8081


@dataclass(frozen=True, kw_only=True)
class Target:
    """A platform that can be called."""

    address: str
    """gRPC target of the control listener: `host:port` or `unix:/path`."""
    tls: bool = False
    access_key: str
    home: Path | None = None
    """The home directory it was found through; None when a server was named."""
    data_url: str = ""
    """Where calls to services go, if known without asking, e.g. `http://127.0.0.1:8080`."""
    ca_file: str | None = None
    """PEM file of the authority that signed the platform's certificate; None: the system's own list."""
    found_by: str = ""
    """How it was found, for messages."""

    @property
    def is_loopback(self) -> bool:
        """Whether it is on this machine; proxies from the environment are then not used."""
        host = self.address.rsplit(":", 1)[0].strip("[]")
        return self.address.startswith("unix:") or host in ("localhost", "::1") or host.startswith("127.")


def home_directory(home: str | os.PathLike[str] | None = None, env: Mapping[str, str] = os.environ) -> Path:
    """`home`, else EASEL_HOME, else ~/.easel; absolute."""
    return Path(home or env.get("EASEL_HOME") or DEFAULT_HOME).expanduser().absolute()


def discover(
    server: str | None = None,
    access_key: str | None = None,
    home: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] = os.environ,
) -> Target:
    """The platform to call.

    An argument wins over the environment (EASEL_SERVER, EASEL_ACCESS_KEY, EASEL_HOME), and a home that was
    named wins over a server from the environment. Raises CannotReach where there is none, NoAccessKey where
    there is no key for it.
    """
    if server is None and home is None:
        server = env.get("EASEL_SERVER") or None
    access_key = access_key or env.get("EASEL_ACCESS_KEY") or None
    directory = home_directory(home, env)
    ca_file = env.get("EASEL_CA_FILE") or None
    if server is not None:
        address, tls = parse_server(server)
        key = access_key or _key_of_home(directory, server)
        return Target(address=address, tls=tls, access_key=key, ca_file=ca_file, found_by=f"server {server}")
    config = _read_config(directory)
    address, tls = parse_server(_control_url(config, directory))
    return Target(
        address=address,
        tls=tls,
        access_key=access_key or _read_key(directory),
        home=directory,
        data_url=str(config.get("data_url", "")),
        ca_file=ca_file or config.get("ca_file") or None,
        found_by=f"home {shown(directory)}",
    )


def parse_server(server: str) -> tuple[str, bool]:
    """(gRPC target, TLS?) of `host`, `host:port`, `http(s)://host[:port]` or `unix:/path`."""
    if server.startswith("unix:"):
        return server, False
    url = urlsplit(server if "://" in server else f"http://{server}")
    try:
        port = url.port
    except ValueError:
        port = -1
    if url.scheme not in ("http", "https") or not url.hostname or port == -1 or url.path not in ("", "/"):
        raise CannotReach(
            "BAD_SERVER",
            f"{server!r} is not an address of a platform",
            "write host:port, http://host:port or https://host:port (the control port, 8081 by default)",
        )
    host = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
    return f"{host}:{port or (443 if url.scheme == 'https' else DEFAULT_CONTROL_PORT)}", url.scheme == "https"


def shown(directory: Path) -> str:
    """A path as a user would write it."""
    home = Path.home()
    return f"~/{directory.relative_to(home)}" if directory.is_relative_to(home) else str(directory)


def up_command(directory: Path) -> str:
    """The command that would start a platform there."""
    default = directory == Path(DEFAULT_HOME).expanduser().absolute()
    return "easel up" if default else f"easel up --home {shown(directory)}"


def _read_config(directory: Path) -> dict[str, str]:
    path = directory / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CannotReach(
            "NO_PLATFORM",
            f"no platform at {shown(directory)}: run `{up_command(directory)}`",
            "or name one: --home DIR (EASEL_HOME), or --server HOST:PORT with --access-key KEY "
            "(EASEL_SERVER, EASEL_ACCESS_KEY)",
        ) from None
    except (OSError, ValueError) as error:
        raise CannotReach(
            "BAD_HOME", f"cannot read {shown(path)}: {error}", f"`{up_command(directory)}` writes it anew"
        ) from error
    if not isinstance(config, dict):
        raise CannotReach("BAD_HOME", f"{shown(path)} is not a JSON object", f"`{up_command(directory)}` writes it")
    return config


def _control_url(config: dict[str, str], directory: Path) -> str:
    url = config.get("control_url")
    if url:
        return str(url)
    if config.get("control_port"):
        return f"127.0.0.1:{config['control_port']}"
    raise CannotReach(
        "BAD_HOME", f"{shown(directory / 'config.json')} names no control_url", f"run `{up_command(directory)}` again"
    )


def _read_key(directory: Path) -> str:
    path = directory / "keys" / "access-key"
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise NoAccessKey(
            "NO_ACCESS_KEY",
            f"cannot read the access key {shown(path)}: {error.strerror}",
            "it is readable by the user who ran `easel up` only; pass another with --access-key or EASEL_ACCESS_KEY",
        ) from None


def _key_of_home(directory: Path, server: str) -> str:
    """The key in the home directory, for a server that was named without one."""
    path = directory / "keys" / "access-key"
    if not path.is_file():
        raise NoAccessKey(
            "NO_ACCESS_KEY",
            f"no access key for {server}",
            f"pass it with --access-key or EASEL_ACCESS_KEY; none is at {shown(path)} either",
        )
    return _read_key(directory)
