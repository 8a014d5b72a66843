"""Compares (or with --write makes) every generated file of the repository by its own generator."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

TOOLS = Path(__file__).resolve().parent


def main() -> None:
    """Runs each tools/generate_*.py; exits 1 when one says its files are out of date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="make them instead of comparing")
    arguments = [] if parser.parse_args().write else ["--check"]
    failed = [
        tool.name
        for tool in sorted(TOOLS.glob("generate_*.py"))
        if subprocess.run([sys.executable, str(tool), *arguments], check=False).returncode
    ]
    if failed:
        raise SystemExit(f"out of date: {', '.join(failed)}; run `make proto`")


if __name__ == "__main__":
    main()
