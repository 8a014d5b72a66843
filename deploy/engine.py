"""A Docker engine and a Python base image where there is neither: for CI and machines without a registry.

`python deploy/engine.py` leaves an engine that answers and the image that deploy/Dockerfile starts from. It installs
Debian's docker.io when no engine is there (root needed), starts dockerd without systemd, and makes the base image with
mmdebstrap when it cannot be pulled. What exists already is left as it is.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

BASE_IMAGE = "python:3.11-slim-bookworm"
CA_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
ENGINE_WAIT_S = 60


def main() -> None:
    """Engine, then base image."""
    ensure_engine()
    ensure_base_image(BASE_IMAGE)


def ensure_engine() -> None:
    """Returns when a Docker engine answers; exits with the reason where that cannot be had."""
    if _answers():
        return
    if os.geteuid() != 0:
        raise SystemExit("no Docker engine answers here, and installing one needs root")
    if not shutil.which("dockerd"):
        _install("docker.io", "iptables")
    Path("/var/run/docker.pid").unlink(missing_ok=True)  # of an engine that was killed: it does not answer
    _clear_pid_file(Path("/var/run/docker/containerd/containerd.pid"))
    log = Path("/var/log/dockerd.log")
    with log.open("ab") as output:
        engine = subprocess.Popen(
            ["dockerd"], stdout=output, stderr=output, stdin=subprocess.DEVNULL, start_new_session=True
        )
    deadline = time.monotonic() + ENGINE_WAIT_S
    while not _answers():
        if engine.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"dockerd does not answer; the end of its log:\n{_tail(log)}")
        time.sleep(0.2)


def ensure_base_image(tag: str) -> None:
    """What deploy/Dockerfile starts from: pulled where a registry answers, else made from Debian's archive."""
    if _quiet("docker", "image", "inspect", tag) or _quiet("docker", "pull", "--quiet", tag):
        return
    if not shutil.which("mmdebstrap"):
        _install("mmdebstrap")
    with tempfile.TemporaryDirectory(prefix="easel-base-") as tmp:
        tree = Path(tmp) / "root"
        leave_out = [f"--dpkgopt=path-exclude=/usr/share/{d}/*" for d in ("doc", "man", "locale", "info", "lintian")]
        packages = "python3,python3-venv,ca-certificates,curl,passwd"
        quick = "--dpkgopt=force-unsafe-io"  # nobody needs half a tree after a power cut
        _run("mmdebstrap", "--quiet", "--variant=minbase", "--mode=root", f"--include={packages}", *leave_out, quick,
             "bookworm", str(tree))  # fmt: skip
        # a venv over /usr/local: `python` and `pip` behave as in the official image
        _run("chroot", str(tree), "/usr/bin/python3", "-m", "venv", "--symlinks", "/usr/local")
        # what this machine trusts, so that pip inside a build can verify its index
        shutil.copyfile(CA_BUNDLE.resolve(), tree / CA_BUNDLE.relative_to("/"))
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        settings = f"PATH={path} SSL_CERT_FILE={CA_BUNDLE} PIP_CERT={CA_BUNDLE} LANG=C.UTF-8"
        pack = ["tar", "-C", str(tree), "--numeric-owner", "-c", "."]
        archive = subprocess.Popen(pack, stdout=subprocess.PIPE)
        subprocess.run(
            ["docker", "import", "-c", f"ENV {settings}", "-", tag], stdin=archive.stdout, check=True,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        if archive.wait():
            raise SystemExit(f"tar of the base image exited with {archive.returncode}")


def _answers() -> bool:
    return bool(shutil.which("docker")) and _quiet("docker", "version", "--format", "{{.Server.Version}}")


def _clear_pid_file(file: Path) -> None:
    """Removes the pid file of a containerd that was killed: dockerd would wait for it to answer."""
    try:
        pid = int(file.read_text())
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][:1]
        name = Path(f"/proc/{pid}/comm").read_text().strip()
    except (OSError, ValueError):
        file.unlink(missing_ok=True)
        return
    if state == "Z" or name != "containerd":  # nobody here may reap it
        file.unlink(missing_ok=True)


def _install(*packages: str) -> None:
    """Installs Debian packages without their start scripts (an engine is started by us)."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    for command in (
        ["apt-get", "-qq", "update"],
        ["apt-get", "-o", "DPkg::Lock::Timeout=300", "install", "-y", "-qq", "--no-install-recommends", *packages],
    ):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} exited with {done.returncode}\n{done.stderr[-2000:]}")


def _quiet(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} exited with {done.returncode}\n{done.stderr[-3000:]}")


def _tail(file: Path) -> str:
    return "\n".join(file.read_text(errors="replace").splitlines()[-20:])


if __name__ == "__main__":
    main()
