"""Python requirements of containers: installed once by the image's pip, shared, told where they cannot be had."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from easel_contracts.spec import Image
from tests.contract.agent.rig import DockerRig, docker_runtime
from tests.contract.test_runtime import make_wheel
from tests.docker_rig import docker

pytestmark = pytest.mark.docker
GATEWAY = "172.17.0.1"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str) -> Iterator[Path]:
    """A page of packages that containers can reach, as pip is told on the node; holds `tiny`."""
    packages = tmp_path / "packages"
    (packages / "tiny").mkdir(parents=True)
    make_wheel(packages / "tiny")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(packages))
    with http.server.ThreadingHTTPServer((GATEWAY, 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://{GATEWAY}:{server.server_port}/"
        monkeypatch.setenv("PIP_INDEX_URL", url)
        monkeypatch.setenv("PIP_TRUSTED_HOST", GATEWAY)
        monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
        yield packages
        server.shutdown()


PROGRAM = "python -c \"import tiny; print('from', tiny.__file__, flush=True); open(tiny.__file__, 'a')\"; sleep 100"


async def test_installed_once_and_shared(short_path: Path, index: Path, no_leftovers: None) -> None:
    """By all replicas of the same image and lines; read-only; the same after the program's restart."""
    async with docker_runtime(short_path / "agent") as runtime:
        runs = [await runtime.run(script=PROGRAM, python_requirements=("tiny",)) for _ in range(3)]
        outputs = [await runtime.printed(run, "from /opt/easel/python/tiny.py") for run in runs]

        assert sum(output.count("installing") for output in outputs) == 1
        for run in runs:
            await runtime.printed(run, "Read-only file system")


async def test_a_file_inside_the_image(short_path: Path, index: Path, no_leftovers: None, tmp_path: Path) -> None:
    """As EAS allows it."""
    image = "easel-test/listed:1"
    (tmp_path / "Dockerfile").write_text(f"FROM {DockerRig.image.reference}\nRUN echo tiny > /srv/r.txt\n")
    docker("build", "--quiet", "--label", "easel.test=1", "--tag", image, str(tmp_path))
    try:
        async with docker_runtime(short_path / "agent") as runtime:
            run = await runtime.run(script=PROGRAM, python_requirements_path="/srv/r.txt",
                                    image=Image(reference=image, pull="Never"))  # fmt: skip

            assert "from /opt/easel/python" in await runtime.printed(run, "from")
    finally:
        docker("rmi", "--force", image)


async def test_what_cannot_be_installed(short_path: Path, index: Path, no_leftovers: None) -> None:
    """pip's own words; nothing is left of the installation."""
    async with docker_runtime(short_path / "agent") as runtime:
        run = await runtime.run(script=PROGRAM, python_requirements=("no-such-package-of-easel==1",))

        report = await runtime.until(run, lambda seen: seen.phase == "failed")

        assert report.cause == "requirements"
        assert "no-such-package-of-easel" in report.message


async def test_an_image_without_python(short_path: Path, index: Path, small_image: str, no_leftovers: None) -> None:
    """What the image needs is said."""
    async with docker_runtime(short_path / "agent") as runtime:
        image = Image(reference=small_image, pull="Never")
        run = await runtime.run(script="sleep 100", python_requirements=("tiny",), image=image)

        report = await runtime.until(run, lambda seen: seen.phase == "failed")

        assert report.cause == "requirements"
        assert "needs python3 and pip" in report.message
