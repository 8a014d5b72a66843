"""Admission of service.json: what is accepted, and that every refusal says what and why."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from easel_contracts.errors import FieldError
from easel_contracts.spec import Autoscaling, ExecCheck, HttpCheck, Mount, TcpCheck, Traffic
from easel_control.decide.admit import Admitted, admit, admit_document, parse
from easel_control.decide.merge import merged, redacted, with_kept_secrets
from easel_control.decide.secrets import EnvValue

BASE: dict[str, Any] = {
    "metadata": {"name": "ocr", "instance": 2, "cpu": 1.5, "memory": 2048},
    "containers": [{"command": "python app.py --port $PORT", "port": 8000}],
}


def sound(config: dict[str, Any] | str) -> Admitted:
    found = admit(config if isinstance(config, str) else json.dumps(config))

    assert isinstance(found, Admitted), found
    return found


def refused(config: dict[str, Any] | str) -> dict[str, FieldError]:
    found = admit(config if isinstance(config, str) else json.dumps(config))

    assert not isinstance(found, Admitted)
    return {e.path: e for e in found}


def but(**changes: Any) -> dict[str, Any]:
    return copy.deepcopy(BASE) | changes


def with_container(**changes: Any) -> dict[str, Any]:
    return but(containers=[BASE["containers"][0] | changes])


def test_a_small_file_gets_the_documented_defaults() -> None:
    got = sound(BASE)

    assert (got.name, got.instance, got.token, got.autoscaling) == ("ocr", 2, None, None)
    assert (got.revision.resources.cpu, got.revision.resources.memory_mib) == (1.5, 2048)
    assert got.revision.command == "python app.py --port $PORT"
    assert got.revision.traffic == Traffic(
        keepalive_ms=600_000, retry="pre_send", retry_body_mib=1, hold_max_requests=4096
    )
    assert got.revision.lifecycle.termination_grace_s == 30.0


def test_grpc_is_asked_for() -> None:
    """EAS's own key; without it requests go over HTTP/1.1 only."""
    assert not sound(BASE).revision.traffic.grpc
    assert sound(BASE | {"metadata.enable_grpc": True}).revision.traffic.grpc


def test_old_flat_nested_and_mixed_spellings_are_the_same() -> None:
    old = {"name": "ocr", "metadata.instance": 1, "metadata": {"rpc.keepalive": 5000, "eas": {}},
           "metadata.eas.termination_grace_period": 5, "containers": BASE["containers"]}  # fmt: skip
    new = {"metadata": {"name": "ocr", "instance": 1, "rpc": {"keepalive": 5000},
                        "eas": {"termination_grace_period": 5}}, "containers": BASE["containers"]}  # fmt: skip

    assert sound(old) == sound(new)


def test_two_spellings_with_different_values_conflict() -> None:
    assert refused(but(name="other"))["metadata.name"].code == "CONFLICT"
    assert refused(but(**{"metadata.cpu": 3}))["metadata.cpu"].code == "CONFLICT"
    assert sound(but(name="ocr")).name == "ocr"


def test_broken_json_says_line_and_column() -> None:
    error = refused('{\n  "name": "ocr",\n  "metadata": {,}\n}')[""]

    assert (error.code, error.line, error.column) == ("SYNTAX", 3, 16)
    assert "line 3, column 16" in error.message


def test_a_key_written_twice_is_an_error_with_its_place() -> None:
    error = refused('{"name": "ocr",\n "name": "ocr",\n "containers": [{"command": "x"}]}')["name"]

    assert error.code == "DUPLICATE_KEY"


