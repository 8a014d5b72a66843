"""Admission of image deployments: the forms that EAS documents are taken as they are, and refusals say what and why."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from easel_contracts.spec import (
    GitSource,
    Image,
    ImageSource,
    Mount,
    NfsSource,
    ObjectSource,
    Resources,
    ScratchSource,
    Security,
    Sidecar,
)
from easel_control.decide.admit import Admitted, admit_document, parse
from easel_control.decide.images import image_problem
from easel_control.decide.merge import merged, redacted, with_kept_secrets
from easel_control.decide.quantities import cores_of, mib_of
from easel_control.decide.secrets import EnvValue, GitLogin
from tests.unit.control.images import BASE, GIT, but, mounting, refused, sound, with_container

LOGIN = base64.b64encode(b"user:hush-login").decode()
DOCUMENTED: dict[str, dict[str, Any]] = {
    "nested, script in lines, probes": {
        "metadata": {"name": "vllm_qwen", "instance": 1, "cpu": 8, "memory": 32000, "gpu": 1, "shm_size": 16,
                     "workspace_id": "1405", "rpc": {"keepalive": 600000, "enable_sigterm": True},
                     "rolling_strategy": {"max_surge": 1, "max_unavailable": 0},
                     "eas": {"termination_grace_period": 60}},
        "containers": [{
            "image": "eas-registry-vpc.cn-hangzhou.example.com/pai-eas/vllm:0.11.2-mows0.5.1",
            "script": "export VLLM_USE_V1=1\nvllm serve /model_dir --port 8000 \\\n  --trust-remote-code",
            "port": 8000,
            "env": [{"name": "HF_ENDPOINT", "value": "https://hf.example.com"}],
            "startup_check": {"tcp_socket": {"port": 8000}, "initial_delay_seconds": 30, "failure_threshold": 200},
            "liveness_check": {"http_get": {"path": "/health", "port": 8000, "scheme": "HTTP"}, "period_seconds": 10},
            "readiness_check": {"exec": {"command": ["cat", "/tmp/ready"]}, "success_threshold": 1},
        }],
        "storage": [{"mount_path": "/model_dir/", "oss": {"path": "oss://bucket/models/qwen/", "readOnly": True},
                     "properties": {"resource_type": "model"}}],
    },
    "flat and dotted": {
        "metadata.name": "flat", "metadata.instance": 1, "metadata.cpu": 4, "metadata.memory": 8000,
        "metadata.rpc.keepalive": 60000, "metadata.shm_size": 1,
        "containers": [{"image": "python:3.11-slim", "command": "python /code/app.py", "port": 8080,
                        "prepare": {"pythonRequirements": ["fastapi", "uvicorn"]}}],
        "storage": [{"mount_path": "/code", "git.repo": "https://code.example.com/a.git", "git.branch": "main",
                     "properties.resource_type": "code"}],
    },
    "private registry, ports of the EAS engine, nothing but an image": {
        "name": "old", "dockerAuth": LOGIN, "generate_token": "true", "metadata": {"instance": 1, "cpu": 1},
        "containers": [{"image": "registry.cn-shanghai.example.com/xxx/yyy:zzz", "port": 9090}],
    },
    "every mount": {
        "metadata": {"name": "mounts", "instance": 1},
        "containers": [{"image": "nginx", "port": 80}],
        "storage": [
            {"mount_path": "/mnt/data/",
             "oss": {"path": "oss://bucket/path/", "endpoint": "oss-cn-beijing.example.com"}},
            {"mount_path": "/mnt/nas", "nfs": {"server": "06ba748-xxx.nas.example.com", "path": "/",
                                               "readOnly": False}},
            {"mount_path": "/mnt/git", "git": {"repo": "https://codeup.example.com/x/y.git", "branch": "master",
                                               "commit": "3f1c2ab9", "username": "me@corp", "password": "hush"}},
            {"mount_path": "/mnt/image", "image": {"image": "models:latest", "path": "/model"}},
            {"mount_path": "/cache", "empty_dir": {}},
            {"mount_path": "/dev/shm", "empty_dir": {"medium": "memory", "size_limit": 20}},
            {"mount_path": "/ml/usercode", "local": {"path": "/srv/code"}},
        ],
    },
    "sidecars, args, resources": {
        "metadata": {"name": "webui", "instance": 1, "cpu": 4, "memory": 16000, "enable_grpc": False},
        "containers": [
            {"image": "webui:4", "command": "./webui.sh", "args": ["--listen", "--port=8000"], "port": 8000,
             "resources": {"limits": {"cpu": "4000m", "memory": 16000}}},
            {"image": "filebrowser/filebrowser:v2", "command": "/filebrowser --port 8001", "port": 8001,
             "env": [{"name": "A", "value": "b"}], "resources": {"requests": {"cpu": "500m", "memory": "512Mi"}}},
        ],
        "autoscaler": {"min": 1, "max": 3, "strategies": {"qps": 10}},
    },
}  # fmt: skip


@pytest.mark.parametrize("name", DOCUMENTED)
def test_documented_files_are_taken_as_they_are(name: str) -> None:
    got = sound(DOCUMENTED[name])

    assert got.revision.image is not None
    assert got.revision.runtime == "docker"
    again = admit_document(parse(json.dumps(got.config)))
    assert isinstance(again, Admitted)
    assert (again.revision, again.config, again.secrets) == (got.revision, got.config, got.secrets)


def test_what_becomes_of_the_containers() -> None:
    got = sound(DOCUMENTED["sidecars, args, resources"])
    security = {"read_only_root": True, "user": "1000:1000", "non_root": True}
    guarded = sound(with_container(pull_policy="Always", pull_timeout_seconds=5, security=security)).revision.image

    assert got.revision.image == Image(reference="webui:4")
    assert got.revision.args == ("--listen", "--port=8000")
    assert got.revision.sidecars == (
        Sidecar(image=Image(reference="filebrowser/filebrowser:v2"), command="/filebrowser --port 8001", port=8001,
                env_names=("A",), cpu=0.5, memory_mib=512),
    )  # fmt: skip
    assert got.secrets.sidecars == ((EnvValue(name="A", value="b"),),)
    assert guarded == Image(
        reference="registry.example.com:5000/team/ocr:1.2", pull="Always", pull_timeout_s=5.0,
        security=Security(read_only_root=True, user="1000:1000", non_root=True),
    )  # fmt: skip


def test_an_image_alone_runs_its_own_entry_point() -> None:
    got = sound(with_container(args=["--verbose"])).revision

    assert (got.command, got.script, got.args, got.port) == (None, None, ("--verbose",), 8000)


def test_what_becomes_of_the_mounts() -> None:
    got = sound(DOCUMENTED["every mount"])

    assert got.revision.mounts == (
        Mount(mount_path="/mnt/data",
              source=ObjectSource(url="oss://bucket/path/", endpoint="oss-cn-beijing.example.com")),
        Mount(mount_path="/mnt/nas", source=NfsSource(server="06ba748-xxx.nas.example.com"),
              read_only=False),
        Mount(mount_path="/mnt/git", source=GitSource(repo="https://codeup.example.com/x/y.git", branch="master",
                                                      commit="3f1c2ab9", login=True)),
        Mount(mount_path="/mnt/image", source=ImageSource(image="models:latest", path="/model")),
        Mount(mount_path="/cache", source=ScratchSource(), read_only=False),
        Mount(mount_path="/dev/shm", source=ScratchSource(medium="memory", size_mib=20480), read_only=False),
        Mount(mount_path="/ml/usercode", host_path="/srv/code"),
    )  # fmt: skip
    assert got.secrets.logins == {2: GitLogin(username="me@corp", password="hush")}
    assert sound(mounting({"nfs": {"server": "files"}})).revision.mounts[0].read_only


def test_gpus_and_shared_memory() -> None:
    got = sound(but(**{"metadata.gpu": 2, "metadata.shm_size": 0.5})).revision

    assert got.resources == Resources(cpu=2.0, memory_mib=2048, gpu=2)
    assert got.shm_mib == 512
    assert refused(but(**{"metadata.gpu": 65}))["metadata.gpu"].code == "OUT_OF_RANGE"
    process = {"name": "ocr", "containers": [{"command": "x"}], "metadata.gpu": 1, "metadata.shm_size": 1}
    assert {p: e.code for p, e in refused(process).items()} == {
        "metadata.gpu": "NOT_SUPPORTED_YET", "metadata.shm_size": "NOT_SUPPORTED_YET",
    }  # fmt: skip
    both = mounting({"mount_path": "/dev/shm", "empty_dir": {"medium": "memory"}}, **{"metadata.shm_size": 1})
    assert refused(both)["storage[0].mount_path"].code == "CONFLICT"


@pytest.mark.parametrize("reference", [
    "nginx", "nginx:1.25", "library/nginx", "localhost/a", "localhost:5000/a/b-c/d__e.f:Tag-1",
    "a.b:5000/c@sha256:" + "0" * 64,
    "[::1]:5000/a", "a:1@sha256:" + "f" * 64, "HOST.example.com/a",
])  # fmt: skip
def test_names_of_images(reference: str) -> None:
    assert image_problem(reference) is None
    assert sound(with_container(image=reference)).revision.image == Image(reference=reference)


@pytest.mark.parametrize(("reference", "says"), [
    ("https://registry.example.com/a", "no `https://`"),
    ("Nginx", "lower case"),
    ("registry.example.com/Team/OCR:1", "lower case"),
    ("nginx: 1", "no spaces"),
    ("nginx:", "no tag"),
    ("nginx:-x", "no tag"),
    ("nginx:" + "x" * 129, "no tag"),
    ("nginx@sha256:abc", "no digest"),
    ("nginx@", "no digest"),
    ("a//b", "not the name of an image"),
    ("-nginx", "not the name of an image"),
    ("****", "not the name of an image"),
    ("a" * 64, "id of an image"),
    ("a" * 300, "at most 255"),
    ("user:hush@registry.example.com/a", "no digest"),
])  # fmt: skip
def test_what_is_no_name_of_an_image(reference: str, says: str) -> None:
    error = refused(with_container(image=reference))["containers[0].image"]

    assert error.code == "WRONG_VALUE"
    assert says in error.message
    assert "hush" not in error.message + error.hint


def test_upper_case_is_answered_with_the_right_name() -> None:
    error = refused(with_container(image="registry.example.com/Team/OCR:1"))["containers[0].image"]

    assert error.hint == "did you mean `registry.example.com/team/ocr`?"


@pytest.mark.parametrize("login", ["user:hush-login", "aHVzaC1sb2dpbg==", "OmE=", LOGIN[:-1], LOGIN + "\n",
                                   base64.b64encode(b"user:hush\nx").decode()])  # fmt: skip
def test_a_login_is_base64_of_user_and_password(login: str) -> None:
    error = refused(but(dockerAuth=login))["dockerAuth"]

    assert error.code == "WRONG_VALUE"
    assert "hush" not in error.message + error.hint
    assert login not in error.message + error.hint


def test_a_login_is_no_part_of_the_revision_and_never_shown() -> None:
    got = sound(but(dockerAuth=LOGIN))

    assert got.revision == sound(BASE).revision
    assert got.config["dockerAuth"] == LOGIN
    assert "dockerAuth" not in redacted(got.config)
    assert "dockerAuth" not in sound(but(dockerAuth="")).config


def test_an_update_keeps_the_login_unless_it_is_taken_away() -> None:
    stored = sound(but(dockerAuth=LOGIN)).config

    def login(change: dict[str, Any], *, replace: bool) -> str | None:
        document = parse(json.dumps(change))
        document = document if replace else merged(stored, document)
        got = admit_document(with_kept_secrets(document, stored, login=replace))
        assert isinstance(got, Admitted)
        return got.config.get("dockerAuth")

    assert login({"metadata.cpu": 1}, replace=False) == LOGIN
    assert login(BASE, replace=True) == LOGIN
    assert login({"dockerAuth": None}, replace=False) is None
    assert login({"dockerAuth": ""}, replace=False) is None
    assert login(but(dockerAuth=""), replace=True) is None


def test_a_password_is_kept_for_its_repository_and_user_only() -> None:
    stored = sound(mounting({"git": GIT})).config
    without = {name: value for name, value in GIT.items() if name != "password"}

    def kept(git: dict[str, Any]) -> Any:
        document = parse(json.dumps(mounting({"empty_dir": {}}, {"git": git})))
        return admit_document(with_kept_secrets(document, stored, login=True))

    same = kept(without)
    assert isinstance(same, Admitted)
    assert same.secrets.logins == {1: GitLogin(username="me", password="hush-git")}
    for other in ({"repo": "https://elsewhere.example.com/a.git"}, {"username": "you"}):
        found = kept(without | other)
        assert not isinstance(found, Admitted)
        assert [e.path for e in found] == ["storage[1].git.password"]
    public = kept({"repo": GIT["repo"]})
    assert isinstance(public, Admitted)
    assert public.secrets.logins == {}


def test_values_of_sidecars_are_kept_by_container() -> None:
    def env(*values: str | None) -> dict[str, Any]:
        return but(containers=[
            {"image": "a", "env": [{"name": "A"} | ({"value": v} if v else {})]} for v in values
        ])  # fmt: skip

    stored = sound(env("one", "two")).config
    got = admit_document(with_kept_secrets(parse(json.dumps(env(None, None))), stored, login=True))

    assert isinstance(got, Admitted)
    assert got.secrets.env == (EnvValue(name="A", value="one"),)
    assert got.secrets.sidecars == ((EnvValue(name="A", value="two"),),)


def test_other_object_stores() -> None:
    for url in ("s3://b", "gs://b/c/", "az://container/prefix", "oss://b/c//d"):
        assert sound(mounting({"oss": {"path": url}})).revision.mounts[0].source == ObjectSource(url=url)


def test_quantities() -> None:
    assert [cores_of(v) for v in (2, 0.5, "500m", "2", "1.5")] == [2.0, 0.5, 0.5, 2.0, 1.5]
    assert [mib_of(v) for v in (512, 0.5, "512Mi", "1Gi", "1.5Gi", "1T", "100M")] == [
        512, 1, 512, 1024, 1536, 953_675, 96,
    ]  # fmt: skip


def test_requirements_may_lie_in_the_image() -> None:
    got = sound(with_container(prepare={"pythonRequirementsPath": "/app/requirements.txt"}))

    assert got.revision.python_requirements_path == "/app/requirements.txt"
