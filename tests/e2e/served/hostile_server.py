"""A stranger's program: runs the Python it is sent with its own rights and answers with what `found` holds then."""

from __future__ import annotations

import json
import os
import threading
import traceback
from http.server import BaseHTTPRequestHandler

from model_server import Server


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send({})

    def do_POST(self) -> None:
        code = self.rfile.read(int(self.headers.get("content-length", 0))).decode()
        found: dict[str, object] = {}
        try:
            exec(code, {"found": found, "attempt": attempt, "threading": threading, "os": os})
        except BaseException:
            found["failed"] = traceback.format_exc()
        self.send(found)

    def send(self, found: dict[str, object]) -> None:
        payload = json.dumps(found, default=str).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, *arguments: object) -> None:
        pass


def attempt(action: object) -> str:
    """ "refused: ..." or "SUCCEEDED: ..."."""
    try:
        return f"SUCCEEDED: {action()!r:.200}"  # type: ignore[operator]
    except OSError as error:
        return f"refused: {type(error).__name__} {error.strerror}"


if __name__ == "__main__":
    Server(("0.0.0.0", int(os.environ["PORT"])), Handler).serve_forever()
