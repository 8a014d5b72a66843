"""The life of a service by the command line."""

from __future__ import annotations

import json
from pathlib import Path

import grpc

from easel_contracts import errors
from easel_proto.v1.replicas_pb2 import Replica
from easel_proto.v1.services_pb2 import Service
from tests.flow.cli.conftest import Easel, json_of
from tests.flow.sdk.platform import KEY, TOKEN, Platform


def spec(directory: Path, **more: object) -> str:
    """A service.json."""
    file = directory / "service.json"
    file.write_text(json.dumps({"name": "ocr", **more}))
    return str(file)


def test_create_wait_ends_with_url_token_and_curl(platform: Platform, easel: Easel, tmp_path: Path) -> None:
    """Progress goes to stderr, what can be used to stdout."""
    platform.path["ocr"] = ["Waiting", "Running"]
    platform.replicas = [Replica(name="ocr-1-aaaaa", status="fetching", message="installing 3 requirements")]

    result = easel("create", spec(tmp_path), "--wait", "--timeout", "20")

    url = f"http://127.0.0.1:{platform.data_port}/api/predict/ocr"
    assert result.exit_code == 0
    assert "Waiting [Total: 1, Pending: 1, Running: 0] · 1 fetching · installing 3 requirements" in result.stderr
    assert "Service is running" in result.stderr
    assert "phases: schedule 0.1 s, fetch 0.5 s" in result.stderr
    assert f"Endpoint  {url}" in result.stdout
    assert f"curl -H 'Authorization: {TOKEN}' {url}/" in result.stdout


def test_create_with_changes(platform: Platform, easel: Easel, tmp_path: Path) -> None:
    """Of a place inside of a list too; relative paths stay the file's; a place that is not there creates nothing."""
    (tmp_path / "code").mkdir()
    env = [{"name": "URL", "value": "a"}, {"name": "TOKEN", "value": "b"}]
    file = spec(tmp_path, metadata={"env": env}, storage=[{"mount_path": "/code", "local": {"path": "code"}}])

    made = easel("create", file, "-Dmetadata.env[1].value=secret", "-D", "metadata.instance=2")
    refused = easel("create", file, "-Dstorage[3].mount_path=/x")

    [request] = platform.asked("Services.Create")
    config = json.loads(request.config)
    assert config["metadata"] == {"env": [env[0], {"name": "TOKEN", "value": "secret"}], "instance": 2}
    assert config["storage"][0]["local"].keys() == {"digest"}  # the directory beside the file was found, and sent
    assert (made.exit_code, refused.exit_code) == (0, 2)
    assert "storage[3].mount_path" in refused.stderr


def test_create_wait_tells_the_failure(platform: Platform, easel: Easel, tmp_path: Path) -> None:
    """Reason, hint and the last lines of output; not zero."""
    platform.path["ocr"] = ["Waiting", "Failed"]
    platform.replicas = [Replica(name="ocr-1-aaaaa", status="failed", last_log_lines=["ImportError: no numpy"])]

    result = easel("create", spec(tmp_path), "--wait")

    assert result.exit_code == 1
    assert "error: the program ended with exit code 1, 3 times (CrashLoop)" in result.stderr
    assert "  | ImportError: no numpy" in result.stderr
    assert "hint: `easel logs ocr --previous`" in result.stderr


def test_create_wait_times_out(platform: Platform, easel: Easel, tmp_path: Path) -> None:
    """What it waits for is said: here, which resource is short."""
    short = "no node has room: memory short by 512 MiB on local"
    platform.replicas = [Replica(name="ocr-1-aaaaa", status="pending", reason="NoCapacity", message=short)]

    result = easel("create", spec(tmp_path), "--wait", "--timeout", "0.2")

    assert result.exit_code == 5
    assert f"ocr-1-aaaaa is pending: {short}" in result.stderr


