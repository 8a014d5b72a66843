"""Services: create, change, look, wait. What the platform admits is decided there, not here.

Mutations carry an idempotency key, made here when none is given, so that a repeated call has one effect.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from easel_contracts.ids import uuid7
from easel_proto.v1 import services_pb2 as pb
from easel_proto.v1.services_pb2_grpc import ServicesStub
from easel_sdk.code import Archive, pack
from easel_sdk.discovery import host_id
from easel_sdk.spec_file import SpecSource, local_paths, read_spec, with_sources
from easel_sdk.transport import Transport

if TYPE_CHECKING:  # these exist for type checkers only
    from easel_proto.v1.services_pb2_grpc import ServicesAsyncStub

RolloutAction = Literal["pause", "resume", "revert"]
SafetyLock = Literal["none", "dangerous", "all"]

_CHUNK_BYTES = 512 * 1024
_UPLOAD_TIMEOUT_S = 600.0


class ServicesApi:
    """Calls to `easel.v1.Services`. Methods raise the errors of easel_sdk.errors."""

    def __init__(self, transport: Transport, workspace: str) -> None:
        self._transport = transport
        self._workspace = workspace

    async def info(self) -> pb.Info:
        """What the platform is and where its data listener answers."""
        return await self._transport.call(lambda t, m: self._stub().GetInfo(pb.GetInfoRequest(), timeout=t, metadata=m))

    async def create(
        self, spec: SpecSource, *, dry_run: bool = False, idempotency_key: str | None = None
    ) -> pb.Service:
        """Deploys a service.json: a path of one, its text, or the parsed document.

        Local paths in it are used in place where the platform sees this machine's files, else packed and uploaded.
        Returns when the platform has it on disk; `wait` says when it serves. `dry_run` only admits it.
        """
        request = pb.CreateServiceRequest(
            workspace=self._workspace, config=await self.usable_text(spec), dry_run=dry_run,
            idempotency_key=idempotency_key or uuid7(),
        )  # fmt: skip
        return await self._transport.call(lambda t, m: self._stub().Create(request, timeout=t, metadata=m))

    async def update(
        self, name: str, spec: SpecSource, *, replace: bool = False, dry_run: bool = False,
        allow_interruption: bool = False, idempotency_key: str | None = None,
    ) -> pb.Service:  # fmt: skip
        """Changes a service: `spec` holds the keys to change, or with `replace` everything.

        A change of `metadata.instance` alone is a scale; a change of what runs is a new revision, which takes over by
        a rollout. `allow_interruption`: with no room for a new replica beside the old ones, they make room; without it
        such a change is refused.
        """
        request = pb.UpdateServiceRequest(
            config=await self.usable_text(spec), dry_run=dry_run, update_type="replace" if replace else "merge",
            allow_interruption=allow_interruption, **self._named(name, idempotency_key),
        )  # fmt: skip
        return await self._transport.call(lambda t, m: self._stub().Update(request, timeout=t, metadata=m))

    async def get(self, name: str) -> pb.Service:
        """The service as it is now. Raises NotFound."""
        request = pb.GetServiceRequest(workspace=self._workspace, name=name)
        return await self._transport.call(lambda t, m: self._stub().Get(request, timeout=t, metadata=m))

    async def list(self) -> list[pb.Service]:
        """Every service of the workspace."""
        found: list[pb.Service] = []
        token = ""
        while True:
            request = pb.ListServicesRequest(workspace=self._workspace, page_size=1000, page_token=token)
            answer = await self._transport.call(
                lambda t, m, request=request: self._stub().List(request, timeout=t, metadata=m)  # type: ignore[misc]
            )
            found.extend(answer.services)
            token = answer.next_page_token
            if not token:
                return found

    async def delete(self, name: str, *, idempotency_key: str | None = None) -> pb.Service:
        """Ends a service for good; its replicas finish what they are at."""
        request = pb.DeleteServiceRequest(**self._named(name, idempotency_key))
        return await self._transport.call(lambda t, m: self._stub().Delete(request, timeout=t, metadata=m))

    async def start(self, name: str, *, idempotency_key: str | None = None) -> pb.Service:
        """Starts a stopped service."""
        request = pb.StartServiceRequest(**self._named(name, idempotency_key))
        return await self._transport.call(lambda t, m: self._stub().Start(request, timeout=t, metadata=m))

    async def stop(self, name: str, *, idempotency_key: str | None = None) -> pb.Service:
        """Stops every replica; the service stays known."""
        request = pb.StopServiceRequest(**self._named(name, idempotency_key))
        return await self._transport.call(lambda t, m: self._stub().Stop(request, timeout=t, metadata=m))

    async def restart(
        self, name: str, *, allow_interruption: bool = False, idempotency_key: str | None = None
    ) -> pb.Service:
        """Replaces every replica by a rollout, new ones first. `allow_interruption` as for `update`."""
        request = pb.RestartServiceRequest(allow_interruption=allow_interruption, **self._named(name, idempotency_key))
        return await self._transport.call(lambda t, m: self._stub().Restart(request, timeout=t, metadata=m))

    async def scale(self, name: str, instance: int, *, idempotency_key: str | None = None) -> pb.Service:
        """Sets how many replicas run where no autoscaler decides."""
        request = pb.ScaleServiceRequest(instance=instance, **self._named(name, idempotency_key))
        return await self._transport.call(lambda t, m: self._stub().Scale(request, timeout=t, metadata=m))

    async def switch_revision(
        self, name: str, revision: int, *, allow_interruption: bool = False, idempotency_key: str | None = None
    ) -> pb.Service:
        """Back (or on) to another revision: at once where its replicas are still up, else by a rollout.

        `warnings` of what comes back names the sources that may have changed since the revision was made.
        """
        request = pb.SwitchRevisionRequest(
            revision=revision, allow_interruption=allow_interruption, **self._named(name, idempotency_key)
        )
        return await self._transport.call(lambda t, m: self._stub().SwitchRevision(request, timeout=t, metadata=m))

    async def change_rollout(
        self, name: str, action: RolloutAction, *, idempotency_key: str | None = None
    ) -> pb.Service:
        """Pauses, resumes or reverts the rollout that is on; `Service.rollout` shows it."""
        request = pb.ChangeRolloutRequest(action=action, **self._named(name, idempotency_key))
        return await self._transport.call(lambda t, m: self._stub().ChangeRollout(request, timeout=t, metadata=m))

    async def clone(
        self, name: str, new_name: str, changes: SpecSource | None = None, *, idempotency_key: str | None = None
    ) -> pb.Service:
        """A new service with the configuration and environment of this one and a token of its own.

        `changes`: keys of a service.json that are laid over the configuration.
        """
        request = pb.CloneServiceRequest(
            new_name=new_name, config="" if changes is None else await self.usable_text(changes),
            **self._named(name, idempotency_key),
        )  # fmt: skip
        return await self._transport.call(lambda t, m: self._stub().Clone(request, timeout=t, metadata=m))

    async def lock(self, name: str, lock: SafetyLock, *, idempotency_key: str | None = None) -> pb.Service:
        """Protects a service: "dangerous" refuses stop and delete, "all" every change, "none" nothing."""
        request = pb.LockServiceRequest(lock=lock, **self._named(name, idempotency_key))
        return await self._transport.call(lambda t, m: self._stub().Lock(request, timeout=t, metadata=m))

    async def set_autoscaler(
        self, name: str, section: Mapping[str, Any], *, idempotency_key: str | None = None
    ) -> pb.Service:
        """Lays a section `autoscaler` (`min`, `max`, `strategies`, `behavior`) over the one there is.

        Targets given as a list, `scaleStrategies`, take the place of all there were.
        """
        changes = dict(section)
        if "scaleStrategies" in section and "strategies" in await self._autoscaler(name):
            changes.setdefault("strategies", None)
        return await self.update(name, {"autoscaler": changes}, idempotency_key=idempotency_key)

    async def remove_autoscaler(self, name: str, *, idempotency_key: str | None = None) -> pb.Service:
        """Leaves the number of replicas to `metadata.instance`; changes nothing where no autoscaler is set."""
        if not await self._autoscaler(name):
            return await self.get(name)
        return await self.update(name, {"autoscaler": None}, idempotency_key=idempotency_key)

    async def revisions(self, name: str) -> Sequence[pb.Revision]:
        """Every revision, as the platform orders them."""
        request = pb.ListRevisionsRequest(workspace=self._workspace, name=name)
        answer = await self._transport.call(lambda t, m: self._stub().ListRevisions(request, timeout=t, metadata=m))
        return [*answer.revisions]

    async def diff_revisions(self, name: str, base: int, other: int) -> Sequence[pb.Difference]:
        """What differs between two revisions; values of the environment are not shown."""
        request = pb.DiffRevisionsRequest(workspace=self._workspace, name=name, base=base, other=other)
        answer = await self._transport.call(lambda t, m: self._stub().DiffRevisions(request, timeout=t, metadata=m))
        return [*answer.differences]

    async def schema(self) -> dict[str, Any]:
        """The JSON Schema of service.json."""
        answer = await self._transport.call(
            lambda t, m: self._stub().GetSchema(pb.GetSchemaRequest(), timeout=t, metadata=m)
        )
        schema: dict[str, Any] = json.loads(answer.json_schema)
        return schema

    async def upload_code(self, directory: str | Path) -> str:
        """Packs and uploads a directory; returns its digest, for `storage[].local.digest`."""
        archive = await asyncio.to_thread(pack, Path(directory))
        return await self._upload(archive)

    async def _upload(self, archive: Archive) -> str:
        def send(timeout_s: float, metadata: Any) -> Any:
            archive.file.seek(0)  # from the start again, when it is repeated
            return self._stub().UploadCode(_chunks(archive), timeout=timeout_s, metadata=metadata)

        with archive.file:
            answer = await self._transport.call(send, timeout_s=_UPLOAD_TIMEOUT_S)
        digest: str = answer.digest
        return digest

    async def usable_text(self, spec: SpecSource) -> str:
        """A service.json as it is sent: with local paths made usable, packed and uploaded where the platform does not
        see this machine's files. A document without them goes as it is."""
        file = read_spec(spec)
        paths = local_paths(file)
        if not paths:
            return file.text
        digests = {}
        if (await self.info()).host_id != host_id():
            for local in paths:
                if Path(local.written).is_absolute() and not local.path.exists():
                    continue  # a path of the platform's machine, not of this one: it says whether it is there
                archive = await asyncio.to_thread(pack, local.path, field=local.field)
                digests[local.field] = await self._upload(archive)
        return with_sources(file, digests).text

    async def _autoscaler(self, name: str) -> dict[str, Any]:
        """The section as it is stored; empty: none."""
        config = json.loads((await self.get(name)).service_config or "{}")
        section: dict[str, Any] = config.get("autoscaler") or {}
        return section

    def _stub(self) -> ServicesAsyncStub:
        return ServicesStub(self._transport.channel())

    def _named(self, name: str, key: str | None) -> dict[str, Any]:
        return {"workspace": self._workspace, "name": name, "idempotency_key": key or uuid7()}


def _chunks(archive: Archive) -> Iterator[pb.UploadCodeRequest]:
    while chunk := archive.file.read(_CHUNK_BYTES):
        yield pb.UploadCodeRequest(chunk=chunk)
