"""Events, metrics, explain, audit and the rest by the command line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
import typer

from easel_cli.main import app
from easel_proto.v1.groups_pb2 import Group
from easel_proto.v1.nodes_pb2 import Image, ListImagesResponse, NodeRuntime, SilentNode
from easel_proto.v1.services_pb2 import Revision, SourceDigest
from tests.flow.cli.conftest import Easel, json_of
from tests.flow.sdk.platform import KEY, Platform


def test_events_as_json_lines(easel: Easel) -> None:
    """One object a line, the entity's state as data."""
    lines = easel("events", "ocr", "--tail", "2", "-o", "json").stdout.splitlines()

    found = [json.loads(line) for line in lines]
    assert [e["sequence"] for e in found] == [4, 5]
    assert found[0]["data"] == {"state": "ready"}
    assert (found[0]["type"], found[0]["key"]) == ("replica.ready", "ocr")


def test_events_follow_over_a_break(platform: Platform) -> None:
    """As a program: lines come as they happen, a break is told on stderr, none is lost."""
    platform.cut_after = 3
    command = [sys.executable, "-m", "easel_cli.main", "events", "-f", "--from", "1", "-o", "name",
               "--server", platform.server, "--access-key", KEY]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        lines = [run.stdout.readline() for _ in range(5)]
        run.terminate()
        _, errors = run.communicate(timeout=10)

    assert lines == ["replica.ready ocr\n"] * 5
    assert "the stream broke" in errors


def test_dead_letters_and_filters(platform: Platform, easel: Easel) -> None:
    """The options reach the monitor."""
    easel("events", "--dead", "--entity", "replica", "--from", "3")

    request = platform.asked("Events.Watch")[0]
    assert (request.dead, request.entity, request.from_sequence, request.tail) == (True, "replica", 3, 0)


def test_events_token_and_webhooks(platform: Platform, easel: Easel) -> None:
    """Credentials; and the life of a webhook."""
    assert json_of(easel("events", "token", "-o", "json"))["nkey_seed"] == "SU"
    assert "shh" in easel("webhook", "add", "http://x", "--key", "ocr").stdout
    assert "w1" in easel("webhook", "ls").stdout
    assert easel("webhook", "rm", "w1").exit_code == 0
    assert platform.asked("Events.DeleteWebhook")[0].id == "w1"


def test_metrics(easel: Easel) -> None:
    """What is not known is null in JSON and a dash for people, never zero."""
    found = json_of(easel("metrics", "ocr", "--window", "30", "-o", "json"))

    assert found["window_s"] == 30
    assert found["summary"]["qps_by_code"] == {"2xx": 12.0, "5xx": 0.5}
    assert found["summary"]["latency_p99_ms"] is None
    assert found["summary"]["latency_p90_ms"] is None
    assert found["points"][0]["cpu_cores"] is None
    assert found["points"][0]["qps"] == 12.5
    shown = easel("metrics", "ocr").stdout
    assert "p50 4.2 ms  p90 -  p99 -" in shown
    assert "- ready of -" in shown


def test_top_once(platform: Platform, easel: Easel) -> None:
    """A service without metrics shows dashes."""
    for name in ("aaa", "bbb"):
        easel("create", "-", input=json.dumps({"name": name}))
    platform.fail("Metrics.Get", grpc.StatusCode.NOT_FOUND)

    rows = [line.split() for line in easel("top", "--once").stdout.splitlines()[1:]]

    assert sorted(row[3] for row in rows) == ["-", "12.5"]


def test_explain_joins_and_names_who_is_silent(platform: Platform, easel: Easel) -> None:
    """Every part in order; the silent one by name."""
    easel("create", "-", input='{"name": "ocr"}')
    platform.fail("Scaling.Explain", grpc.StatusCode.UNAVAILABLE)

    result = easel("explain", "ocr")

    heads = [line for line in result.stdout.splitlines() if not line.startswith(" ")]
    assert heads == ["control", "scheduler", "autoscaler", "router", "monitor"]
    assert "autoscaler\n  does not answer:" in result.stdout
    assert "  Fine: router is content\n      → ask router" in result.stdout


def test_explain_of_a_group(platform: Platform, easel: Easel) -> None:
    """By those who know of groups; what is neither is told as before, and a part that is away is named."""
    platform.groups["letters"] = Group(name="letters")
    platform.fail("Routes.Explain", grpc.StatusCode.UNAVAILABLE)

    result = easel("explain", "letters")
    neither = easel("explain", "nothing")

    assert result.stdout.splitlines()[:2] == ["control", "  Fine: control is content"]
    assert "router\n  does not answer:" in result.stdout
    assert "scheduler" not in result.stdout
    assert (neither.exit_code, "there is no service nothing" in neither.stderr) == (3, True)


