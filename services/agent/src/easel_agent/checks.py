"""Carries out one probe of a replica. Results are None (passed) or the reason it did not."""

from __future__ import annotations

import asyncio
import ssl

from easel_agent.decide.probing import target_port
from easel_agent.runtime import Program
from easel_contracts.spec import ExecCheck, HttpCheck, Probe, TcpCheck


class Checks:
    """Probes one replica at one address."""

    def __init__(self, address: str, port: int, declared_port: int) -> None:
        self._address, self._port, self._declared = address, port, declared_port
        self._tls = unverified_tls()

    async def run(self, probe: Probe, program: Program) -> str | None:
        """Make one check within the probe's time limit. Raises Unavailable, see runtime.Program.probe."""
        check = probe.check
        if isinstance(check, ExecCheck):
            code = await program.probe(check.command, probe.timeout_s)
            if code is None:
                return f"{check.command[0]} took longer than {probe.timeout_s:g} s"
            return None if code == 0 else f"{check.command[0]} exited with code {code}"
        port = target_port(check, self._declared, self._port)
        try:
            async with asyncio.timeout(probe.timeout_s):
                if isinstance(check, TcpCheck):
                    return await self.connect(port)
                return await self._get(check, port)
        except TimeoutError:
            return f"no answer from port {port} within {probe.timeout_s:g} s"
        except (OSError, ssl.SSLError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            return f"port {port}: {_reason(error)}"

    async def connect(self, port: int) -> str | None:
        """Does the port accept a connection?"""
        _, writer = await asyncio.open_connection(self._address, port)
        writer.close()
        return None

    async def _get(self, check: HttpCheck, port: int) -> str | None:
        tls = self._tls if check.scheme == "HTTPS" else None
        reader, writer = await asyncio.open_connection(self._address, port, ssl=tls)
        try:
            path = check.path if check.path.startswith("/") else f"/{check.path}"
            request = (
                f"GET {path} HTTP/1.1\r\nHost: {self._address}:{port}\r\nUser-Agent: easel-probe\r\n"
                "Accept: */*\r\nConnection: close\r\n\r\n"
            )
            writer.write(request.encode("latin-1", errors="replace"))
            line = (await reader.readuntil(b"\n")).split(None, 2)
        finally:
            writer.close()
        if len(line) < 2 or not line[0].startswith(b"HTTP/") or not line[1].isdigit():
            return f"port {port} does not speak HTTP"
        status = int(line[1])
        return None if 200 <= status < 400 else f"GET {path} answered {status}"


def unverified_tls() -> ssl.SSLContext:
    """Probes ask whether the program answers; its certificate is the client's business."""
    return ssl._create_unverified_context()


def _reason(error: BaseException) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there"
    if isinstance(error, asyncio.IncompleteReadError):
        return "the connection was closed without an answer"
    return str(error) or type(error).__name__