def test_create_wait_ends_early_where_no_node_could_take_it(platform: Platform, easel: Easel, tmp_path: Path) -> None:
    """Waiting would not help: the reason at once, exit 1, long before the time-out."""
    platform.path["ocr"] = ["TooLarge"]

    result = easel("create", spec(tmp_path), "--wait", "--timeout", "60")

    assert result.exit_code == 1
    assert "TooLarge" in result.stderr


def test_create_json_is_the_service(easel: Easel, tmp_path: Path) -> None:
    """Nothing but the document on stdout."""
    found = json_of(easel("create", spec(tmp_path), "-o", "json"))

    assert (found["service_name"], found["token"]) == ("ocr", TOKEN)


def test_dry_run_makes_nothing(platform: Platform, easel: Easel, tmp_path: Path) -> None:
    """It says what would be."""
    result = easel("create", spec(tmp_path), "--dry-run")

    assert "would be accepted as service ocr" in result.stderr
    assert platform.services == {}


def test_create_from_stdin(platform: Platform, easel: Easel) -> None:
    """`-` reads the document from there."""
    assert easel("create", "-", input='{"name": "ocr"}').exit_code == 0
    assert list(platform.services) == ["ocr"]


def test_broken_json_shows_the_line(platform: Platform, easel: Easel, tmp_path: Path) -> None:
    """Line, column, the line, a mark, a hint; nothing is sent."""
    file = tmp_path / "service.json"
    file.write_text('{\n  "name": "ocr",\n}\n')

    result = easel("create", str(file))

    assert result.exit_code == 2
    assert "is not JSON: line 2, column 16" in result.stderr or "is not JSON: line 3, column 1" in result.stderr
    assert "→ take out the comma before the closing bracket" in result.stderr
    assert "^" in result.stderr
    assert platform.calls == []


def test_every_field_error_is_listed(easel: Easel, tmp_path: Path) -> None:
    """With path, place and hint."""
    result = easel("create", spec(tmp_path, cpus=1, mem=2))

    assert result.exit_code == 2
    assert "  line 3, column 7: cpus: is no key (UNKNOWN_KEY)\n      → did you mean cpu?" in result.stderr
    assert "mem: is no key" in result.stderr


def test_errors_as_json(easel: Easel, tmp_path: Path) -> None:
    """With -o json a program can read them too, from stderr."""
    result = easel("create", spec(tmp_path, cpus=1), "-o", "json")

    assert json.loads(result.stderr)["error"]["fields"][0]["path"] == "cpus"
    assert result.stdout == ""


def test_ls_as_table_json_and_names(easel: Easel, tmp_path: Path) -> None:
    """EASCMD's columns; every field; names alone."""
    assert "no services yet" in easel("ls").stderr
    easel("create", spec(tmp_path))

    table = easel("ls").stdout
    assert table.split("\n")[0].split()[:3] == ["SERVICENAME", "INSTANCE", "STATUS"]
    assert "/api/predict/ocr" in table
    assert json_of(easel("ls", "-o", "json"))[0]["generation"] == 1
    assert easel("ls", "-o", "name").stdout == "ocr\n"
    assert "service_name: ocr" in easel("ls", "-o", "yaml").stdout


def test_desc_has_describe_services_fields(easel: Easel, tmp_path: Path) -> None:
    """In snake_case, zero values included, with Easel's own."""
    easel("create", spec(tmp_path))

    found = json_of(easel("desc", "ocr", "-o", "json"))

    eas = {"service_name", "service_id", "service_uid", "status", "reason", "message", "cpu", "gpu", "memory",
           "total_instance", "running_instance", "pending_instance", "current_version", "latest_version",
           "create_time", "update_time", "access_token", "service_config", "internet_endpoint", "intranet_endpoint",
           "image", "resource", "role", "labels", "weight", "traffic_state", "service_group"}  # fmt: skip
    assert eas | {"endpoint", "token", "revision"} <= set(found)
    assert found["gpu"] == 0
    assert "AccessToken" in easel("desc", "ocr").stdout


def test_desc_of_nothing(easel: Easel) -> None:
    """Exit code 3, with the way to see what there is."""
    result = easel("desc", "nothing")

    assert result.exit_code == 3
    assert "there is no service nothing (SERVICE_NOT_FOUND)\nhint: `easel ls` lists them" in result.stderr


