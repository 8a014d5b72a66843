"""Which processes there are, and what each needs: read from their packages without importing their code.

Importing them would cost seconds of start time for two literals.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import cast, get_args

from easel_contracts.facts import Entity

PROCESSES = ("control", "scheduler", "agent", "autoscaler", "router", "monitor")
"""Easel's own long-lived processes."""
WITH_SCHEMA = ("control", "scheduler", "autoscaler", "router", "monitor")
"""Processes with a PostgreSQL schema, a role and a durable consumer of their own."""


class BadSubscriptions(Exception):
    """A package's `subscriptions.py` is missing or not written as this module reads it."""


def package(process: str) -> str:
    """The Python package of a process."""
    return f"easel_{process}"


def role(process: str) -> str:
    """The PostgreSQL role of a process; its schema has the process's name."""
    return f"easel_{process}"


def listens(process: str) -> tuple[Entity, ...]:
    """The literal `LISTENS` of the process's subscriptions.py: entities whose facts it hears."""
    spec = find_spec(package(process))
    if spec is None or not spec.submodule_search_locations:
        raise BadSubscriptions(f"{package(process)} is not installed")
    path = Path(spec.submodule_search_locations[0]) / "subscriptions.py"
    try:
        return listens_of(path.read_text(), str(path))
    except OSError as error:
        raise BadSubscriptions(f"{path}: {error.strerror}") from error


def listens_of(source: str, name: str) -> tuple[Entity, ...]:
    """LISTENS in a module's text; raises BadSubscriptions where it is not a tuple of known entities."""
    assigned = dict(_assignments(ast.parse(source, name)))
    if "LISTENS" not in assigned:
        raise BadSubscriptions(f"{name} has no LISTENS")
    try:
        found = _value(assigned["LISTENS"], assigned)
    except (ValueError, KeyError) as error:
        raise BadSubscriptions(
            f"{name}: LISTENS must be written out as a tuple of strings, or be tuple(TABLE) of a table written out"
        ) from error
    if not isinstance(found, tuple) or set(found) - set(get_args(Entity)):
        raise BadSubscriptions(f"{name}: LISTENS must be a tuple of {', '.join(get_args(Entity))}; found {found!r}")
    return cast("tuple[Entity, ...]", found)


def _assignments(module: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    for statement in module.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value:
            yield statement.target.id, statement.value
        elif isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            yield statement.targets[0].id, statement.value


def _value(expression: ast.expr, assigned: dict[str, ast.expr]) -> object:
    """A literal, or `tuple(TABLE)` where TABLE is a dict with literal keys."""
    match expression:
        case ast.Call(func=ast.Name(id="tuple"), args=[ast.Name(id=table)], keywords=[]):
            found = assigned[table]
            if not isinstance(found, ast.Dict):
                raise ValueError(table)
            return tuple(ast.literal_eval(key) for key in found.keys if key is not None)
        case _:
            return ast.literal_eval(expression)
