"""Control's explanation of a group: which part of its requests each member gets, and why. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from easel_control.decide.explain import Why
from easel_control.decide.groups import BY_REPLICAS, Standing, limits_told
from easel_control.model import GroupRow


def explain_group(row: GroupRow, standings: Sequence[Standing]) -> list[Why]:
    """The group first, then its members, who gets most before others."""
    part = [s for s in standings if s.member.state == "grouping"]
    how = "by replicas in traffic" if row.mode == "auto" else "by weights"
    lines = [Why("Group", f"{len(part)} of {len(standings)} members take part; traffic mode {row.mode}: {how}")]
    if row.split is not None:
        lines.append(Why("Canary", f"a canary is on: {row.candidate} gets {row.split.weight_permille / 10:g} % of the "
                         "requests, the others share the rest as below", f"`easel canary {row.name}`"))  # fmt: skip
    taking = [s for s in standings if s.share]
    if not taking:
        first = standings[0].member.service
        why = "all that take part have weight 0" if part else "no member takes part"
        lines.append(Why("NobodyTakes", f"{why}, so no request to {row.name} is answered by a service",
                         f"`easel release {first}` has it take part"))  # fmt: skip
    elif not any(s.in_traffic for s in taking):
        waits = "requests wait for the one with the largest share that should run"
        lines.append(Why("NobodyReady", f"no member that takes part has a replica in traffic: {waits}",
                         f"`easel explain {taking[0].member.service}`"))  # fmt: skip
    lines += [_member(row, s, taking) for s in sorted(standings, key=lambda s: (-s.share, s.member.service))]
    return [*lines, Why("Limits", limits_told(row.gateway))]


def _member(row: GroupRow, standing: Standing, taking: Sequence[Standing]) -> Why:
    member = standing.member
    has = f"{member.service} ({standing.status or 'unknown'}, {standing.in_traffic} replicas in traffic)"
    if member.state == "standalone":
        return Why("Standalone", f"{has} gets nothing: it is standalone, and reached at its own endpoint",
                   f"`easel release {member.service}` has it take part")  # fmt: skip
    fixed = row.mode == "customized" and member.weight != BY_REPLICAS
    if fixed and member.weight == 0:
        return Why("NoWeight", f"{has} gets nothing: its weight is 0",
                   f"`easel release {member.service} --weight N` gives it another")  # fmt: skip
    if not standing.share:
        return Why("NoReplica", f"{has} gets nothing while others have replicas in traffic",
                   f"`easel explain {member.service}`")  # fmt: skip
    of = f"its weight, {member.weight}" if fixed else "its part of the replicas"
    if not any(s.in_traffic for s in taking):
        of += "; none of those that take part has a replica, so each counts as one"
    return Why("Share", f"{has} gets {100 * standing.share:.4g} % of the requests: {of}")
