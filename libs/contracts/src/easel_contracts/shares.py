"""How a group's requests are shared between its members. The one formula of control (shown) and router (done). Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from easel_contracts.facts import GroupMember


def shares(
    mode: Literal["auto", "customized"], members: Iterable[GroupMember], replicas_in_traffic: Mapping[str, int]
) -> dict[str, float]:
    """Member → its part of the group's requests, 0 to 1. They add up to 1, or are all 0 where nobody takes part.

    `replicas_in_traffic`: member → its replicas that take traffic; one that is not in it has none.

    - A standalone member, and in a customized group one of weight 0, gets nothing.
    - auto: by replicas in traffic.
    - customized: a member of weight -1 first gets the share that its replicas are of all replicas of those that are
      `grouping`; what is left is shared by the fixed weights. Where no fixed weight is served, those of weight -1
      share everything by their replicas.
    - Who has no replica in traffic gets nothing as long as another that would get something has one. Where none has,
      each counts as if it had one: its requests are held at its own route.
    """
    members = tuple(members)
    part = [m for m in members if m.state == "grouping"]
    wanted = [m for m in part if mode == "auto" or m.weight != 0]
    replicas = {m.service: max(replicas_in_traffic.get(m.service, 0), 0) for m in part}
    taking = [m for m in wanted if replicas[m.service]]
    if not taking:
        taking, replicas = wanted, {m.service: 1 for m in wanted}
    fixed = {m.service: m.weight for m in taking if mode == "customized" and m.weight > 0}
    by_replicas = {m.service: replicas[m.service] for m in taking if m.service not in fixed}
    all_replicas = sum((replicas if fixed else by_replicas).values())
    out = dict.fromkeys((m.service for m in members), 0.0)
    out |= {service: count / all_replicas for service, count in by_replicas.items()}
    rest = (all_replicas - sum(by_replicas.values())) / all_replicas if fixed else 0.0
    weights = sum(fixed.values())
    return out | {service: rest * weight / weights for service, weight in fixed.items()}
