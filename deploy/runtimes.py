"""Builds the images that models are deployed on: `python deploy/runtimes.py [NAME ...] [--tag latest]`.

Each is easel/<name>, from runtimes/<name>/Dockerfile; without names all but the large ones are made. What one is made
from is made first where it is missing. Needs BuildKit; never pushes.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory

from engine import ensure_base_image
from images import ROOT, buildkit_client, run

RUNTIMES = ROOT / "deploy" / "runtimes"
NAMES = tuple(sorted(file.parent.name for file in RUNTIMES.glob("*/Dockerfile")))
LARGE = ("pytorch-cpu",)
HANDED_ON = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL")


def main() -> None:
    """Builds what was asked for and says how long it took."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--tag", default="latest", help="images are tagged easel/NAME:TAG")
    parser.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE", help="for the Dockerfiles")
    parser.add_argument("--wheels", type=Path, help="directory of wheel files to install from as well")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(NAMES):
        parser.error(f"no runtime image named {', '.join(sorted(unknown))}; there are: {', '.join(NAMES)}")
    began = time.monotonic()
    wanted = arguments.names or [name for name in NAMES if name not in LARGE]
    made = build(wanted, arguments.tag, arguments.build_arg, arguments.wheels)
    print(f"{len(made)} images in {time.monotonic() - began:.0f} s: {' '.join(made)}")


def build(names: Sequence[str], tag: str = "latest", build_args: Sequence[str] = (),
          wheels: Path | None = None) -> list[str]:  # fmt: skip
    """Builds these, and before them what they are made from and is missing; names with tag, in the order made."""
    client = buildkit_client()
    if client is None:
        raise SystemExit("no docker client here can build with BuildKit: install buildx, or Debian's docker.io")
    own_base = any(text.startswith("BASE=") for text in build_args)
    made = []
    with context(wheels) as directory:
        for name in names if own_base else in_order(names, lambda base: bool(image_id(f"easel/{base}:{tag}"))):
            base = base_of(name)
            if not own_base and base.startswith("easel/"):
                base = f"{base.partition(':')[0]}:{tag}"
            elif not own_base:
                ensure_base_image(base)
            chosen = [f"VERSION={version()}", *handed_on(), f"BASE={base}", *build_args]
            tagged = f"easel/{name}:{tag}"
            before = image_id(tagged)
            run(
                client, "build", "--quiet", "--file", str(RUNTIMES / name / "Dockerfile"),
                *(word for text in chosen for word in ("--build-arg", text)),
                "--tag", tagged, str(directory),
            )  # fmt: skip
            made.append(tagged)
            if before and before != image_id(tagged):  # refused where a container or another image needs it
                subprocess.run(["docker", "image", "rm", before], capture_output=True, check=False)
    return made


def in_order(names: Sequence[str], is_there: Callable[[str], bool]) -> list[str]:
    """The names, each after what it is made from; of that, what was not asked for and is there is left out."""
    found: dict[str, None] = {}
    for name in names:
        base = base_of(name).partition(":")[0].removeprefix("easel/")
        if base in NAMES and (base in names or not is_there(base)):
            found |= dict.fromkeys(in_order([base], is_there))
        found[name] = None
    return list(found)


def base_of(name: str) -> str:
    """The image that a runtime's Dockerfile starts from unless told otherwise."""
    found = re.search(r"^ARG BASE=(\S+)$", (RUNTIMES / name / "Dockerfile").read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


def image_id(tagged: str) -> str:
    """The id of an image that is here; empty: it is not."""
    command = ["docker", "image", "inspect", "--format", "{{.Id}}", tagged]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def version() -> str:
    """This checkout's version."""
    found = re.search(r'^version = "(.+)"$', (ROOT / "libs/kit/pyproject.toml").read_text(), re.MULTILINE)
    return found[1] if found else "0"


def handed_on() -> list[str]:
    """The caller's settings of pip that mean something in a build: addresses of the web, not of this machine's disk."""
    return [f"{name}={os.environ[name]}" for name in HANDED_ON if os.environ.get(name, "").startswith("http")]


@contextmanager
def context(wheels: Path | None) -> Iterator[Path]:
    """What the builds see: runtimes/, with the wheels of another directory where one is given."""
    if wheels is None:
        yield RUNTIMES
        return
    with TemporaryDirectory(prefix="easel-runtimes-") as name:
        directory = Path(name)
        (directory / "wheels").mkdir()
        for file in wheels.glob("*.whl"):
            copyfile(file, directory / "wheels" / file.name)
        for file in RUNTIMES.glob("*/*"):
            if file.parent.name in NAMES:
                target = directory / file.relative_to(RUNTIMES)
                target.parent.mkdir(exist_ok=True)
                copyfile(file, target)
        yield directory


if __name__ == "__main__":
    main()
