"""What the router says of a group: who gets its requests now. Pure."""

from __future__ import annotations

from msgspec import Struct

from easel_router.decide.groups import WHOLE, GroupPlan, MemberSplit


class Line(Struct, frozen=True):
    """A constant for programs, a sentence for people, what to do about it."""

    code: str
    message: str
    hint: str = ""


def explained(name: str, plan: GroupPlan | None, refused: str) -> list[Line]:
    """Lines of one group; `refused`: why its newest route is not in use, empty where it is."""
    found = [Line("RouteRefused", refused, "the last good route stays in use")] if refused else []
    if plan is None:
        waits = f"the token of group {name} is not known yet"
        return [*found, Line("NoToken", waits, "control gives it; is it running?")]
    if plan.split is not None:
        found.append(_split(plan.split))
    if plan.shares:
        shares = ", ".join(f"{share.service} {100 * share.weight / WHOLE:.4g} %" for share in plan.shares)
        others = " of the others" if plan.split is not None else ""
        goes = f"requests{others} go to: {shares}"
        return [*found, Line("Shares", goes, "a member needs a replica that takes traffic")]
    if plan.split is None:
        found.append(Line("NoMember", "no member takes part: requests are answered 503", "`easel release SERVICE`"))
    return found


def _split(split: MemberSplit) -> Line:
    words = f"{split.permille / 10:g} % of the requests go to the candidate {split.candidate}"
    if split.match is not None:
        words += f"; those with {split.match.kind} {split.match.name}={split.match.value} always"
    if split.sticky is not None:
        words += f"; those with the same {split.sticky.kind} {split.sticky.name} go the same way"
    return Line("Split", words)
