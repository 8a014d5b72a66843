"""The main job through all of it: deploy, call, look, change, stop, delete."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from email.utils import formatdate
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from easel_kit.testing import eventually
from easel_sdk import Client
from tests.e2e.platform import Platform, deploy, remove, spec


async def call(
    url: str, *, headers: dict[str, str] | None = None, method: str = "GET", data: bytes = b""
) -> tuple[int, Any]:
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, url, headers=headers or {}, data=data or None) as response,
    ):
        text = await response.text()
        return response.status, json.loads(text) if text.startswith("{") else text


async def test_deploy_call_look_and_delete(platform: Platform, easel: Client, tmp_path: Path) -> None:
    """`create --wait` prints what is needed to call; every look agrees; delete leaves nothing."""
    file = tmp_path / "service.json"
    file.write_text(json.dumps(spec("first", instance=2)))

    printed = platform.easel("create", str(file), "--wait", "--timeout", "90")

    service = platform.read("desc", "first")
    assert service["status"] == "Running"
    assert (service["total_instance"], service["running_instance"], service["pending_instance"]) == (2, 2, 0)
    assert (service["revision"], service["current_version"]) == (1, 1)
    assert service["endpoint"] == f"{platform.data_url}/api/predict/first"
    assert service["endpoint"] in printed
    assert service["token"] in printed
    assert "curl" in printed
    status, answer = await call(service["endpoint"] + "/rest/of?x=1", headers={"Authorization": service["token"]})
    assert (status, answer["path"]) == (200, "/rest/of?x=1")
    workers = platform.read("w", "first")
    assert {"name", "status", "ready", "node", "address", "pid", "restarts", "reason"} <= set(workers[0])
    assert [w["ready"] for w in workers] == [True, True]
    assert platform.read("ls")[0]["service_name"] == "first"
    assert "model server starts" in platform.easel("logs", "first")
    assert platform.easel("predict", "first", "--path", "/p", "--body", "hello").count("body_bytes")
    types = {json.loads(line)["type"] for line in platform.easel("events", "first", "-o", "json").splitlines()}
    assert {"service.created", "replica.ready", "route.applied"} <= types
    audit = platform.easel("audit", "-o", "json")
    assert "Services.Create" in audit
    assert service["token"] not in audit

    platform.easel("delete", "first", "-y", "--wait")

    assert platform.read("ls") == []
    status, answer = await call(service["endpoint"], headers={"Authorization": service["token"]})
    assert status == 404
    assert answer["code"]


async def test_every_form_of_the_token(easel: Client) -> None:
    """Raw, Bearer and signature are let in; nothing else is, and the answer says which form failed."""
    service = await deploy(easel, spec("tokens"))
    url, token = service.endpoint, service.token

    def signed(key: str) -> dict[str, str]:
        date, kind, digest = formatdate(usegmt=True), "text/plain", hashlib.md5(b"x").hexdigest()
        text = f"POST\n{digest}\n{kind}\n{date}\n/api/predict/tokens"
        signature = base64.b64encode(hmac.new(key.encode(), text.encode(), hashlib.sha1).digest()).decode()
        return {"Authorization": f"EAS {signature}", "Content-MD5": digest, "Date": date, "Content-Type": kind}

    for good in ({"Authorization": token}, {"Authorization": f"Bearer {token}"}, signed(token)):
        status, _ = await call(url, headers=good, method="POST", data=b"x")
        assert status == 200, good
    for bad in ({}, {"Authorization": "wrong"}, {"Authorization": "Bearer wrong"}, signed("wrong")):
        status, answer = await call(url, headers=bad, method="POST", data=b"x")
        assert status == 401, bad
        assert answer["message"]
    await remove(easel, "tokens")


async def test_scale_change_stop_start(easel: Client) -> None:
    """A scale keeps replicas, a change makes a revision, stop takes all down, start brings them back."""
    service = await deploy(easel, spec("lives"))
    first = {r.name for r in await easel.replicas.list("lives")}

    scaled = await easel.services.scale("lives", 2)
    await easel.wait("lives", generation=scaled.generation, timeout_s=60)
    assert first < {r.name for r in await easel.replicas.list("lives") if r.ready}
    assert (await easel.services.get("lives")).revision == 1

    changed = await easel.services.update("lives", {"containers": [
        {"port": 8000, "command": "python model_server.py", "env": [{"name": "VALUE", "value": "new"}]}]})  # fmt: skip
    assert changed.revision == 2
    await easel.wait("lives", generation=changed.generation, timeout_s=60)
    status, answer = await call(service.endpoint, headers={"Authorization": service.token})
    assert (status, answer["value"]) == (200, "new")

    stopped = await easel.services.stop("lives")
    await easel.wait("lives", "stopped", generation=stopped.generation, timeout_s=60)
    assert not [r for r in await easel.replicas.list("lives") if r.ready]
    status, answer = await call(service.endpoint, headers={"Authorization": service.token})
    assert status in (404, 503)

    started = await easel.services.start("lives")
    await easel.wait("lives", generation=started.generation, timeout_s=60)
    status, _ = await call(service.endpoint, headers={"Authorization": service.token})
    assert status == 200
    await remove(easel, "lives")


async def test_metrics_count_what_was_answered(platform: Platform, easel: Client) -> None:
    """After a number of calls the metrics show them, by code, with latency; memory of the replica is seen."""
    service = await deploy(easel, spec("measured"))
    for _ in range(30):
        await call(service.endpoint + "?s=0.02", headers={"Authorization": service.token})
    await call(service.endpoint + "?status=500", headers={"Authorization": service.token})

    async def seen() -> bool:
        window = await easel.metrics.get("measured")
        codes = window.summary.qps_by_code
        return codes.get("2xx", 0) * window.window_s >= 29 and codes.get("5xx", 0) > 0 and window.summary.memory_mib > 1

    await eventually(seen)
    summary = (await easel.metrics.get("measured")).summary
    assert 15 <= summary.latency_p50_ms <= 60
    assert platform.read("metrics", "measured")
    await remove(easel, "measured")


@pytest.mark.parametrize(
    ("name", "document", "words"),
    [
        ("noport", spec("noport", command="python -c 'import time; time.sleep(600)'"), ["port"]),
        ("exits", spec("exits", command="python -c 'print(1/0)'"), ["ZeroDivisionError", "exit"]),
        ("fixed", spec("fixed", command="python -m http.server 18999"), ["PORT", "18999"]),
        ("nocmd", spec("nocmd", command="no-such-program --x"), ["no-such-program"]),
    ],
)
async def test_what_cannot_start_says_why(easel: Client, name: str, document: dict[str, Any], words: list[str]) -> None:
    """The replica's message, or its last log lines, name the trouble; the service never says Running."""
    document["containers"][0]["startup_check"] = {
        "tcp_socket": {}, "period_seconds": 1, "failure_threshold": 3, "timeout_seconds": 1,
    }  # fmt: skip
    await easel.services.create(document)

    async def explained() -> bool:
        service = await easel.services.get(name)
        assert service.status != "Running"
        replicas = await easel.replicas.list(name, all=True)
        told = " ".join([service.message, *(r.message + " ".join(r.last_log_lines) for r in replicas)])
        return all(word.lower() in told.lower() for word in words)

    await eventually(explained, 60)
    await remove(easel, name)