def test_all_errors_come_at_once_in_the_order_of_the_file() -> None:
    text = """{
      "metadata": {"name": "Ocr", "instnace": 2, "memory": "2048", "gpu": 1},
      "containers": [{"command": 5, "port": 80000, "env": [{"name": "A"}]}],
      "cloud": {"computing": {"instance_type": "ecs.c7"}},
      "autoscaler": {"min": 0, "max": 3, "behavior.onZero": true}
    }"""
    found = admit(text)

    assert not isinstance(found, Admitted)
    codes = [(e.path, e.code, e.line) for e in found]
    assert codes == [
        ("metadata.name", "WRONG_VALUE", 2),
        ("metadata.instnace", "UNKNOWN_KEY", 2),
        ("metadata.memory", "WRONG_TYPE", 2),
        ("metadata.gpu", "NOT_SUPPORTED_YET", 2),
        ("containers[0].command", "WRONG_TYPE", 3),
        ("containers[0].port", "OUT_OF_RANGE", 3),
        ("cloud", "NOT_SUPPORTED_YET", 4),
        ("autoscaler.behavior.onZero", "WRONG_TYPE", 5),
        ("containers[0].env[0].value", "MISSING", None),
        ("autoscaler.strategies", "MISSING", None),
    ]


def test_unknown_keys_are_answered_with_the_nearest() -> None:
    errors = refused(but(autoscaler={"min": 1, "max": 2, "strategies": {"qps": 1}, "behaviour": {}}, storag=[],
                         metadata=BASE["metadata"] | {"port": 80, "rpc.keep_alive": 1}))  # fmt: skip

    assert errors["autoscaler.behaviour"].hint == "did you mean `autoscaler.behavior`?"
    assert errors["storag"].hint == "did you mean `storage`?"
    assert errors["metadata.port"].hint == "did you mean `containers[0].port`?"
    assert errors["metadata.rpc.keep_alive"].hint == "did you mean `metadata.rpc.keepalive`?"


def test_numbers_in_strings_are_refused_with_what_to_write() -> None:
    error = refused(but(**{"metadata.rpc.keepalive": "5000"}))["metadata.rpc.keepalive"]

    assert error.message.startswith('"5000" is not allowed; allowed: a whole number, at least 1 and at most 86400000')
    assert error.hint == "write 5000 without quotes"


@pytest.mark.parametrize(
    ("config", "path", "words"),
    [
        (with_container(args=["a"]), "containers[0].args", "without an `image`"),
        (but(model_path="oss://b/m"), "model_path", "deployment by processor"),
        (but(**{"metadata.gpu": 1}), "metadata.gpu", "GPU"),
        (but(**{"networking.nlb": [{"id": "default"}]}), "networking.nlb", "load balancers"),
        (but(**{"networking.gateway": "gw-1"}), "networking.gateway", "dedicated gateways"),
        (but(storage=[{"mount_path": "/m", "dataset": {"id": "d-1"}}]), "storage[0].dataset", "PAI datasets"),
        (but(storage=[{"mount_path": "/m", "nfs": {"server": "files"}}]), "storage[0].nfs", "without an image"),
        (but(autoscaler={"min": 1, "max": 2, "strategies": {"cpu": 50}}), "autoscaler.strategies.cpu", "cpu"),
        (but(autoscaler={"min": 1, "max": 2, "strategies": {"custom[a]": 5}}), "autoscaler.strategies.custom[a]",
         "itself"),
        (but(containers=[{"command": "a"}, {"command": "b"}]), "containers", "sidecars"),
    ],
)  # fmt: skip
def test_what_is_documented_and_not_built_is_refused_by_name(config: dict[str, Any], path: str, words: str) -> None:
    errors = refused(config)

    assert errors[path].code == "NOT_SUPPORTED_YET"
    assert words in errors[path].message
    assert len(errors) == 1


def test_defaults_of_what_is_not_built_ask_for_nothing() -> None:
    got = sound(but(**{"metadata.gpu": 0, "metadata.rpc.batching": False, "metadata.resource": "", "cloud": {}}))

    assert got == sound(BASE)


def test_probes() -> None:
    got = sound(with_container(
        startup_check={"http_get": {"path": "/up", "port": 8000}, "period_seconds": 0.5, "failure_threshold": 100},
        health_check={"tcp_socket": {}},
        readiness_check={"exec": {"command": ["true"]}, "success_threshold": 2},
    )).revision  # fmt: skip

    assert got.startup is not None
    assert got.startup.check == HttpCheck(path="/up", port=None)
    assert (got.startup.period_s, got.startup.failure_threshold) == (0.5, 100)
    assert got.liveness is not None
    assert got.liveness.check == TcpCheck()
    assert got.readiness is not None
    assert got.readiness.check == ExecCheck(command=("true",))


