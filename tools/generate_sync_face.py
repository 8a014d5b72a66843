"""Writes sdk/src/easel_sdk/sync_face.py: the sync methods, one for each async method of the SDK's client.

`--check` writes nothing and fails when the file is not what would be written. Signatures and docstrings are taken
from the async classes, so that the two faces cannot drift apart.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

SDK = Path(__file__).parent.parent / "sdk" / "src" / "easel_sdk"
TARGET = SDK / "sync_face.py"
CLASSES = (
    ("services.py", "ServicesApi"),
    ("groups.py", "GroupsApi"),
    ("replicas.py", "ReplicasApi"),
    ("events.py", "EventsApi"),
    ("observing.py", "NodesApi"),
    ("observing.py", "ScalingApi"),
    ("observing.py", "RoutesApi"),
    ("observing.py", "MetricsApi"),
    ("observing.py", "AuditApi"),
    ("tokens.py", "TokensApi"),
    ("mirrors.py", "MirrorsApi"),
    ("comparisons.py", "ComparisonsApi"),
    ("canaries.py", "CanariesApi"),
    ("client.py", "Client"),
)
LEFT_OUT = ("close",)
MESSAGES = ("services", "groups", "replicas", "events", "tokens", "mirrors", "canaries")
"""Modules that call their messages `pb`."""

HEAD = '''"""Sync methods of every API. Written by tools/generate_sync_face.py from the async classes; do not edit."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from easel_proto.v1 import audit_pb2, metrics_pb2, mirrors_pb2, nodes_pb2, routes_pb2, scaling_pb2
{imports}

from easel_proto.v1.common_pb2 import Explanation
from easel_proto.v1.replicas_pb2 import Replica
from easel_proto.v1.services_pb2 import Service

from easel_sdk import canaries, client, comparisons, events, groups, mirrors, observing, replicas, services, tokens
from easel_sdk.canaries import CanaryAction
from easel_sdk.errors import Unavailable
from easel_sdk.explaining import PartExplanation
from easel_sdk.groups import TrafficMode, TrafficState
from easel_sdk.observing import AuditRecords
from easel_sdk.replacing import Replacement
from easel_sdk.services import RolloutAction, SafetyLock
from easel_sdk.spec_file import SpecSource
from easel_sdk.waiting import Progress, Wanted

if TYPE_CHECKING:
    from easel_sdk.predicting import Body, Prediction

R = TypeVar("R")


class Runner(Protocol):
    """Runs async work from sync code."""

    def run(self, work: Coroutine[Any, Any, R]) -> R:
        """The result."""

    def iterate(self, work: AsyncIterator[R]) -> Iterator[R]:
        """The items as they come."""

'''


def main() -> int:
    """Writes or checks the file."""
    text = _formatted(generate())
    if "--check" in sys.argv:
        if TARGET.read_text() != text:
            print(f"{TARGET.name} is stale: run tools/generate_sync_face.py")
            return 1
        return 0
    TARGET.write_text(text)
    return 0


def generate() -> str:
    """The file's text, before formatting."""
    imports = "\n".join(f"from easel_proto.v1 import {n}_pb2 as {n}_messages" for n in MESSAGES)
    return HEAD.format(imports=imports) + "\n".join(_face(*entry) for entry in CLASSES)


def _face(module: str, name: str) -> str:
    tree = ast.parse((SDK / module).read_text())
    source = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
    methods = [
        _method(node, module)
        for node in source.body
        if isinstance(node, ast.AsyncFunctionDef) and not node.name.startswith("_") and node.name not in LEFT_OUT
    ]
    doc = (ast.get_docstring(source) or "").split("\n")[0]
    stem = module.removesuffix(".py")
    parts = PARTS if name == "Client" else ""
    return (
        f'class {name.removesuffix("Api")}Face:\n    """{doc if not parts else "Every API of a platform, sync."}"""\n\n'
        f"    def __init__(self, api: {stem}.{name}, runner: Runner) -> None:\n"
        f"        self._{'client' if parts else 'api'} = api\n        self._runner = runner\n{parts}\n"
        + "\n".join(methods)
    )


PARTS = """        self.services = ServicesFace(api.services, runner)
        self.groups = GroupsFace(api.groups, runner)
        self.replicas = ReplicasFace(api.replicas, runner)
        self.events = EventsFace(api.events, runner)
        self.nodes = NodesFace(api.nodes, runner)
        self.scaling = ScalingFace(api.scaling, runner)
        self.routes = RoutesFace(api.routes, runner)
        self.metrics = MetricsFace(api.metrics, runner)
        self.audit = AuditFace(api.audit, runner)
        self.tokens = TokensFace(api.tokens, runner)
        self.mirrors = MirrorsFace(api.mirrors, runner)
        self.comparisons = ComparisonsFace(api.comparisons, runner)
        self.canaries = CanariesFace(api.canaries, runner)
"""


def _method(node: ast.AsyncFunctionDef, module: str) -> str:
    streams = isinstance(node.returns, ast.Subscript) and ast.unparse(node.returns).startswith("AsyncIterator[")
    returns = ast.unparse(node.returns) if node.returns else "None"
    returns = returns.removeprefix("Async") if streams else returns
    arguments = [a.arg for a in node.args.args[1:]] + [f"{a.arg}={a.arg}" for a in node.args.kwonlyargs]
    receiver = "_client" if module == "client.py" else "_api"
    call = f"self.{receiver}.{node.name}({', '.join(arguments)})"
    text = (
        f"    def {node.name}({ast.unparse(node.args)}) -> {returns}:\n"
        f'        """{ast.get_docstring(node, clean=False)}"""\n'
        f"        return self._runner.{'iterate' if streams else 'run'}({call})\n"
    )
    stem = module.removesuffix(".py")
    return text.replace("pb.", f"{stem}_messages.") if stem in MESSAGES else text


def _formatted(text: str) -> str:
    fixed = _ruff(["check", "--fix", "--exit-zero"], text)
    return _ruff(["format"], fixed)


def _ruff(arguments: list[str], text: str) -> str:
    command = [str(Path(sys.executable).parent / "ruff"), *arguments, "--quiet", f"--stdin-filename={TARGET}", "-"]
    done = subprocess.run(command, input=text, text=True, check=True, capture_output=True)
    return str(done.stdout)


if __name__ == "__main__":
    raise SystemExit(main())
