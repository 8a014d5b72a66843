"""What the router says of a group."""

from __future__ import annotations

import pytest

from easel_contracts.spec import Match, Split
from easel_router.decide.explain_group import explained
from easel_router.decide.groups import GroupPlan
from easel_router.testing import a_group, a_plan

A, B = a_plan("a", 1), a_plan("b", 2)


@pytest.mark.parametrize(
    ("plan", "refused", "expected"),
    [
        (None, "", [("NoToken", "token of group vision")]),
        (a_group("vision", A, B, weights={"a": 3, "b": 1}), "", [("Shares", "requests go to: a 75 %, b 25 %")]),
        (a_group("vision", A, standalone=("a",)), "", [("NoMember", "answered 503")]),
        (a_group("vision", A), "no such field", [("RouteRefused", "no such field"), ("Shares", "a 100 %")]),
        (
            a_group("vision", A, B, candidate="b",
                    split=Split(weight_permille=25, match=Match(kind="header", name="x", value="y"))),
            "",
            [("Split", "2.5 % of the requests go to the candidate b; those with header x=y always"),
             ("Shares", "requests of the others go to: a 100 %")],
        ),
        (
            a_group("vision", B, candidate="b", split=Split(weight_permille=25)),
            "",
            [("Split", "100 % of the requests go to the candidate b")],
        ),
    ],
)  # fmt: skip
def test_who_gets_the_requests(plan: GroupPlan | None, refused: str, expected: list[tuple[str, str]]) -> None:
    """Shares as they are live, a canary before them; why, where it is nobody."""
    found = explained("vision", plan, refused)

    assert [line.code for line in found] == [code for code, _ in expected]
    assert all(words in line.message for line, (_, words) in zip(found, expected, strict=True))
