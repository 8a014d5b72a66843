"""Updates: a change laid over the stored configuration, and what of a configuration may be shown."""

from __future__ import annotations

import copy
from typing import Any

from msgspec.structs import replace

from easel_control.decide.document import Document
from easel_control.decide.secrets import RevisionSecrets


def merged(stored: dict[str, Any], change: Document) -> Document:
    """`change` deep-merged into `stored`: objects by key, lists and values whole; null takes a key away.

    Places of the change's text stay usable, because paths are the same.
    """
    return Document(value=_merge(stored, change.value), errors=change.errors, places=change.places)


def _merge(stored: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    out = dict(stored)
    for key, value in change.items():
        if value is None and key in out:
            del out[key]
        elif isinstance(value, dict):
            before = out.get(key)
            out[key] = _merge(before if isinstance(before, dict) else {}, value)
        else:
            out[key] = value
    return out


def redacted(config: dict[str, Any]) -> dict[str, Any]:
    """What may be shown: secrets are left out, so that posting it again keeps them."""
    out: dict[str, Any] = copy.deepcopy(config)
    out.pop("token", None)
    out.pop("dockerAuth", None)
    for container in out.get("containers", ()):
        for entry in container.get("env", ()):
            entry.pop("value", None)
    for mount in out.get("storage", ()):
        mount.get("git", {}).pop("password", None)
    return out


NOT_OF_REVISION = (
    ("metadata", "instance"), ("metadata", "workspace_id"), ("metadata", "rolling_strategy"), ("metadata", "group"),
    ("metadata", "enable_webservice"), ("metadata", "rpc", "rate_limit"), ("metadata", "rpc", "worker_threads"),
    ("metadata", "rpc", "max_queue_size"), ("networking",), ("autoscaler",), ("labels",), ("rollout",), ("dockerAuth",),
)  # fmt: skip
"""What makes no revision when it changes: a switch to another revision leaves them as they are."""


def laid_over(revision: dict[str, Any], current: dict[str, Any]) -> dict[str, Any]:
    """A revision's configuration, with what does not belong to a revision as it is in the current one."""
    out = of_revision(revision)
    for *parents, last in NOT_OF_REVISION:
        there, here = current, out
        for part in parents:
            there = there.get(part, {})
        if last not in there:
            continue
        for part in parents:
            here = here.setdefault(part, {})
        here[last] = copy.deepcopy(there[last])
    return out


def of_revision(config: dict[str, Any]) -> dict[str, Any]:
    """The part of a configuration that belongs to its revision."""
    out: dict[str, Any] = copy.deepcopy(config)
    for path in NOT_OF_REVISION:
        _take_out(out, path)
    return out


def _take_out(config: dict[str, Any], path: tuple[str, ...]) -> None:
    """Without what is at the path, and without sections that say nothing then."""
    name, *below = path
    if not below:
        config.pop(name, None)
    elif name in config:
        _take_out(config[name], tuple(below))
        if not config[name]:
            del config[name]


def with_values(config: dict[str, Any], secrets: RevisionSecrets) -> dict[str, Any]:
    """A shown configuration with the secrets of its revision put back."""
    out: dict[str, Any] = copy.deepcopy(config)
    for container, env in zip(out.get("containers", ()), secrets.containers, strict=False):
        values = {entry.name: entry.value for entry in env if entry.value is not None}
        for entry in container.get("env", ()):
            if entry["name"] in values:
                entry["value"] = values[entry["name"]]
    for i, login in secrets.logins.items():
        out["storage"][i]["git"]["password"] = login.password
    return out


def with_kept_secrets(document: Document, stored: dict[str, Any], *, login: bool) -> Document:
    """The document with the secrets that it leaves out as they are stored: values of environment entries that give
    neither `value` nor `secretRef`, passwords of git repositories, and with `login` that of the registry."""
    value: dict[str, Any] = copy.deepcopy(document.value)
    for container, before in zip(_objects(value, "containers"), _objects(stored, "containers"), strict=False):
        _keep_values(container, before)
    _keep_passwords(value, stored)
    if login and "dockerAuth" in stored and value:
        value.setdefault("dockerAuth", stored["dockerAuth"])
    return replace(document, value=value)


def _keep_values(container: dict[str, Any], stored: dict[str, Any]) -> None:
    """By name, within one container."""
    kept = {
        entry["name"]: {k: v for k, v in entry.items() if k in ("value", "secretRef")}
        for entry in stored.get("env", ())
    }
    for entry in _objects(container, "env"):
        name = entry.get("name")
        if not {"value", "secretRef"} & entry.keys() and isinstance(name, str):
            entry.update(kept.get(name, {}))


def _keep_passwords(value: dict[str, Any], stored: dict[str, Any]) -> None:
    """By repository and user, wherever it is mounted: a password never goes to another server."""
    logins = [mount["git"] for mount in _objects(stored, "storage") if "password" in mount.get("git", {})]
    kept = {(git["repo"], git["username"]): git["password"] for git in logins}
    for mount in _objects(value, "storage"):
        git = mount.get("git")
        if not isinstance(git, dict) or "password" in git:
            continue
        repo, user = git.get("repo"), git.get("username")
        if isinstance(repo, str) and isinstance(user, str) and (repo, user) in kept:
            git["password"] = kept[repo, user]


def _objects(parent: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """The items of a list of objects; an empty one stands for whatever is none."""
    found = parent.get(name)
    return [item if isinstance(item, dict) else {} for item in found] if isinstance(found, list) else []
