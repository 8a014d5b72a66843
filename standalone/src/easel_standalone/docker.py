"""Whether the machine's Docker engine could run containers for this user: what `easel doctor` asks."""

from __future__ import annotations

import http.client
import json
import os
import socket
from pathlib import Path

SOCKET = Path("/var/run/docker.sock")
ANSWER_S = 3.0
OLDEST = (20, 10)


class _Connection(http.client.HTTPConnection):
    """Over a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=ANSWER_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(ANSWER_S)
        self.sock.connect(str(self._path))


def look(path: Path = SOCKET) -> tuple[str, str]:
    """(the engine's version, why no container can be run); one of them is empty."""
    if not path.exists():
        return "", f"there is no Docker engine at {path}"
    if not os.access(path, os.R_OK | os.W_OK):
        return "", f"{path} may not be opened by this user"
    connection = _Connection(path)
    try:
        connection.request("GET", "/version")
        version = str(json.loads(connection.getresponse().read())["Version"])
    except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
        return "", f"the Docker engine at {path} does not answer ({type(error).__name__})"
    finally:
        connection.close()
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers < OLDEST:
        return "", f"the Docker engine is version {version}; 20.10 is the oldest that works"
    return version, ""
