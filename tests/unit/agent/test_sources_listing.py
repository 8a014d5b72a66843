"""What a listing is called, and which listings cannot be directories."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from easel_agent.decide.listing import Entry, digest, entries, refusal, version

ENTRY = st.builds(Entry, name=st.text(max_size=5), size=st.integers(0, 9), version=st.text(max_size=3))
ENTRIES = st.lists(ENTRY, max_size=5, unique=True)


@given(ENTRIES, ENTRIES)
def test_a_digest_names_one_listing(one: list[Entry], other: list[Entry]) -> None:
    """The same for the same entries in any order, another for any other."""
    same = sorted(one) == sorted(other)

    assert digest("s3://b/p", None, one) == digest("s3://b/p", None, one[::-1])
    assert (digest("s3://b/p", None, one) == digest("s3://b/p", None, other)) == same


def test_a_digest_names_the_place() -> None:
    """Two stores may hold objects of one name and length, and a driver may know no better version than a time."""
    listed = [Entry(name="a", size=1, version="t")]

    assert (
        len({digest("s3://b/p", None, listed), digest("s3://c/p", None, listed), digest("s3://b/p", "e", listed)}) == 3
    )


def test_entries_of_a_driver() -> None:
    """Names are relative; an object that stands for the prefix is none; what only a time says is a version too."""
    found = {
        "b/p/": {"type": "file", "size": 0},
        "b/p/x": {"type": "file", "size": 3, "ETag": '"e1"', "LastModified": "yesterday"},
        "b/p/d/": {"type": "file", "size": 0, "mtime": 7},
        "b/p/e": {"type": "directory", "size": 0},
    }

    assert entries("b/p", found) == (
        Entry(name="d/", version="7"), Entry(name="e/"), Entry(name="x", size=3, version="e1"),
    )  # fmt: skip
    assert entries("b/p", {"b/p": {"type": "file", "size": 5, "etag": "e"}}) == (Entry(name="", size=5, version="e"),)


def test_the_best_version_is_taken() -> None:
    """A time says less than a hash of the content."""
    assert [version({"mtime": 1, "etag": "e"}), version({"mtime": 1, "ETag": None}), version({})] == ["e", "1", ""]


@pytest.mark.parametrize(
    "names",
    [["../x"], ["a/../x"], ["a/."], ["/x"], ["//x"], ["a//x"], ["/"], ["a", "a/b"], ["a", "a/"], ["a/", "a"], ["x\0"],
     ["x" * 256], ["\udc80"], ["", "x"], ["/".join(["y" * 200] * 16)]],
)  # fmt: skip
def test_refused(names: list[str]) -> None:
    """No name is left out silently."""
    assert refusal([Entry(name=name) for name in names])


@pytest.mark.parametrize(
    "names", [["a"], [""], ["a/b", "a/c", "a/"], ["..a", "a..", "...", "a b", "ü"], ["a/", "a/b/"]]
)
def test_taken(names: list[str]) -> None:
    """Everything that can be a path is."""
    assert refusal([Entry(name=name) for name in names]) is None


def test_a_directory_has_no_content() -> None:
    """An object that ends with / and has content would be lost."""
    assert refusal([Entry(name="a/", size=1)])
