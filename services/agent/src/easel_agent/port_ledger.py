"""Which replica has which port of the node's range: one holder at a time, and only where nobody listens."""

from __future__ import annotations

import socket

from easel_agent.decide.ports import candidates
from easel_contracts.errors import Refused


class PortLedger:
    """Ports from `first` to `last`; reserving is one synchronous step, so two replicas cannot get the same."""

    def __init__(self, first: int, last: int, address: str, *, start: int | None = None) -> None:
        """`start`: where in the range to begin; chosen at random, two platforms on a machine rarely meet."""
        self.first, self._last, self._address = first, last, address
        self._holders: dict[int, str] = {}
        self._after = (first if start is None else start) - 1

    def reserve(self, replica: str) -> int:
        """A port that nobody holds and nobody listens on. Raises Refused when there is none."""
        for port in candidates(self.first, self._last, self._after, self._holders):
            self._after = port
            if self._free(port):
                self._holders[port] = replica
                return port
        raise Refused("NO_FREE_PORT", f"No port of {self.first}-{self._last} is free on this node.",
                      "Stop a service, or set EASEL_AGENT_FIRST_PORT and EASEL_AGENT_LAST_PORT.")  # fmt: skip

    def release(self, port: int) -> None:
        """Give a port back."""
        self._holders.pop(port, None)

    def _free(self, port: int) -> bool:
        for ip in {self._address, "0.0.0.0"}:
            with socket.socket() as trial:
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    trial.bind((ip, port))
                except OSError:
                    return False
        return True
