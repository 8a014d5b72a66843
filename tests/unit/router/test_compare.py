"""Two answers → the fields in which they differ."""

from __future__ import annotations

import json
from typing import Any

import pytest

from easel_contracts.spec import Comparison
from easel_router.decide.compare import Answer, Compared, compare, request_line, weight
from easel_router.decide.compare.texts import similarity
from easel_router.decide.compare.values import canonical


def answer(body: Any = None, status: int = 200, **headers: str) -> Answer:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Answer(status=status, headers={k.replace("_", "-"): v for k, v in headers.items()}, body=raw)


def fields(one: Answer, other: Answer, **how: Any) -> dict[str, str]:
    return {d.path: d.kind for d in compare(one, other, Comparison(**how)).differences}


def test_a_field_has_its_path_and_items_of_lists_are_one_field() -> None:
    one = answer({"label": "cat", "boxes": [{"text": "a"}, {"text": "b"}], "same": [1, 2]})
    other = answer({"label": "dog", "boxes": [{"text": "x"}, {"text": "y"}], "same": [1, 2]})
    assert fields(one, other) == {"body.label": "value", "body.boxes[].text": "value"}
    first = compare(one, other, Comparison()).differences[0]
    assert (first.path, first.stable, first.candidate) == ("body.boxes[].text", '"a"', '"x"')


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ({"a": 1}, {}, {"body.a": "missing"}),
        ({}, {"a": None}, {"body.a": "extra"}),
        ({"a": 1}, {"a": "1"}, {"body.a": "type"}),
        ({"a": 1}, {"a": True}, {"body.a": "type"}),
        ({"a": 1}, {"a": 1.0}, {}),
        ({"a": None}, {"a": 0}, {"body.a": "type"}),
        ({"a": [1, 2]}, {"a": [1, 2, 3]}, {"body.a": "length"}),
        ([1, {"a": 2}], [1, {"a": 3}], {"body[].a": "value"}),
        (1, 2, {"body": "value"}),
        ({"a.b": 1, "": 2}, {"a.b": 2, "": 3}, {'body["a.b"]': "value", 'body[""]': "value"}),
        ({"a": float("nan")}, {"a": float("nan")}, {}),
        ({"a": 10**400}, {"a": 10**400 + 1}, {"body.a": "value"}),
    ],
)
def test_json(one: Any, other: Any, expected: dict[str, str]) -> None:
    assert fields(answer(one), answer(other)) == expected


@pytest.mark.parametrize(
    ("one", "other", "tolerance", "equal"),
    [
        (100.0, 100.9, 0.01, True),
        (100.0, 102.0, 0.01, False),
        (0.0, 1e-12, 0.01, False),  # relative: beside zero nothing is small
        (10**400, 10**400 + 10**397, 0.01, True),
        (10**400, 2 * 10**400, 0.01, False),
        (10**400, 1.5, 0.01, False),
        (float("inf"), 1.0, 0.01, False),
        (1, 1.0000001, 0.0, False),
    ],
)
def test_numbers_within_the_tolerance_are_equal(one: float, other: float, tolerance: float, equal: bool) -> None:
    assert (fields(answer({"n": one}), answer({"n": other}), tolerance=tolerance) == {}) is equal


def test_what_is_ignored_goes_with_what_is_below_it() -> None:
    one = answer({"meta": {"took_ms": 1, "id": 2}, "boxes": [{"id": 1, "x": 1}], "n": 1})
    other = answer({"meta": {"took_ms": 2, "id": 3}, "boxes": [{"id": 2, "x": 2}], "n": 2})
    assert fields(one, other, ignore=("meta", "boxes[].id")) == {"body.boxes[].x": "value", "body.n": "value"}
    assert "body.meta.id" in fields(one, other, ignore=("meta.took_ms", "me"))


@pytest.mark.parametrize(
    ("written", "path"),
    [
        ("meta.took_ms", "meta.took_ms"),
        ("boxes[].id", "boxes[].id"),
        ("[].id", "[].id"),
        ('["meta"]["took_ms"]', "meta.took_ms"),
        ('a["b.c"].d', 'a["b.c"].d'),
        ('["\\u00e9.b"]', '["é.b"]'),
        ('[""]', '[""]'),
    ],
)
def test_a_path_is_the_same_however_it_is_written(written: str, path: str) -> None:
    assert canonical(written) == path


def test_a_path_with_a_quoted_name_is_ignored_as_it_is_reported() -> None:
    one, other = answer({"é.b": 1}), answer({"é.b": 2})
    (path,) = fields(one, other)
    assert path == 'body["é.b"]'
    assert fields(one, other, ignore=(path.removeprefix("body"),)) == {}


