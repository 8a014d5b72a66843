"""Mutations over gRPC: rows, facts, audit and answers, on the real stores."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import asyncpg
import grpc.aio
import pytest

from easel_contracts import facts
from easel_contracts.errors import AlreadyExists, Conflict, EaselError, InvalidInput, NotFound
from easel_contracts.facts import ServiceState
from easel_kit.grpc_errors import from_rpc
from easel_kit.testing import eventually
from easel_proto.internal.v1 import control_pb2
from easel_proto.v1 import audit_pb2, services_pb2
from tests.flow.control.conftest import Control

FILE: dict[str, Any] = {
    "metadata": {"name": "ocr", "instance": 1, "cpu": 1, "memory": 512},
    "containers": [{"command": "python app.py", "env": [{"name": "MODEL", "value": "env-value-hush"}]}],
    "token": "token-hush-hush",
}


def text(**changes: Any) -> str:
    return json.dumps(FILE | changes)


async def refused(call: Any) -> EaselError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return from_rpc(caught.value)


async def create(control: Control, config: str = "", **more: Any) -> services_pb2.Service:
    request = services_pb2.CreateServiceRequest(config=config or text(), **more)
    made: services_pb2.Service = await control.services().Create(request, metadata=control.auth)
    return made


async def service_facts(control: Control) -> list[tuple[str, ServiceState]]:
    return [(f.verb, facts.state_of(f, ServiceState)) for f in await control.told() if f.entity == "service"]


async def test_create_is_durable_told_and_audited(control: Control) -> None:
    """A created service can be read at once; its fact and its audit record follow from the same transaction."""
    made = await create(control)

    assert (made.service_name, made.status, made.generation, made.revision) == ("ocr", "Creating", 1, 1)
    assert made.token == made.access_token == "token-hush-hush"
    assert made.endpoint == "http://127.0.0.1:8080/api/predict/ocr"
    got = await control.services().Get(services_pb2.GetServiceRequest(name="ocr"), metadata=control.auth)
    assert got.service_id == made.service_id
    told = await eventually(lambda: service_facts(control))
    assert (told[0][0], told[0][1].name, told[0][1].wanted) == ("created", "ocr", "running")
    audit = await control.audit().List(audit_pb2.ListAuditRequest(target="service/ocr"), metadata=control.auth)
    record = audit.records[0]
    assert (record.action, record.before_json, record.target) == ("Services.Create", "", "service/ocr")
    assert record.actor == control.key.split("_")[1]
    assert json.loads(record.after_json)["revision"] == 1


async def test_bad_input_leaves_nothing(control: Control) -> None:
    """All errors come at once, with paths; no row, fact, audit record or outbox row is made."""
    error = await refused(create(control, '{"name": "ocr", "metadata": {"cpus": 1}, "containers": [{"args": ["x"]}]}'))

    assert isinstance(error, InvalidInput)
    assert {(f.path, f.code) for f in error.fields} == {
        ("metadata.cpus", "UNKNOWN_KEY"),
        ("containers[0].args", "NOT_SUPPORTED_YET"),
        ("containers[0].command", "MISSING"),
    }
    async with control.process.db.connection() as connection:
        for table in ("services", "revisions", "audit", "outbox", "idempotency"):
            count = await connection.fetchval(f"SELECT count(*) FROM {table} WHERE {table}::text NOT LIKE '%key%'")
            assert count == 0, table


async def test_a_missing_mount_and_a_missing_secret_are_named(control: Control) -> None:
    storage = [{"mount_path": "/code", "local": {"path": "/nowhere/at/all"}}]
    container = FILE["containers"][0] | {"env": [{"name": "A", "secretRef": {"name": "db"}}]}
    error = await refused(create(control, text(storage=storage, containers=[container])))

    assert isinstance(error, InvalidInput)
    assert [(f.path, f.code) for f in error.fields] == [
        ("storage[0].local.path", "NOT_FOUND"),
        ("containers[0].env[0].secretRef.name", "NOT_FOUND"),
    ]


async def test_a_dry_run_changes_nothing(control: Control) -> None:
    made = await create(control, dry_run=True)

    assert made.service_name == "ocr"
    assert isinstance(
        await refused(control.services().Get(services_pb2.GetServiceRequest(name="ocr"), metadata=control.auth)),
        NotFound,
    )


async def test_a_taken_name(control: Control) -> None:
    await create(control)

    error = await refused(create(control))

    assert isinstance(error, AlreadyExists)
    assert error.code == "NAME_TAKEN"


async def test_idempotency_keys(control: Control) -> None:
    """The same request with the same key acts once, also at the same time; another request is refused."""
    first, *others = await asyncio.gather(*(create(control, idempotency_key="k1") for _ in range(5)))

    assert {o.service_id for o in others} == {first.service_id}
    error = await refused(create(control, text(labels={"a": "b"}), idempotency_key="k1"))
    assert error.code == "IDEMPOTENCY_KEY_REUSED"
    restart = services_pb2.RestartServiceRequest(name="ocr", idempotency_key="k2")
    answers = await asyncio.gather(*(control.services().Restart(restart, metadata=control.auth) for _ in range(5)))
    assert {a.generation for a in answers} == {2}


async def test_updates_make_revisions_only_where_the_content_differs(control: Control) -> None:
    await create(control)
    services = control.services()

    async def update(config: dict[str, Any], kind: str = "merge") -> services_pb2.Service:
        request = services_pb2.UpdateServiceRequest(name="ocr", config=json.dumps(config), update_type=kind)
        answer: services_pb2.Service = await services.Update(request, metadata=control.auth)
        return answer

    same = await update(FILE, "replace")
    assert (same.generation, same.revision) == (1, 1)
    scaled = await update({"metadata.instance": 3})
    assert (scaled.generation, scaled.revision, scaled.wanted_instance) == (2, 1, 3)
    newer = await update({"metadata": {"cpu": 0.5}})
    assert (newer.generation, newer.revision, newer.cpu) == (3, 2, 0.5)
    env = await update({"containers": [FILE["containers"][0] | {"env": [{"name": "MODEL", "value": "other"}]}]})
    assert env.revision == 3
    kept = await update({"containers": [FILE["containers"][0] | {"env": [{"name": "MODEL"}]}]})
    assert (kept.generation, kept.revision) == (4, 3)
    token = await update({"token": "another-token"})
    assert (token.generation, token.revision, token.token) == (5, 3, "another-token")
    labels = await update({"labels": {"team": "vision"}})
    assert (labels.revision, labels.labels[0].label_value) == (3, "vision")
    listed = await services.ListRevisions(services_pb2.ListRevisionsRequest(name="ocr"), metadata=control.auth)
    assert [r.number for r in listed.revisions] == [3, 2, 1]
    assert isinstance(await refused(update({"metadata.name": "another"})), InvalidInput)
    verbs = [verb for verb, _ in await eventually(lambda: service_facts(control))]
    assert verbs[:3] == ["created", "scaled", "updated"]


async def test_changed_code_is_a_new_revision_and_its_digest_is_kept(control: Control) -> None:
    code = control.directory / "code"
    code.mkdir()
    (code / "app.py").write_text("one")
    config = text(storage=[{"mount_path": "/code", "local": {"path": str(code)}}])
    made = await create(control, config)
    update = services_pb2.UpdateServiceRequest(name="ocr", config=config, update_type="replace")

    again = await control.services().Update(update, metadata=control.auth)
    assert again.revision == 1
    (code / "app.py").write_text("two")
    changed = await control.services().Update(update, metadata=control.auth)

    assert changed.revision == 2
    assert made.sources[0].digest.startswith("sha256:")
    assert made.sources[0].digest != changed.sources[0].digest


async def test_stop_start_restart_scale(control: Control) -> None:
    await create(control)
    services = control.services()

    async def call(method: str, **more: Any) -> services_pb2.Service:
        request = getattr(services_pb2, f"{method}ServiceRequest")(name="ocr", **more)
        answer: services_pb2.Service = await getattr(services, method)(request, metadata=control.auth)
        return answer

    assert (await call("Scale", instance=2)).wanted_instance == 2
    assert (await call("Stop")).status == "Stopping"
    await eventually(lambda: stopped(control))
    assert isinstance(await refused(call("Restart")), Conflict)
    assert (await call("Start")).status == "Starting"
    assert isinstance(await refused(call("Scale", instance=0)), InvalidInput)
    assert isinstance(await refused(control.services().Stop(
        services_pb2.StopServiceRequest(name="nope"), metadata=control.auth)), NotFound)  # fmt: skip


async def stopped(control: Control) -> bool:
    got = await control.services().Get(services_pb2.GetServiceRequest(name="ocr"), metadata=control.auth)
    return str(got.status) == "Stopped"


async def test_a_scale_under_an_autoscaler_is_refused_with_the_way_out(control: Control) -> None:
    await create(control, text(autoscaler={"min": 1, "max": 3, "strategies": {"qps": 10}}))

    scale = services_pb2.ScaleServiceRequest(name="ocr", instance=2)
    error = await refused(control.services().Scale(scale, metadata=control.auth))

    assert error.code == "AUTOSCALED"
    assert "autoscaler.min" in error.hint


async def test_secrets_appear_nowhere_in_clear(control: Control) -> None:
    """Token and environment values are in no row, fact or audit record; the process that needs them gets them."""
    secrets_dir = control.settings.home / "secrets"
    secrets_dir.mkdir()
    (secrets_dir / "db").write_text("file-hush\n")
    (secrets_dir / "db").chmod(0o600)
    env = [{"name": "MODEL", "value": "env-value-hush"}, {"name": "DB", "secretRef": {"name": "db"}}]
    made = await create(control, text(containers=[FILE["containers"][0] | {"env": env}]), idempotency_key="k")
    await control.services().Update(
        services_pb2.UpdateServiceRequest(name="ocr", config='{"metadata.cpu": 2}'), metadata=control.auth
    )
    told = await eventually(lambda: service_facts(control))

    assert told
    everywhere = b"".join(facts.encode(f) for f in await control.told())
    async with control.process.db.connection() as connection:
        for table in ("services", "revisions", "audit", "outbox", "idempotency", "access_keys", "vault_probe"):
            for row in await connection.fetch(f"SELECT * FROM {table}"):
                everywhere += b"".join(v if isinstance(v, bytes) else str(v).encode() for v in row.values())
    assert b"hush" not in everywhere
    assert control.key.encode() not in everywhere
    assert "hush" not in made.service_config

    tokens = await control.as_process("router").GetTokens(control_pb2.GetTokensRequest())
    assert [(t.service, t.token) for t in tokens.tokens] == [("ocr", "token-hush-hush")]
    ask = control_pb2.GetEnvironmentRequest(service="ocr", revision=2)
    found = await control.as_process("agent").GetEnvironment(ask)
    assert dict(found.env) == {"MODEL": "env-value-hush", "DB": "file-hush"}
    for process in ("router", "scheduler", "monitor"):
        assert (await refused(control.as_process(process).GetEnvironment(ask))).code == "NOT_FOR_YOU"
    assert (await refused(control.as_process("agent").GetTokens(control_pb2.GetTokensRequest()))).code == "NOT_FOR_YOU"


async def test_the_audit_log_is_append_only(control: Control) -> None:
    await create(control)

    async with control.process.db.connection() as connection:
        for statement in ("UPDATE audit SET actor = 'x'", "DELETE FROM audit"):
            with pytest.raises(asyncpg.RaiseError):
                await connection.execute(statement)


async def test_uploads_are_kept_by_digest_and_only_the_agent_reads_them(control: Control) -> None:
    data = b"\x1f\x8b" + b"x" * 100_000

    async def chunks(content: bytes) -> Any:
        for i in range(0, len(content), 30_000):
            yield services_pb2.UploadCodeRequest(chunk=content[i : i + 30_000])

    answer = await control.services().UploadCode(chunks(data), metadata=control.auth)
    read = [c.data async for c in control.as_process("agent").GetCode(control_pb2.GetCodeRequest(digest=answer.digest))]

    assert b"".join(read) == data
    assert answer.size_bytes == len(data)
    made = await create(control, text(storage=[{"mount_path": "/code", "local": {"digest": answer.digest}}]))
    assert made.sources[0].digest == answer.digest
    assert isinstance(
        await refused(control.services().UploadCode(chunks(b"plain"), metadata=control.auth)), InvalidInput
    )


async def test_lists_have_pages(control: Control) -> None:
    for i in range(5):
        await create(control, text(metadata={"name": f"svc{i}"}))
    seen: list[str] = []
    token = ""
    while True:
        page = await control.services().List(
            services_pb2.ListServicesRequest(page_size=2, page_token=token), metadata=control.auth
        )
        seen += [s.service_name for s in page.services]
        token = page.next_page_token
        if not token:
            break

    assert seen == [f"svc{i}" for i in range(5)]


async def test_without_a_key_nothing_is_answered(control: Control) -> None:
    error = await refused(control.services().List(services_pb2.ListServicesRequest()))

    assert error.code == "NO_ACCESS_KEY"


async def test_hostile_texts_in_requests_are_refused(control: Control) -> None:
    services = control.services()

    for call in (
        services.Get(services_pb2.GetServiceRequest(name="a\0b"), metadata=control.auth),
        services.Stop(services_pb2.StopServiceRequest(name="ocr", idempotency_key="\0"), metadata=control.auth),
        services.List(services_pb2.ListServicesRequest(page_token="\0"), metadata=control.auth),
        services.List(services_pb2.ListServicesRequest(page_size=5000), metadata=control.auth),
    ):
        assert isinstance(await refused(call), InvalidInput)
