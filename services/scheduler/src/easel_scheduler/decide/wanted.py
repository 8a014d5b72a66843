"""How many replicas a service should have (DESIGN 4b.1). The autoscaler decides; this only picks whose word counts."""

from __future__ import annotations

from msgspec import Struct

from easel_contracts.facts import ScaleState, ServiceState


class Wanted(Struct, frozen=True):
    """A count and whose word it is."""

    count: int
    code: str
    message: str


def wanted(service: ServiceState, scale: ScaleState | None) -> Wanted:
    """The count that the scheduler obeys.

    Stopped and deleted override. Else the autoscaler's newest decision, unless it was made for a generation older
    than the last change of `instance` or of the autoscaler section: then the spec's own count, within its limits.
    """
    if service.wanted != "running":
        return Wanted(0, f"Service{service.wanted.capitalize()}", f"the service is {service.wanted}")
    changed_in = max(service.instance_generation, service.autoscaling_generation)
    if scale is not None and scale.generation >= changed_in:
        return Wanted(scale.wanted, "ScaleDecided", f"decision {scale.number}: {scale.message or scale.reason}")
    count = service.instance
    if service.autoscaling is not None:
        count = min(max(count, service.autoscaling.min), service.autoscaling.max)
    return Wanted(count, "SpecInstance", f"metadata.instance is {service.instance}; the autoscaler has not decided yet")
