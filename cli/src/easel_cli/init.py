"""`init`: a directory that can be deployed, around a pickled scikit-learn model.

Decides the files' content. It never loads the model: unpickling runs its code. The version of scikit-learn that
wrote it is read from the pickle's bytes, because another one may not be able to load it.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Annotated, Any

import typer

from easel_cli.command import Session, command

PANEL = "Services"
app = typer.Typer()

SERVER = '''"""Serves a scikit-learn model: POST {"x": [[...], ...]} answers {"predictions": [...]}."""
import os
import joblib, uvicorn
from pathlib import Path
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
model = joblib.load(Path(__file__).with_name("MODEL"))
async def predict(request):
    try:
        return JSONResponse({"predictions": model.predict((await request.json())["x"]).tolist()})
    except (KeyError, TypeError, ValueError) as error:
        return JSONResponse({"error": f"{type(error).__name__}: {error}"}, status_code=400)
app = Starlette(routes=[Route("/", predict, methods=["POST"])])
uvicorn.run(app, host=os.environ.get("HOST", "0.0.0.0"), port=int(os.environ["PORT"]))
'''

TRAIN = '''"""Makes MODEL, a model to start with; put your own in its place."""
import joblib
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
joblib.dump(LogisticRegression(max_iter=1000).fit(*load_iris(return_X_y=True)), "MODEL")
'''

_VERSION = re.compile(rb"_sklearn_version.{0,12}?(\d+\.\d+(?:\.\d+)?(?:rc\d+)?)", re.DOTALL)
_MIB = 1024 * 1024


@command(app, "init", panel=PANEL, remote=False, example="easel init iris --model model.pkl")
def init(
    cli: Session,
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Made if it does not exist.")],
    model: Annotated[
        Path | None,
        typer.Option(
            "--model", metavar="FILE", help="Your model, pickled (pickle or joblib); it is copied.", show_default=False
        ),
    ] = None,
    name: Annotated[str, typer.Option("--name", help="The service's name (DIR's).", show_default=False)] = "",
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that exist.")] = False,
) -> None:
    """Writes a service.json and a 15-line server around a scikit-learn model."""
    from easel_cli.output import note
    from easel_contracts.errors import InvalidInput

    directory = directory.expanduser()
    if model is not None and not model.expanduser().is_file():
        raise InvalidInput(f"no file {model}", code="NO_FILE", hint="--model names a pickled model")
    service = service_name(name or directory.absolute().name)
    model_file = model.name if model is not None else "model.pkl"
    content = model.expanduser().read_bytes() if model is not None else b""
    files = {
        "service.json": json.dumps(service_json(service, content), indent=2) + "\n",
        "server.py": SERVER.replace("MODEL", model_file),
    }
    if model is None:
        files["train.py"] = TRAIN.replace("MODEL", model_file)
    there = [file for file in files if (directory / file).exists()]
    if there and not force:
        raise InvalidInput(f"{directory} has {', '.join(there)} already", code="FILE_EXISTS",
                           hint="--force overwrites")  # fmt: skip
    directory.mkdir(parents=True, exist_ok=True)
    for file, text in files.items():
        (directory / file).write_text(text, encoding="utf-8")
    if model is not None and model.expanduser().resolve() != (directory / model_file).resolve():
        shutil.copyfile(model.expanduser(), directory / model_file)
    for file in [*files, *([model_file] if model is not None else [])]:
        note(f"[OK] {directory / file}")
    _next_steps(directory, service, trained=model is not None)


def service_name(text: str) -> str:
    """A name that EAS's rule allows (lower-case letters, digits, underscore; 3 to 63), near to `text`."""
    clean = re.sub(r"_+", "_", re.sub(r"[^a-z0-9]", "_", text.lower())).strip("_")
    if not clean[:1].isalpha():
        clean = f"model_{clean}".strip("_")
    return (clean if len(clean) >= 3 else f"{clean}_model")[:63]


def service_json(name: str, model: bytes) -> dict[str, Any]:
    """What to deploy: the directory mounted, its requirements, memory for the model's size."""
    found = _VERSION.search(model)
    scikit_learn = f"scikit-learn=={found[1].decode()}" if found else "scikit-learn"
    return {
        "metadata": {"name": name, "instance": 1, "cpu": 0.5, "memory": 512 + 3 * (len(model) // _MIB)},
        "containers": [
            {
                "command": "python /code/server.py",
                "port": 8000,
                "prepare": {"pythonRequirements": [scikit_learn, "starlette", "uvicorn"]},
            }
        ],
        "storage": [{"mount_path": "/code", "local": {"path": "."}}],
    }


def _next_steps(directory: Path, service: str, *, trained: bool) -> None:
    from easel_cli.output import note

    note("next:")
    if not trained:
        note(f"  (cd {directory} && python train.py)      # needs scikit-learn; or put your own model.pkl there")
    note(f"  easel create {directory / 'service.json'} --wait")
    note(f"  easel predict {service} --body '{{\"x\": [[5.1, 3.5, 1.4, 0.2]]}}'      # a row of your own features")
