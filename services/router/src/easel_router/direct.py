"""Keeps the answer of direct mode's discovery as the Envoys are."""

from __future__ import annotations

from easel_router.decide.discovery import answer
from easel_router.envoys import Envoys
from easel_router.xds.catalog import Catalog
from easel_router.xds.discovery import render_discovery
from easel_router.xds.messages import ROUTE


class Direct:
    """The scopes of discovery in the catalog."""

    def __init__(self, catalog: Catalog, envoys: Envoys) -> None:
        self._catalog, self._envoys = catalog, envoys
        self._answer = ""
        self.refresh()
        envoys.changed = self.refresh

    def refresh(self) -> None:
        """Looks who is there; costs nothing where nobody came or went."""
        new = answer(self._envoys.nodes())
        if new == self._answer:
            return
        self._answer = new
        for name, body in render_discovery(new).items():
            self._catalog.put(ROUTE, name, body)