async def test_no_capacity_says_what_is_short(easel: Client) -> None:
    """A replica that fits nowhere stays pending and says which resource is short by how much."""
    document = spec("huge")
    document["metadata"]["memory"] = 10_000_000
    await easel.services.create(document)

    async def explained() -> bool:
        replicas = await easel.replicas.list("huge")
        service = await easel.services.get("huge")
        told = bool(replicas) and replicas[0].status == "pending" and "memory" in replicas[0].message
        return told and (service.status, service.reason) == ("Waiting", "TooLarge")

    await eventually(explained)
    await remove(easel, "huge")


def test_bad_files_change_nothing(platform: Platform, tmp_path: Path) -> None:
    """Broken JSON with line and column; wrong types and unknown keys all at once; nothing is left behind."""
    file = tmp_path / "service.json"
    file.write_text('{\n  "metadata": {"name": "bad",}\n}')
    broken = platform.try_easel("create", str(file))
    assert broken.returncode == 2
    assert "line 2" in broken.stdout + broken.stderr
    document = spec("bad")
    document["metadata"]["cpu"] = "two"
    document["metadata"]["memroy"] = 1
    document["model_path"] = "oss://models/a.pmml"
    file.write_text(json.dumps(document))
    wrong = platform.try_easel("create", str(file))
    told = wrong.stdout + wrong.stderr
    assert wrong.returncode == 2
    for word in ("metadata.cpu", "memroy", "memory", "model_path"):
        assert word in told
    assert "bad" not in [s["service_name"] for s in platform.read("ls")]


async def test_a_missing_mount_and_bad_requirements(easel: Client, tmp_path: Path) -> None:
    """A mount that is not there and requirements that cannot be installed are explained."""
    document = spec("reqs")
    document["containers"][0]["prepare"] = {"pythonRequirements": ["easel-no-such-distribution==9.9"]}
    await easel.services.create(document)

    async def explained() -> bool:
        replicas = await easel.replicas.list("reqs", all=True)
        return any("easel-no-such-distribution" in r.message + " ".join(r.last_log_lines) for r in replicas)

    await eventually(explained, 60)
    await remove(easel, "reqs")
