"""Groups and gateway policies in a service.json: what they ask for, what is refused, and that they are no revision."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from easel_contracts.spec import GatewayPolicy
from easel_control.decide import change
from easel_control.decide.admit import Admitted, admit_document, parse
from easel_control.decide.merge import laid_over, merged, of_revision
from easel_control.decide.schema import schema
from easel_control.model import service_state
from tests.unit.control.rows import NOW, content, row
from tests.unit.control.test_control_admit import BASE, but, refused, sound

RATE = "networking.gateway_policy.rate_limit"
CONCURRENCY = "networking.gateway_policy.concurrency_limit"


def policy(**keys: Any) -> GatewayPolicy:
    return sound(BASE | {name.replace("__", "."): value for name, value in keys.items()}).gateway


def laid(stored: Admitted, text: str) -> Admitted:
    found = admit_document(merged(stored.config, parse(text)))
    assert isinstance(found, Admitted), found
    return found


def test_without_keys_there_is_no_limit_and_no_group() -> None:
    got = sound(BASE)

    assert (got.gateway, got.group) == (GatewayPolicy(), "")
    assert GatewayPolicy(rate_limit_qps=0, concurrency_limit=0, replica_rate_limit_qps=0, worker_threads=0,
                         web=False) == GatewayPolicy()  # fmt: skip


def test_everything_that_can_be_asked_for() -> None:
    got = policy(
        metadata__rpc__rate_limit=7, metadata__rpc__worker_threads=5, metadata__rpc__max_queue_size=0,
        metadata__enable_webservice=True,
        networking={"gateway_policy": {"rate_limit": {"enable": True, "limit": 100},
                                       "concurrency_limit": {"limit": 50}}},
    )  # fmt: skip

    assert got == GatewayPolicy(
        rate_limit_qps=100, concurrency_limit=50, replica_rate_limit_qps=7, worker_threads=5, max_queue_size=0, web=True
    )


@pytest.mark.parametrize("key", ["name", "group"])
def test_a_path_of_the_gateways_own_is_no_name(key: str) -> None:
    """Its scope would take the place of the one by which callers in direct mode find the gateway."""
    found = refused(but(metadata=BASE["metadata"] | {key: "servicediscovery"}))

    assert {path: error.code for path, error in found.items()} == {f"metadata.{key}": "RESERVED"}


def test_workers_have_the_documented_queue() -> None:
    assert policy(metadata__rpc__worker_threads=5).max_queue_size == 64


@pytest.mark.parametrize(
    ("section", "limit"),
    [({}, 0), ({"enable": False}, 0), ({"enable": False, "limit": 9}, 0), ({"enable": False, "limit": 0}, 0),
     ({"limit": 9}, 9), ({"limit": 0}, 0), ({"enable": True, "limit": 9}, 9)],
)  # fmt: skip
def test_a_limit_counts_unless_it_is_switched_off(section: dict[str, Any], limit: int) -> None:
    found = policy(networking={"gateway_policy": {"rate_limit": section, "concurrency_limit": section}})

    assert (found.rate_limit_qps, found.concurrency_limit) == (limit, limit)


@pytest.mark.parametrize(
    ("keys", "path", "code", "words"),
    [
        ({f"{RATE}.enable": True}, f"{RATE}.limit", "MISSING", "enabled"),
        ({CONCURRENCY: {"enable": True, "limit": 0}}, f"{CONCURRENCY}.limit", "MISSING", "0 is none"),
        ({f"{RATE}.limit": -1}, f"{RATE}.limit", "OUT_OF_RANGE", "at least 1"),
        ({f"{RATE}.limit": "100"}, f"{RATE}.limit", "WRONG_TYPE", "whole number"),
        ({"metadata.rpc.max_queue_size": 9}, "metadata.rpc.max_queue_size", "CONFLICT", "worker_threads"),
        ({"metadata.rpc.worker_threads": 0}, "metadata.rpc.worker_threads", "OUT_OF_RANGE", "at least 1"),
        ({"metadata.group": "ocr"}, "metadata.group", "CONFLICT", "name of a service"),
        ({"metadata.group": "No Group"}, "metadata.group", "WRONG_VALUE", "lower-case"),
        ({"metadata.group": 3}, "metadata.group", "WRONG_TYPE", "3 to 63 characters"),
        ({"networking.vpc_id": "vpc-1"}, "networking.vpc_id", "NOT_SUPPORTED_YET", "networks"),
        ({"networking.gateway": "gw-7"}, "networking.gateway", "NOT_SUPPORTED_YET", "dedicated"),
        ({"networking.gatway": "gw-7"}, "networking.gatway", "UNKNOWN_KEY", "not a key"),
    ],
)  # fmt: skip
def test_what_is_refused_names_its_key(keys: dict[str, Any], path: str, code: str, words: str) -> None:
    errors = refused(but(**keys))

    assert list(errors) == [path]
    assert errors[path].code == code
    assert words in errors[path].message


def test_what_is_wrong_already_is_complained_about_once() -> None:
    errors = refused(but(**{f"{RATE}.enable": True, f"{RATE}.limit": "x", "metadata.rpc.worker_threads": "5",
                            "metadata.rpc.max_queue_size": 3}))  # fmt: skip

    assert errors.keys() == {f"{RATE}.limit", "metadata.rpc.worker_threads"}


def test_what_asks_for_nothing_passes() -> None:
    got = sound(but(**{"networking.gateway": "default", "metadata.group": "", "metadata.rpc.rate_limit": 0,
                       "networking.disable_internet_endpoint": False}))  # fmt: skip

    assert got == sound(BASE)


@pytest.mark.parametrize("change", ['{"metadata.group": null}', '{"metadata": {"group": ""}}'])
def test_a_group_is_left_by_null_or_nothing_and_kept_by_silence(change: str) -> None:
    member = sound(but(**{"metadata.group": "letters"}))

    assert member.group == "letters"
    assert laid(member, '{"metadata.cpu": 3}').group == "letters"
    left = laid(member, change)
    assert (left.group, "group" in left.config["metadata"]) == ("", False)


def test_the_schema_knows_them() -> None:
    sound_file = but(**{"metadata.group": "letters", f"{RATE}.limit": 3, "networking.gateway": "default"})

    assert Draft202012Validator(schema()).is_valid(sound_file)
    assert not Draft202012Validator(schema()).is_valid(but(**{f"{RATE}.limit": "3"}))
    nothing = but(**{"metadata.group": "", f"{RATE}.limit": 0, "metadata.rpc.rate_limit": 0, "networking.gateway": ""})
    assert Draft202012Validator(schema()).is_valid(nothing)
    assert not Draft202012Validator(schema()).is_valid(but(**{"metadata.rpc.rate_limit": -1}))


def test_a_change_of_policy_or_group_is_no_revision_and_is_told() -> None:
    gateway = GatewayPolicy(rate_limit_qps=5)
    made = change.updated(row(), content(gateway=gateway, group="letters", config_changed=True), 1, NOW)

    assert made is not None
    assert (made.new_revision, made.row.revision.number, made.row.generation) == (False, 1, 2)
    assert (service_state(made.row).gateway, service_state(made.row).group) == (gateway, "letters")


def test_a_new_service_has_its_policy_and_group() -> None:
    made = change.created(content(token_sealed=b"t", gateway=GatewayPolicy(web=True), group="letters"),
                          workspace="default", name="ocr", uid="u", past=(0, 0), now=NOW)  # fmt: skip

    assert (made.row.gateway.web, made.row.group) == (True, "letters")


def test_who_is_deleted_is_out_of_its_group_at_once() -> None:
    made = change.deleted(row(status="Running", group="letters"), NOW)

    assert made is not None
    assert made.row.group == ""


def test_a_switch_to_another_revision_leaves_them_as_they_are() -> None:
    old = sound(but(**{"metadata.group": "old", "metadata.rpc.rate_limit": 1})).config
    now = sound(but(**{"metadata.group": "new", "metadata.rpc": {"worker_threads": 4, "keepalive": 9},
                       f"{RATE}.limit": 3})).config  # fmt: skip
    found = laid_over(old, now)

    assert (found["metadata"]["group"], found["metadata"]["cpu"]) == ("new", 1.5)
    assert (found["metadata"]["rpc"], found["networking"]) == ({"worker_threads": 4}, now["networking"])
    none = laid_over(old, sound(BASE).config)
    assert "group" not in none["metadata"]
    assert "rpc" not in none["metadata"], "a section that says nothing would count as a change of the configuration"
    assert json.dumps(of_revision(now)).count("keepalive") == 1
