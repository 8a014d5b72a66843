"""Generates the Python code of proto/**/*.proto; with --check says whether it is up to date."""

from __future__ import annotations

import argparse
import filecmp
import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent / "proto"
DESCRIPTOR_SET = "easel_proto/v1/descriptors.binpb"
ROUTER = ROOT.parent / "services/router/src"
ENVOY_PROTO = "easel_router/xds/envoy.proto"
"""The part of Envoy's API that the router speaks; its code lies beside it."""


def generate(out: Path) -> None:
    """Writes messages, stubs, gRPC code and the public descriptor set under `out`."""
    bin_dir = Path(sys.executable).parent
    protos = sorted(str(p.relative_to(ROOT)) for p in ROOT.rglob("*.proto"))
    common = ["protoc", f"-I{ROOT}", f"-I{google_protos()}"]
    plugins = [f"--plugin=protoc-gen-{p}={bin_dir}/protoc-gen-{p}" for p in ("mypy", "mypy_grpc")]
    run([*common, *plugins, f"--python_out={out}", f"--grpc_python_out={out}", f"--mypy_out={out}",
         f"--mypy_grpc_out={out}", *protos])  # fmt: skip
    public = [p for p in protos if "/internal/" not in p]
    (out / DESCRIPTOR_SET).parent.mkdir(parents=True, exist_ok=True)
    run([*common, "--include_imports", f"--descriptor_set_out={out / DESCRIPTOR_SET}", *public])


def generate_envoy(out: Path) -> None:
    """Writes the router's messages of Envoy's API under `out`."""
    plugin = f"--plugin=protoc-gen-mypy={Path(sys.executable).parent}/protoc-gen-mypy"
    run(["protoc", f"-I{ROUTER}", plugin, f"--python_out={out}", f"--mypy_out={out}", ENVOY_PROTO])


def google_protos() -> Path:
    """Where google/api/*.proto lie: inside the package googleapis-common-protos."""
    import google.api

    return Path(next(iter(google.api.__path__))).parent.parent


def run(args: list[str]) -> None:
    builtin = Path(protoc.__file__).parent / "_proto"
    if protoc.main([args[0], f"-I{builtin}", *args[1:]]) != 0:
        raise SystemExit("protoc failed: " + " ".join(args))


def stale(fresh: Path, root: Path) -> list[str]:
    """Names of generated files that differ from what lies in the repository."""
    made = sorted(p.relative_to(fresh) for p in fresh.rglob("*") if p.is_file())
    return [
        str(name)
        for name in made
        if not (root / name).exists() or not filecmp.cmp(fresh / name, root / name, shallow=False)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only compare; exit 1 when out of date")
    if not parser.parse_args().check:
        generate(ROOT)
        generate_envoy(ROUTER)
        return
    with tempfile.TemporaryDirectory() as tmp, tempfile.TemporaryDirectory() as tmp_envoy:
        generate(Path(tmp))
        generate_envoy(Path(tmp_envoy))
        if names := stale(Path(tmp), ROOT) + stale(Path(tmp_envoy), ROUTER):
            raise SystemExit("generated code is out of date, run `make proto`:\n  " + "\n  ".join(names))


if __name__ == "__main__":
    main()
