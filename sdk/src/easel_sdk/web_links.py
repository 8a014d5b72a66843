"""Links that open a web application to a browser for a while. Pure; docs/webapps.md has the form.

Whoever has the service's token can make one; the gateway needs nothing but the token to know that.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json

from easel_contracts.errors import InvalidInput
from easel_proto.v1.services_pb2 import Service

LONGEST_S = 30 * 86_400.0


def web_link(service: Service, *, now_unix_s: float, ttl_s: float, path: str = "/") -> str:
    """A URL that is good for `ttl_s` seconds, 30 days at most, and leads to `path` of the application.

    By the application's host name where it has one, else by the service's path. Raises InvalidInput where the service
    is no web application, or `ttl_s` or `path` cannot be.
    """
    name = service.service_name
    if not is_web(service):
        raise InvalidInput(
            f"{name} is no web application", hint="set metadata.enable_webservice to true in its service.json"
        )
    if not 1 <= ttl_s <= LONGEST_S:
        raise InvalidInput(f"a link cannot be good for {ttl_s:.15g} s", hint=f"1 to {LONGEST_S:.0f} s (30 days)")
    if not path.startswith("/") or "#" in path:
        raise InvalidInput(f"{path!r} is no path of the application", hint="it begins with / and has no #")
    expires = int(now_unix_s + ttl_s)
    base = (service.web_endpoint or service.endpoint).rstrip("/")
    return f"{base}{path}{'&' if '?' in path else '?'}easel_link={expires}.{_signature(service.token, name, expires)}"


def is_web(service: Service) -> bool:
    """Whether browsers may open it."""
    if service.web_endpoint:
        return True
    config = json.loads(service.service_config or "{}")
    return bool(config.get("metadata", {}).get("enable_webservice", False))


def _signature(token: str, service: str, expires: int) -> str:
    digest = hmac.new(token.encode(), f"easel-link\n{service}\n{expires}".encode(), hashlib.sha1).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")
