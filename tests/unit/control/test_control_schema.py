"""The published JSON Schema and the documentation come from the table that admission uses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from easel_control.decide.admit import Admitted, admit
from easel_control.decide.schema import schema, schema_text

ROOT = Path(__file__).parents[3]
VALIDATOR = Draft202012Validator(schema())


def good(config: dict[str, Any]) -> bool:
    return bool(VALIDATOR.is_valid(config))


def test_it_is_a_sound_schema() -> None:
    Draft202012Validator.check_schema(json.loads(schema_text()))


@pytest.mark.parametrize("name", ["ocr", "filetype"])
def test_examples_pass_schema_and_admission(name: str) -> None:
    config = json.loads((ROOT / "examples" / name / "service.json").read_text())

    assert good(config), [e.message for e in VALIDATOR.iter_errors(config)]
    for entry in config["storage"]:
        entry["local"]["path"] = "/srv/code"
    assert isinstance(admit(json.dumps(config)), Admitted)


def test_every_spelling_passes() -> None:
    containers = [{"command": "x"}]

    assert good({"name": "ocr", "containers": containers, "metadata.rpc.keepalive": 1, "labels.a.b": "c"})
    assert good({"metadata": {"name": "ocr", "rpc.keepalive": 1}, "containers": containers})
    assert good({"metadata.name": "ocr", "containers": containers, "generate_token": "true", "metadata.gpu": 0})


def test_images_pass() -> None:
    container = {"image": "ocr:1", "args": [], "resources.limits": {"cpu": "500m", "memory": "1Gi"}}
    storage = [{"mount_path": "/dev/shm", "empty_dir": {"medium": "memory", "size_limit": 20}},
               {"mount_path": "/m", "oss.path": "oss://b/", "properties": {"resource_type": "model"}}]  # fmt: skip

    assert good({"name": "ocr", "containers": [container], "storage": storage, "dockerAuth": "", "metadata.gpu": 1})
    assert good({"name": "ocr", "containers": [{"image": "", "command": "x"}]})


def test_what_admission_refuses_by_single_keys_the_schema_marks() -> None:
    base = {"name": "ocr", "containers": [{"command": "x"}]}

    assert not good({"containers": [{"command": "x"}]})
    assert not good(base | {"metadata": {"rpc.keepalive": "5000"}})
    assert not good(base | {"metadata": {"instnace": 1}})
    assert not good(base | {"model_path": "oss://x"})
    assert not good(base | {"storage": [{"mount_path": "/m", "dataset": {"id": "d"}}]})
    assert not good(base | {"containers": [{"image": "x", "resources": {"limits": {"memory": "512"}}}]})
    assert not good(base | {"containers": [{"command": "x", "port": 80000}]})
    assert good(base | {"metadata.rolling_strategy.max_surge": "25%", "rollout": {"stop_after": 3}})
    assert not good(base | {"metadata.rolling_strategy.max_surge": "25"})
    assert not good(base | {"rollout": {"stop_after": 0}})


def test_the_documentation_is_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "generate_service_json_docs.py"), "--check"], check=False
    )

    assert done.returncode == 0, "run tools/generate_service_json_docs.py"
