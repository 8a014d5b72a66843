"""Image deployments over gRPC: secrets to the agent alone, a login of no revision, what replicas find out is kept."""

from __future__ import annotations

import base64
import json
from typing import Any

from easel_contracts import facts
from easel_contracts.errors import InvalidInput
from easel_kit.testing import eventually
from easel_proto.internal.v1 import control_pb2
from easel_proto.v1 import audit_pb2, common_pb2, services_pb2
from tests.flow.control.conftest import Control, replica, route
from tests.flow.control.test_control_mutations import create, refused, service_facts
from tests.flow.control.test_control_rollouts import switch, update
from tests.flow.control.test_control_status import becomes, get

LOGIN = base64.b64encode(b"user:hush-login").decode()
GIT = {"repo": "https://git.example.com/a.git", "branch": "main", "username": "me", "password": "hush-git"}
FILE: dict[str, Any] = {
    "metadata": {"name": "ocr", "instance": 1, "cpu": 1, "memory": 512},
    "containers": [
        {"image": "registry.example.com/ocr:1", "env": [{"name": "A", "value": "hush-env-1"}]},
        {"image": "proxy:2@sha256:" + "2" * 64, "env": [{"name": "A", "value": "hush-env-2"}]},
        {"image": "exporter:3"},
    ],
    "storage": [
        {"mount_path": "/scratch", "empty_dir": {}},
        {"mount_path": "/code", "git": GIT},
        {"mount_path": "/models", "oss": {"path": "oss://bucket/models/"}},
    ],
    "dockerAuth": LOGIN,
    "token": "hush-token-hush",
}
PINS = {"containers[0].image": "sha256:" + "1" * 64, "containers[2].image": "local:sha256:" + "3" * 64,
        "storage[1].git": "4" * 40, "storage[2].oss": "sha256:" + "5" * 64}  # fmt: skip
OPEN = {"containers[0].image": "mutable", "containers[1].image": "sha256:" + "2" * 64,
        "containers[2].image": "mutable", "storage[1].git": "mutable", "storage[2].oss": "mutable"}  # fmt: skip


def sources(service: Any) -> dict[str, str]:
    return {s.source: s.digest for s in service.sources}


async def secrets(control: Control, revision: int) -> control_pb2.GetEnvironmentResponse:
    ask = control_pb2.GetEnvironmentRequest(service="ocr", revision=revision)
    found: control_pb2.GetEnvironmentResponse = await control.as_process("agent").GetEnvironment(ask)
    return found


async def runs(control: Control, identity: str, revision: int, pins: dict[str, str], **more: Any) -> None:
    """The service's only replica serves and has told what it runs."""
    await control.hear("ready", replica(identity, "ready", revision=revision, pins=pins, **more))
    await control.hear("applied", route(identity))
    await becomes(control, "Running", "Running")


async def explained(control: Control, words: str) -> bool:
    """Whether some line of the explanation says so."""
    why = await control.services().Explain(common_pb2.ExplainRequest(name="ocr"), metadata=control.auth)
    return any(words in line.message for line in why.lines)


async def test_the_agent_gets_every_secret_and_nobody_else_any(control: Control) -> None:
    made = await create(control, json.dumps(FILE), idempotency_key="k")
    found = await secrets(control, 1)

    assert dict(found.env) == {"A": "hush-env-1"}
    assert [dict(sidecar.env) for sidecar in found.sidecars] == [{"A": "hush-env-2"}, {}]
    assert found.registry_login == LOGIN
    assert {i: (login.username, login.password) for i, login in found.logins.items()} == {1: ("me", "hush-git")}
    assert "hush" not in made.service_config
    assert await eventually(lambda: service_facts(control))
    everywhere = b"".join(facts.encode(f) for f in await control.told())
    async with control.process.db.connection() as connection:
        for table in ("services", "revisions", "audit", "outbox", "idempotency"):
            for row in await connection.fetch(f"SELECT * FROM {table}"):
                everywhere += b"".join(v if isinstance(v, bytes) else str(v).encode() for v in row.values())
    assert b"hush" not in everywhere
    assert LOGIN.encode() not in everywhere


