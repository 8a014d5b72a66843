"""Builds the wheels of every member, installs them into a clean environment and runs a platform from there.

Shows that what users get (`pip install easel-serving`) is whole: a file that is only in the checkout would be missed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from easel_kit.testing import free_port

ROOT = Path(__file__).resolve().parent.parent
UV = ROOT / ".uv" / "bin" / "uv"


def main() -> None:
    """Exits non-zero with the failing command's output when anything is not as promised."""
    dist = ROOT / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    run([UV, "build", "--quiet", "--all-packages", "--wheel", "--out-dir", dist])
    made = sorted(p.name for p in dist.glob("*.whl"))
    print(f"{len(made)} wheels: {', '.join(made)}")
    with tempfile.TemporaryDirectory(prefix="easel-wheels-") as tmp:
        try_out(Path(tmp), dist)


def try_out(tmp: Path, dist: Path) -> None:
    """A clean environment, `easel up` from it, a look at every process, `easel down`."""
    venv, home = tmp / "venv", tmp / "home"
    run([UV, "venv", "--quiet", "--python", sys.executable, venv])
    run([UV, "pip", "install", "--quiet", "--python", venv / "bin" / "python", "--find-links", dist, "easel-serving"])
    easel = venv / "bin" / "easel"
    ports = ["--port", str(free_port()), "--control-port", str(free_port())]
    # the checkout must not be seen: no PYTHONPATH, another working directory
    run([easel, "up", "--home", home, *ports, "--detach"], cwd=tmp)
    try:
        states = json.loads(run([easel, "--home", home, "status", "-o", "json"], cwd=tmp))
        print("\n".join(f"  {s['name']:<12} {s['state']}" for s in states))
        services = json.loads(run([easel, "--home", home, "ls", "-o", "json"], cwd=tmp))
        if services:
            raise SystemExit(f"a new platform has services: {services}")
    finally:
        run([easel, "down", "--home", home], cwd=tmp)
    print("a platform came up from the wheels alone, answered and went down")


def run(command: list[object], cwd: Path = ROOT) -> str:
    """Output of a command; exits with it where the command fails."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("EASEL_", "PYTHON", "VIRTUAL_ENV"))}
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=environment, text=True, capture_output=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} exited with {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    main()
