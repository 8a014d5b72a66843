"""What an exchange says about the idle connections a server keeps."""

from __future__ import annotations

from typing import Any

import pytest

from easel_agent.decide.keep_alive import (
    LONG_ENOUGH_S,
    Answer,
    Exchange,
    answer_in,
    is_whole,
    needs_waiting,
    question,
    too_short_s,
)
from easel_contracts.spec import ExecCheck, HttpCheck, Probe, Resources, RevisionSpec, TcpCheck

KEEPS = Answer(keeps=True)


class TestAnswer:
    """The head of an HTTP/1 answer."""

    @pytest.mark.parametrize(
        ("head", "answer"),
        [
            (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", KEEPS),
            (b"HTTP/1.1 404 Not Found\r\n\r\n", KEEPS),
            (b"HTTP/1.1 503\r\n\r\nbody", KEEPS),
            (b"HTTP/1.1 200 OK\r\nConnection: Close\r\n\r\n", Answer(keeps=False)),
            (b"HTTP/1.1 200 OK\r\nconnection: x\r\nConnection: close\r\n\r\n", Answer(keeps=False)),
            (b"HTTP/1.0 200 OK\r\n\r\n", Answer(keeps=False)),
            (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\n", KEEPS),
            (b"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=2, max=100\r\n\r\n", Answer(keeps=True, timeout_s=2.0)),
            (b"HTTP/1.1 200 OK\r\nkeep-alive: max=100, TIMEOUT = 75\r\n\r\n", Answer(keeps=True, timeout_s=75.0)),
            (b"HTTP/1.1 200 OK\nConnection: close\n\n", Answer(keeps=False)),
            (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", KEEPS),
        ],
    )
    def test_heads(self, head: bytes, answer: Answer) -> None:
        """Case, order and version do not matter; interim answers are passed over."""
        assert is_whole(head)
        assert answer_in(head) == answer

    @pytest.mark.parametrize(
        "received",
        [b"SSH-2.0-OpenSSH_9.2\r\n", b"\x00\x00\x12\x04\x00\x00\x00\x00\x00", b"-ERR unknown command 'HEAD'\r\n",
         b"HTTP/2 200\r\n\r\n", b"RTSP/1.0 200 OK\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n"],
    )  # fmt: skip
    def test_other_protocols(self, received: bytes) -> None:
        """Known at once, and nothing is read out of them."""
        assert is_whole(received)
        assert answer_in(received) is None

    def test_every_beginning_waits_for_the_rest(self) -> None:
        """Also an interim answer; a connection that ends there has told nothing."""
        whole = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
        for length in range(len(whole)):
            assert not is_whole(whole[:length]), whole[:length]
            assert answer_in(whole[:length]) is None

    def test_an_endless_head(self) -> None:
        """Is left alone."""
        endless = b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 20_000

        assert is_whole(endless)
        assert answer_in(endless) is None


class TestMeaning:
    """Too short for the gateway, or not."""

    @pytest.mark.parametrize(
        ("exchange", "meaning"),
        [
            (Exchange(answer=None), None),
            (Exchange(answer=KEEPS), None),
            (Exchange(answer=KEEPS, closed_after_s=1.04), 1.0),
            (Exchange(answer=KEEPS, closed_after_s=3.97), 4.0),
            (Exchange(answer=KEEPS, closed_after_s=1.0, served_on=False), None),
            (Exchange(answer=KEEPS, closed_after_s=0.01), None),
            (Exchange(answer=KEEPS, closed_after_s=LONG_ENOUGH_S), None),
            (Exchange(answer=Answer(keeps=False), closed_after_s=1.0), None),
            (Exchange(answer=Answer(keeps=True, timeout_s=2.0)), 2.0),
            (Exchange(answer=Answer(keeps=True, timeout_s=5.0)), None),
        ],
    )
    def test_meaning(self, exchange: Exchange, meaning: float | None) -> None:
        """Only a server that says or shows it, and lives on, is told to be short."""
        assert too_short_s(exchange) == meaning

    def test_only_time_can_tell(self) -> None:
        """Where the server means to keep the connection and does not say how long."""
        assert needs_waiting(KEEPS)
        assert not needs_waiting(None)
        assert not needs_waiting(Answer(keeps=False))
        assert not needs_waiting(Answer(keeps=True, timeout_s=2.0))


class TestQuestion:
    """What is asked for."""

    def test_the_readiness_path_then_the_liveness_path(self) -> None:
        """Only where they mean the replica's own port."""
        ready, alive = HttpCheck(path="/ready"), HttpCheck(path="/alive", port=8000)
        elsewhere = HttpCheck(path="/metrics", port=9000)

        assert question(revision(readiness=ready, liveness=alive), 21000) == ready
        assert question(revision(readiness=TcpCheck(), liveness=alive), 21000) == alive
        assert question(revision(readiness=elsewhere, liveness=ExecCheck(command=("x",))), 21000) == HttpCheck()
        assert question(revision(), 21000).path == "/"


def revision(**checks: HttpCheck | TcpCheck | ExecCheck) -> RevisionSpec:
    """With these probes, written for port 8000."""
    probes: dict[str, Any] = {name: Probe(check=check) for name, check in checks.items()}
    return RevisionSpec(number=1, resources=Resources(cpu=1, memory_mib=1), port=8000, **probes)
