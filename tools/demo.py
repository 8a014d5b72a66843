"""The main job, start to end, on this machine: deploy a real model, call it, watch it scale and heal.

Starts a platform in a scratch directory, deploys examples/ocr, reads its sample images through the gateway, drives load
so that replicas go 1 → 3 → 1, kills a replica and then Envoy with SIGKILL under load; then examples/filetype is updated
under load, updated badly, sent to zero and woken (demo_releases.py); examples/digits gets a canary that goes back by
itself and a mirror whose answers are compared, and a web page is opened by its link (demo_traffic.py). Prints a
summary. Exits non-zero when something was not as promised. --runtime docker: the same with containers instead of
processes. --keep leaves the platform up.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from typing import Any

from demo_parts import EASEL, ROOT, SPEC_FILES, Failed, Load, Platform, make_images, until
from demo_releases import EXAMPLE as RELEASED
from demo_releases import releases
from demo_traffic import EXAMPLE as DIGITS
from demo_traffic import traffic

EXAMPLE = ROOT / "examples" / "ocr"
SCRATCH = ROOT / ".demo"
CLIENTS = 6
"""Concurrent callers while replicas should go up."""


def read_samples(platform: Platform, service: dict[str, Any]) -> list[bytes]:
    """Prints the text found in each sample image beside the known one; all must agree."""
    expected: dict[str, str] = {
        name: "\n".join(entry["lines"])
        for name, entry in json.loads((EXAMPLE / "samples" / "expected.json").read_text()).items()
    }
    wrong, images = [], []
    print(f"\n{'image':<24} {'known text':<44} found")
    for name, known in expected.items():
        file = EXAMPLE / "samples" / name
        images.append(file.read_bytes())
        found = json.loads(platform.easel("predict", service["service_name"], "--body", f"@{file}"))["text"]
        same = _words(found) == _words(known)
        print(f"{name:<24} {_line(known):<44} {_line(found)}  {'ok' if same else 'DIFFERENT'}")
        if not same:
            wrong.append(name)
    if wrong:
        raise Failed(f"text not found as known in: {', '.join(wrong)}")
    return images


async def scale_and_heal(platform: Platform, service: dict[str, Any], images: list[bytes]) -> dict[str, str]:
    """Load up, kills, load down; what was seen, line by line."""
    name, seen = service["service_name"], {}
    load = Load(service["endpoint"], service["token"], images)

    def ready() -> int:
        return sum(replica["ready"] for replica in platform.read("w", name))

    load.start(CLIENTS)
    try:
        seen["replicas 1 → 3"] = f"{await until('three replicas', lambda: ready() == 3, 150):.1f} s under load"
        before = time.monotonic()
        victim = next(replica for replica in platform.read("w", name) if replica["ready"])
        platform.kill_replica(victim)
        healed = await until("the killed replica replaced", lambda: _healed(platform, name, victim), 90)
        seen["replica killed"] = f"{len(load.failed_since(before))} failed requests, healed in {healed:.1f} s"
        before, answered = time.monotonic(), load.answered
        envoy = next(p for p in platform.read("status") if p["name"] == "envoy")
        print(f"kill -9 {envoy['pid']}  (Envoy)")
        os.kill(int(envoy["pid"]), signal.SIGKILL)
        back = await until("answers again", lambda: load.answered > answered + CLIENTS, 30)
        lost = load.failed_since(before)
        seen["Envoy killed"] = f"{len(lost)} failed requests (its open connections), answering again in {back:.1f} s"
    finally:
        await load.stop()
    seen["requests"] = f"{load.answered} answered, {len(load.failures)} failed"
    seen["replicas 3 → 1"] = f"{await until('one replica', lambda: ready() == 1, 180):.1f} s after the load ended"
    return seen


def _healed(platform: Platform, name: str, victim: dict[str, Any]) -> bool:
    replicas = platform.read("w", name)
    same = [r for r in replicas if r["ready"] and _run(r) == _run(victim)]
    return not same and sum(r["ready"] for r in replicas) >= 3


def _run(replica: dict[str, Any]) -> tuple[Any, ...]:
    """What changes when a replica is started anew in its place."""
    return replica["name"], replica.get("pid"), replica.get("container")


def tell(platform: Platform, service: dict[str, Any], seen: dict[str, str]) -> None:
    """The one-screen summary."""
    name = service["service_name"]
    platform.show("explain", name)
    phases = platform.read("desc", name).get("phase_s", {})
    print("Cold start by phase: " + "  ".join(f"{phase} {seconds:.2f} s" for phase, seconds in phases.items()))
    print("\nSummary")
    for what, result in seen.items():
        print(f"  {what:<18} {result}")


def main() -> int:
    """Runs the demo; 0 when everything was as promised."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave the platform up at the end")
    parser.add_argument("--runtime", choices=SPEC_FILES, default="process", help="what replicas are")
    arguments = parser.parse_args()
    shutil.rmtree(SCRATCH, ignore_errors=True)
    if arguments.runtime == "docker":
        make_images([EXAMPLE, RELEASED, DIGITS])
    platform = Platform(SCRATCH / "home", arguments.runtime)
    started = time.monotonic()
    try:
        platform.show("up", "--port", str(platform.port), "--control-port", str(platform.control_port),
                      "--web-port", str(platform.web_port), "--detach")  # fmt: skip
        seen = {"platform up": f"{time.monotonic() - started:.1f} s"}
        platform.show("create", str(platform.spec(EXAMPLE)), "--wait", "--timeout", "300")
        service = platform.read("desc", "ocr")
        images = read_samples(platform, service)
        seen |= asyncio.run(scale_and_heal(platform, service, images))
        seen |= asyncio.run(releases(platform))
        seen |= asyncio.run(traffic(platform))
        tell(platform, service, seen)
    except Failed as error:
        print(f"\nNOT AS PROMISED: {error}", file=sys.stderr)
        print(f"logs: {platform.home / 'logs'}", file=sys.stderr)
        return 1
    finally:
        if arguments.keep:
            print(f"\nThe platform is still up: export EASEL_HOME={platform.home}; `easel down` ends it.")
        else:
            subprocess.run([EASEL, "down", "--home", platform.home], check=False)
    return 0


def _words(text: str) -> list[str]:
    return "".join(c if c.isalnum() else " " for c in text.lower()).split()


def _line(text: str) -> str:
    return " / ".join(text.split("\n"))[:43]


if __name__ == "__main__":
    sys.exit(main())
