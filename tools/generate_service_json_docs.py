"""Writes docs/service-json.md from control's table of keys. `--check` writes nothing and fails when it is stale."""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from easel_control.decide.check import allowed
from easel_control.decide.key import Key
from easel_control.decide.keys import CONTAINERS, GATEWAY, METADATA, OTHER, ROLLOUT, SCALING, STORAGE
from easel_control.decide.later import LATER

TARGET = Path(__file__).parent.parent / "docs" / "service-json.md"

HEAD = """# service.json

*Written by `tools/generate_service_json_docs.py` from the table that admission itself uses; do not edit.*

One JSON object says what a service is. Dots and nesting mean the same: `"metadata": {"rpc": {"keepalive": 5000}}`,
`"metadata": {"rpc.keepalive": 5000}` and `"metadata.rpc.keepalive": 5000`; one key given twice with different values
is an error. So is every key that is not listed here: the answer names its path, its line, and the nearest known key.
All errors of a file come in one answer. Numbers stand without quotes.

An update by *merge* (the default) lays the posted object over the stored one: objects key by key, lists and values
whole, `null` takes a key away. *replace* puts the posted object in its place; the token and `dockerAuth` are kept where
none is given, and so is the value of an environment entry that gives neither `value` nor `secretRef`, and the password
of a git repository. An update that changes only `metadata.instance` is a scale. `metadata.rolling_strategy`, `rollout`,
`autoscaler`, `labels`, `dockerAuth`, the token and everything under *The gateway* belong to no revision either:
changing them replaces no replica, and a switch to another revision leaves them as they are.

Changed code in a mounted directory is a new revision, too: its content counts (up to 256 MiB and 10 000 files;
`__pycache__` and `.git` do not count; above that, or where replicas may write, the source is called `mutable`, and a
restart picks changes up). What an image, a git repository or a prefix of an object store is, the first replica of a
revision finds out; it is `mutable` until then, and afterwards the same for all replicas of the revision, also after a
restart and a switch back. A new revision looks anew.

With `containers[0].image` a service runs as containers on a Docker engine, without as processes of the machine:

```
{
  "metadata": {"name": "ocr", "instance": 2, "cpu": 2, "memory": 4096},
  "containers": [{"image": "registry.example.com/team/ocr:1.2", "script": "python app.py", "port": 8000}],
  "storage": [{"mount_path": "/models", "oss": {"path": "oss://models/ocr/v1/"}}],
  "dockerAuth": "dXNlcjpwYXNzd29yZA=="
}
```

The JSON Schema for editors: `GET /v1/schema` on the control address, or `Services.GetSchema`.
"""

SECTIONS = {
    "The service": METADATA, "The program": CONTAINERS, "Mounts": STORAGE, "The gateway": GATEWAY, "Scaling": SCALING,
    "Rollouts": ROLLOUT, "The rest": OTHER,
}  # fmt: skip


def main() -> int:
    """Writes or checks the file."""
    text = page()
    if "--check" in sys.argv:
        return 0 if TARGET.exists() and TARGET.read_text() == text else 1
    TARGET.write_text(text)
    return 0


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for title, keys in SECTIONS.items():
        parts.append(f"\n## {title}\n\n| key | what is allowed | default | meaning |\n|---|---|---|---|\n")
        parts += [row(key) for key in keys if key.doc]
    parts.append("\n## Not supported yet\n\nEAS documents these; Easel refuses each by name, so that none is ignored. "
                 "Values in brackets ask for nothing and pass.\n\n| feature | keys |\n|---|---|\n")  # fmt: skip
    features: dict[str, list[str]] = defaultdict(list)
    for key in LATER:
        neutral = f" ({', '.join(f'`{show(n)}`' for n in key.neutral)})" if key.neutral else ""
        features[key.later].append(f"`{key.path}`{neutral}")
    parts += [f"| {feature} | {', '.join(keys)} |\n" for feature, keys in features.items()]
    return "".join(parts)


def row(key: Key) -> str:
    """One key."""
    default = "**required**" if key.required else "" if key.default is None else f"`{show(key.default)}`"
    spelled = f"`{key.path}`" + "".join(f", `{other}`" for other in key.also)
    return f"| {spelled} | {escape(allowed(key))} | {default} | {escape(key.doc)} |\n"


def show(value: Any) -> str:
    """A value as JSON shows it."""
    if isinstance(value, tuple):
        return f"[{', '.join(show(item) for item in value)}]"
    return str(value).lower() if isinstance(value, bool) else str(value) if value != "" else '""'


def escape(text: str) -> str:
    """Fit for a table's cell."""
    return text.replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(main())
