"""What an image deployment may not ask for: every refusal names its field, says why, and repeats no secret."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.control.images import GIT, but, mounting, refused, sound, with_container

IMAGE = {"image": "a"}


@pytest.mark.parametrize(("config", "path", "code"), [
    (with_container(script="x", args=["y"]), "containers[0].args", "CONFLICT"),
    (with_container(script="x", command="y"), "containers[0].script", "CONFLICT"),
    (with_container(command="'"), "containers[0].command", "WRONG_VALUE"),
    (with_container(pull_policy="always"), "containers[0].pull_policy", "OUT_OF_RANGE"),
    (with_container(security={"user": "root"}), "containers[0].security.user", "WRONG_VALUE"),
    (with_container(security={"user": "0", "non_root": True}), "containers[0].security.user", "CONFLICT"),
    (with_container(resources={"limits": {"memory": "512"}}), "containers[0].resources.limits.memory", "WRONG_TYPE"),
    (with_container(resources={"limits": {"cpu": 3}}), "containers[0].resources", "CONFLICT"),
    (with_container(resources={"limits": {"nvidia.com/gpu": 1}}), "containers[0].resources.limits.nvidia.com/gpu",
     "NOT_SUPPORTED_YET"),
    (with_container(resources={"requests": {"cpu": 3}, "limits": {"cpu": 2}}), "containers[0].resources.requests.cpu",
     "CONFLICT"),
    (but(containers=[IMAGE, {"command": "b"}]), "containers[1].image", "MISSING"),
    (but(containers=[{"command": "b"}, IMAGE]), "containers[0].image", "MISSING"),
    (but(containers=[IMAGE, IMAGE | {"port": 8000}]), "containers[1].port", "CONFLICT"),
    (but(containers=[IMAGE, IMAGE | {"prepare": {"pythonRequirements": ["a"]}}]), "containers[1].prepare",
     "NOT_SUPPORTED_YET"),
    (but(containers=[IMAGE, IMAGE | {"health_check": {"tcp_socket": {}}}]), "containers[1].health_check",
     "NOT_SUPPORTED_YET"),
    (but(containers=[IMAGE, IMAGE | {"resources": {"limits": {"memory": "4Gi"}}}]), "containers[1].resources",
     "OUT_OF_RANGE"),
    (but(containers=[IMAGE, IMAGE | {"env": [{"name": "A", "value": "1"}] * 2}]), "containers[1].env[1].name",
     "CONFLICT"),
    (but(containers=[IMAGE] + [IMAGE] * 9), "containers", "OUT_OF_RANGE"),
    (but(**{"metadata.disk": "40Gi"}), "metadata.disk", "NOT_SUPPORTED_YET"),
    (but(**{"metadata.gpu_memory": 4}), "metadata.gpu_memory", "NOT_SUPPORTED_YET"),
    (mounting({"git": GIT, "oss": {"path": "oss://b/"}}), "storage[0].oss", "CONFLICT"),
    (mounting({"dataset": {"id": "d-1"}}), "storage[0].dataset", "NOT_SUPPORTED_YET"),
    (mounting({}), "storage[0].local", "MISSING"),
    (mounting({"git": {}}), "storage[0].git.repo", "MISSING"),
    (mounting({"git": {"repo": "file:///etc"}}), "storage[0].git.repo", "WRONG_VALUE"),
    (mounting({"git": {"repo": "/srv/repo"}}), "storage[0].git.repo", "WRONG_VALUE"),
    (mounting({"git": {"repo": "ext::sh -c id"}}), "storage[0].git.repo", "WRONG_VALUE"),
    (mounting({"git": {"repo": "-u:x"}}), "storage[0].git.repo", "WRONG_VALUE"),
    (mounting({"git": {"repo": "git@git.example.com:a/b.git"}}), "storage[0].git.repo", "WRONG_VALUE"),
    (mounting({"git": {"repo": "https://me:hush@git.example.com/a"}}), "storage[0].git.repo", "WRONG_VALUE"),
    (mounting({"git": {"repo": "https://hush@git.example.com/a"}}), "storage[0].git.repo", "WRONG_VALUE"),
    (mounting({"git": {"repo": "ssh://git:hush@git.example.com/a"}}), "storage[0].git.repo", "WRONG_VALUE"),
    (mounting({"git": {"repo": "https://x/y?token=hush"}}), "storage[0].git.repo", "WRONG_VALUE"),
    (mounting({"git": {"repo": "ssh://git@x/y"}}), "storage[0].git.repo", "WRONG_VALUE"),
    (mounting({"git": {"repo": "https://x/y", "password": "hush"}}), "storage[0].git.username", "MISSING"),
    (mounting({"git": {"repo": "https://x/y", "password": ["hush"]}}), "storage[0].git.password", "WRONG_TYPE"),
    (mounting({"git": {"repo": "https://x/y", "branch": "--upload-pack=x"}}), "storage[0].git.branch", "WRONG_VALUE"),
    (mounting({"git": {"repo": "https://x/y", "commit": "HEAD"}}), "storage[0].git.commit", "WRONG_VALUE"),
    (mounting({"image": {"image": "A"}}), "storage[0].image.image", "WRONG_VALUE"),
    (mounting({"image": {"image": "a", "path": "/../etc"}}), "storage[0].image.path", "WRONG_VALUE"),
    (mounting({"oss": {"path": "oss://b/x", "readOnly": False}}), "storage[0].oss.readOnly", "NOT_SUPPORTED_YET"),
    (mounting({"oss": {"path": "/x"}}), "storage[0].oss.path", "WRONG_VALUE"),
    (mounting({"oss": {"path": "file:///etc"}}), "storage[0].oss.path", "WRONG_VALUE"),
    (mounting({"oss": {"path": "local://etc/x"}}), "storage[0].oss.path", "WRONG_VALUE"),
    (mounting({"oss": {"path": "s3://key:hush@b/x"}}), "storage[0].oss.path", "WRONG_VALUE"),
    (mounting({"oss": {"path": "oss://b/../c"}}), "storage[0].oss.path", "WRONG_VALUE"),
    (mounting({"oss": {"path": "oss://b/", "endpoint": "https://me:hush@x"}}), "storage[0].oss.endpoint",
     "WRONG_VALUE"),
    (mounting({"nfs": {"server": "x,addr=y"}}), "storage[0].nfs.server", "WRONG_VALUE"),
    (mounting({"nfs": {"server": "x", "path": "/../y"}}), "storage[0].nfs.path", "WRONG_VALUE"),
    (mounting({"nfs": {"server": "x", "resourceGroup": "rg"}}), "storage[0].nfs.resourceGroup", "NOT_SUPPORTED_YET"),
    (mounting({"empty_dir": {"medium": "disk"}}), "storage[0].empty_dir.medium", "OUT_OF_RANGE"),
    (mounting({"empty_dir": {"size_limit": 0}}), "storage[0].empty_dir.size_limit", "OUT_OF_RANGE"),
    (mounting({"mount_path": "/dev/shm", "empty_dir": {}}), "storage[0].mount_path", "WRONG_VALUE"),
    (mounting({"mount_path": "/dev/shm/x", "empty_dir": {"medium": "memory"}}), "storage[0].mount_path", "WRONG_VALUE"),
])  # fmt: skip
def test_refusals_name_the_field_and_repeat_no_secret(config: dict[str, Any], path: str, code: str) -> None:
    errors = refused(config)

    assert {p: e.code for p, e in errors.items()} == {path: code}
    assert errors[path].message
    assert "hush" not in errors[path].message + errors[path].hint


@pytest.mark.parametrize("kind", [{"image": {"image": "a"}}, {"nfs": {"server": "x"}}])
def test_mounts_that_need_an_image(kind: dict[str, Any]) -> None:
    errors = refused(mounting(kind, containers=[{"command": "x"}]))

    assert [(p, e.code) for p, e in errors.items()] == [(f"storage[0].{next(iter(kind))}", "NOT_SUPPORTED_YET")]
    assert "containers[0].image" in next(iter(errors.values())).hint


@pytest.mark.parametrize("kind", [{"git": {"repo": "https://x/y"}}, {"oss": {"path": "oss://b/"}}, {"empty_dir": {}}])
def test_mounts_that_a_process_may_have_too(kind: dict[str, Any]) -> None:
    (mount,) = sound(mounting(kind, containers=[{"command": "x"}])).revision.mounts

    assert mount.source is not None


def test_scratch_memory_of_a_process() -> None:
    errors = refused(mounting({"empty_dir": {"medium": "memory"}}, containers=[{"command": "x"}]))

    assert [(p, e.code) for p, e in errors.items()] == [("storage[0].empty_dir.medium", "NOT_SUPPORTED_YET")]