def test_a_probe_has_exactly_one_check() -> None:
    errors = refused(with_container(startup_check={}, liveness_check={"tcp_socket": {}, "http_get": {}}))

    assert errors["containers[0].startup_check"].code == "MISSING"
    assert errors["containers[0].liveness_check"].code == "CONFLICT"


def test_environment_values_and_secrets() -> None:
    env = [{"name": "A", "value": "geheim"}, {"name": "B", "secretRef": {"name": "db"}}]
    found = sound(with_container(env=env))

    assert found.secrets.env == (EnvValue(name="A", value="geheim"), EnvValue(name="B", secret="db"))
    assert found.revision.env_names == ("A", "B")
    assert "geheim" not in repr(found) + repr(found.secrets.env) + repr(found.revision)
    assert refused(with_container(env=[{"name": "C"}]))["containers[0].env[0].value"].code == "MISSING"


def test_what_is_shown_holds_no_value_and_can_be_posted_back() -> None:
    env = [{"name": "A", "value": "geheim"}, {"name": "B", "secretRef": {"name": "db"}}]
    first = sound(with_container(env=env) | {"token": "abcdefgh"})
    shown = redacted(first.config)

    assert "geheim" not in json.dumps(shown)
    again = admit_document(with_kept_secrets(parse(json.dumps(shown)), first.config, login=True))
    assert isinstance(again, Admitted)
    assert (again.config, again.secrets) == (first.config, first.secrets)


def test_a_merge_is_deep_for_objects_and_whole_for_lists_and_null_removes() -> None:
    stored = sound(but(autoscaler={"min": 1, "max": 2, "strategies": {"qps": 3}})).config
    change = parse('{"metadata.cpu": 4, "autoscaler": null, "labels": {"a": "b"}, "metadata": {"nope": null}}')
    got = admit_document(merged(stored, change))

    assert not isinstance(got, Admitted)
    assert [(e.path, e.code) for e in got] == [("metadata.nope", "UNKNOWN_KEY")]
    good = admit_document(merged(stored, parse('{"metadata.cpu": 4, "autoscaler": null}')))
    assert isinstance(good, Admitted)
    assert (good.revision.resources.cpu, good.autoscaling, good.instance) == (4.0, None, 2)


def test_secrets_are_not_repeated_in_errors() -> None:
    env = [{"name": "A", "value": ["hush"]}, {"name": "PORT", "value": "hush"}, {"name": "A B", "value": "hush"}]
    errors = refused(with_container(env=env) | {"token": "hush hush hush"})

    assert {"token", "containers[0].env[0].value", "containers[0].env[1].name"} <= errors.keys()
    assert "hush" not in "".join(e.message + e.hint for e in errors.values())


def test_storage() -> None:
    digest = "sha256:" + "ab" * 32
    got = sound(but(storage=[
        {"mount_path": "/code/", "local": {"path": "/srv//app/"}},
        {"mount_path": "/data", "local": {"path": "/srv/data", "readOnly": False}},
        {"mount_path": "/up", "local": {"path": "/home/me", "digest": digest}},
    ]))  # fmt: skip

    assert got.revision.mounts == (
        Mount(mount_path="/code", host_path="/srv/app"),
        Mount(mount_path="/data", host_path="/srv/data", read_only=False),
        Mount(mount_path="/up", code_digest=digest),
    )


@pytest.mark.parametrize("path", ["/", "/usr", "/etc/x", "/tmp", "/a/../etc", "relative"])
def test_mounts_over_the_system_are_refused(path: str) -> None:
    assert "storage[0].mount_path" in refused(but(storage=[{"mount_path": path, "local": {"path": "/srv"}}]))


def test_overlapping_mounts_are_refused() -> None:
    errors = refused(but(storage=[{"mount_path": "/a", "local": {"path": "/x"}},
                                  {"mount_path": "/a/b", "local": {"path": "/y"}}]))  # fmt: skip

    assert errors["storage[1].mount_path"].message == "/a/b overlaps with storage[0].mount_path, /a"


