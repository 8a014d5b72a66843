"""Real git over HTTP on 127.0.0.1, with a login where wanted: dulwich's server, and git's own (`git http-backend`)."""

from __future__ import annotations

import base64
import os
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from dulwich.objects import Blob, Commit, ObjectID, Tree
from dulwich.repo import Repo
from dulwich.server import DictBackend
from dulwich.web import make_wsgi_chain

USER, PASSWORD = "reader", "pass-phrase-9"
Files = dict[str, bytes | tuple[int, bytes]]


class GitServer:
    """Serves the bare repositories made with `make`."""

    def __init__(self, root: Path, kind: str) -> None:
        self.root, self.kind = root, kind
        self.url = ""
        self.login_needed = False
        self.downloads = 0
        """Requests that fetched objects."""
        self.gate: threading.Event | None = None
        """Downloads wait for it."""
        self._repos: dict[str, Any] = {}
        self._dulwich: Any = make_wsgi_chain(DictBackend(self._repos))

    def make(self, name: str) -> Repo:
        """A new repository; its address is `address(name)`."""
        repo = Repo.init_bare(str(self.root / name), mkdir=True)
        (self.root / name / "git-daemon-export-ok").touch()
        self._repos[f"/{name}"] = repo
        return repo

    def address(self, name: str) -> str:
        """Where the repository is."""
        return f"{self.url}/{name}"

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        sent = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if self.login_needed and environ.get("HTTP_AUTHORIZATION") != f"Basic {sent}":
            start("401 Unauthorized", [("WWW-Authenticate", 'Basic realm="git"'), ("Content-Length", "0")])
            return [b""]
        if environ["PATH_INFO"] == "/page/info/refs":
            start("200 OK", [("Content-Type", "text/html")])
            return [b"<html>welcome</html>"]
        if environ["REQUEST_METHOD"] == "POST":
            length = int(environ.get("CONTENT_LENGTH") or 0)
            body = environ["wsgi.input"].read(length)
            if b"ls-refs" not in body:
                self.downloads += 1
                if self.gate is not None:
                    assert self.gate.wait(20)
            environ["wsgi.input"] = _Body(body)
        if self.kind == "dulwich":
            answer: Iterable[bytes] = self._dulwich(environ, start)
            return answer
        return self._http_backend(environ, start)

    def _http_backend(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        names = ("REQUEST_METHOD", "PATH_INFO", "QUERY_STRING", "CONTENT_TYPE", "HTTP_GIT_PROTOCOL")
        given = {name: environ[name] for name in names if environ.get(name)}
        env = {"PATH": os.environ["PATH"], "GIT_PROJECT_ROOT": str(self.root), "GIT_HTTP_EXPORT_ALL": "1",
               "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*",
               "GIT_PROTOCOL": environ.get("HTTP_GIT_PROTOCOL", ""), **given}  # fmt: skip
        body = environ["wsgi.input"].read() if environ["REQUEST_METHOD"] == "POST" else b""
        ran = subprocess.run(["git", "http-backend"], input=body, env={**env, "CONTENT_LENGTH": str(len(body))},
                             capture_output=True, check=True)  # fmt: skip
        head, _, rest = ran.stdout.partition(b"\r\n\r\n")
        headers = [tuple(line.decode().split(": ", 1)) for line in head.split(b"\r\n")]
        status = next((value for name, value in headers if name == "Status"), "200 OK")
        start(status, [(name, value) for name, value in headers if name != "Status"])
        return [rest]


class _Body:
    def __init__(self, body: bytes) -> None:
        self._left = body

    def read(self, count: int = -1) -> bytes:
        count = len(self._left) if count < 0 else count
        taken, self._left = self._left[:count], self._left[count:]
        return taken


def commit(repo: Repo, files: Files, branch: str = "main", message: str = "change") -> str:
    """A commit with exactly these files (content, or mode and content) on a branch; its id."""
    tree = store_tree(repo, files)
    ref = f"refs/heads/{branch}".encode()
    made = Commit()
    made.tree = tree
    made.author = made.committer = b"Easel tests <tests@example.invalid>"
    made.author_time = made.commit_time = 1_700_000_000
    made.author_timezone = made.commit_timezone = 0
    made.message = message.encode()
    if ref in repo.refs:  # type: ignore[comparison-overlap, operator, unused-ignore]
        made.parents = [repo.refs[ref]]  # type: ignore[index, unused-ignore]
    repo.object_store.add_object(made)
    repo.refs[ref] = made.id  # type: ignore[index, unused-ignore]
    repo.refs.set_symbolic_ref(b"HEAD", b"refs/heads/main")  # type: ignore[arg-type, unused-ignore]
    return made.id.decode()


def store_tree(repo: Repo, files: Files) -> ObjectID:
    """The id of a tree with these files."""
    tree = Tree()
    below: dict[str, Files] = {}
    for path, content in files.items():
        first, _, rest = path.partition("/")
        if rest:
            below.setdefault(first, {})[rest] = content
            continue
        mode, data = content if isinstance(content, tuple) else (0o100644, content)
        if mode == 0o160000:
            tree.add(first.encode(), mode, ObjectID(data))
            continue
        blob = Blob.from_string(data)
        repo.object_store.add_object(blob)
        tree.add(first.encode(), mode, blob.id)
    for name, inner in below.items():
        tree.add(name.encode(), 0o040000, store_tree(repo, inner))
    repo.object_store.add_object(tree)
    return tree.id


class _Threads(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def git_server(root: Path, kind: str) -> Iterator[GitServer]:
    """Runs until the block ends."""
    served = GitServer(root, kind)
    with make_server("127.0.0.1", 0, served, server_class=_Threads, handler_class=_Quiet) as server:
        served.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield served
        finally:
            server.shutdown()
            thread.join()
