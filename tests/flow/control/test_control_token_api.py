"""Tokens over gRPC: what is kept, told, audited and given to the router, on the real stores."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from easel_contracts.errors import AlreadyExists, Conflict, EaselError, InvalidInput, NotFound
from easel_contracts.facts import ServiceState
from easel_kit.testing import eventually
from easel_proto.internal.v1 import control_pb2
from easel_proto.v1 import audit_pb2, services_pb2, tokens_pb2
from tests.flow.control.conftest import Control
from tests.flow.control.test_control_mutations import create, refused, service_facts, text

DEFAULT = "token-hush-hush"
VALUE = "mobile-value-hush"


async def ask(control: Control, method: str, **fields: Any) -> Any:
    request = getattr(tokens_pb2, f"{method}TokenRequest")(**({"service": "ocr"} | fields))
    return await getattr(control.tokens(), method)(request, metadata=control.auth)


async def listed(control: Control, service: str = "ocr") -> dict[str, Any]:
    request = tokens_pb2.ListTokensRequest(service=service)
    found = await control.tokens().List(request, metadata=control.auth)
    return {t.name: t for t in found.tokens}


async def given(control: Control) -> tuple[str, int, dict[str, control_pb2.NamedToken]]:
    """(default, version, further ones by name) as the router gets them."""
    answer = await control.as_process("router").GetTokens(control_pb2.GetTokensRequest(services=["ocr"]))
    (found,) = answer.tokens
    return found.token, found.version, {t.name: t for t in found.more}


async def token_versions(control: Control) -> list[int]:
    return [state.token_version for _, state in await service_facts(control)]


async def told_versions(control: Control, last: int) -> list[int] | None:
    """Once the relay has published that far."""
    found = await token_versions(control)
    return found if found and found[-1] >= last else None


async def test_create_list_and_delete(control: Control) -> None:
    """Each change raises the version and is told; the router gets what is good, and when it ends."""
    await create(control)
    before = int(time.time())

    made = await ask(control, "Create", name="mobile", value=VALUE, expires_in_s=3600, rate_limit=50)
    drawn = await ask(control, "Create", name="batch")

    assert (made.name, made.value, made.rate_limit, made.rotated) == ("mobile", VALUE, 50, False)
    assert before + 3600 <= made.expire_time.seconds <= time.time() + 3601
    assert len(drawn.value) >= 40
    assert not drawn.HasField("expire_time")
    found = await listed(control)
    assert list(found) == ["default", "batch", "mobile"]
    assert (found["default"].value, found["mobile"].value) == (DEFAULT, VALUE)
    default, version, more = await given(control)
    assert (default, version, set(more)) == (DEFAULT, 3, {"batch", "mobile"})
    assert more["mobile"].expires_unix_s == made.expire_time.seconds
    assert (more["mobile"].rate_limit_qps, more["batch"].expires_unix_s) == (50, 0)

    await ask(control, "Delete", name="batch")

    assert set((await given(control))[2]) == {"mobile"}
    assert await eventually(lambda: told_versions(control, 4)) == [1, 2, 3, 4]
    assert [verb for verb, _ in await service_facts(control)][1:] == ["updated"] * 3


async def test_rotation_of_default(control: Control) -> None:
    """Old and new value open during the overlap; the row, and so Services.Get, has the new one."""
    await create(control)

    new = await ask(control, "Rotate", name="default", overlap_s=3600)

    got = await control.services().Get(services_pb2.GetServiceRequest(name="ocr"), metadata=control.auth)
    assert got.token == new.value != DEFAULT
    default, version, more = await given(control)
    assert (default, version) == (new.value, 2)
    assert {name: t.value for name, t in more.items()} == {"default.1": DEFAULT}
    assert more["default.1"].expires_unix_s > time.time()
    found = await listed(control)
    assert (found["default.1"].rotated, found["default"].rotated) == (True, False)
    assert found["default"].create_time.ToNanoseconds() > got.create_time.ToNanoseconds()


async def test_what_expires_is_swept_and_told(control: Control) -> None:
    """Without anybody asking: the row goes, the version rises, the generation stays."""
    await create(control)
    await ask(control, "Create", name="mobile", value=VALUE, expires_in_s=1)

    async def gone() -> bool:
        async with control.process.db.connection() as connection:
            return not await connection.fetchval("SELECT count(*) FROM tokens")

    await eventually(gone, deadline_s=20)

    assert (await given(control))[1:] == (3, {})
    await eventually(lambda: told_versions(control, 3))
    states: list[ServiceState] = [state for _, state in await service_facts(control)]
    assert states[-1].generation == states[-2].generation == 2
    fact = [f for f in await control.told() if f.entity == "service"][-1]
    assert (fact.cause.actor, fact.cause.reason) == ("control", "TokenExpired")
    assert fact.cause.message == "token mobile has expired"
    audit = await control.audit().List(audit_pb2.ListAuditRequest(target="service/ocr"), metadata=control.auth)
    assert (audit.records[0].action, audit.records[0].actor) == ("Tokens.Expire", "control")


async def test_an_expired_token_is_never_given_out_nor_shown(control: Control) -> None:
    """Also before it is swept."""
    await create(control)
    await ask(control, "Create", name="mobile", expires_in_s=3600)
    async with control.process.db.connection() as connection:
        await connection.execute("UPDATE tokens SET expires_at = now()")

    assert (await given(control))[2] == {}
    assert list(await listed(control)) == ["default"]


async def test_no_secret_outside_the_vault(control: Control) -> None:
    """Not in rows, facts, answers that are kept, or the audit log, which names the tokens."""
    await create(control)
    await ask(control, "Create", name="mobile", value=VALUE, idempotency_key="k")
    await ask(control, "Rotate", name="mobile", value="mobile-newer-hush", overlap_s=60)
    await ask(control, "Rotate", name="default", value="default-newer-hush", overlap_s=60)
    await eventually(lambda: told_versions(control, 4))

    facts = b"".join(bytes(fact.data) + fact.cause.message.encode() for fact in await control.told())
    rows = b""
    async with control.process.db.connection() as connection:
        for table in ("services", "tokens", "audit", "idempotency", "outbox"):
            for row in await connection.fetch(f"SELECT * FROM {table}"):
                rows += b"".join(v if isinstance(v, bytes) else str(v).encode() for v in row.values())
    for secret in (DEFAULT, VALUE, "mobile-newer-hush", "default-newer-hush"):
        assert secret.encode() not in facts
        assert secret.encode() not in rows
    audit = await control.audit().List(audit_pb2.ListAuditRequest(target="service/ocr"), metadata=control.auth)
    assert [r.action for r in audit.records][:3] == ["Tokens.Rotate", "Tokens.Rotate", "Tokens.Create"]
    after = json.loads(audit.records[0].after_json)
    assert {t["name"] for t in after["tokens"]} == {"default", "default.1", "mobile", "mobile.1"}
    assert after["token_version"] == 4


async def test_idempotency_keys_of_tokens(control: Control) -> None:
    """The same request at the same time acts once and answers the same value."""
    await create(control)

    answers = await asyncio.gather(*(ask(control, "Create", name="mobile", idempotency_key="k") for _ in range(5)))

    assert len({a.value for a in answers}) == 1
    assert (await given(control))[1] == 2
    error = await refused(ask(control, "Create", name="other", idempotency_key="k"))
    assert error.code == "IDEMPOTENCY_KEY_REUSED"


async def test_changes_at_the_same_time_all_count(control: Control) -> None:
    await create(control)

    await asyncio.gather(*(ask(control, "Create", name=f"t{n}") for n in range(8)))

    _, version, more = await given(control)
    assert (version, len(more)) == (9, 8)


@pytest.mark.parametrize(
    ("method", "fields", "kind", "code"),
    [
        ("Create", {"name": "A", "value": "x", "expires_in_s": -1}, InvalidInput, "INVALID_INPUT"),
        ("Create", {"name": "other", "value": DEFAULT}, InvalidInput, "INVALID_INPUT"),
        ("Create", {"name": "default"}, AlreadyExists, "TOKEN_EXISTS"),
        ("Create", {"name": "a", "service": ""}, InvalidInput, "INVALID_INPUT"),
        ("Create", {"name": "a", "group": "team"}, InvalidInput, "INVALID_INPUT"),
        ("Create", {"name": "a", "service": "nope"}, NotFound, "NO_SUCH_SERVICE"),
        ("Create", {"name": "a", "service": "no\0pe"}, InvalidInput, "INVALID_INPUT"),
        ("Create", {"name": "a", "service": "", "group": "nope"}, NotFound, "NO_SUCH_GROUP"),
        ("Rotate", {"name": "default", "overlap_s": -1}, InvalidInput, "INVALID_INPUT"),
        ("Rotate", {"name": "nope"}, NotFound, "NO_SUCH_TOKEN"),
        ("Delete", {"name": "default"}, Conflict, "DEFAULT_TOKEN"),
    ],
)
async def test_what_is_refused_changes_nothing(
    control: Control, method: str, fields: dict[str, Any], kind: type[EaselError], code: str
) -> None:
    await create(control)

    error = await refused(ask(control, method, **fields))

    assert (type(error), error.code) == (kind, code)
    assert (await given(control))[1:] == (1, {})


async def test_a_locked_service_keeps_its_tokens(control: Control) -> None:
    await create(control)
    lock = services_pb2.LockServiceRequest(name="ocr", lock="all")
    await control.services().Lock(lock, metadata=control.auth)

    for method, name in (("Create", "a"), ("Rotate", "default"), ("Delete", "default")):
        assert (await refused(ask(control, method, name=name))).code == "LOCKED"


async def test_a_service_json_may_not_take_anothers_value(control: Control) -> None:
    """Nor undo a rotation unseen, while the value before is still good."""
    await create(control)
    await ask(control, "Create", name="mobile", value=VALUE)
    await ask(control, "Rotate", name="default", value="default-newer", overlap_s=60)

    for value, name in ((VALUE, "mobile"), (DEFAULT, "default.1")):
        update = services_pb2.UpdateServiceRequest(name="ocr", config=json.dumps({"token": value}))
        error = await refused(control.services().Update(update, metadata=control.auth))
        assert isinstance(error, InvalidInput)
        assert [(f.path, f.code) for f in error.fields] == [("token", "CONFLICT")]
        assert f"the value of the token {name}" in error.fields[0].message
    same = services_pb2.UpdateServiceRequest(name="ocr", config=text(token="default-newer"), update_type="replace")
    assert (await control.services().Update(same, metadata=control.auth)).token == "default-newer"


async def test_tokens_go_with_their_service(control: Control) -> None:
    """One made again under the name has none of them."""
    await create(control)
    await ask(control, "Create", name="mobile", value=VALUE)
    await control.services().Delete(services_pb2.DeleteServiceRequest(name="ocr"), metadata=control.auth)

    async def gone() -> bool:
        answer = await control.as_process("router").GetTokens(control_pb2.GetTokensRequest(services=["ocr"]))
        return not answer.tokens

    await eventually(gone)
    await create(control)

    assert list(await listed(control)) == ["default"]


async def test_only_the_router_gets_tokens_and_only_key_holders_list_them(control: Control) -> None:
    await create(control)

    asked = control_pb2.GetTokensRequest(services=["ocr"])
    assert (await refused(control.as_process("agent").GetTokens(asked))).code == "NOT_FOR_YOU"
    bare = control.tokens().List(tokens_pb2.ListTokensRequest(service="ocr"))
    assert (await refused(bare)).code in ("NO_ACCESS_KEY", "UNAUTHENTICATED")
