"""One platform for the fault tests of this folder, with one small service of two replicas."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from easel_kit.testing import free_port, short_directory
from easel_standalone import api

SERVER = """
import http.server, os, sys

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = str(os.getpid()).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass

http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


@dataclass(frozen=True)
class Platform:
    """A running platform and its service."""

    home: Path
    url: str
    token: str

    def easel(self, *arguments: str) -> Any:
        """A command of the CLI, its JSON answer."""
        return easel(self.home, *arguments)

    def up(self) -> api.Status:
        """Starts it on what its home has."""
        return api.up_detached(self.home, api.Options())


def easel(home: Path, *arguments: str) -> Any:
    """Runs `easel ... -o json`; raises CalledProcessError with its output."""
    done = subprocess.run(
        [str(Path(sys.executable).parent / "easel"), *arguments, "-o", "json"],
        env=os.environ | {"EASEL_HOME": str(home)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def platform() -> Iterator[Platform]:
    """Up, with the service running; down in the end."""
    with short_directory() as directory:
        home, code = directory / "home", directory / "code"
        code.mkdir()
        (code / "server.py").write_text(SERVER)
        document = {
            "name": "pids", "metadata": {"instance": 2, "cpu": 0.1, "memory": 128},
            "containers": [{"command": "python3 server.py", "port": 8000}],
            "storage": [{"mount_path": "/code", "local": {"path": str(code)}}],
        }  # fmt: skip
        document["containers"][0]["command"] = "python3 /code/server.py"  # type: ignore[index]
        (directory / "service.json").write_text(json.dumps(document))
        status = api.up_detached(home, api.Options(port=free_port(), control_port=free_port()))
        try:
            easel(home, "create", str(directory / "service.json"), "--wait", "--timeout", "60")
            token = easel(home, "desc", "pids")["token"]
            yield Platform(home, f"{status.data_url}/api/predict/pids/", token)
        finally:
            api.down(home)
