"""Writing a stranger's git tree: whatever the tree says, nothing lands outside."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import pytest
from dulwich.object_store import BaseObjectStore
from dulwich.objects import Blob, ObjectID
from hypothesis import given
from hypothesis import strategies as st

from easel_agent.sources.checkout import BadTree, write_tree
from easel_agent.sources.threads import Stop

LINK, FILE = 0o120000, 0o100644


class _Entry(NamedTuple):
    path: bytes
    mode: int
    sha: ObjectID


class _Tree:
    """Says of a tree whatever it is told, also what no git would store."""

    def __init__(self, *entries: tuple[bytes, int, bytes]) -> None:
        self._blobs = {blob.id: blob for blob in (Blob.from_string(data) for _, _, data in entries)}
        self._entries = [_Entry(path, mode, Blob.from_string(data).id) for path, mode, data in entries]

    def iter_tree_contents(self, tree: ObjectID) -> Iterator[_Entry]:
        return iter(self._entries)

    def __getitem__(self, sha: ObjectID) -> Blob:
        return self._blobs[sha]


def _write(root: Path, *entries: tuple[bytes, int, bytes]) -> Any:
    store = cast("BaseObjectStore", _Tree(*entries))
    return write_tree(store, ObjectID(b"0" * 40), root, Stop(60), 1 << 20)


@pytest.mark.parametrize(
    "entries",
    [
        [(b"way", LINK, b"../out"), (b"way/x", FILE, b"1")],
        [(b"way/x", FILE, b"1"), (b"way", LINK, b"../out")],
        [(b"x", LINK, b"../out/x"), (b"x", FILE, b"1")],
        [(b"x", FILE, b"1"), (b"x", FILE, b"2")],
        [(b"way", LINK, b"../out"), (b"way/x", LINK, b"y")],
        [(b"../out/x", FILE, b"1")],
        [(b"/out/x", FILE, b"1")],
        [(b"a//x", FILE, b"1")],
        [(b"a/.GIT/hooks", FILE, b"1")],
        [(b"x\0y", FILE, b"1")],
        [(b"x", LINK, b"y\0z")],
    ],
)
def test_refused(tmp_path: Path, entries: list[tuple[bytes, int, bytes]]) -> None:
    """Names that lead out, twice the same name, and anything below a link."""
    root, outside = tmp_path / "root", tmp_path / "out"
    root.mkdir()
    outside.mkdir()

    with pytest.raises(BadTree):
        _write(root, *entries)

    assert list(outside.iterdir()) == []


PARTS = st.sampled_from([b"a", b"b", b"c", b"..", b"."])
TARGETS = st.lists(PARTS, min_size=1, max_size=6).map(b"/".join)
PATHS = st.lists(st.sampled_from([b"a", b"b", b"c"]), min_size=1, max_size=3).map(b"/".join)


@given(st.lists(st.tuples(PATHS, st.sampled_from([LINK, FILE]), TARGETS), max_size=8))
def test_no_link_that_is_kept_leads_out(tmp_path_factory: pytest.TempPathFactory, entries: list[Any]) -> None:
    """Whatever links are combined: nothing resolves to a place outside, and nothing is written there."""
    base = tmp_path_factory.mktemp("tree")
    root = base / "root"
    root.mkdir()

    try:
        _write(root, *entries)
    except BadTree:
        return

    top = os.path.realpath(root)
    for path in root.rglob("*"):
        assert (os.path.realpath(path) + "/").startswith(top + "/")
    assert [path.name for path in base.iterdir()] == ["root"]
