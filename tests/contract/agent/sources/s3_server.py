"""A real S3 server on 127.0.0.1 (moto), which counts, holds up and spoils requests where a test wants that."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import boto3
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

KEY, SECRET = "node-key", "node-secret-7"


class S3Server:
    """Knows what was asked of it."""

    def __init__(self) -> None:
        self.url = ""
        self.downloads: list[str] = []
        """Objects whose content was asked for."""
        self.requests = 0
        self.gate: threading.Event | None = None
        """Downloads wait for it."""
        self.before_download: Callable[[str], None] | None = None
        self.refuse: tuple[str, str] | None = None
        """(status, code) of every answer."""
        self.keys: set[str] = set()
        """Access keys seen; empty text: none."""
        self._app = DomainDispatcherApplication(create_backend_app)

    def client(self) -> Any:
        """Writes to the store as somebody else than the node does."""
        return boto3.client("s3", endpoint_url=self.url, region_name="us-east-1", aws_access_key_id="w",
                            aws_secret_access_key="w")  # fmt: skip

    def put(self, bucket: str, files: dict[str, bytes]) -> None:
        """Objects of a bucket, which is made where it is not there."""
        client = self.client()
        client.create_bucket(Bucket=bucket)
        for name, data in files.items():
            client.put_object(Bucket=bucket, Key=name, Body=data)

    def open_to_everybody(self, bucket: str) -> None:
        """Anybody may list and read it."""
        client = self.client()
        client.put_bucket_acl(Bucket=bucket, ACL="public-read")
        for listed in client.list_objects_v2(Bucket=bucket)["Contents"]:
            client.put_object_acl(Bucket=bucket, Key=listed["Key"], ACL="public-read")

    def logins(self, path: Path, **more: dict[str, str]) -> Path:
        """A file as the node's `object_stores_file`, with this server for s3 and oss."""
        login = {"key": KEY, "secret": SECRET, "endpoint_url": self.url}
        path.write_text(json.dumps({"s3": login, "oss": login, **more}))
        path.chmod(0o600)
        return path

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        self.requests += 1
        signed = environ.get("HTTP_AUTHORIZATION", "")
        if not environ["PATH_INFO"].startswith("/moto-api"):
            self.keys.add(signed.partition("Credential=")[2].partition("/")[0])
        path = environ["PATH_INFO"]
        if self.refuse is not None:
            status, code = self.refuse
            body = f"<Error><Code>{code}</Code><Message>key {KEY} secret {SECRET}</Message></Error>".encode()
            start(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
            return [body]
        by_tests = signed.partition("Credential=")[2].startswith("w/")
        if environ["REQUEST_METHOD"] == "GET" and "list-type" not in environ["QUERY_STRING"] and not by_tests:
            self.downloads.append(path.encode("latin-1").decode())
            if self.before_download is not None:
                self.before_download(path)
            if self.gate is not None:
                assert self.gate.wait(20)
        answer: Iterable[bytes] = self._app(environ, start)
        return answer


class _Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:
        pass


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """Runs until the block ends."""
    served = S3Server()
    server = make_server("127.0.0.1", 0, served, threaded=True, request_handler=_Quiet)
    served.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        urlopen(Request(f"{served.url}/moto-api/reset", method="POST")).close()  # its stores are the process's
        yield served
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
