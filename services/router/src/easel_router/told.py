"""What the router told of routes, of services and of groups: the rows as this copy knows them."""

from __future__ import annotations

from easel_contracts.facts import Cause, RouteState
from easel_kit.db import Stale
from easel_router.store import Store, Stored


class Told:
    """Rows as we wrote them, so that a change costs no query before it is told; another copy's write makes ours Stale,
    and the row is read again."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._rows: dict[str, Stored] = {}

    async def of(self, name: str) -> Stored | None:
        """What was told last; None: nothing yet."""
        return self._rows.get(name) or await self._store.route(name)

    async def tell(self, state: RouteState, before: Stored | None, lease: int, cause: Cause) -> None:
        """Stores and tells; raises Stale where another copy was first, and forgets what it believed of the row."""
        try:
            self._rows[state.service] = await self._store.write(state, before, lease, cause)
        except Stale:
            self._rows.pop(state.service, None)
            raise

    def forget(self, name: str) -> None:
        """Nothing more is told of it by us."""
        self._rows.pop(name, None)


def is_told(before: Stored | None, generation: int, version: str) -> bool:
    """Whether it was told already what became of this generation with these resources."""
    if before is None:
        return False
    stored = before.state
    return stored.state in ("probed", "refused") and stored.version == version and stored.generation == generation
