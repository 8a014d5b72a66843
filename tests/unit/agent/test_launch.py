"""launch.py is a program of its own: small, and complete without the agent's packages."""

from __future__ import annotations

import subprocess
import sys

from easel_agent.processes import CODE

LOADED = """
import sys
sys.path.append(sys.argv[1])
before = set(sys.modules)
import easel_agent.launch
print(*sorted({name.partition(".")[0] for name in set(sys.modules) - before}))
"""


def test_it_needs_the_standard_library_only() -> None:
    """Every replica pays for what it imports; `typing` and `subprocess` alone would cost several milliseconds."""
    found = subprocess.run(
        [sys.executable, "-I", "-S", "-B", "-c", LOADED, CODE], check=True, capture_output=True, text=True
    )

    loaded = set(found.stdout.split())
    assert "easel_agent" in loaded
    assert loaded - sys.stdlib_module_names == {"easel_agent"}
    assert not loaded & {"typing", "subprocess", "asyncio", "logging"}