def test_modify_by_keys(platform: Platform, easel: Easel, tmp_path: Path) -> None:
    """-Da.b=1 is merged; values are JSON where they can be."""
    easel("create", spec(tmp_path))

    assert easel("modify", "ocr", "-Dmetadata.instance=2", "-D", "metadata.labels.a=b=c").exit_code == 0

    request = platform.asked("Services.Update")[0]
    assert json.loads(request.config) == {"metadata": {"instance": 2, "labels": {"a": "b=c"}}}
    assert request.update_type == "merge"


def test_modify_inside_a_list_sends_the_whole_list(platform: Platform, easel: Easel) -> None:
    """A merge replaces lists, so the service's present one is taken."""
    config = {"name": "ocr", "containers": [{"port": 1, "command": "x"}]}
    easel("create", "-", input=json.dumps({"name": "ocr"}))
    platform.services["ocr"].service_config = json.dumps(config)

    easel("modify", "ocr", "-Dcontainers[0].port=2")

    sent = json.loads(platform.asked("Services.Update")[0].config)
    assert sent == {"containers": [{"port": 2, "command": "x"}]}


def test_modify_by_file_and_keys(platform: Platform, easel: Easel, tmp_path: Path) -> None:
    """Keys are put into the file; --replace says that it is everything."""
    file = spec(tmp_path, metadata={"cpu": 1})
    easel("create", file)

    easel("modify", "ocr", "-s", file, "-Dmetadata.cpu=2", "--replace")

    request = platform.asked("Services.Update")[0]
    assert json.loads(request.config) == {"name": "ocr", "metadata": {"cpu": 2}}
    assert request.update_type == "replace"


def test_modify_needs_something(easel: Easel) -> None:
    """Bad input, before anything is asked."""
    assert easel("modify", "ocr").exit_code == 2
    result = easel("modify", "ocr", "-Dno-value", "-Da..b=1")
    assert result.exit_code == 2
    assert result.stderr.count("is not of the form path=value") == 2


def test_scale_start_stop_restart(platform: Platform, easel: Easel, tmp_path: Path) -> None:
    """Each is one call, and --wait waits for its own goal."""
    easel("create", spec(tmp_path))
    platform.path["ocr"] = ["Scaling", "Running"]
    assert easel("scale", "ocr", "3", "--wait").exit_code == 0
    platform.path["ocr"] = ["Stopped"]
    assert "Service is stopped" in easel("stop", "ocr", "--wait").stderr
    assert easel("start", "ocr").exit_code == 0
    assert easel("restart", "ocr", "-o", "json").exit_code == 0

    assert platform.asked("Services.Scale")[0].instance == 3
    assert [len(platform.asked(f"Services.{m}")) for m in ("Stop", "Start", "Restart")] == [1, 1, 1]


def test_delete_asks_first(platform: Platform, easel: Easel, tmp_path: Path) -> None:
    """No, and nobody to ask: nothing happens. -y: it does."""
    easel("create", spec(tmp_path))

    assert easel("delete", "ocr", input="n\n").exit_code == 1
    assert easel("delete", "ocr", input="").exit_code == 1
    assert "ocr" in platform.services
    result = easel("delete", "ocr", "-y", "--wait")
    assert (result.exit_code, platform.services) == (0, {})
    assert "Service was deleted successfully" in result.stderr


