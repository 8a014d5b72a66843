"""Each example runs as its service.json says: in an environment of its requirements alone, on $PORT.

The models come from wheels, so the first run needs a package registry (or a filled cache).
"""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from uv import find_uv_bin

from easel_kit.testing import eventually, free_port

EXAMPLES = Path(__file__).parents[3] / "examples"


def environment_of(container: dict[str, Any], directory: Path) -> Path:
    """A virtual environment with the container's requirements; its bin directory."""
    uv = find_uv_bin()
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, str(directory)], check=True)
    requirements = container["prepare"]["pythonRequirements"]
    install = [uv, "pip", "install", "-q", "--python", str(directory / "bin" / "python"), *requirements]
    subprocess.run(install, check=True)
    return directory / "bin"


@contextmanager
def serving(name: str, directory: Path) -> Iterator[str]:
    """The example's server; yields its URL. Not yet ready."""
    container = json.loads((EXAMPLES / name / "service.json").read_text())["containers"][0]
    bin_directory = environment_of(container, directory / "venv")
    port = free_port()
    environment = {
        "PATH": f"{bin_directory}:{os.environ['PATH']}", "PORT": str(port), "HOST": "127.0.0.1",
        "HOME": str(directory), "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip
    command = [str(bin_directory / "python"), *shlex.split(container["command"])[1:]]
    child = subprocess.Popen(command, cwd=EXAMPLES / name, env=environment)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        child.terminate()
        child.wait(20)


@contextmanager
def in_container(name: str) -> Iterator[tuple[str, str]]:
    """The example's server in the slim image that Easel's own images start from; yields its URL and the container."""
    root, container = EXAMPLES.parent, json.loads((EXAMPLES / name / "service.json").read_text())["containers"][0]
    subprocess.run([sys.executable, root / "deploy" / "engine.py"], check=True)
    port = free_port()
    install = shlex.join(["pip", "install", "--quiet", *container["prepare"]["pythonRequirements"]])
    started = subprocess.run(
        ["docker", "run", "--detach", "--publish", f"127.0.0.1:{port}:8000", "--volume", f"{EXAMPLES / name}:/code:ro",
         "--workdir", "/code", "--env", "PORT=8000", "--env", "PYTHONDONTWRITEBYTECODE=1", "python:3.11-slim-bookworm",
         "sh", "-c", f"{install} && exec {container['command']}"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    made = started.stdout.strip()
    try:
        yield f"http://127.0.0.1:{port}", made
    finally:
        subprocess.run(["docker", "logs", made], check=True)  # pytest shows it where the test failed
        subprocess.run(["docker", "rm", "--force", "--volumes", made], check=True, capture_output=True)


def files_called(container: str, *patterns: str) -> list[str]:
    """Files of the container's system with such names; not those that a wheel keeps for itself."""
    names = " -o ".join(f"-name '{pattern}'" for pattern in patterns)
    search = f"find / -xdev -path '*/site-packages' -prune -o \\( {names} \\) -print"
    found = subprocess.run(
        ["docker", "exec", container, "sh", "-c", search], check=True, capture_output=True, text=True
    )
    return found.stdout.split()


def call(url: str, body: bytes | None = None) -> tuple[int, Any]:
    """Status and JSON body."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data=body), timeout=60) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


async def ready(url: str, within_s: float = 60.0) -> None:
    """Waits for the readiness check's path."""

    def healthy() -> bool:
        try:
            return call(f"{url}/health")[0] == 200
        except OSError:
            return False

    await eventually(lambda: asyncio.to_thread(healthy), within_s)


def samples(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((EXAMPLES / name / "samples" / "expected.json").read_text())
    return found


def body(name: str, sample: str) -> bytes:
    return (EXAMPLES / name / "samples" / sample).read_bytes()


@pytest.mark.timeout(400)
async def test_ocr_reads_its_samples(tmp_path: Path) -> None:
    """Every sample is read as known, line by line; what is no image is refused with the reason."""
    with serving("ocr", tmp_path) as url:
        await ready(url)
        for sample, known in samples("ocr").items():
            status, answer = call(url, body("ocr", sample))
            assert status == 200
            assert [line["text"] for line in answer["lines"]] == known["lines"], sample
            assert answer["text"].split("\n") == known["lines"]
            assert all(len(line["box"]) == 4 and 0.5 < line["score"] <= 1 for line in answer["lines"])

        for wrong in (b"", b"not an image", body("ocr", "sign.png")[:3000]):
            status, answer = call(url, wrong)
            assert (status, answer["error"]["code"]) == (400, "NOT_AN_IMAGE")
        assert call(url, bytes(21 * 1024 * 1024))[0] == 413


@pytest.mark.timeout(400)
async def test_filetype_knows_its_samples(tmp_path: Path) -> None:
    """Every sample is known by its content; an empty body is refused with the reason."""
    with serving("filetype", tmp_path) as url:
        await ready(url)
        for sample, known in samples("filetype").items():
            status, answer = call(url, body("filetype", sample))
            assert (status, answer["label"]) == (200, known), sample
            assert answer["mime_type"]

        status, answer = call(url, b"")
        assert (status, answer["error"]["code"]) == (400, "EMPTY_BODY")
        assert call(url, bytes(17 * 1024 * 1024))[0] == 413


@pytest.mark.timeout(400)
async def test_digits_are_read(tmp_path: Path) -> None:
    """Every sample, and nearly all of the 200; what is no digit is refused with the reason."""
    with serving("digits", tmp_path) as url:
        await ready(url)
        for sample, known in samples("digits").items():
            status, answer = call(url, body("digits", sample))
            assert (status, answer["digit"]) == (200, known), sample
        more = json.loads(body("digits", "more.json"))
        right = [call(url, json.dumps({"pixels": one["pixels"]}).encode())[1]["digit"] == one["digit"] for one in more]
        assert sum(right) >= 0.98 * len(more)

        status, answer = call(url, b'{"pixels": [1, 2]}')
        assert (status, answer["error"]["message"]) == (400, "2 pixels, where 64 are needed")


@pytest.mark.docker
@pytest.mark.timeout(600)
async def test_ocr_needs_no_library_for_screens() -> None:
    """On a slim image without libGL, X and GLib, which OpenCV's other wheels want from the system."""
    with in_container("ocr") as (url, container):
        await ready(url, within_s=300.0)
        status, answer = call(url, body("ocr", "sign.png"))
        screens = await asyncio.to_thread(
            files_called, container, "libGL*", "libX11*", "libxcb*", "libSM.so*", "libglib-2*"
        )
        system = await asyncio.to_thread(files_called, container, "libc.so*")

    assert status == 200
    assert [line["text"] for line in answer["lines"]] == samples("ocr")["sign.png"]["lines"]
    assert system  # the search finds what is there
    assert screens == []
