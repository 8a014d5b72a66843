"""Invariants of admission over generated files."""

from __future__ import annotations

import base64
import copy
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from easel_control.decide.admit import Admitted, admit, admit_document, parse, text_of
from easel_control.decide.document import places
from easel_control.decide.key import Node
from easel_control.decide.keys import KEYS, SUPPORTED, TREE
from easel_control.decide.merge import redacted, with_kept_secrets, with_values

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
known_names = st.sampled_from(sorted({k.name for k in KEYS} | {k.path for k in KEYS} | {"name", "", ".", "a..b"}))
near_files = st.recursive(
    scalars | st.sampled_from(["ocr", "qps", "/code", "sha256:" + "0" * 64, "true", 1, 0, 8000]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(known_names, inner, max_size=6),
    max_leaves=25,
)


def value_for(node: Node) -> st.SearchStrategy[Any]:
    """Sound values of a key, mostly."""
    key = node.key
    if key.kind == "object":
        return objects(node)
    if key.kind == "list":
        assert node.item is not None
        return st.lists(value_for(node.item), min_size=key.min_length, max_size=min(2, key.max_length))
    if key.kind == "map":
        return st.dictionaries(st.from_regex(r"[a-z.]{1,6}", fullmatch=True), st.text("abc", max_size=4), max_size=2)
    if key.choices:
        return st.sampled_from(key.choices)
    if key.kind == "boolean":
        return st.booleans()
    if key.kind == "amount":
        share = st.integers(0, 100).map(lambda n: f"{n}%")
        return st.integers(int(key.minimum or 0), int(key.maximum or 9)) | share
    if key.kind == "integer":
        return st.integers(int(key.minimum or 0), int(key.maximum or 9))
    if key.kind == "cores":
        return st.sampled_from([1, 0.5, "500m", "1.5"])
    if key.kind == "size":
        return st.sampled_from([512, "512Mi", "0.5Gi", "1G"])
    if key.kind == "number":
        return st.floats(key.minimum or 0.5, key.maximum or 9.0)
    return st.from_regex(key.pattern or r"[a-z]{1,9}", fullmatch=True).map(
        lambda t: (t * key.min_length)[: min(key.max_length, 40)] if key.path == "token" else t[: key.max_length]
    )


def objects(node: Node) -> st.SearchStrategy[dict[str, Any]]:
    built = {n: c for n, c in node.children.items() if not c.key.later and (c.key.doc or c.children)}
    required = {n: value_for(c) for n, c in built.items() if c.key.required or n == "metadata"}
    return st.fixed_dictionaries(required, optional={n: value_for(c) for n, c in built.items() if n not in required})


MOUNTS: list[dict[str, Any]] = [
    {"local": {"path": "/srv"}},
    {"git": {"repo": "https://git.example.com/a.git", "username": "me", "password": "hush-git"}},
    {"git": {"repo": "http://git.example.com/a.git", "branch": "main", "commit": "a" * 40}},
    {"image": {"image": "models:1", "path": "/model"}},
    {"oss": {"path": "oss://bucket/prefix/"}, "properties": {"resource_type": "model"}},
    {"nfs": {"server": "files", "readOnly": False}},
    {"empty_dir": {"medium": "memory", "size_limit": 0.5}},
]


def tidy_container(container: dict[str, Any], number: int, *, image: bool) -> None:
    for name in ("script", "prepare", "startup_check", "liveness_check", "readiness_check", "health_check"):
        container.pop(name, None)
    if image:
        container["image"] = f"registry.example.com:5000/ocr:{number}"
        container["port"] = 8000 + number
    else:
        for name in ("args", "pull_policy", "pull_timeout_seconds", "security"):
            container.pop(name, None)
    if not image or len(container.get("args", [])) == 0:
        container["command"] = "python app.py"
    if number == 0 or not image:
        container.pop("resources", None)
    elif section := container.get("resources"):
        container["resources"] = {name: {"cpu": "1m", "memory": 16} for name in section}
    container.pop("security", None) if container.get("security", {}).get("user", "1")[0] == "0" else None
    seen: set[str] = set()
    env = [e for e in container.get("env", []) if not (e["name"] in seen or seen.add(e["name"]))]  # type: ignore[func-returns-value]
    for entry in env:
        entry.pop("value", None)
        if "secretRef" not in entry:
            entry["value"] = "hush-env"
    container["env"] = [e for e in env if e["name"] != "PORT" and not e["name"].startswith("EASEL_")]


def tidy(config: dict[str, Any]) -> dict[str, Any]:
    """Takes out the contradictions that single keys cannot avoid, so that most files are sound."""
    image = "image" in config["containers"][0]
    config["containers"] = config["containers"][: 9 if image else 1]
    for i, container in enumerate(config["containers"]):
        tidy_container(container, i, image=image)
    if not image:
        config["metadata"].pop("gpu", None)
        config["metadata"].pop("shm_size", None)
    kinds = MOUNTS if image else MOUNTS[:1]
    config["storage"] = [
        {"mount_path": f"/m{i}"} | copy.deepcopy(kinds[len(entry["mount_path"]) % len(kinds)])
        for i, entry in enumerate(config.get("storage", []))
    ]
    config.pop("generate_token", None)
    if "dockerAuth" in config:
        config["dockerAuth"] = base64.b64encode(b"me:hush-login").decode()
    if scaler := config.get("autoscaler"):
        scaler.pop("scaleStrategies", None)
        on_zero = scaler.get("behavior", {}).get("onZero", {})
        scaler["max"] = max(scaler["min"], scaler["max"], on_zero.get("scaleUpActivationReplicas", 1))
        scaler["strategies"] = {"qps": 5}
    if config["metadata"].get("instance") == 0 and config.get("autoscaler", {}).get("min") != 0:
        del config["metadata"]["instance"]
    if config["metadata"].get("group") == config["metadata"]["name"]:
        del config["metadata"]["group"]
    if "worker_threads" not in config["metadata"].get("rpc", {}):
        config["metadata"].get("rpc", {}).pop("max_queue_size", None)
    for limit in config.get("networking", {}).get("gateway_policy", {}).values():
        if "limit" not in limit:
            limit.pop("enable", None)
    strategy = config["metadata"].get("rolling_strategy", {})
    if strategy.get("max_surge") in (0, "0%"):
        strategy["max_unavailable"] = 1
    if waves := config.get("rollout", {}).get("waves"):
        config["rollout"]["waves"] = sorted({*waves, 100})
    return config


sound_files = objects(TREE).map(tidy)


def flattened(value: dict[str, Any], draw: Any, path: str = "") -> dict[str, Any]:
    """The same object with some nesting written as dots."""
    out: dict[str, Any] = {}
    for key, item in value.items():
        here = f"{path}.{key}" if path else key
        if isinstance(item, dict) and item and here != "labels":
            inner = flattened(item, draw, here)
            if draw(st.booleans()):
                out |= {f"{key}.{k}": v for k, v in inner.items()}
            else:
                out[key] = inner
        else:
            out[key] = item
    return out


@given(st.text(max_size=60) | (json_values | near_files).map(json.dumps))
@settings(deadline=None, max_examples=150)
def test_admission_never_raises_and_errors_say_where(text: str) -> None:
    found = admit(text)

    if not isinstance(found, Admitted):
        assert found
        assert all(e.code and e.message for e in found)
        assert all(e.path for e in found if e.code != "SYNTAX")
        json.dumps([e.path + e.message + e.hint for e in found], ensure_ascii=False).encode()


@given(near_files.filter(lambda v: isinstance(v, dict)))
@settings(deadline=None, max_examples=100)
def test_near_misses_never_raise(config: Any) -> None:
    admit(json.dumps({"metadata": {"name": "ocr"}, "containers": [{"command": "x"}]} | config))


@given(sound_files)
@settings(deadline=None, max_examples=50)
def test_what_is_admitted_admits_to_the_same_again(config: dict[str, Any]) -> None:
    first = admit(json.dumps(config))
    assert isinstance(first, Admitted), first

    again = admit(text_of(first.config | ({"token": first.token} if first.token else {})))

    assert again == first


@given(sound_files)
@settings(deadline=None, max_examples=100)
def test_what_is_shown_holds_no_secret_and_posted_again_changes_nothing(config: dict[str, Any]) -> None:
    first = admit(json.dumps(config))
    assert isinstance(first, Admitted), first

    shown = text_of(redacted(first.config))

    assert "hush" not in shown
    assert config.get("dockerAuth", "hush") not in shown
    assert "hush" not in repr((first, first.secrets, first.revision))
    again = admit_document(with_kept_secrets(parse(shown), first.config, login=True))
    assert isinstance(again, Admitted), again
    assert (again.config, again.secrets, again.revision) == (first.config, first.secrets, first.revision)
    assert with_values(redacted(first.config), first.secrets) == without_login(first.config)


def without_login(config: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name != "dockerAuth"}


@given(st.data())
@settings(deadline=None, max_examples=50)
def test_flat_and_nested_spellings_are_the_same(data: st.DataObject) -> None:
    config = data.draw(sound_files)

    assert isinstance(admit(json.dumps(config)), Admitted)
    assert admit(json.dumps(flattened(config, data.draw))) == admit(json.dumps(config))


@given(sound_files, st.sampled_from(["", "metadata", "metadata.rpc", "containers", "traffic", "autoscaler"]),
       st.from_regex(r"[a-zA-Z_]{1,12}", fullmatch=True))  # fmt: skip
@settings(deadline=None, max_examples=50)
def test_unknown_keys_never_pass(config: dict[str, Any], where: str, name: str) -> None:
    node, at = TREE, config
    for part in where.split(".") if where else ():
        found = at.setdefault(part, {} if part != "containers" else [{}])
        node, at = node.children[part], found[0] if isinstance(found, list) else found
        node = node.item or node
    if name in node.children or (not where and name in ("name", "workspace_id")):
        return
    at[name] = 1

    got = admit(json.dumps(config))

    assert not isinstance(got, Admitted)
    assert any(e.code in ("UNKNOWN_KEY", "NOT_SUPPORTED_YET") and e.path.endswith(name) for e in got)


@given(json_values)
@settings(deadline=None)
def test_places_finds_every_key_of_any_json(value: Any) -> None:
    text = json.dumps(value, indent=2)
    found = places(text)

    if isinstance(value, dict):
        assert len(found) >= len(value)
    lines = text.splitlines()
    assert all(1 <= line <= len(lines) and 1 <= column <= len(lines[line - 1]) for line, column in found.values())


def test_every_supported_key_is_documented() -> None:
    assert [k.path for k in SUPPORTED if not k.doc and not k.path.endswith("[]")] == []
