"""Reading a service.json: broken JSON told, local paths found and put in place without moving a line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from easel_sdk.errors import InvalidInput
from easel_sdk.spec_file import local_paths, parse, read_spec, with_sources


@pytest.mark.parametrize(
    ("text", "line", "column", "hint"),
    [
        ('{"a": 1,}', 1, 8, "comma before the closing bracket"),
        ("{'a': 1}", 1, 2, "double quotes"),
        ('{"a": 1\n "b": 2}', 2, 2, "a comma is missing"),
        ('{"a": True}', 1, 7, "true, false and null"),
        ('{\n  // no\n  "a": 1}', 2, 3, "no comments"),
        ("", 1, 1, ""),
    ],
)
def test_broken_json_is_told_with_its_place(text: str, line: int, column: int, hint: str) -> None:
    """Line, column, the line itself with a mark below, and what to do."""
    with pytest.raises(InvalidInput) as found:
        parse(text, "service.json")

    field = found.value.fields[0]
    assert field.line == line
    assert field.column in (column, column + 1)
    assert hint in field.hint
    assert f"line {line}" in found.value.message
    assert field.message.endswith("^")


@pytest.mark.parametrize("text", ["[]", "3", '"x"', "null"])
def test_only_an_object_is_a_service_json(text: str) -> None:
    """Other JSON is refused here."""
    with pytest.raises(InvalidInput, match="one JSON object"):
        parse(text, "service.json")


def test_a_missing_file_is_bad_input(tmp_path: Path) -> None:
    """With the way to make one."""
    with pytest.raises(InvalidInput, match="no file") as found:
        read_spec(tmp_path / "no.json")

    assert "easel init" in found.value.hint


def test_only_storage_local_paths_are_found(tmp_path: Path) -> None:
    """Both spellings, at the top only; digests and other keys are left."""
    file = tmp_path / "service.json"
    file.write_text(
        json.dumps(
            {
                "local": {"path": "no"},
                "containers": [{"storage": [{"local": {"path": "no"}}]}],
                "storage": [
                    {"mount_path": "/a", "local": {"readOnly": True, "path": "src"}},
                    {"local.path": "/abs", "mount_path": "/b"},
                    {"local": {"digest": "sha256:1"}},
                    {"oss": {"path": "no"}},
                ],
            }
        )
    )

    found = local_paths(read_spec(file))

    assert [(p.field, str(p.path)) for p in found] == [
        ("storage[0].local.path", str(tmp_path / "src")),
        ("storage[1].local.path", "/abs"),
    ]


names = st.sampled_from(["storage", "local", "path", "local.path", "x", 'q"uote', "{", "mount_path"])
documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["src", "../x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(names, documents, max_size=4), st.sampled_from([None, 1, 4]))
def test_putting_paths_in_place_changes_nothing_else(document: dict[str, object], indent: int | None) -> None:
    """The text stays JSON of the same shape with as many lines, and only the paths differ."""
    spec = read_spec(json.dumps(document, indent=indent))
    paths = local_paths(spec)
    digests = {p.field: f"sha256:{n}" for n, p in enumerate(paths) if n % 2}

    made = with_sources(spec, digests)

    assert made.text.count("\n") == spec.text.count("\n")
    assert _paths_of(made.document, digests) == _paths_of(spec.document, {})
    assert len(paths) == len(_paths_of(spec.document, {})[1])


def _paths_of(document: dict[str, object], digests: dict[str, str]) -> tuple[object, set[str]]:
    """The document with every storage[].local.path blanked, and their fields."""
    made = json.loads(json.dumps(document))
    fields = set()
    storage = made.get("storage")
    for index, entry in enumerate(storage if isinstance(storage, list) else []):
        if not isinstance(entry, dict):
            continue
        local = entry.get("local")
        places = [(entry, "local.path", "local.digest")]
        places += [(local, "path", "digest")] if isinstance(local, dict) else []
        for place, path, digest in places:
            value = place.get(path) if path in place else place.get(digest)
            if isinstance(value, str) and value:
                fields.add(f"storage[{index}].{path}" if "." in path else f"storage[{index}].local.{path}")
                place.pop(digest, None)
                place[path] = "?"
    return made, fields
