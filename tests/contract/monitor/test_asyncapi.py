"""docs/asyncapi.yaml says what the contracts say."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from easel_contracts import facts

ROOT = Path(__file__).resolve().parents[3]


def the_document() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "docs" / "asyncapi.yaml").read_text())
    return found


def references(of: object) -> Iterator[str]:
    if isinstance(of, dict):
        for key, value in of.items():
            if key == "$ref":
                yield value
            else:
                yield from references(value)
    elif isinstance(of, list):
        for value in of:
            yield from references(value)


def test_it_is_up_to_date() -> None:
    """A change of the contracts that is not generated anew fails here."""
    tool = ROOT / "tools" / "generate_asyncapi.py"
    done = subprocess.run([sys.executable, str(tool), "--check"], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr


def test_every_fact_has_a_message_and_a_channel() -> None:
    """Nothing is told that is not in the document."""
    document = the_document()

    for entity, verbs in facts.VERBS.items():
        channel = document["channels"][f"{entity}Facts"]
        assert channel["address"] == f"easel.fact.{{workspace}}.{entity}.{{key}}.{{verb}}"
        assert list(channel["messages"]) == list(verbs)
        assert document["components"]["schemas"][f"{entity}Fact"]["properties"]["data"] == {
            "$ref": f"#/components/schemas/{facts.STATE_OF[entity].__name__}"
        }


def test_references_lead_somewhere() -> None:
    """Every $ref of the document resolves within it."""
    document = the_document()

    for reference in references(document):
        at: Any = document
        for part in reference.removeprefix("#/").split("/"):
            assert part in at, reference
            at = at[part]


def test_the_envelope_is_the_fact() -> None:
    """All fields of facts.Fact are described, and no other."""
    described = the_document()["components"]["schemas"]["nodeFact"]["properties"]

    assert set(described) == set(facts.Fact.__struct_fields__)
