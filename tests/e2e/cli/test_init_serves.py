"""`easel init` around a pickled model, deployed and called: what the README goes on with after the demo."""

from __future__ import annotations

import json
from pathlib import Path

from tests.e2e.platform import Platform

MODEL = b"ctypes\nSimpleNamespace\n)R}Vpredict\ncnumpy\nasarray\nsb."
"""A pickle whose `predict` is numpy's asarray: made by hand, so that the test needs no scikit-learn of its own."""


def test_init_create_predict(platform: Platform, tmp_path: Path) -> None:
    """Three commands from a model file to an answer; a row that cannot be read is the caller's fault."""
    (tmp_path / "my_model.pkl").write_bytes(MODEL)
    platform.easel("init", str(tmp_path / "iris"), "--model", str(tmp_path / "my_model.pkl"))

    created = platform.read("create", str(tmp_path / "iris" / "service.json"), "--wait", "--timeout", "170")
    answer = platform.easel("predict", "iris", "--body", '{"x": [[1, 2], [3, 4]]}')
    wrong = platform.try_easel("predict", "iris", "--body", '{"y": 1}')
    platform.easel("delete", "iris", "-y", "--wait")

    assert created["status"] == "Running"
    assert json.loads(answer) == {"predictions": [[1, 2], [3, 4]]}
    assert wrong.returncode == 1
    assert "iris answered 400: KeyError: 'x'" in wrong.stderr
