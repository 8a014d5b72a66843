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
ERRORS = ("google/rpc/status.proto", "google/rpc/error_details.proto")
"""Also in the descriptor set: Envoy's transcoder turns errors into JSON only if it knows their types."""
ENVOY = {
    ROOT.parent / "services/router/src": "easel_router/xds/envoy.proto",
    ROOT.parent / "services/monitor/src": "easel_monitor/envoy_metrics.proto",
}
"""The parts of Envoy's API that the router and the monitor speak, by source root; their code lies beside them."""


def generate(out: Path) -> None:
    """Writes messages, stubs, gRPC code and the public descriptor set under `out`."""
    bin_dir = Path(sys.executable).parent
    protos = sorted(str(p.relative_to(ROOT)) for p in ROOT.rglob("*.proto"))
    common = ["protoc", f"-I{ROOT}", f"-I{google_protos()}"]
    plugins = [f"--plugin=protoc-gen-{p}={bin_dir}/protoc-gen-{p}" for p in ("mypy", "mypy_grpc")]
    run([*common, *plugins, f"--python_out={out}", f"--grpc_python_out={out}", f"--mypy_out=quiet:{out}",
         f"--mypy_grpc_out=quiet:{out}", *protos])  # fmt: skip
    public = [p for p in protos if "/internal/" not in p]
    (out / DESCRIPTOR_SET).parent.mkdir(parents=True, exist_ok=True)
    run([*common, "--include_imports", f"--descriptor_set_out={out / DESCRIPTOR_SET}", *public, *ERRORS])


def generate_envoy(root: Path, out: Path) -> None:
    """Writes one process's messages of Envoy's API under `out`."""
    plugin = f"--plugin=protoc-gen-mypy={Path(sys.executable).parent}/protoc-gen-mypy"
    run(["protoc", f"-I{root}", plugin, f"--python_out={out}", f"--mypy_out=quiet:{out}", ENVOY[root]])


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
        for root in ENVOY:
            generate_envoy(root, root)
        return
    if names := _all_stale():
        raise SystemExit("generated code is out of date, run `make proto`:\n  " + "\n  ".join(names))


def _all_stale() -> list[str]:
    with tempfile.TemporaryDirectory() as tmp:
        generate(Path(tmp))
        names = stale(Path(tmp), ROOT)
    for root in ENVOY:
        with tempfile.TemporaryDirectory() as tmp:
            generate_envoy(root, Path(tmp))
            names += stale(Path(tmp), root)
    return names


if __name__ == "__main__":
    main()
