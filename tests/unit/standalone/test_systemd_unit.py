"""The unit is one that systemd takes."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from easel_standalone.systemd import unit


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd's own checker")
@pytest.mark.parametrize("as_root", [True, False])
def test_systemd_finds_no_fault(tmp_path: Path, as_root: bool) -> None:
    """Neither in the system's unit nor in a user's; also where the home's name has a space in it."""
    file = tmp_path / "easel.service"
    file.write_text(unit(tmp_path / "my models", as_root=as_root))
    command = ["systemd-analyze", *([] if as_root else ["--user"]), "verify", str(file)]
    environment = os.environ | {"XDG_RUNTIME_DIR": str(tmp_path)}

    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    told = (found.stdout + found.stderr).splitlines()
    assert not [line for line in told if "Failed to initialize" in line]
    assert not [line for line in told if "easel.service" in line]  # the machine's own units may have faults
