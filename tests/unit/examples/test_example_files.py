"""The examples' files agree with each other and with what control admits."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

from easel_control.decide.admit import Admitted, admit

EXAMPLES = Path(__file__).parents[3] / "examples"
NAMES = sorted(path.parent.name for path in EXAMPLES.glob("*/service.json"))
PREDICTING = [name for name in NAMES if name != "webapp"]
"""Those that answer a sample; a web application has a page instead."""
FILES = ("service.json", "service-docker.json")
IN_IMAGE = {
    "easel/python-inference:latest": {"starlette", "uvicorn", "numpy"},
    "easel/onnx:latest": {"starlette", "uvicorn", "numpy", "onnxruntime", "pillow"},
}
"""Of what the examples import, what deploy/runtimes puts into the images."""


def service_json(name: str, file: str = "service.json") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((EXAMPLES / name / file).read_text())
    return found


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("file", FILES)
def test_admitted_as_written(name: str, file: str) -> None:
    """With its local path made absolute, as the CLI does, a service.json is admitted without a remark, by the name
    that the README calls it by."""
    document = service_json(name, file)
    for mount in document["storage"]:
        mount["local"]["path"] = str((EXAMPLES / name / mount["local"]["path"]).resolve())

    found = admit(json.dumps(document))

    assert isinstance(found, Admitted), found
    assert f" {document['metadata']['name']}" in (EXAMPLES / name / "README.md").read_text()


@pytest.mark.parametrize("name", PREDICTING)
def test_every_sample_has_its_known_answer(name: str) -> None:
    """expected.json names the samples that lie beside it, all of them."""
    directory = EXAMPLES / name / "samples"
    expected = json.loads((directory / "expected.json").read_text())
    samples = {path.name for path in directory.iterdir() if path.suffix not in (".json", ".py") and path.is_file()}

    assert set(expected) == samples


@pytest.mark.parametrize("name", NAMES)
def test_requirements_name_what_is_imported(name: str) -> None:
    """A replica's environment holds the requirements alone: each package the server imports comes from them."""
    tree = ast.parse((EXAMPLES / name / "server.py").read_text())
    imported = {
        (node.module if isinstance(node, ast.ImportFrom) else alias.name).split(".")[0]  # type: ignore[union-attr]
        for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names
    }  # fmt: skip
    third_party = imported & {"rapidocr", "magika", "PIL", "cv2", "numpy", "starlette", "uvicorn", "onnxruntime",
                              "sklearn", "httpx"}  # fmt: skip
    distribution = {"PIL": "pillow", "cv2": "rapidocr", "numpy": "rapidocr", "sklearn": "scikit-learn"}
    wanted = {distribution.get(module, module) for module in third_party}
    listed = required(service_json(name))

    assert wanted <= listed
    in_container = service_json(name, "service-docker.json")
    assert wanted <= required(in_container) | IN_IMAGE[in_container["containers"][0]["image"]]
    assert all(f"{package}" in (EXAMPLES / name / "README.md").read_text() for package in listed)


@pytest.mark.parametrize("name", NAMES)
def test_container_differs_in_its_image_alone(name: str) -> None:
    """What is limited, probed, mounted and scaled is the same as for the process."""
    process, container = service_json(name), service_json(name, "service-docker.json")
    for document in (process, container):
        document["containers"][0].pop("prepare")
    assert container["containers"][0].pop("image").startswith("easel/")

    assert container == process


def required(document: dict[str, Any]) -> set[str]:
    """Names of the Python requirements."""
    return {line.split(">=")[0] for line in document["containers"][0]["prepare"]["pythonRequirements"]}
