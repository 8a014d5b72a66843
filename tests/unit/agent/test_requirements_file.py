"""Where a file of Python requirements is read on the node: inside its mount, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from easel_agent.fetching import requirements
from easel_agent.runtime import CannotPrepare
from easel_contracts.spec import Mount, Resources, RevisionSpec, RunSpec


def run(path: str) -> RunSpec:
    """A replica with /code mounted."""
    revision = RevisionSpec(
        number=1, resources=Resources(cpu=1, memory_mib=64), port=8000, python_requirements_path=path,
        mounts=(Mount(mount_path="/code/", host_path="/x"),),
    )  # fmt: skip
    return RunSpec(workspace="default", service="svc", replica="svc-1-aaaaa", revision=revision)


def test_inside_its_mount(tmp_path: Path) -> None:
    """Absolute as the replica sees it, or relative to where it starts."""
    (tmp_path / "r.txt").write_text("numpy")

    assert requirements(run("/code/r.txt"), {"/code/": tmp_path}) == "numpy\n"
    assert requirements(run("r.txt"), {"/code/": tmp_path}) == "numpy\n"


@pytest.mark.parametrize(("path", "words"), [
    ("/code/link", "leads out"), ("/code/binary", "not a text file"), ("/code/none", "No such file"),
    ("/etc/hostname", "none of the mounts"), ("/code/../etc/hostname", "none of the mounts"),
])  # fmt: skip
def test_never_outside(tmp_path: Path, path: str, words: str) -> None:
    """A link, or a path in no mount, would show the node's own files in an installer's complaint."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tmp_path / "secret").write_text("secret")
    (tree / "link").symlink_to(tmp_path / "secret")
    (tree / "binary").write_bytes(b"\xff\xfe")

    with pytest.raises(CannotPrepare, match=words) as caught:
        requirements(run(path), {"/code/": tree})
    assert caught.value.refusal.cause == "requirements"