def test_w_as_json_has_exactly_its_fields(platform: Platform, easel: Easel) -> None:
    """pid for processes, container for containers."""
    platform.services["ocr"] = Service(service_name="ocr")
    assert json_of(easel("w", "ocr", "-o", "json")) == []
    platform.replicas = [
        Replica(
            name="a",
            status="ready",
            ready=True,
            node="local",
            address="127.0.0.1:20001",
            pid=7,
            restarts=1,
            revision=3,
            isolated=True,
            runtime="process",
        ),
        Replica(name="b", status="failed", node="local", container="c1", reason="OutOfMemory", revision=4,
                runtime="docker", pins={"storage[0].git": "1a2b"}),
    ]  # fmt: skip

    assert json_of(easel("w", "ocr", "-o", "json")) == [
        {"name": "a", "status": "ready", "ready": True, "node": "local", "address": "127.0.0.1:20001", "pid": 7,
         "restarts": 1, "reason": "", "revision": 3, "isolated": True, "runtime": "process", "pins": {}},
        {"name": "b", "status": "failed", "ready": False, "node": "local", "address": "", "container": "c1",
         "restarts": 0, "reason": "OutOfMemory", "revision": 4, "isolated": False, "runtime": "docker",
         "pins": {"storage[0].git": "1a2b"}},
    ]  # fmt: skip
    assert "[0/1]" in easel("w", "ocr").stdout


def test_logs_of_several_replicas_keep_their_lines_whole(platform: Platform, easel: Easel) -> None:
    """Chunks that end in the middle of a line are joined, each replica's apart."""
    platform.replicas = [Replica(name="ocr-1-aaaaa"), Replica(name="ocr-1-bbbbb")]

    result = easel("logs", "ocr", "--tail", "5", "--previous")

    request = platform.asked("Replicas.Logs")[0]
    assert (request.tail_lines, request.previous) == (5, True)
    assert result.stdout.splitlines() == ["ocr-1-aaaaa | one", "ocr-1-bbbbb | other", "ocr-1-aaaaa | two",
                                          "ocr-1-aaaaa | last"]  # fmt: skip


def test_predict(easel: Easel, tmp_path: Path) -> None:
    """Body from a file, headers, path; the answer as it is."""
    easel("create", spec(tmp_path))
    (tmp_path / "body").write_bytes(b"bytes")

    result = easel("predict", "ocr", "--path", "v1", "--body", f"@{tmp_path}/body", "--header", "X-Extra:e",
                   "--header", "Content-Type: image/png")  # fmt: skip

    assert json_of(result) == {"path": "/api/predict/ocr/v1", "method": "POST", "body": "bytes", "type": "image/png",
                               "extra": "e"}  # fmt: skip


def test_predict_failure_prints_both(easel: Easel, tmp_path: Path) -> None:
    """The service's own body on stdout, what it means on stderr."""
    easel("create", spec(tmp_path))

    result = easel("predict", "ocr", "--path", "slow", "--body", "x")

    assert result.exit_code == 1
    assert json_of(result)["code"] == "Timeout"
    assert "was cut off after" in result.stderr
    assert "metadata.rpc.keepalive = 5000 ms" in result.stderr


def test_predict_with_a_missing_file(easel: Easel) -> None:
    """Bad input."""
    assert easel("predict", "ocr", "--body", "@/no/such").exit_code == 2


def test_no_platform_and_wrong_key(platform: Platform, easel: Easel, tmp_path: Path) -> None:
    """What was tried, and what to do."""
    nothing = easel("ls", "--home", str(tmp_path / "none"))
    wrong = easel("--server", platform.server, "ls", "--access-key", "no")
    right = easel("--server", platform.server, "--access-key", KEY, "ls")

    assert nothing.exit_code == 4
    assert f"no platform at {tmp_path}/none: run `easel up --home {tmp_path}/none`" in nothing.stderr
    assert (wrong.exit_code, right.exit_code) == (1, 0)
    assert "not known here" in wrong.stderr


def test_a_part_that_is_away(platform: Platform, easel: Easel) -> None:
    """Exit code 4, and which command shows more."""
    platform.fail("Nodes.List", *[errors.Unavailable("STORE_UNAVAILABLE", "the state store does not answer")] * 99)

    result = easel("node", "ls")

    assert result.exit_code == 4
    assert "the state store does not answer" in result.stderr


def test_a_part_that_restarts_is_waited_for(platform: Platform, easel: Easel) -> None:
    """A moment's absence is not seen."""
    platform.fail("Nodes.List", grpc.StatusCode.UNAVAILABLE)

    assert easel("node", "ls", "-o", "name").stdout == "local\n"
