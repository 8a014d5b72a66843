"""What an Envoy says of resources that it does not accept, as the rest of the platform is told. Pure."""

from __future__ import annotations

_RULE = "Proto constraint validation failed"
_WRITTEN_OUT = "goo.gle/"
"""How protobuf begins when it writes a message out for people."""


class Refused(Exception):
    """An Envoy does not accept a resource."""

    def __init__(self, envoy: str, name: str, reason: str) -> None:
        super().__init__(f"Envoy {envoy} refused {name}: {reason}")
        self.envoy, self.name, self.reason = envoy, name, reason


def reason_of(detail: str) -> str:
    """Why an Envoy refuses, of what it says: without the resource, which it may write out whole, with all secrets."""
    _, rule, why = detail.rpartition(_RULE)
    if rule:
        return (rule + why).strip()
    first = detail.partition(_WRITTEN_OUT)[0].partition("\n")[0].strip().rstrip(":")
    return first or "it breaks a rule of Envoy's; which one is in that Envoy's log"
