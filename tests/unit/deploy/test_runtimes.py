"""deploy/runtimes: what the images to build on promise, the order in which they are made, threads by CPU limit."""

from __future__ import annotations

import importlib
import os
import re
from pathlib import Path
from types import ModuleType

import pytest

DEPLOY = Path(__file__).parents[3] / "deploy"
RUNTIMES = DEPLOY / "runtimes"
NAMES = sorted(file.parent.name for file in RUNTIMES.glob("*/Dockerfile"))


@pytest.fixture
def runtimes(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """deploy/runtimes.py, which is a script."""
    monkeypatch.syspath_prepend(str(DEPLOY))
    return importlib.import_module("runtimes")


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """What every Python in these images imports; its effect on this process is undone."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.syspath_prepend(str(RUNTIMES / "python-inference"))
    return importlib.import_module("easel_threads")


@pytest.mark.parametrize("name", NAMES)
def test_dockerfile(name: str) -> None:
    """Says what it is, ends as an ordinary user, has no entry point or directory of its own, names no package index."""
    text = (RUNTIMES / name / "Dockerfile").read_text()

    assert f"easel.runtime.name={name}" in text
    assert "easel.runtime.version=${VERSION}" in text
    assert re.findall(r"^USER (\S+)", text, re.MULTILINE)[-1] == "1000:1000"
    assert not re.search(r"^(ENTRYPOINT|WORKDIR|CMD)", text, re.MULTILINE)
    assert "://" not in text


@pytest.mark.parametrize("name", NAMES)
def test_readme_knows_it(name: str) -> None:
    """The table has a row for each."""
    assert f"| `easel/{name}` |" in (RUNTIMES / "README.md").read_text()


def test_order(runtimes: ModuleType) -> None:
    """What an image is made from comes before it, unless it is there already and was not asked for."""
    assert runtimes.in_order(["onnx"], lambda _: False) == ["python-inference", "onnx"]
    assert runtimes.in_order(["onnx"], lambda _: True) == ["onnx"]
    assert runtimes.in_order(["onnx", "python-inference"], lambda _: True) == ["python-inference", "onnx"]
    assert runtimes.in_order(["pytorch-cpu", "onnx"], lambda _: False) == ["python-inference", "pytorch-cpu", "onnx"]


def test_pip_settings_handed_on(runtimes: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Addresses of the web only: a build sees no directory of this machine."""
    monkeypatch.setenv("PIP_INDEX_URL", "https://index.invalid/simple")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "file:///somewhere/simple")

    assert runtimes.handed_on() == ["PIP_INDEX_URL=https://index.invalid/simple"]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "max 100000\n"}, 64),
        ({"cpu/cpu.cfs_quota_us": "250000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu,cpuacct/cpu.cfs_quota_us": "25000\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 64),
        ({"cpu.max": "12800000 100000\n"}, 64),
        ({}, 64),
    ],
)
def test_threads_follow_the_limit(threads: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
                                  files: dict[str, str], expected: int) -> None:  # fmt: skip
    """Both kinds of control groups; rounded up, at least one, never more than the machine has (64 here)."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)

    assert threads.cores(str(tmp_path)) == expected
