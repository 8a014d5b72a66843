"""Comparing answers: what holds for all of them."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from easel_contracts.spec import Comparison
from easel_router.decide.compare import Answer, Compared, compare
from easel_router.decide.compare.answers import HEADERS, LONGEST_PATH, MOST_FIELDS
from easel_router.decide.compare.excerpt import LONGEST

names = st.sampled_from(("a", "b", "c", "took ms", "x.y", "[]", ""))
leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)
brackets = st.integers(0, 3000).map(lambda n: b"[" * n + b"1" + b"]" * n)
bodies = values.map(lambda v: json.dumps(v).encode()) | st.binary(max_size=40) | st.text(max_size=40).map(
    lambda t: t.encode("utf-8", "surrogatepass")
) | brackets  # fmt: skip
headers = st.dictionaries(st.sampled_from((*HEADERS, "date", "server", "x-request-id")), st.text(max_size=12))
answers = st.builds(Answer, status=st.sampled_from((200, 404, 500)), headers=headers, body=bodies)
ways = st.builds(
    Comparison,
    tolerance=st.sampled_from((0.0, 1e-6, 0.1)),
    text_similarity=st.sampled_from((1.0, 0.9, 0.5)),
    ignore=st.lists(st.sampled_from(("a", "a.b", "[]", "b[]", "a[].b", 'a["x.y"]')), max_size=3).map(tuple),
)


@given(answers, ways)
def test_equal_answers_never_differ(answer: Answer, how: Comparison) -> None:
    assert compare(answer, answer, how) == Compared()


@given(values, ways)
def test_the_order_of_members_and_spaces_do_not_count(value: Any, how: Comparison) -> None:
    one, other = json.dumps(value, sort_keys=True).encode(), json.dumps(value, indent=1).encode()
    assert compare(Answer(status=200, body=one), Answer(status=200, body=other), how).equal


SWAPPED = {"missing": "extra", "extra": "missing"}


@given(answers, answers, ways)
def test_exchanged_answers_differ_in_the_same_fields(one: Answer, other: Answer, how: Comparison) -> None:
    there, back = compare(one, other, how), compare(other, one, how)
    assert there.more == back.more
    assert [(d.path, d.kind, d.stable, d.candidate) for d in there.differences] == [
        (d.path, SWAPPED.get(d.kind, d.kind), d.candidate, d.stable) for d in back.differences
    ]


def is_below(path: str, ignored: str) -> bool:
    body = f"body{ignored}" if ignored.startswith("[") else f"body.{ignored}"
    return path == body or path.startswith((body + ".", body + "["))


@given(values, values, st.sampled_from(("a", "a.b", "a[]", "[]", "[].b", "b[].c", 'a["x.y"]')))
def test_ignoring_a_path_removes_exactly_its_differences(one: Any, other: Any, ignored: str) -> None:
    pair = [Answer(status=200, body=json.dumps(value).encode()) for value in (one, other)]
    before = compare(pair[0], pair[1], Comparison()).differences
    after = compare(pair[0], pair[1], Comparison(ignore=(ignored,))).differences
    # "a[]" is what a's items are, not how many there are: that is a's
    assert {d.path for d in after} == {d.path for d in before if not is_below(d.path, ignored)}


@given(answers, answers, ways)
def test_what_comes_out_is_bounded_and_can_be_written(one: Answer, other: Answer, how: Comparison) -> None:
    compared = compare(one, other, how)
    assert len(compared.differences) <= MOST_FIELDS
    paths = [d.path for d in compared.differences]
    assert len(paths) == len(set(paths))
    for difference in compared.differences:
        assert len(difference.path) <= LONGEST_PATH
        assert max(len(difference.stable), len(difference.candidate)) <= LONGEST
        for text in (difference.path, difference.stable, difference.candidate):
            text.encode()