def test_both_forms_of_the_autoscaler_are_the_same() -> None:
    one = sound(but(autoscaler={"min": 1, "max": 5, "strategies": {"qps": 10, "concurrency": 2},
                                "behavior": {"scaleDown.stabilizationWindowSeconds": 60}}))  # fmt: skip
    other = sound(but(**{
        "autoscaler.min": 1, "autoscaler.max": 5, "autoscaler.scaleStrategies": [
            {"metricName": "concurrency", "threshold": 2}, {"metricName": "qps", "threshold": 10}],
        "autoscaler.behavior.scaleDown.stabilizationWindowSeconds": 60}))  # fmt: skip

    assert one == other
    assert one.autoscaling == Autoscaling(
        min=1, max=5, targets=(("concurrency", 2.0), ("qps", 10.0)), scale_down_window_s=60.0
    )


def test_autoscaler_mistakes() -> None:
    errors = refused(but(autoscaler={"min": 3, "max": 2, "scaleStrategies": [
        {"metricName": "QPS", "threshold": 1}, {"metricName": "cpu", "threshold": 1}]}))  # fmt: skip

    assert errors["autoscaler.max"].message == "max is 2, less than min, 3"
    assert errors["autoscaler.scaleStrategies[0].metricName"].code == "OUT_OF_RANGE"
    assert errors["autoscaler.scaleStrategies[1].metricName"].code == "NOT_SUPPORTED_YET"
    assert len(errors) == 3


def test_tokens() -> None:
    assert sound(but(token="abcdefgh")).token == "abcdefgh"
    assert "token" not in sound(but(token="abcdefgh")).config
    assert sound(but(generate_token=True)).token is None
    assert sound(but(generate_token="true")).token is None
    assert "generate_token" in refused(but(generate_token=False))
    assert "generate_token" in refused(but(token="abcdefgh", generate_token=True))


def test_requirements_by_path_must_lie_in_a_mount() -> None:
    prepare = {"pythonRequirementsPath": "/code/requirements.txt"}
    errors = refused(with_container(prepare=prepare))

    assert errors["containers[0].prepare.pythonRequirementsPath"].code == "WRONG_VALUE"
    got = sound(with_container(prepare=prepare) | {"storage": [{"mount_path": "/code", "local": {"path": "/srv"}}]})
    assert got.revision.python_requirements_path == "/code/requirements.txt"


def test_labels_keep_their_dots() -> None:
    got = sound(but(**{"labels": {"team.name": "vision"}, "labels.a.b": "c"}))

    assert got.labels == {"team.name": "vision", "a.b": "c"}


HOSTILE = (
    "", "[]", "3", "null", '{"a": NaN}', "[" * 5000, '{"a":' * 5000, '{"metadata.cpu": 1e999}', '{"name": "\\ud800"}',
    '{"token": "a\\u0000bcdefgh"}', '{"' + "a." * 5000 + '": 1}', '{"metadata.cpu": ' + "9" * 5000 + "}", "\ufeff{}",
)  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_are_refused_in_words(text: str) -> None:
    found = admit(text)

    assert not isinstance(found, Admitted)
    assert all(len(e.path) <= 200 and e.message for e in found)


def test_the_documented_sample_shapes() -> None:
    """The shapes of EAS's own pages: each is taken, or refused only for what is not built."""
    image = {
        "metadata": {"name": "test", "instance": 1, "rpc": {"keepalive": 5000}, "workspace_id": "1405"},
        "cloud": {"computing": {"instances": [{"type": "ecs.c7a.large"}]}},
        "containers": [{"image": "registry.example.com/ocr:1", "port": 8000, "script": "python app.py"}],
    }
    old = {"name": "t_e", "generate_token": "true", "model_path": "http://x/lr.pmml", "processor": "pmml",
           "metadata": {"instance": 1, "cpu": 1}}  # fmt: skip
    scaler = but(autoscaler={"min": 2, "max": 5, "strategies": {"qps": 10}})

    assert {p: e.code for p, e in refused(image).items()} == {"cloud": "NOT_SUPPORTED_YET"}
    assert {p for p, e in refused(old).items() if e.code != "NOT_SUPPORTED_YET"} == {"containers"}
    assert sound(scaler).autoscaling is not None
