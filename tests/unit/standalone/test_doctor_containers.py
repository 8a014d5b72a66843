"""What `easel doctor` says of a Docker engine."""

from __future__ import annotations

import socketserver
import threading
from pathlib import Path

import pytest

from easel_standalone import docker


class Answer(socketserver.StreamRequestHandler):
    """Says what the server was told to say."""

    def handle(self) -> None:
        while self.rfile.readline().strip():
            continue
        self.wfile.write(self.server.answer)  # type: ignore[attr-defined]


@pytest.mark.parametrize(("body", "version", "words"), [
    (b'{"Version": "20.10.24+dfsg1"}', "20.10.24+dfsg1", ""),
    (b'{"Version": "28.2.2"}', "28.2.2", ""),
    (b'{"Version": "19.03.1"}', "", "20.10 is the oldest"),
    (b"{}", "", "does not answer"),
    (b"nonsense", "", "does not answer"),
])  # fmt: skip
def test_what_answers(short_path: Path, body: bytes, version: str, words: str) -> None:
    """Its version, or why it will not do."""
    path = short_path / "docker.sock"
    with socketserver.UnixStreamServer(str(path), Answer) as server:
        server.answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)  # type: ignore[attr-defined]
        threading.Thread(target=server.handle_request, daemon=True).start()

        found = docker.look(path)

    assert found[0] == version
    assert words in found[1]


def test_nobody(short_path: Path) -> None:
    """No socket, and a socket that nobody listens at any more."""
    assert "there is no Docker engine" in docker.look(short_path / "none.sock")[1]
    with socketserver.UnixStreamServer(str(short_path / "old.sock"), Answer):
        pass
    assert "does not answer" in docker.look(short_path / "old.sock")[1]
