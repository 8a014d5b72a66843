"""Where this home's secrets lie; how they are made is `easel_migrate.keys`' matter."""

from __future__ import annotations

from easel_migrate import keys
from easel_migrate.keys import NATS_USERS, PEERS, ROLES
from easel_standalone.home import Home

__all__ = ["NATS_USERS", "PEERS", "ROLES", "Keys"]


class Keys(keys.Keys):
    """The secrets of one home."""

    def __init__(self, home: Home) -> None:
        super().__init__(home.keys)
