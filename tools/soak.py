"""`make soak`: every fault and isolation test and a long random one; the dated result goes into docs/soak.md.

python tools/soak.py [--seconds 300] [--seed N] [--no-write]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "soak.md"
TESTS = (
    "tests/flow/kit/test_relay_killed.py",
    "tests/flow/kit/test_leases_after_death.py",
    "tests/flow/standalone/test_disk_full.py",
    "tests/flow/standalone/test_gateway.py",
    "tests/flow/router/test_router_hold.py",
    "tests/flow/router/test_router_drain.py",
    "tests/e2e/test_faults.py",
    "tests/e2e/test_releases.py",
    "tests/e2e/test_zero.py",
    "tests/e2e/test_traffic_canary.py",
    "tests/e2e/test_traffic_mirror.py",
    "tests/e2e/test_traffic_limits.py",
    "tests/e2e/test_traffic_tokens.py",
    "tests/e2e/standalone/test_gateways.py",
    "tests/e2e/test_isolation.py",
    "tests/e2e/test_secrets.py",
    "tests/e2e/test_restore.py",
    "tests/e2e/test_disk_full.py",
    "tests/e2e/test_soak.py",
    "tests/e2e/test_soak_updates.py",
    "tests/contract/agent/docker/test_engine.py",
    "tests/flow/agent/test_containers_outlive.py",
    "tests/flow/scheduler/test_real_engine.py",
    "tests/e2e/test_containers.py",
)
MARKED = {None: "soak or not soak", "processes": "not docker", "containers": "docker"}
HEAD = """\
# Soak runs

What `make soak` found, newest first. It runs every fault and isolation test on the real parts, a thousand rolling
updates under load, which may cost nothing, then minutes of load and changes in which a seeded random choice of parts is
killed (`kill -9`); afterwards outboxes, stream and projections are compared. "Failed requests" have a cause: a killed
Envoy costs its open connections, a killed agent its replicas until new ones are ready, a killed replica the POSTs in
flight on it. A failure without such a cause fails the run.
"""


def main() -> int:
    """Runs, writes, and ends as the tests did."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=300, help="length of the random part")
    parser.add_argument("--updates", type=int, default=1000, help="rolling updates under load")
    parser.add_argument("--seed", type=int, default=0, help="repeat an earlier run's choices")
    parser.add_argument("--only", choices=("processes", "containers"), help="leave out the tests with the other")
    parser.add_argument("--no-write", action="store_true", help="leave docs/soak.md as it is")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        report, counted, updates = (Path(directory) / name for name in ("report.xml", "counted.json", "updates"))
        updates.mkdir()
        environment = os.environ | {
            "EASEL_SOAK_S": str(arguments.seconds), "EASEL_SOAK_SEED": str(arguments.seed),
            "EASEL_SOAK_RESULT": str(counted), "EASEL_SOAK_UPDATES": str(arguments.updates),
            "EASEL_SOAK_UPDATES_RESULT": str(updates),
        }  # fmt: skip
        command = [sys.executable, "-m", "pytest", "-q", "-m", MARKED[arguments.only], f"--junitxml={report}", *TESTS]
        began = time.monotonic()
        code = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
        took_s = time.monotonic() - began
        parts = [*_heading(took_s, arguments.only), *_tests(report)]
        if arguments.only != "containers":
            parts += [*_random(_read(counted)), *_updates("processes", _read(updates / "process.json"))]
        if arguments.only != "processes":
            parts += _updates("containers", _read(updates / "docker.json"))
        section = "\n".join(parts)
    print(section)
    if not arguments.no_write:
        _prepend(section)
    return code


def _heading(took_s: float, only: str | None) -> list[str]:
    commit = _git("rev-parse", "--short", "HEAD") + (" with changes" if _git("status", "--porcelain") else "")
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    machine = f"{os.cpu_count()} cores, {memory_gib:.0f} GiB, Linux {platform.release().split('-')[0]}"
    machine += f", Python {platform.python_version()}, {'root' if os.geteuid() == 0 else 'ordinary user'}"
    return [
        f"## {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, commit {commit}" + (f", {only} only" if only else ""),
        "",
        f"{machine}; {took_s / 60:.1f} minutes.",
        "",
    ]


def _tests(report: Path) -> list[str]:
    if not report.exists():
        return ["The tests did not run.", ""]
    outcomes: Counter[str] = Counter()
    told = []
    for case in ElementTree.parse(report).iter("testcase"):
        kinds = [child.tag for child in case if child.tag in ("failure", "error", "skipped")]
        outcome = kinds[0] if kinds else "passed"
        outcomes[outcome] += 1
        if outcome in ("failure", "error"):
            told.append(f"- **{outcome}**: `{case.get('name')}`")
    counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
    return [f"Tests: {counts}.", "", *told, *([""] if told else [])]


def _read(file: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads(file.read_text()) if file.exists() else {}
    return found


def _updates(of: str, result: dict[str, object]) -> list[str]:
    if not result:
        return [f"The rolling updates of {of} did not come to their end.", ""]
    return [
        f"Rolling updates of {of}: {result['updates']} of {result['services']} two-replica services at once in "
        f"{result['minutes']} minutes; {result['answered']} POSTs answered, {result['failed']} failed, "
        f"{result['twice']} executed twice.",
        "",
    ]


def _random(result: dict[str, object]) -> list[str]:
    if not result:
        return ["The random part did not come to its end.", ""]
    kills, answered = result["kills"], result["answered"]
    assert isinstance(kills, dict)
    assert isinstance(answered, dict)
    failures = result["failures"]
    assert isinstance(failures, list)
    lines = [
        f"Random part: seed {result['seed']}, {result['length_s']:g} s, {sum(kills.values())} kills "
        f"({', '.join(f'{part} {count}' for part, count in sorted(kills.items()))}).",
        "",
        f"Answered: {', '.join(f'{count} {method}' for method, count in answered.items())}. Changes: "
        f"{result['changes']}. Compared: {result['facts']} facts of {result['entities']} entities, no difference, no "
        f"duplicate, no dead letter. POSTs run twice: {result['posts_run_twice']}.",
        "",
    ]
    if failures:
        lines += ["| failed requests | killed | what | count |", "|---|---|---|---|"]
        lines += [f"| {method} | {cause} | `{what}` | {count} |" for method, cause, what, count in failures]
    else:
        lines += ["No request failed."]
    return [*lines, ""]


def _prepend(section: str) -> None:
    earlier = PAGE.read_text() if PAGE.exists() else ""
    earlier = earlier[earlier.find("\n## ") :] if "\n## " in earlier else ""
    PAGE.write_text(f"{HEAD}\n{section}{earlier}")


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
