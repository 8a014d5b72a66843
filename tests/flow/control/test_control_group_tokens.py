"""Tokens of a group over gRPC: told with the group, given to the router, gone with the group."""

from __future__ import annotations

import json
from typing import Any

from easel_contracts import facts
from easel_contracts.facts import Fact, GroupState
from easel_kit.testing import eventually
from easel_proto.internal.v1 import control_pb2
from easel_proto.v1 import audit_pb2, services_pb2, tokens_pb2
from tests.flow.control.conftest import Control
from tests.flow.control.test_control_mutations import create, refused, text


async def member(control: Control) -> None:
    """The service `ocr`, and with it the group `vision`."""
    metadata = {"name": "ocr", "group": "vision", "instance": 1, "cpu": 1, "memory": 512}
    await create(control, text(metadata=metadata))


async def ask(control: Control, method: str, **fields: Any) -> Any:
    request = getattr(tokens_pb2, f"{method}TokenRequest")(group="vision", **fields)
    return await getattr(control.tokens(), method)(request, metadata=control.auth)


async def given(control: Control) -> control_pb2.TokenOf:
    """As the router gets them."""
    answer = await control.as_process("router").GetTokens(control_pb2.GetTokensRequest(groups=["vision"]))
    assert not answer.tokens
    assert len(answer.groups) == 1
    found: control_pb2.TokenOf = answer.groups[0]
    return found


async def told(control: Control, version: int) -> list[tuple[Fact, GroupState]] | None:
    """Facts of the group, once one of that token version is told."""
    found = [(f, facts.state_of(f, GroupState)) for f in await control.told() if f.entity == "group"]
    return found if found and found[-1][1].token_version >= version else None


async def test_a_groups_tokens(control: Control) -> None:
    """The same rules as a service's; the service's own are not touched."""
    await member(control)
    first = (await given(control)).token

    made = await ask(control, "Create", name="mobile", value="mobile-value", rate_limit=5)
    new = await ask(control, "Rotate", name="default", overlap_s=60)

    found = await given(control)
    assert (found.service, found.token, found.version) == ("vision", new.value, 3)
    assert {t.name: t.value for t in found.more} == {"mobile": made.value, "default.1": first}
    listed = await control.tokens().List(tokens_pb2.ListTokensRequest(group="vision"), metadata=control.auth)
    assert [t.name for t in listed.tokens] == ["default", "default.1", "mobile"]
    services = await control.tokens().List(tokens_pb2.ListTokensRequest(service="ocr"), metadata=control.auth)
    assert [t.name for t in services.tokens] == ["default"]
    seen = await eventually(lambda: told(control, 3))
    assert [f.verb for f, _ in seen] == ["created", "updated", "updated"]
    assert seen[-1][1].generation == seen[0][1].generation + 2
    assert all(v.encode() not in bytes(f.data) for f, _ in seen for v in (first, new.value, "mobile-value"))
    audit = await control.audit().List(audit_pb2.ListAuditRequest(target="group/vision"), metadata=control.auth)
    assert [r.action for r in audit.records][:2] == ["Tokens.Rotate", "Tokens.Create"]
    assert {t["name"] for t in json.loads(audit.records[0].after_json)["tokens"]} == {"default", "default.1", "mobile"}
    assert (await refused(ask(control, "Delete", name="default"))).code == "DEFAULT_TOKEN"


async def test_a_groups_token_expires(control: Control) -> None:
    await member(control)
    await ask(control, "Create", name="mobile", expires_in_s=1)

    seen = await eventually(lambda: told(control, 3), deadline_s=20)

    assert (seen[-1][0].cause.reason, seen[-1][1].generation) == ("TokenExpired", seen[-2][1].generation)
    assert list((await given(control)).more) == []


async def test_tokens_go_with_their_group(control: Control) -> None:
    await member(control)
    await ask(control, "Create", name="mobile")

    await control.services().Delete(services_pb2.DeleteServiceRequest(name="ocr"), metadata=control.auth)

    async def gone() -> bool:
        async with control.process.db.connection() as connection:
            return not await connection.fetchval("SELECT count(*) FROM tokens")

    await eventually(gone)
    assert (await refused(ask(control, "Create", name="mobile"))).code == "NO_SUCH_GROUP"