def test_audit_revisions_schema_and_nodes(platform: Platform, easel: Easel) -> None:
    """One line each."""
    platform.revisions = [
        Revision(number=2, state="live", sources=[SourceDigest(source="storage[0]", digest="mutable")])
    ]

    audit = easel("audit", "--target", "service/ocr")
    assert "Services.Create" in audit.stdout
    assert "incomplete: the monitor does not answer" in audit.stderr
    assert json_of(easel("revisions", "ocr", "-o", "json"))[0]["sources"][0]["digest"] == "mutable"
    assert json_of(easel("schema")) == {"type": "object"}
    assert json_of(easel("node", "desc", "local", "-o", "json"))["state"] == "ready"


def test_nodes_say_what_they_can_run(platform: Platform, easel: Easel) -> None:
    """With the version, and with the reason where they cannot."""
    platform.runtimes = [
        NodeRuntime(name="process"), NodeRuntime(name="docker", version="Docker 20.10.24, overlay2"),
    ]  # fmt: skip
    assert "  process, docker 20.10  " in easel("node", "ls").stdout
    lines = easel("node", "desc", "local").stdout.splitlines()
    assert [line.split("  ")[-1].strip() for line in lines if "Docker 20.10.24, overlay2" in line]

    platform.runtimes = [NodeRuntime(name="process"), NodeRuntime(name="docker", why_not="there is no socket")]
    assert "process, docker: not here (there is no socket)" in easel("node", "ls").stdout


def test_image_ls_names_images_and_who_has_not_answered(platform: Platform, easel: Easel) -> None:
    """A line for each name; what is missing goes to stderr, not into the list."""
    images = [
        Image(id="sha256:0123456789abcdef", tags=["easel/onnx:1.19", "easel/onnx:latest"], size_bytes=300 << 20,
              runtime="onnx", nodes=["a", "b"]),
        Image(id="sha256:fedcba9876543210", tags=["registry.example.com:5000/team/ocr:1.2", "ocr:1.2"], size_bytes=5000,
              nodes=["a"]),
    ]  # fmt: skip
    platform.images.MergeFrom(
        ListImagesResponse(images=images, silent=[SilentNode(node="c", why="did not answer within 5 s")])
    )

    result = easel("image", "ls", "--node", "a", "--all")

    asked = platform.asked("Nodes.ListImages")[0]
    assert (asked.node, asked.all) == ("a", True)
    rows = [re.split(r"  +", line) for line in result.stdout.splitlines()]
    assert rows[0] == ["NAME", "TAG", "ID", "SIZE", "CREATED", "NODES", "RUNTIME"]
    assert rows[1] == ["easel/onnx", "1.19, latest", "0123456789ab", "300 MiB", "-", "a, b", "onnx"]
    assert [row[:2] for row in rows[2:]] == [["registry.example.com:5000/team/ocr", "1.2"], ["ocr", "1.2"]]
    assert rows[2][3] == "4.9 KiB"
    assert "incomplete: images of c are not known: did not answer within 5 s" in result.stderr
    assert "ocr:1.2" in easel("image", "ls", "-o", "name").stdout.splitlines()
    assert json_of(easel("image", "ls", "-o", "json"))["silent"][0]["node"] == "c"


def test_version(easel: Easel, tmp_path: Path) -> None:
    """Of both; without a platform of one, which is no error."""
    assert json_of(easel("version", "-o", "json"))["server"] == "9.9"
    alone = json_of(easel("version", "-o", "json", "--home", str(tmp_path / "none")))
    assert alone["server"] is None


def _commands(group: object, name: str = "") -> list[tuple[str, object]]:
    commands = getattr(group, "commands", None)
    if commands is None:
        return [(name, group)]
    return [found for key, command in commands.items() for found in _commands(command, f"{name} {key}".strip())]


@pytest.mark.parametrize("command", [name for name, _ in _commands(typer.main.get_command(app))])
def test_every_help_has_an_example(easel: Easel, command: str) -> None:
    """An example that starts with the command itself."""
    result = easel(*command.split(), "--help")

    text = re.sub(r"\s+", " ", result.stdout)
    assert f"Example: easel {command}" in text


def test_starting_the_command_line_imports_little() -> None:
    """Neither the SDK, nor gRPC, nor httpx, nor the platform are paid for by `easel --help`."""
    code = "import sys, easel_cli.main; print([m for m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert not [m for m in ("'grpc'", "'httpx'", "'easel_sdk'", "'easel_standalone'", "'yaml'") if m in loaded]


def test_ls_does_not_import_httpx(platform: Platform) -> None:
    """Only calls to services need it."""
    code = (f"import sys; sys.argv = ['easel', 'ls', '--server', '{platform.server}', '--access-key', '{KEY}'];"
            "from easel_cli.main import app; app(standalone_mode=False); print('httpx' in sys.modules)")  # fmt: skip
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert run.stdout.splitlines()[-1] == "False"
