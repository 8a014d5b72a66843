"""-Dpath=value."""

from __future__ import annotations

from typing import Any

import pytest

from easel_cli.assignments import changes, needs_current, parse
from easel_contracts.errors import InvalidInput


@pytest.mark.parametrize(
    ("text", "steps", "value"),
    [
        ("metadata.instance=2", ["metadata", "instance"], 2),
        ("a=true", ["a"], True),
        ("a=1.5", ["a"], 1.5),
        ("a=text", ["a"], "text"),
        ('a="2"', ["a"], "2"),
        ("a=", ["a"], ""),
        ("a=b=c", ["a"], "b=c"),
        ('a={"b": [1]}', ["a"], {"b": [1]}),
        ("containers[0].env[1].value=x", ["containers", 0, "env", 1, "value"], "x"),
    ],
)
def test_parse(text: str, steps: list[str | int], value: Any) -> None:
    """Steps, and JSON where it can be."""
    assert parse([text]) == [(steps, value)]


@pytest.mark.parametrize("text", ["", "a", "=1", ".a=1", "a..b=1", "[0]=1", "a[x]=1", "a[0=1"])
def test_what_is_no_assignment(text: str) -> None:
    """Named, with an example."""
    with pytest.raises(InvalidInput) as found:
        parse([text])

    assert found.value.fields[0].path == text


def test_changes_do_not_touch_what_they_are_made_in() -> None:
    """The document and the current configuration stay as they were."""
    document: dict[str, Any] = {"metadata": {"cpu": 1}}
    current: dict[str, Any] = {"containers": [{"port": 1}]}

    made = changes(parse(["metadata.memory=2", "containers[0].port=3", "containers[1]=4"]), document, current)

    assert made == {"metadata": {"cpu": 1, "memory": 2}, "containers": [{"port": 3}, 4]}
    assert document == {"metadata": {"cpu": 1}}
    assert current == {"containers": [{"port": 1}]}


def test_only_lists_need_the_current_configuration() -> None:
    """A merge of objects does not."""
    assert not needs_current(parse(["a.b=1"]), {})
    assert needs_current(parse(["a[0]=1"]), {})
    assert not needs_current(parse(["a[0]=1"]), {"a": []})


@pytest.mark.parametrize("text", ["a[5]=1", "b[1].c=1", "text.x=1"])
def test_places_that_are_not_there(text: str) -> None:
    """Said with the path."""
    with pytest.raises(InvalidInput) as found:
        changes(parse([text]), {"a": [1], "text": "x"}, {})

    assert found.value.fields[0].path == text.split("=")[0]


def test_a_list_that_is_not_there_begins_at_its_first_item() -> None:
    """`-Dcontainers[0].env[0].name=A` needs no env yet; what is beside it stays."""
    current: dict[str, Any] = {"containers": [{"port": 1}]}
    texts = ["containers[0].env[0].name=A", "containers[0].env[0].value=b", "storage[0].mount_path=/m"]

    made = changes(parse(texts), {}, current)

    assert made == {
        "containers": [{"port": 1, "env": [{"name": "A", "value": "b"}]}],
        "storage": [{"mount_path": "/m"}],
    }
    assert current == {"containers": [{"port": 1}]}


def test_names_that_are_taken_whole() -> None:
    """Metrics are called `queue[backlog]` and `custom[a.b]@tag[c]`: below their key nothing is a step."""
    texts = ["min=0", "strategies.queue[backlog]=3", "strategies.custom[a.b]@tag[c]=2", "behavior.onZero.x=1"]

    made = changes(parse(texts, whole_below="strategies"), {}, {})

    assert made == {"min": 0, "strategies": {"queue[backlog]": 3, "custom[a.b]@tag[c]": 2},
                    "behavior": {"onZero": {"x": 1}}}  # fmt: skip
    with pytest.raises(InvalidInput):
        parse(["strategies.=1"], whole_below="strategies")