def test_headers_that_say_what_the_answer_is_count_and_others_do_not() -> None:
    one = answer(1, content_type="application/json; charset=UTF-8", date="a", server="b", x_request_id="c")
    other = answer(1, content_type="Application/JSON;charset=utf-8", date="z", server="y", x_request_id="x")
    assert fields(one, other) == {}
    assert fields(one, answer(1, content_type="text/plain")) == {"headers.content-type": "value"}
    assert fields(one, answer(1)) == {"headers.content-type": "missing"}
    assert fields(answer(1, location="/A"), answer(1, location="/a")) == {"headers.location": "value"}


def test_a_status_is_a_field_beside_the_body() -> None:
    assert fields(answer({"a": 1}), answer({"error": "x"}, status=500)) == {
        "status": "value", "body.a": "missing", "body.error": "extra",
    }  # fmt: skip


def test_what_is_not_json_is_text_and_what_is_not_text_is_bytes() -> None:
    assert fields(answer(b"<p>a</p>"), answer(b"<p>b</p>")) == {"body": "text"}
    assert fields(answer(b'{"a": 1}'), answer(b"Internal Error")) == {"body": "text"}
    assert fields(answer(b"\xff\x00"), answer(b"\xff\x01")) == {"body": "bytes"}
    assert fields(answer(b""), answer(b"\xff")) == {"body": "bytes"}
    assert fields(answer(b"\xff\x00"), answer(b"\xff\x00")) == {}
    only = compare(answer(b"\xff\x00"), answer(b"plain"), Comparison()).differences[0]
    assert (only.stable, only.candidate) == ("2 bytes: ff 00", "plain")


def test_texts_are_equal_from_the_similarity_on_in_json_too() -> None:
    one, other = "the quick brown fox", "the quick brown fix"
    assert fields(answer(one.encode()), answer(other.encode()), text_similarity=0.9) == {}
    assert fields(answer({"t": one}), answer({"t": other}), text_similarity=0.9) == {}
    assert fields(answer({"t": one}), answer({"t": other}), text_similarity=0.99) == {"body.t": "value"}
    assert fields(answer({"t": one}), answer({"t": other})) == {"body.t": "value"}


def test_long_texts_are_compared_by_words() -> None:
    words = [f"w{n}" for n in range(30_000)]
    changed = [*words[:29_000], *(f"x{n}" for n in range(1_000))]
    assert 0.9 < similarity(" ".join(words), " ".join(changed)) < 1
    assert similarity("a" * 20_000, "b" * 20_000) == 0.0


def test_a_body_nested_without_end_is_compared_as_text() -> None:
    deep, deeper = b"[" * 100_000 + b"]" * 100_000, b"[" * 100_001 + b"]" * 100_001
    assert fields(answer(deep), answer(deeper)) == {"body": "text"}
    assert fields(answer(b"[" * 70 + b"]" * 70), answer(b"[" * 71 + b"]" * 71)) == {"body": "text"}
    assert fields(answer(b"[" * 60 + b"]" * 60), answer(b"[" * 61 + b"]" * 61)) == {"body" + "[]" * 59: "length"}


def test_a_comparison_names_so_many_fields_at_most() -> None:
    one, other = ({f"k{n}": value for n in range(5_000)} for value in (1, 2))
    compared = compare(answer(one), answer(other), Comparison())
    assert len(compared.differences) == 200
    assert compared.more
    many = compare(answer([1] * 100_000), answer([2] * 100_000), Comparison())
    assert [d.path for d in many.differences] == ["body[]"]
    assert not many.more


def test_examples_are_short_and_printable() -> None:
    one = answer({"t": "é" * 10_000, "l": [[0] * 9_000] * 9, "s": "\ud800", "o": {f"k{n}": n for n in range(99)}})
    compared: Compared = compare(one, answer({"t": 1, "l": 1, "s": 1, "o": 1}), Comparison())
    assert len(compared.differences) == 4
    for difference in compared.differences:
        assert len(difference.stable) <= 200
        difference.stable.encode()


def test_a_request_is_kept_without_its_secrets() -> None:
    line = request_line("POST", "/v1/x?token=hush&size=3&Signature=abc", b'{"q": 1}')
    assert line == 'POST /v1/x?token=***&size=3&Signature=***\n{"q": 1}'
    assert request_line("GET", "/x", b"") == "GET /x"
    assert len(request_line("POST", "/x?" + "a" * 99_999, b"b" * 99_999)) <= 501


def test_the_weight_is_what_there_is_to_compare() -> None:
    assert weight(answer(b"abc"), answer(b"abc")) == 0
    assert weight(answer(b"abc"), answer(b"abcd"), answer(b"abc")) == 10
