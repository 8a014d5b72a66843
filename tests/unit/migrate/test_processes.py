"""What migrate reads of a process's package without importing its code."""

from __future__ import annotations

import importlib

import pytest

from easel_migrate.processes import WITH_SCHEMA, BadSubscriptions, listens, listens_of, package


def test_literal_is_read() -> None:
    """With and without an annotation."""
    assert listens_of('LISTENS: tuple[Entity, ...] = ("service", "scale")', "x.py") == ("service", "scale")
    assert listens_of("LISTENS = ()", "x.py") == ()
    assert listens_of('TABLE = {"key": on_key}\nLISTENS = tuple(TABLE)', "x.py") == ("key",)


@pytest.mark.parametrize(
    "source", ["", "LISTENS = make()", "LISTENS = tuple(TABLE)", 'LISTENS = ("services",)', 'LISTENS = "service"']
)
def test_anything_else_is_refused_by_name(source: str) -> None:
    """A consumer that hears nothing by a slip would stop the process silently."""
    with pytest.raises(BadSubscriptions, match=r"x\.py"):
        listens_of(source, "x.py")


@pytest.mark.parametrize("process", WITH_SCHEMA)
def test_reading_agrees_with_importing(process: str) -> None:
    """The text says what the module says."""
    assert listens(process) == importlib.import_module(f"{package(process)}.subscriptions").LISTENS