async def test_another_login_is_no_other_revision(control: Control) -> None:
    """It counts for whoever pulls next, also for a revision of before; nothing is replaced for it."""
    await create(control, json.dumps(FILE))
    newer = base64.b64encode(b"user:hush-newer").decode()

    rotated = await update(control, {"dockerAuth": newer})

    assert (rotated.current_version, rotated.generation) == (1, 2)
    assert (await secrets(control, 1)).registry_login == newer
    await update(control, {"metadata.cpu": 2})
    await switch(control, 1)
    assert (await secrets(control, 1)).registry_login == newer
    shown = json.loads((await get(control)).service_config)
    replaced = services_pb2.UpdateServiceRequest(name="ocr", config=json.dumps(shown), update_type="replace")
    kept = await control.services().Update(replaced, metadata=control.auth)
    assert kept.current_version == 1, "what is shown, posted again, changes nothing"
    assert (await secrets(control, 1)).registry_login == newer
    await update(control, {"dockerAuth": ""})
    assert (await secrets(control, 1)).registry_login == ""
    audit = await control.audit().List(audit_pb2.ListAuditRequest(target="service/ocr"), metadata=control.auth)
    assert "hush" not in str(audit)


async def test_another_password_is_another_revision(control: Control) -> None:
    await create(control, json.dumps(FILE))
    storage = [*FILE["storage"][:1], {"mount_path": "/code", "git": GIT | {"password": "hush-two"}}, FILE["storage"][2]]

    assert (await update(control, {"storage": storage})).current_version == 2
    assert (await secrets(control, 1)).logins[1].password == "hush-git"
    assert (await secrets(control, 2)).logins[1].password == "hush-two"
    back = await switch(control, 1)
    assert back.current_version == 1
    assert (await update(control, {"metadata.memory": 1024})).current_version == 3
    assert (await secrets(control, 3)).logins[1].password == "hush-git"


async def test_what_the_first_replica_finds_out_is_the_revisions(control: Control) -> None:
    """Shown with the service and its revision, told to everyone, kept by updates and switches; no new revision."""
    made = await create(control, json.dumps(FILE))
    assert sources(made) == OPEN
    assert await explained(control, "can change under revision 1")

    await runs(control, "ocr-1-a", 1, PINS)

    assert sources(await get(control)) == OPEN | PINS
    assert not await explained(control, "can change under")
    last = (await service_facts(control))[-1][1]
    assert sources(last.revision) == OPEN | PINS
    listed = await control.services().ListRevisions(
        services_pb2.ListRevisionsRequest(name="ocr"), metadata=control.auth
    )
    assert [sources(r) for r in listed.revisions] == [OPEN | PINS]

    await control.hear("ready", replica("ocr-1-b", "ready", pins=PINS | {"containers[0].image": "sha256:other"}))
    await control.hear("stopped", replica("ocr-1-a", "stopped"))
    await control.hear("applied", route("ocr-1-b"))
    await eventually(lambda: explained(control, "ocr-1-b is ready, present, in the gateway's route"))
    await becomes(control, "Running", "Running")
    again = await control.services().Update(
        services_pb2.UpdateServiceRequest(name="ocr", config=json.dumps(FILE), update_type="replace"),
        metadata=control.auth,
    )
    assert again.current_version == 1
    assert sources(again) == OPEN | PINS, "what was found first stays"

    second = await update(control, {"metadata.cpu": 2})
    assert sources(second) == OPEN, "another revision looks anew"
    back = await switch(control, 1)
    assert list(back.warnings) == []
    assert sources(back) == OPEN | PINS


async def test_images_that_are_refused_leave_nothing(control: Control) -> None:
    bad = FILE | {"dockerAuth": "user:hush", "containers": [{"image": "Registry.example.com/OCR"}]}
    error = await refused(create(control, json.dumps(bad)))

    assert isinstance(error, InvalidInput)
    assert {f.path for f in error.fields} == {"dockerAuth", "containers[0].image"}
    assert "hush" not in str(error)
    assert (await refused(get(control))).code == "NO_SUCH_SERVICE"
