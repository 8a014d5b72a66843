"""A small model server for end-to-end tests: standard library only, keeps connections alive, counts executions.

EXECUTIONS names a file to which each request's id is appended, whichever replica runs it. START_S: how long it takes to
start. BROKEN: it exits at once. FAIL_PERCENT: so many of its answers are 500, evenly. DELAY_S: how long it thinks about
each. `/mode?m=reset|503|ok` makes this replica misbehave from then on. `/ws` is a WebSocket that echoes short texts.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import os
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

COUNTS: dict[str, int] = {}
MODE = {"now": "ok"}
EXECUTIONS = os.environ.get("EXECUTIONS", "")
FAIL_PERCENT = int(os.environ.get("FAIL_PERCENT", "0"))
DELAY_S = float(os.environ.get("DELAY_S", "0"))
ANSWERS = itertools.count()
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
        if url.path == "/mode":
            MODE["now"] = query["m"]
            self.send(200, {"mode": query["m"]})
            return
        if url.path == "/events":
            self.events(int(query["n"]), float(query["s"]))
            return
        if url.path == "/ws":
            self.echo()
            return
        if MODE["now"] == "503":
            self.send(503, {"code": "OutOfOrder"})
            return
        mark = query.get("id", "")
        executed(mark)
        if MODE["now"] == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            os.close(self.connection.detach())  # close() would wait for the files over it
            return
        with LOCK:
            COUNTS[mark] = COUNTS.get(mark, 0) + 1
        if url.path == "/die":
            os.kill(os.getpid(), signal.SIGKILL)
        if url.path == "/allocate":
            hog = bytearray(int(query["mib"]) * 1024 * 1024)
            hog[::4096] = b"x" * len(hog[::4096])
        time.sleep(float(query.get("s", 0)) + DELAY_S)
        status = 500 if fails(next(ANSWERS)) else int(query.get("status", 200))
        found = {
            "path": self.path, "method": self.command, "pid": os.getpid(), "uid": os.getuid(), "body_bytes": len(body),
            "replica": os.environ.get("POD_NAME", ""), "value": os.environ.get("VALUE", ""), "count": COUNTS[mark],
        }  # fmt: skip
        if url.path == "/environment":
            found["environment"] = dict(os.environ)
        if url.path == "/read":
            found["read"] = attempt(Path(query["file"]).read_text)
        self.send(status, found)

    def events(self, count: int, gap_s: float) -> None:
        """A stream of events, `gap_s` apart."""
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        for n in range(count):
            self.wfile.write(f"data: {n} {os.environ.get('POD_NAME', '')}\n\n".encode())
            time.sleep(gap_s)
        self.close_connection = True

    def echo(self) -> None:
        """A WebSocket: each masked text of up to 125 bytes comes back, after the replica's VALUE."""
        key = self.headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        self.send_response(101)
        self.send_header("upgrade", "websocket")
        self.send_header("connection", "upgrade")
        self.send_header("sec-websocket-accept", base64.b64encode(hashlib.sha1(key.encode()).digest()).decode())
        self.end_headers()
        while (head := self.rfile.read(2)) and head[0] == 0x81:
            mask, masked = self.rfile.read(4), self.rfile.read(head[1] & 0x7F)
            text = f"{os.environ.get('VALUE', '')} ".encode() + bytes(b ^ mask[n % 4] for n, b in enumerate(masked))
            self.wfile.write(bytes((0x81, len(text))) + text)
        self.close_connection = True

    def send(self, status: int, found: dict[str, object]) -> None:
        payload = json.dumps(found).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, *arguments: object) -> None:
        pass


def executed(mark: str) -> None:
    """One line per execution; O_APPEND keeps lines of several replicas whole."""
    if EXECUTIONS and mark:
        descriptor = os.open(EXECUTIONS, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        os.write(descriptor, f"{mark}\n".encode())
        os.close(descriptor)


def fails(number: int) -> bool:
    """FAIL_PERCENT of all numbers, evenly."""
    return (number + 1) * FAIL_PERCENT // 100 > number * FAIL_PERCENT // 100


def attempt(read: Callable[[], str]) -> str:
    try:
        return read()
    except OSError as error:
        return f"{type(error).__name__}: {error}"


class Server(ThreadingHTTPServer):
    request_queue_size = 4096
    daemon_threads = True


if __name__ == "__main__":
    print("model server starts", os.environ.get("POD_NAME"), file=sys.stderr, flush=True)
    if os.environ.get("BROKEN"):
        sys.exit("this revision is broken")
    time.sleep(float(os.environ.get("START_S", "0")))
    Server(("0.0.0.0", int(os.environ["PORT"])), Handler).serve_forever()
