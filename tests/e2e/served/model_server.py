"""A small model server for end-to-end tests: standard library only, keeps connections alive, counts executions."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

COUNTS: dict[str, int] = {}
LOCK = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.answer()

    def answer(self) -> None:
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        mark = query.get("id", "")
        with LOCK:
            COUNTS[mark] = COUNTS.get(mark, 0) + 1
        if url.path == "/die":
            os.kill(os.getpid(), signal.SIGKILL)
        if url.path == "/allocate":
            hog = bytearray(int(query["mib"]) * 1024 * 1024)
            hog[::4096] = b"x" * len(hog[::4096])
        time.sleep(float(query.get("s", 0)))
        status = int(query.get("status", 200))
        found = {
            "path": self.path, "method": self.command, "pid": os.getpid(), "uid": os.getuid(), "body_bytes": len(body),
            "replica": os.environ.get("POD_NAME", ""), "value": os.environ.get("VALUE", ""), "count": COUNTS[mark],
        }  # fmt: skip
        if url.path == "/environment":
            found["environment"] = dict(os.environ)
        if url.path == "/read":
            found["read"] = attempt(Path(query["file"]).read_text)
        self.send(status, found)

    def send(self, status: int, found: dict[str, object]) -> None:
        payload = json.dumps(found).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, *arguments: object) -> None:
        pass


def attempt(read: Callable[[], str]) -> str:
    try:
        return read()
    except OSError as error:
        return f"{type(error).__name__}: {error}"


class Server(ThreadingHTTPServer):
    request_queue_size = 256
    daemon_threads = True


if __name__ == "__main__":
    print("model server starts", os.environ.get("POD_NAME"), file=sys.stderr, flush=True)
    Server(("0.0.0.0", int(os.environ["PORT"])), Handler).serve_forever()
