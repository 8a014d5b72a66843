"""Single replicas by the command line."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from copy import deepcopy

import pytest

from easel_proto.v1.replicas_pb2 import Replica
from easel_proto.v1.services_pb2 import Service
from tests.flow.cli.conftest import Easel, json_of
from tests.flow.sdk.platform import KEY, Platform

A = Replica(name="ocr-3-aaaaa", status="ready", ready=True, revision=3, pid=1)
B = Replica(name="ocr-3-bbbbb", status="ready", ready=True, revision=3, pid=2)
C = Replica(name="ocr-3-ccccc", status="ready", ready=True, revision=3, pid=3)


@pytest.fixture(autouse=True)
def service(platform: Platform) -> Service:
    """The service `ocr` with two replicas."""
    platform.services["ocr"] = Service(service_name="ocr", status="Running", wanted_instance=2, observed_generation=1)
    platform.replicas = deepcopy([A, B])
    return platform.services["ocr"]


def test_dw_replaces_the_named_ones(platform: Platform, easel: Easel) -> None:
    """EASCMD's spelling of a list; --wait ends when successors serve."""
    platform.replicas_path = [[A, B], [A, B, C], [B, C]]

    result = easel("dw", "ocr", "ocr-3-aaaaa", "-y", "--wait", "--timeout", "30", "-o", "json")
    easel("dw", "ocr", "ocr-3-bbbbb,ocr-3-ccccc", "--now", "-y")

    first, second = platform.asked("Replicas.Restart")
    assert (result.exit_code, [*first.replicas], first.now, first.soft) == (0, ["ocr-3-aaaaa"], False, False)
    assert ([*second.replicas], second.now) == (["ocr-3-bbbbb", "ocr-3-ccccc"], True)
    assert "0 of 1 replaced · 3 ready of 2 wanted" in result.stderr
    assert "1 replica is replaced" in result.stderr
    assert [replica["name"] for replica in json_of(result)] == ["ocr-3-bbbbb", "ocr-3-ccccc"]


def test_dw_soft_keeps_the_replica(platform: Platform, easel: Easel) -> None:
    """Another process in the same place."""
    again = Replica(name=A.name, status="ready", ready=True, revision=3, pid=9)
    platform.replicas_path = [[A, B], [A, B], [again, B]]

    result = easel("dw", "ocr", A.name, "--soft", "-y", "--wait", "--timeout", "30")

    assert platform.asked("Replicas.Restart")[0].soft
    assert "1 replica is restarted" in result.stderr


def test_dw_without_a_terminal_asks_for_yes(platform: Platform, easel: Easel) -> None:
    """Nobody can be asked: nothing happens."""
    result = easel("dw", "ocr", A.name, input="y\n")

    assert result.exit_code == 2
    assert f"Are you sure to replace the replicas [{A.name}] of service [ocr]?" in result.stderr
    assert "hint: -y says yes" in result.stderr
    assert platform.asked("Replicas.Restart") == []


@pytest.mark.parametrize(("answer", "code", "calls"), [(b"n\n", 1, 0), (b"\n", 0, 1)])
def test_dw_on_a_terminal_asks(platform: Platform, answer: bytes, code: int, calls: int) -> None:
    """As EASCMD does: Enter means yes."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "easel_cli.main", "dw", "ocr", A.name, "--server", platform.server,
               "--access-key", KEY]  # fmt: skip
    with subprocess.Popen(command, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        os.close(theirs)
        os.write(ours, answer)
        _, errors = run.communicate(timeout=30)
    os.close(ours)

    assert b"[Y/n]" in errors
    assert (run.returncode, len(platform.asked("Replicas.Restart"))) == (code, calls)


def test_dw_of_a_replica_that_has_ended(platform: Platform, easel: Easel) -> None:
    """It is shown where none lives, but there is nothing to replace."""
    platform.replicas = [Replica(name=A.name, status="failed")]

    assert easel("dw", "ocr", A.name, "-y").exit_code == 3
    assert "ocr has no replicas now" in easel("restart", "ocr", "--soft").stderr
    assert platform.asked("Replicas.Restart") == []


def test_dw_of_a_replica_that_is_not_there(platform: Platform, easel: Easel) -> None:
    """Not found, and none of the others is touched."""
    result = easel("dw", "ocr", f"{A.name},ocr-3-zzzzz", "-y")

    assert result.exit_code == 3
    assert "ocr has no replica ocr-3-zzzzz that lives" in result.stderr
    assert platform.asked("Replicas.Restart") == []


@pytest.mark.parametrize("arguments", [["ocr-3-aaaaa", "--soft", "--now"], [","]])
def test_dw_bad_input(easel: Easel, arguments: list[str]) -> None:
    """Before anything is asked."""
    assert easel("dw", "ocr", *arguments, "-y").exit_code == 2


def test_isolate_and_back(platform: Platform, easel: Easel) -> None:
    """Out of traffic, and back by either spelling; `w` shows it."""
    result = easel("isolate", "ocr", A.name)
    shown = easel("w", "ocr").stdout.splitlines()
    easel("isolate", "ocr", A.name, "--back")
    easel("unisolate", "ocr", A.name)

    assert f"`easel unisolate ocr {A.name}` lets it back" in result.stderr
    assert [request.isolated for request in platform.asked("Replicas.Isolate")] == [True, False, False]
    column = shown[0].split().index("ISOLATED")
    assert [line.split()[column] for line in shown[1:]] == ["yes", "no"]


def test_isolate_as_json(easel: Easel) -> None:
    """The replica as it is then."""
    assert json_of(easel("isolate", "ocr", A.name, "-o", "json"))["isolated"] is True
    assert easel("isolate", "ocr", "nothing").exit_code == 3


def test_w_and_desc_show_what_runs_each_replica(platform: Platform, easel: Easel) -> None:
    """The digest as the engine's own tools shorten it; in JSON it is whole."""
    digest = "sha256:0123456789abcdef0123456789abcdef"
    pinned = Replica(name="ocr-3-ddddd", status="ready", node="n1", runtime="docker",
                     pins={"containers[0].image": digest})  # fmt: skip
    platform.replicas = [pinned, Replica(name="ocr-3-eeeee", status="pending", runtime="process")]

    rows = easel("w", "ocr").stdout.splitlines()
    described = easel("desc", "ocr").stdout

    assert " docker sha256:0123456789ab " in rows[1]
    assert "  process" in rows[2]
    assert "ocr-3-ddddd  ready  docker sha256:0123456789ab on n1" in described
    assert "ocr-3-eeeee  pending  process\n" in described
    found = json_of(easel("w", "ocr", "-o", "json"))
    assert (found[0]["runtime"], found[0]["pins"]) == ("docker", {"containers[0].image": digest})
