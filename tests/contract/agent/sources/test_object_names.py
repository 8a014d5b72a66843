"""Property: whatever objects are called, a tree is exactly what was listed, or it is refused as a whole."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st

from easel_agent.sources import CannotFetch
from easel_contracts.spec import ObjectSource
from tests.contract.agent.sources.rig import Node, content
from tests.contract.agent.sources.s3_server import S3Server, s3_server

PARTS = st.one_of(
    st.sampled_from(["a", "b", "..", ".", "", "a b", "ü", "%2F", "a+b", "#x", "?y", "~", "-", "x" * 255, "x" * 256]),
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=6),
)
NAMES = st.lists(PARTS, min_size=1, max_size=3).map("/".join).filter(bool)
OBJECTS = st.dictionaries(NAMES, st.binary(max_size=40), min_size=1, max_size=5)


@pytest.fixture(scope="module")
def store() -> Iterator[S3Server]:
    """An empty store."""
    with s3_server() as found:
        yield found


@pytest.fixture(scope="module")
def node(store: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Node:
    """A node with a login for it, and the trees of earlier examples."""
    home = tmp_path_factory.mktemp("node")
    return Node(home, stores=store.logins(home / "stores.json"))


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(objects=OBJECTS)
@example(objects={"a": b"1", "a/b": b"2"})
@example(objects={"../a": b"1"})
@example(objects={"d/": b"", "d/e/": b"", "d/f": b"3"})
@example(objects={"d/": b"content"})
def test_the_tree_is_the_listing(store: S3Server, node: Node, objects: dict[str, bytes]) -> None:
    """Names that are no paths, or that contradict each other, are refused; all others come out as they are."""
    _replace_all(store, objects)

    if _impossible(objects):
        event("refused")
        with pytest.raises(CannotFetch):
            asyncio.run(_fetch(node))
        return

    event("fetched")
    found = asyncio.run(_fetch(node))
    empty = {name: None for name in objects if name.endswith("/") and not any(
        other != name and other.startswith(name) for other in objects)}  # fmt: skip
    assert content(found) == {**{name: data for name, data in objects.items() if not name.endswith("/")}, **empty}


async def _fetch(node: Node) -> Path:
    return (await node.fetch(ObjectSource(url="s3://names/top/"))).paths["/mnt/0"]


def _replace_all(store: S3Server, objects: dict[str, bytes]) -> None:
    client = store.client()
    client.create_bucket(Bucket="names")
    for listed in client.list_objects_v2(Bucket="names").get("Contents", []):
        client.delete_object(Bucket="names", Key=listed["Key"])
    for name, data in objects.items():
        client.put_object(Bucket="names", Key=f"top/{name}", Body=data)


def _impossible(objects: dict[str, bytes]) -> bool:
    for name, data in objects.items():
        if name.endswith("/") and data:
            return True
        parts = name.removesuffix("/").split("/")
        if any(part in ("", ".", "..") or len(part.encode()) > 255 for part in parts):
            return True
        above = {"/".join(parts[:count]) for count in range(1, len(parts) + name.endswith("/"))}
        if above & set(objects):
            return True
    return False
