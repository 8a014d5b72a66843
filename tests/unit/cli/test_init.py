"""`easel init`: what it writes, and that it runs."""

from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from easel_cli.init import SERVER, service_json, service_name
from easel_cli.main import app
from easel_contracts.ids import SERVICE_NAME

STANDINS = {
    "joblib.py": "class M:\n    def predict(self, x):\n        return type('A', (), {'tolist': lambda s: [len(x)]})()\n"
    "def load(path):\n    assert open(path, 'rb').read() == b'model'\n    return M()\n",
    "starlette/__init__.py": "",
    "starlette/applications.py": "class Starlette:\n    def __init__(self, routes):\n        self.routes = routes\n",
    "starlette/routing.py": "def Route(path, endpoint, methods):\n    return endpoint\n",
    "starlette/responses.py": "def JSONResponse(content, status_code=200):\n    return status_code, content\n",
    "uvicorn.py": """import asyncio
def run(app, host, port):
    for body in ({"x": [[1], [2]]}, {"y": 1}):
        async def read(body=body):
            return body
        print(port, *asyncio.run(app.routes[0](type("R", (), {"json": staticmethod(read)})())))
""",
}
"""The packages that the server needs, as small as the test can have them."""


def run(*arguments: str) -> tuple[int, str]:
    """(exit code, stderr) of `easel init …`."""
    result = CliRunner().invoke(app, ["init", *arguments], catch_exceptions=False)
    return result.exit_code, result.stderr


def test_the_project_serves_the_readers_own_model(tmp_path: Path) -> None:
    """The server loads the copied model, listens on $PORT, predicts, and refuses what it cannot read."""
    (tmp_path / "my.pkl").write_bytes(b"model")
    code, said = run(str(tmp_path / "iris"), "--model", str(tmp_path / "my.pkl"))
    for name, text in STANDINS.items():
        (tmp_path / "lib" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "lib" / name).write_text(text)

    served = subprocess.run([sys.executable, "server.py"], cwd=tmp_path / "iris", capture_output=True, text=True,
                            env={"PYTHONPATH": str(tmp_path / "lib"), "PORT": "8123"}, check=True)  # fmt: skip

    assert code == 0
    assert f"easel create {tmp_path}/iris/service.json --wait" in said
    assert served.stdout.splitlines() == ["8123 200 {'predictions': [2]}", "8123 400 {'error': \"KeyError: 'x'\"}"]


def test_the_server_has_fifteen_lines() -> None:
    """As the help says."""
    assert SERVER.count("\n") == 15


def test_without_a_model_a_training_script_is_written(tmp_path: Path) -> None:
    """So that there is one to start with."""
    run(str(tmp_path / "iris"))

    assert {p.name for p in (tmp_path / "iris").iterdir()} == {"service.json", "server.py", "train.py"}


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    """Refused by name; --force does it."""
    (tmp_path / "server.py").write_text("mine")

    code, said = run(str(tmp_path))

    assert code == 2
    assert "has server.py already" in said
    assert (tmp_path / "server.py").read_text() == "mine"
    assert not (tmp_path / "service.json").exists()
    assert run(str(tmp_path), "--force")[0] == 0


def test_a_missing_model_is_bad_input(tmp_path: Path) -> None:
    """Before anything is written."""
    assert run(str(tmp_path / "x"), "--model", str(tmp_path / "no.pkl"))[0] == 2
    assert not (tmp_path / "x").exists()


def test_the_version_that_wrote_the_pickle_is_required() -> None:
    """Read from the bytes; the model is never loaded."""
    model = pickle.dumps({"coef_": [1.0], "_sklearn_version": "1.5.2"})

    found = service_json("iris", model)["containers"][0]["prepare"]["pythonRequirements"]

    assert found[0] == "scikit-learn==1.5.2"
    assert service_json("iris", b"x")["containers"][0]["prepare"]["pythonRequirements"][0] == "scikit-learn"


def test_memory_follows_the_models_size() -> None:
    """A large model needs more."""
    assert service_json("iris", b"x" * (100 << 20))["metadata"]["memory"] == 812


@given(st.text(max_size=80))
def test_every_directory_gives_a_name_that_is_allowed(text: str) -> None:
    """EAS's rule."""
    assert SERVICE_NAME.match(service_name(text))


@pytest.mark.parametrize(("text", "name"), [("My Model-2", "my_model_2"), ("ab", "ab_model"), ("3d", "model_3d")])
def test_names_stay_near(text: str, name: str) -> None:
    """To what the directory is called."""
    assert service_name(text) == name


def test_the_service_json_is_admitted(tmp_path: Path) -> None:
    """By control itself."""
    from easel_control.decide.admit import Admitted, admit

    (tmp_path / "my.pkl").write_bytes(b"model")
    run(str(tmp_path / "iris"), "--model", str(tmp_path / "my.pkl"))
    text = (tmp_path / "iris" / "service.json").read_text()
    absolute = re.sub(r'"path": "\."', '"path": "/code"', text)

    found = admit(absolute)

    assert isinstance(found, Admitted), found
    assert json.loads(text)["containers"][0]["port"] == 8000
