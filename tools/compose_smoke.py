"""The compose stack from nothing to a served model and back to nothing: `make compose-smoke`.

Makes sure of a Docker engine and a base image (deploy/engine.py), builds the images from this checkout, brings the
stack up under a project name and on ports of its own, deploys examples/filetype with the command line from outside,
calls it, looks at its description, metrics and events, kills control while calls go on; then once more with the engine
for the agent, so that replicas are containers, and kills the agent; and takes everything down. Exits non-zero with the
containers' last lines where anything is not as promised. Images stay, nothing else does.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from compose_parts import COMPOSE, ROOT, Broken, Calls, Stack, eventually, expect, run, step, succeeds

EXAMPLE = ROOT / "examples" / "filetype"
PROCESSES = ("control", "scheduler", "agent", "autoscaler", "router", "monitor")
SHARED = {"easel_contracts", "easel_kit", "easel_proto"}
DEPLOYED_WITHIN_S, RESTARTED_WITHIN_S, SEEN_WITHIN_S = 300, 60, 20


def main() -> None:
    """Runs everything; always takes the stack down."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--keep", action="store_true", help="leave the stack up")
    keep = parser.parse_args().keep
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    began = time.monotonic()
    with step("engine and base image"):
        run(sys.executable, ROOT / "deploy" / "engine.py")
    with step("images"):
        print(run(sys.executable, ROOT / "deploy" / "images.py").strip())
        print(run(sys.executable, ROOT / "deploy" / "runtimes.py", "python-inference").strip())
    home = tempfile.TemporaryDirectory(prefix="easel-smoke-")
    stack = Stack(f"easel-smoke-{os.getpid()}", Path(home.name))
    try:
        try_out(stack)
    except BaseException:
        print(stack.last_lines(), file=sys.stderr)
        raise
    finally:
        if not keep:
            with step("down"):
                stack.down()
            home.cleanup()
    print(f"compose smoke passed in {time.monotonic() - began:.0f} s")


def try_out(stack: Stack) -> None:
    """What is promised, in order. Raises Broken."""
    with step("an image holds only its process"):
        for process in PROCESSES:
            check_image(process)
    with step("up"):
        stack.up()
    with step("walls"):
        check_walls(stack)
    easel = stack.client()
    with step("create examples/filetype"):
        easel("create", EXAMPLE / "service.json", "--wait", "--timeout", DEPLOYED_WITHIN_S)
    with step("calls"):
        check_answers(easel)
    with step("desc, w, metrics, events"):
        check_views(easel)
    with step("kill -9 of control under calls"):
        kill(stack, easel, "control")
    with step("delete"):
        easel("delete", "filetype", "--yes", "--wait")
    try_containers(stack, easel)


def try_containers(stack: Stack, easel: Callable[..., str]) -> None:
    """The same with the engine for the agent: replicas are containers, and outlive a kill -9 of the agent."""
    with step("up with docker-runtime.yaml"):
        stack.files.append(COMPOSE / "docker-runtime.yaml")
        stack.up()
    with step("create examples/filetype in a container"):
        easel("create", EXAMPLE / "service-docker.json", "--wait", "--timeout", DEPLOYED_WITHIN_S)
        check_answers(easel)
    with step("kill -9 of the agent under calls"):
        before = stack.replicas()
        kill(stack, easel, "agent")
        expect(stack.replicas(), before, "containers of replicas")
        expect(len(before), 1, "number of them")
    with step("delete"):
        easel("delete", "filetype", "--yes", "--wait")
        expect(stack.replicas(), set(), "containers of replicas")


def check_image(process: str) -> None:
    """No other process's code is in a process's image."""
    listing = "import pkgutil; print(*[m.name for m in pkgutil.iter_modules() if m.name.startswith('easel_')])"
    image = f"easel/{process}:latest"
    found = run("docker", "run", "--rm", "--network", "none", "--entrypoint", "python", image, "-c", listing)
    expect(set(found.split()), SHARED | {f"easel_{process}"}, f"packages of easel/{process}")


def check_walls(stack: Stack) -> None:
    """Ordinary users, read-only roots, and no way from replicas' container to the database."""
    for process in (*PROCESSES, "nats", "postgres", "envoy"):
        found = stack.container(process)
        user = "0:0" if process == "agent" else "10001:10001"
        expect(
            (found["Config"]["User"], found["HostConfig"]["ReadonlyRootfs"]), (user, True), f"{process}'s user, root"
        )
    for target, reached in (("nats:4222", True), ("postgres:5432", False)):
        reach = ["python", "-I", "-S", "-c", "import socket, sys; socket.create_connection(sys.argv[1].split(':'), 3)"]
        expect(
            succeeds(stack.compose, "exec", "--no-TTY", "agent", *reach, target),
            reached,
            f"the agent's container reaches {target}",
        )


def check_answers(easel: Callable[..., str]) -> None:
    """Every sample is what it is known to be."""
    samples = EXAMPLE / "samples"
    for name, label in json.loads((samples / "expected.json").read_text()).items():
        answer = json.loads(easel("predict", "filetype", "--body", f"@{samples / name}"))
        expect(answer["label"], label, name)


def check_views(easel: Callable[..., str]) -> None:
    """What an operator looks at."""
    description = json.loads(easel("desc", "filetype", "-o", "json"))
    expect(description["status"], "Running", "desc: status")
    (replica,) = json.loads(easel("w", "filetype", "-o", "json"))
    print(f"  replica {replica['name']} on {replica['node']} at {replica['address']}")
    eventually(lambda: json.loads(easel("metrics", "filetype", "-o", "json")), "metrics", SEEN_WITHIN_S)
    events = [json.loads(line) for line in easel("events", "-o", "json").splitlines()]
    print(f"  {len(events)} events")
    expect(any("filetype" in json.dumps(event) for event in events), True, "events of filetype")


def kill(stack: Stack, easel: Callable[..., str], process: str) -> None:
    """Calls are answered while a process is away, and the engine starts it again."""
    description = json.loads(easel("desc", "filetype", "-o", "json"))
    calls = Calls(f"http://127.0.0.1:{stack.port}/api/predict/filetype/", description["token"])
    before = stack.container(process)

    def well() -> bool:
        (replica,) = json.loads(easel("w", "filetype", "-o", "json"))
        (node,) = json.loads(easel("node", "ls", "-o", "json"))
        return bool(replica["ready"]) and node["state"] == "ready"

    with calls.going_on():
        os.kill(int(before["State"]["Pid"]), signal.SIGKILL)
        eventually(lambda: stack.container(process)["RestartCount"] > before["RestartCount"], "restart",
                   RESTARTED_WITHIN_S)  # fmt: skip
        eventually(lambda: succeeds(easel, "desc", "filetype") and well(), "all is well again", RESTARTED_WITHIN_S)
    print(f"  {calls.answered} calls answered meanwhile, {len(calls.failed)} failed")
    expect(calls.failed, [], "failed calls")
    expect(calls.answered > 0, True, "calls were made")


if __name__ == "__main__":
    try:
        main()
    except Broken as broken:
        sys.exit(f"compose smoke: {broken}")
