"""Builds the images easel/<process> from this checkout: `python deploy/images.py [--tag latest]`.

One Dockerfile, one image per process. Uses BuildKit where a client on this machine has it, several images at a time;
else the builder of old, one after the other. Never pulls or pushes one of Easel's images.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STORES = ("nats", "postgres", "envoy")
PROCESSES = ("control", "scheduler", "agent", "autoscaler", "router", "monitor", "migrate")
IMAGES = (*STORES, *PROCESSES, "setup")
AT_A_TIME = 3
LABEL = "easel.image"


def main() -> None:
    """Builds everything and says how long it took; exits with a build's output where one fails."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tag", default="latest", help="images are tagged easel/<process>:<tag>")
    began = time.monotonic()
    names = build(parser.parse_args().tag)
    print(f"{len(names)} images in {time.monotonic() - began:.0f} s: {' '.join(names)}")


def build(tag: str) -> list[str]:
    """Builds every image; their names with tag."""
    client = buildkit_client()
    if client:
        run(client, *_arguments("setup", tag))  # with it come the layers that the others share
        with ThreadPoolExecutor(AT_A_TIME) as pool:
            list(pool.map(lambda name: run(client, *_arguments(name, tag)), IMAGES[:-1]))
    else:
        for name in IMAGES:
            run("docker", *_arguments(name, tag), buildkit=False)
    run("docker", "image", "prune", "--force", "--filter", f"label={LABEL}")  # what the same tags named before
    return [f"easel/{name}:{tag}" for name in IMAGES]


def buildkit_client() -> str | None:
    """A docker client that can build with BuildKit: one with buildx, or an older one that brings it along."""
    for client in _clients():
        if _succeeds(client, "buildx", "version"):
            return client
        found = subprocess.run([client, "version", "--format", "{{.Client.Version}}"], capture_output=True, text=True)
        major = found.stdout.partition(".")[0]
        if major.isdigit() and 19 <= int(major) < 23:
            return client
    return None


def run(*command: str, buildkit: bool = True) -> None:
    """Runs a command of docker's; exits with its output where it fails."""
    environment = {**os.environ, "DOCKER_BUILDKIT": "1" if buildkit else "0"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(
            f"{' '.join(command)} exited with {done.returncode}\n{done.stdout[-3000:]}{done.stderr[-6000:]}"
        )


def _clients() -> Iterable[str]:
    directories = dict.fromkeys(os.environ.get("PATH", "").split(os.pathsep))
    paths = [Path(directory) / "docker" for directory in directories if directory]
    return [str(path) for path in paths if os.access(path, os.X_OK)]


def _arguments(name: str, tag: str) -> list[str]:
    service = "migrate" if name == "setup" else name
    chosen = [] if name in STORES else ["--build-arg", f"SERVICE={service}"]
    target = name if name in (*STORES, "setup") else "process"
    return [
        "build", "--quiet", "--file", "deploy/Dockerfile", "--target", target, *chosen,
        "--label", f"{LABEL}={name}", "--tag", f"easel/{name}:{tag}", ".",
    ]  # fmt: skip


def _succeeds(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


if __name__ == "__main__":
    main()
