"""A service.json with an image, and variations of it."""

from __future__ import annotations

import copy
import json
from typing import Any

from easel_contracts.errors import FieldError
from easel_control.decide.admit import Admitted, admit

BASE: dict[str, Any] = {
    "metadata": {"name": "ocr", "instance": 2, "cpu": 2, "memory": 2048},
    "containers": [{"image": "registry.example.com:5000/team/ocr:1.2"}],
}
GIT = {"repo": "https://git.example.com/a.git", "username": "me", "password": "hush-git"}


def sound(config: dict[str, Any]) -> Admitted:
    found = admit(json.dumps(config))

    assert isinstance(found, Admitted), found
    return found


def refused(config: dict[str, Any]) -> dict[str, FieldError]:
    found = admit(json.dumps(config))

    assert not isinstance(found, Admitted)
    return {e.path: e for e in found}


def but(**changes: Any) -> dict[str, Any]:
    return copy.deepcopy(BASE) | changes


def with_container(**changes: Any) -> dict[str, Any]:
    return but(containers=[BASE["containers"][0] | changes])


def mounting(*entries: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return but(storage=[{"mount_path": f"/m{i}"} | entry for i, entry in enumerate(entries)], **changes)
