"""Rows of services as the API shows them: with the token, and with what each does in its group."""

from __future__ import annotations

from collections.abc import Sequence

from easel_control.admission import Admission
from easel_control.memberships import Memberships
from easel_control.model import ServiceRow
from easel_control.views import service_view
from easel_kit.db import Connection
from easel_proto.v1 import services_pb2


class ServiceViews:
    """Makes them."""

    def __init__(self, admission: Admission, memberships: Memberships, data_url: str, web_url: str) -> None:
        self._admission, self._memberships, self._data_url = admission, memberships, data_url
        self._web_url = web_url

    async def shown(
        self, rows: Sequence[ServiceRow], connection: Connection | None = None
    ) -> list[services_pb2.Service]:
        """In the order of the rows. With a connection: with groups as its transaction sees them."""
        members = await self._memberships.members(rows, connection)
        return [
            service_view(row, self._admission.token_of(row), self._data_url, members.get(row.name), self._web_url)
            for row in rows
        ]
