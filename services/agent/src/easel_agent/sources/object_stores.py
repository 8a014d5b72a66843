"""Opens object stores through fsspec, with the node's logins.

The logins are in a JSON file (mode 0600) named by `object_stores_file`: `{"oss": {"key": …, "secret": …}, "s3://bucket":
{…}, "s3://bucket/team": {…}}`. A value holds the options of the fsspec driver; the most specific name is taken whole.
Without an entry the store is read as everybody may: what the agent's own environment knows is never used.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from msgspec import Struct

from easel_agent.sources.model import CannotFetch
from easel_contracts.spec import ObjectSource

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

Options = dict[str, Any]


class Driver(Struct, frozen=True, kw_only=True):
    """How fsspec reads a kind of store."""

    name: str
    """As fsspec knows it."""
    extra: str
    """Of the agent's package: what must be installed."""
    options: Callable[[Options, str | None], Options]
    """(the node's options, the mount's endpoint) → the driver's."""


class Opened(Struct, frozen=True, kw_only=True):
    """A prefix of a store, ready to be read. For threads."""

    files: Any
    """An AbstractFileSystem."""
    root: str
    """The prefix as the driver names it, without a slash at its end."""
    place: str
    """Names store and endpoint: what objects of the same name may differ in."""


class ObjectStores:
    """What this node can read."""

    def __init__(self, file: Path | None) -> None:
        self._file = file

    def open(self, at: str, source: ObjectSource) -> Opened:
        """Blocks a moment. Raises CannotFetch."""
        parts = urlsplit(source.url)
        driver = DRIVERS.get(parts.scheme)
        if driver is None:
            known = ", ".join(f"{name}://" for name in sorted(DRIVERS))
            raise CannotFetch(f"{at}: {parts.scheme or source.url}:// is no object store that can be mounted; "
                              f"known are {known}.")  # fmt: skip
        if not parts.hostname or parts.username is not None:
            raise CannotFetch(f"{at}: the path must be like {parts.scheme}://bucket/prefix/, without a login.")
        try:
            options = driver.options(dict(self._login(at, source.url)), source.endpoint)
        except ValueError as error:
            raise CannotFetch(f"{at}: {error}") from None
        path = source.url[len(parts.scheme) + 3 :].rstrip("/")
        endpoint = _endpoint(options)
        return Opened(files=_filesystem(at, driver, options), root=path, place=f"{parts.scheme} {endpoint or ''}")

    def _login(self, at: str, url: str) -> Mapping[str, Any]:
        if self._file is None:
            return {}
        known = self._read(at)
        fits = [name for name in known if name == url.split("://")[0] or (url + "/").startswith(name.rstrip("/") + "/")]
        return known[max(fits, key=len)] if fits else {}

    def _read(self, at: str) -> dict[str, dict[str, Any]]:
        assert self._file is not None
        try:
            status = os.stat(self._file)
            if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise CannotFetch(f"{at}: the node's EASEL_AGENT_OBJECT_STORES_FILE may be read by others; its mode "
                                  "must be 0600.")  # fmt: skip
            known = json.loads(self._file.read_bytes())
        except OSError as error:
            raise CannotFetch(f"{at}: the node's EASEL_AGENT_OBJECT_STORES_FILE cannot be read "
                              f"({error.strerror}).") from None  # fmt: skip
        except ValueError:  # its text would hold a piece of the file
            known = None
        if not isinstance(known, dict) or not all(isinstance(options, dict) for options in known.values()):
            raise CannotFetch(f"{at}: the node's EASEL_AGENT_OBJECT_STORES_FILE must be JSON like "
                              '{"oss": {"key": "…", "secret": "…"}}.')  # fmt: skip
        return known


def _filesystem(at: str, driver: Driver, options: Options) -> AbstractFileSystem:
    try:
        import fsspec

        return fsspec.filesystem(driver.name, skip_instance_cache=True, use_listings_cache=False, **options)
    except ImportError:
        raise CannotFetch(f"{at}: the node's agent cannot read such a store yet; install it there with "
                          f'pip install "easel-serving-agent[{driver.extra}]".') from None  # fmt: skip
    except (TypeError, ValueError) as error:  # their texts would hold the options
        raise CannotFetch(f"{at}: the node's options for this store are not what the driver {driver.name} takes "
                          f"({type(error).__name__}). Correct EASEL_AGENT_OBJECT_STORES_FILE.") from None  # fmt: skip


def _endpoint(options: Options) -> str | None:
    found = options.get("endpoint_url") or options.get("account_name")
    return None if found is None else str(found)


def _s3(options: Options, endpoint: str | None) -> Options:
    """The signature covers the host, so a mount may name another endpoint without getting at the login."""
    inner = dict(options.pop("client_kwargs", {}))
    wanted = endpoint or options.get("endpoint_url") or inner.pop("endpoint_url", None)
    if wanted:
        options["endpoint_url"] = wanted if "://" in wanted else f"https://{wanted}"
    config = {"connect_timeout": 10, "read_timeout": 60, **options.pop("config_kwargs", {})}
    if "s3" not in config and str(urlsplit(options.get("endpoint_url", "")).hostname).endswith(".aliyuncs.com"):
        config["s3"] = {"addressing_style": "virtual"}  # the only one that this store takes
    if not any(options.get(name) for name in ("key", "profile", "anon")):
        options["anon"] = True
    # Several files are read at a time here already; the driver's own parts would take 50 MB of memory each.
    return {"max_concurrency": 1, **options, "client_kwargs": inner, "config_kwargs": config}


def _oss(options: Options, endpoint: str | None) -> Options:
    """Through the interface that the store has in common with S3."""
    found = _s3(options, endpoint)
    if not found.get("endpoint_url"):
        raise ValueError("an endpoint is needed: give oss.endpoint (oss-cn-hangzhou.aliyuncs.com, or your own store's "
                         "https://host), or `endpoint_url` in the node's EASEL_AGENT_OBJECT_STORES_FILE.")  # fmt: skip
    return found


def _node_endpoint(options: Options, endpoint: str | None) -> Options:
    """Logins of these stores are sent as they are: only the node says where to."""
    if endpoint is not None and endpoint != options.get("endpoint_url"):
        raise ValueError("for this kind of store the endpoint is set on the node, in EASEL_AGENT_OBJECT_STORES_FILE; "
                         "leave it out.")  # fmt: skip
    return options


def _gs(options: Options, endpoint: str | None) -> Options:
    return {"token": "anon", **_node_endpoint(options, endpoint)}


def _az(options: Options, endpoint: str | None) -> Options:
    found = _node_endpoint(options, endpoint)
    return found if len(found) > 1 else {"anon": True, **found}


DRIVERS: Mapping[str, Driver] = {
    "s3": Driver(name="s3", extra="s3", options=_s3),
    "oss": Driver(name="s3", extra="oss", options=_oss),
    "gs": Driver(name="gcs", extra="gs", options=_gs),
    "az": Driver(name="abfs", extra="az", options=_az),
}
"""Scheme → driver. Nothing that reads the node's own files is here, nor anything that is no object store."""
