"""One key of a service.json and the tree the table of keys becomes.

The table (`keys.py`, `later.py`) drives acceptance, the published JSON Schema and docs/service-json.md, so that the
three cannot disagree. This file knows nothing of any single key.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from msgspec import Struct

Kind = Literal["string", "integer", "number", "boolean", "amount", "cores", "size", "object", "list", "map"]
"""`map`: names are the user's own; dots in them are part of the name. `amount`: a whole number, or a percentage as
text (`25%`). `cores`, `size`: a number (of cores, of MiB), or text as Kubernetes writes it. Bounds are those of the
number."""

DAY_S = 86_400
PERCENT = r"(?:100|[1-9]?[0-9])%"
"""What a percentage looks like."""
CORES = r"[0-9]{1,9}m|[0-9]{1,6}(?:\.[0-9]{1,9})?"
"""Cores as text: `500m`, `2`, `0.5`."""
SIZE = r"[0-9]{1,12}(?:\.[0-9]{1,9})?(?:Mi|Gi|Ti|M|G|T)"
"""A size as text, always with its unit: `512Mi`, `1.5Gi`, `2G`."""
TEXTS = {"amount": PERCENT, "cores": CORES, "size": SIZE}
"""Kinds that are a number or text of a certain form → that form."""


class Key(Struct, frozen=True, kw_only=True):
    """What may stand at one path. Bounds are inclusive, except `above`."""

    path: str
    """`metadata.rpc.keepalive`; the items of a list are `containers[]`."""
    kind: Kind
    doc: str = ""
    """Meaning and unit, for people."""
    default: Any = None
    """What is used when the key is absent; None: nothing, or see `doc`."""
    required: bool = False
    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    """The value must be greater than this."""
    choices: tuple[Any, ...] = ()
    pattern: str = ""
    """Regular expression a string must match as a whole."""
    pattern_says: str = ""
    """The pattern in words."""
    min_length: int = 0
    max_length: int = 65_536
    """Of a string in characters, of a list or map in entries."""
    later: str = ""
    """The feature this key belongs to, while it is not built yet: the key is refused by name."""
    neutral: tuple[Any, ...] = ()
    """Values that ask for nothing, of a `later` key too: they are accepted, and left out."""
    resolved_by_cli: bool = False
    """The CLI turns a file's value into what `pattern` wants (relative paths): the schema does not ask for it."""
    text_too: bool = False
    """Of a boolean: "true" and "false" in quotes are taken as well (an old spelling)."""
    secret: bool = False
    """The value is never repeated in an error, a view or a record."""
    also: tuple[str, ...] = ()
    """Other spellings EAS accepts for the same thing."""

    @property
    def name(self) -> str:
        """The last part of the path, without the list mark."""
        return self.path.removesuffix("[]").rpartition(".")[2]


class Node(Struct, kw_only=True):
    """A key with the keys below it."""

    key: Key
    children: dict[str, Node] = {}
    item: Node | None = None
    """What each item of a list is."""


def tree_of(keys: Iterable[Key]) -> Node:
    """The table as a tree; objects that the table does not name are made on the way."""
    root = Node(key=Key(path="", kind="object"))
    for key in keys:
        *parents, last = key.path.split(".")
        node = root
        for part in parents:
            node = _below(node, part, Key(path=_join(node, part), kind="object"))
        _below(node, last, key)
    return root


def _below(node: Node, part: str, key: Key) -> Node:
    """The node for `part` under `node`, made if absent; `part` may end in `[]` (an item of that list)."""
    if part.endswith("[]"):
        of = node.children[part[:-2]]
        if of.item is None:
            of.item = Node(key=key)
        return of.item
    if part not in node.children:
        node.children[part] = Node(key=key)
    return node.children[part]


def _join(node: Node, part: str) -> str:
    return f"{node.key.path}.{part}" if node.key.path else part
