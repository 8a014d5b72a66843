"""The async client: one object, one attribute per API. It decides nothing; it holds the parts together."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from easel_contracts.ids import DEFAULT_WORKSPACE
from easel_proto.v1.replicas_pb2 import Replica
from easel_proto.v1.services_pb2 import Service
from easel_sdk.canaries import CanariesApi
from easel_sdk.comparisons import ComparisonsApi
from easel_sdk.discovery import Target, discover
from easel_sdk.events import EventsApi
from easel_sdk.explaining import PartExplanation, explain
from easel_sdk.groups import GroupsApi
from easel_sdk.mirrors import MirrorsApi
from easel_sdk.observing import AuditApi, MetricsApi, NodesApi, RoutesApi, ScalingApi
from easel_sdk.replacing import Replacement, watch_replacement
from easel_sdk.replicas import ReplicasApi
from easel_sdk.services import ServicesApi
from easel_sdk.tokens import TokensApi
from easel_sdk.transport import Transport
from easel_sdk.waiting import Progress, Wanted, goal_of, watch
from easel_sdk.web_links import web_link

if TYPE_CHECKING:  # httpx takes 0.2 s to import, and only calls to services need it
    from easel_sdk.predicting import Body, Prediction, Predictor


class Client:
    """A platform. `async with Client() as easel: await easel.services.list()`.

    Without arguments it finds the platform of EASEL_SERVER or EASEL_HOME, else of ~/.easel. Nothing is sent before
    the first call. Raises CannotReach or NoAccessKey where there is nothing to call.
    """

    def __init__(
        self,
        server: str | None = None,
        access_key: str | None = None,
        home: str | os.PathLike[str] | None = None,
        *,
        workspace: str = DEFAULT_WORKSPACE,
        target: Target | None = None,
    ) -> None:
        self.target = target or discover(server, access_key, home)
        self._transport = Transport(self.target)
        self._workspace = workspace
        self._predictor: Predictor | None = None
        self.services = ServicesApi(self._transport, workspace)
        self.groups = GroupsApi(self._transport, workspace)
        self.replicas = ReplicasApi(self._transport, workspace)
        self.events = EventsApi(self._transport, workspace)
        self.nodes = NodesApi(self._transport, workspace)
        self.scaling = ScalingApi(self._transport, workspace)
        self.routes = RoutesApi(self._transport, workspace)
        self.metrics = MetricsApi(self._transport, workspace)
        self.audit = AuditApi(self._transport, workspace)
        self.tokens = TokensApi(self._transport, workspace)
        self.mirrors = MirrorsApi(self._transport, workspace)
        self.canaries = CanariesApi(self._transport, workspace, self.services.usable_text)
        self.comparisons = ComparisonsApi(self._transport, workspace)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connection."""
        await self._transport.close()

    async def wait(
        self, service: str | Service, until: Wanted = "running", *, generation: int = 0,
        timeout_s: float | None = None, over_pauses: bool = False,
    ) -> Service | None:  # fmt: skip
        """Returns the service once it is `until` ("running", "stopped", "deleted": then None).

        `service`: what the change returned, so that its own effect is waited for: a revision that is reverted is a
        failure then, though the service runs on. Or a name, with the change's `generation` where there was one.
        `over_pauses`: a rollout that stays paused until somebody acts is waited for, too. Raises ServiceFailed or
        TimedOut.
        """
        found = None
        async for progress in self.watch_progress(
            service, until, generation=generation, timeout_s=timeout_s, over_pauses=over_pauses
        ):
            found = progress.service
        return found

    async def watch_progress(
        self, service: str | Service, until: Wanted = "running", *, generation: int = 0,
        timeout_s: float | None = None, over_pauses: bool = False,
    ) -> AsyncIterator[Progress]:  # fmt: skip
        """Like `wait`, with every look on the way."""
        goal = goal_of(service, until, generation=generation, over_pauses=over_pauses)
        async for progress in watch(goal, self.services, self.replicas, self.events, timeout_s):
            yield progress

    async def watch_replacement(
        self, service: str, before: Sequence[Replica], *, soft: bool = False, timeout_s: float | None = None
    ) -> AsyncIterator[Replacement]:
        """Every look until the replicas of `before` (as `replicas.list` had them before `replicas.restart`) are
        replaced, or with `soft` restarted in their place. Raises ServiceFailed or TimedOut."""
        async for look in watch_replacement(
            service, before, self.services, self.replicas, self.events, soft=soft, timeout_s=timeout_s
        ):
            yield look

    async def explain(self, name: str) -> list[PartExplanation]:
        """Why a service or a group is as it is: what each part of the platform says, those that do not answer named.

        Of a group only control and the router know. Raises NotFound."""
        return await explain(self._transport, self._workspace, name)

    async def web_link(self, name: str, *, ttl_s: float = 3600.0, path: str = "/") -> str:
        """A URL that opens a web application in a browser, for `ttl_s` seconds (30 days at most), at `path`.

        The browser's session that it begins lasts 12 hours; rotating the service's token ends both. Raises NotFound,
        and InvalidInput where the service is no web application.
        """
        return web_link(await self.services.get(name), now_unix_s=time.time(), ttl_s=ttl_s, path=path)

    async def predict(
        self, name: str, body: Body = None, *, path: str = "", method: str | None = None,
        headers: Mapping[str, str] | None = None, timeout_s: float | None = None,
    ) -> Prediction:  # fmt: skip
        """Calls a service, or a group, with its token and returns the whole answer.

        `body`: bytes or text as they are, a mapping or list as JSON. Raises PredictFailed on any status from 400.
        """
        from easel_sdk.predicting import make_call

        return await self._calls().predict(make_call(name, body, path=path, method=method, headers=headers), timeout_s)

    async def predict_stream(
        self, name: str, body: Body = None, *, path: str = "", method: str | None = None,
        headers: Mapping[str, str] | None = None, timeout_s: float | None = None,
        on_start: Callable[[Prediction], None] | None = None,
    ) -> AsyncIterator[bytes]:  # fmt: skip
        """Like `predict`, but the answer's body piece by piece as it comes (SSE, long answers).

        `on_start` is told status and headers before the first piece; the body is empty there.
        """
        from easel_sdk.predicting import make_call

        call = make_call(name, body, path=path, method=method, headers=headers)
        async for chunk in self._calls().stream(call, timeout_s, on_start):
            yield chunk

    def _calls(self) -> Predictor:
        if self._predictor is None:
            from easel_sdk.predicting import Predictor

            self._predictor = Predictor(self.services, self.groups, self.target.data_url, self.target.ca_file)
        return self._predictor
