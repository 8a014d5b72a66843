"""Starts launch.py and speaks with it: one `Launched` per running program, in the agent's event loop.

Must be used from the main thread: the kernel ties the parent-death signal to the thread that becomes the parent.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import marshal
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence

from easel_agent import launch, proc
from easel_agent.model import Listening, Refusal
from easel_agent.proc import children_of
from easel_agent.sandbox import Plan

PR_SET_CHILD_SUBREAPER = 36
CREDENTIALS = struct.Struct("3i")
MESSAGE = 1 << 16
CODE = os.path.dirname(os.path.dirname(launch.__file__))
"""Where launch.py's program finds itself; our import of it above has left it compiled, where that may be kept."""


class StartFailed(Exception):
    """The program could not be started; see `decide.exits.explain_start`."""

    def __init__(self, stage: str, errno: int, text: str) -> None:
        super().__init__(f"{stage}: {text}")
        self.stage, self.errno, self.text = stage, errno, text


def become_subreaper() -> None:
    """Make orphans of this process's descendants its own children, so that none can escape."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


class Children:
    """Pids that belong to something the agent started; all others below it are strays."""

    def __init__(self) -> None:
        # what was there before is somebody else's (an agent that shares its process, as in tests)
        self.known: set[int] = set(children_of(os.getpid()))
        self._unknown: set[int] = set()

    def sweep(self) -> int:
        """Kill and reap children nobody knows (orphans of a launcher that was killed); how many.

        Only those that the sweep before saw too: a new `init` is our child a moment before its message is read.
        """
        unknown = set(children_of(os.getpid())) - self.known
        strays = unknown & self._unknown
        for pid in strays:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        self._unknown = unknown
        return len(strays)


class Launched:
    """One program started by launch.py, from the fork to the end of its last process."""

    def __init__(self, children: Children, adopt: Callable[[int], None], note: Callable[[str], None]) -> None:
        """`adopt(pid)` puts a process under the replica's limits, before it runs any code of the replica's."""
        loop = asyncio.get_running_loop()
        self._children, self._adopt, self._note, self._loop = children, adopt, note, loop
        self.init_pid: int | None = None
        self.pid: int | None = None
        """The program's pid as the agent sees it."""
        self.started: asyncio.Future[None] = loop.create_future()
        self.exited: asyncio.Future[int] = loop.create_future()
        """Exit code as subprocess gives it; set when the program ended."""
        self.gone: asyncio.Future[None] = loop.create_future()
        """Set when no process of the replica is left."""
        self.mount_s = 0.0
        """How long the new root took."""
        self._released = 0.0
        self._outer_gone = asyncio.Event()
        self._killing = False
        self._terminated = False
        self._ends_with_init = True
        """In a pid namespace the kernel ends everything together with `init`."""
        self._probes: dict[int, asyncio.Future[int]] = {}
        self._last_probe = 0
        self._control: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.started.add_done_callback(_retrieved)
        self.exited.add_done_callback(_retrieved)

    def launch(self, plan: Plan, stdout: int, stderr: int) -> None:
        """Fork. What follows is told by `started`, `exited` and `gone`."""
        self._ends_with_init = plan.isolation.pid_ns
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        ours.setblocking(False)
        wire = os.memfd_create("plan", os.MFD_CLOEXEC)
        try:
            os.write(wire, plan.to_wire())
            os.lseek(wire, 0, os.SEEK_SET)
            os.set_inheritable(theirs.fileno(), True)
            outer = subprocess.Popen(
                [sys.executable, "-I", "-S", "-B", "-c", launch.PROGRAM, str(theirs.fileno()), CODE],
                stdin=wire, stdout=stdout, stderr=stderr, pass_fds=(theirs.fileno(),), start_new_session=True,
                cwd="/", env={},
            )  # fmt: skip
        finally:
            os.close(wire)
            theirs.close()
        self._children.known.add(outer.pid)
        self._control = ours
        self._loop.add_reader(ours.fileno(), self._on_message)
        # The object must reap its process itself: a forgotten Popen is reaped by the next one's constructor.
        self._watch(outer.pid, outer.wait, self._on_outer_gone)

    @property
    def container(self) -> str:
        """See runtime.Program."""
        return ""

    def terminate(self) -> None:
        """SIGTERM to the program's process group, once: some programs take a second one for impatience."""
        if not self._terminated:
            self._terminated = True
            self._send(f"signal {signal.SIGTERM.value}".encode())

    def kill(self) -> None:
        """End every process of the replica at once, also those that left its process group."""
        self._killing = True
        if self.init_pid is None or self.gone.done():
            return
        if self._ends_with_init:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.init_pid, signal.SIGKILL)
        elif self._control is not None:  # on the socket's end `init` ends by itself, after its descendants
            with contextlib.suppress(OSError):
                self._control.shutdown(socket.SHUT_WR)

    async def probe(self, argv: Sequence[str], timeout_s: float) -> int | None:
        """Run a command beside the program, with its rights; its exit code, None when it took too long."""
        self._last_probe += 1
        job = self._last_probe
        done: asyncio.Future[int] = self._loop.create_future()
        self._probes[job] = done
        try:
            self._send(b"run " + marshal.dumps((job, list(argv))))
            async with asyncio.timeout(timeout_s):
                return await done
        except TimeoutError:
            self._send(f"kill {job}".encode())
            return None
        finally:
            self._probes.pop(job, None)

    def listening(self) -> list[Listening] | None:
        """See runtime.Program."""
        return [] if self.init_pid is None else proc.listening(proc.below(self.init_pid))

    def refusal(self) -> Refusal | None:
        """See runtime.Program; such a program does not start."""
        return None

    def complaint(self) -> str | None:
        """See runtime.Program."""
        return None

    def _send(self, message: bytes) -> None:
        if self._control is not None:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self._control.send(message)

    def _on_message(self) -> None:
        assert self._control is not None
        try:
            data, ancillary, _, _ = self._control.recvmsg(MESSAGE, socket.CMSG_SPACE(CREDENTIALS.size))
        except BlockingIOError:
            return
        except ConnectionResetError:
            data, ancillary = b"", []
        if not data:
            self._on_end()
            return
        sender = next((CREDENTIALS.unpack(raw)[0] for _, kind, raw in ancillary if kind == socket.SCM_CREDENTIALS), 0)
        verb, _, rest = data.decode(errors="replace").partition(" ")
        self._handle(verb, rest, sender)

    def _handle(self, verb: str, rest: str, sender: int) -> None:
        match verb:
            case "init":
                self.init_pid = sender
                self._children.known.add(sender)
                self._spawn(self._release_init())
                if self._killing:
                    self.kill()
            case "job":
                if rest == "0":
                    self.pid, self.mount_s = sender, round(self._loop.time() - self._released, 3)
                self._admit(sender)
            case "running":
                if rest == "0" and not self.started.done():
                    self.started.set_result(None)
            case "exited" | "failed":
                job, _, status = rest.partition(" ")
                self._on_exit(int(job), os.waitstatus_to_exitcode(int(status)) if verb == "exited" else 127)
            case "note":
                self._note(rest)
            case "error":
                stage, number, text = rest.split(" ", 2)
                self._fail(StartFailed(stage, int(number), text))

    def _admit(self, pid: int) -> None:
        """Limits first, then `go`."""
        try:
            self._adopt(pid)
        except OSError as error:
            self._fail(StartFailed("limits", error.errno or 0, f"the limits could not be set: {error}"))
            self.kill()
        else:
            self._send(b"go")

    async def _release_init(self) -> None:
        # Only when the outer process is gone is `init` our child: a parent-death signal set earlier would
        # be for the outer process.
        await self._outer_gone.wait()
        assert self.init_pid is not None
        pid = self.init_pid
        self._watch(pid, lambda: os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), self._on_init_gone)
        self._released = self._loop.time()
        self._send(b"go")

    def _on_exit(self, job: int, code: int) -> None:
        if job == 0:
            if not self.exited.done():
                self.exited.set_result(code)
        elif (probe := self._probes.get(job)) is not None and not probe.done():
            probe.set_result(code)

    def _on_outer_gone(self, code: int) -> None:
        self._outer_gone.set()
        if code != 0:
            self._finish(f"the launcher ended with {code}")

    def _on_init_gone(self, code: int) -> None:
        self._finish(f"the launcher ended with {code}")

    def _on_end(self) -> None:
        if self._control is not None:
            self._loop.remove_reader(self._control.fileno())
            self._control.close()
            self._control = None

    def _fail(self, error: StartFailed) -> None:
        if not self.started.done():
            self.started.set_exception(error)
        elif not self.exited.done():
            self.exited.set_result(-signal.SIGKILL)

    def _finish(self, why: str) -> None:
        """Nothing of the replica runs any more. Reads what the socket still holds first."""
        while self._control is not None:
            try:
                waiting = self._control.recv(1, socket.MSG_PEEK)
            except (BlockingIOError, ConnectionResetError):
                break
            if not waiting:
                break
            self._on_message()
        self._on_end()
        self._fail(StartFailed("internal", 0, why))
        if not self.exited.done():
            self.exited.set_result(-signal.SIGKILL)
        for probe in self._probes.values():
            if not probe.done():
                probe.set_result(-signal.SIGKILL)
        if not self.gone.done():
            self.gone.set_result(None)

    def _watch(self, pid: int, reap: Callable[[], int], then: Callable[[int], None]) -> None:
        descriptor = os.pidfd_open(pid)

        def ready() -> None:
            self._loop.remove_reader(descriptor)
            os.close(descriptor)
            code = reap()
            self._children.known.discard(pid)
            then(code)

        self._loop.add_reader(descriptor, ready)

    def _spawn(self, coroutine: object) -> None:
        task: asyncio.Task[None] = self._loop.create_task(coroutine)  # type: ignore[arg-type]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _retrieved(future: asyncio.Future[object] | asyncio.Future[None] | asyncio.Future[int]) -> None:
    if not future.cancelled():
        future.exception()
