"""What every runtime says of what goes wrong: each with a cause and a sentence."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from easel_contracts.spec import Lifecycle, Mount
from tests.contract.agent.rig import Rig, process_runtime

SERVER = "python -m http.server $PORT"


class TestFailures:
    """Each with a cause and a sentence."""

    async def test_crash_loop(self, runtime: Rig) -> None:
        """Restarted with back-off; named after three failures, with the last log lines."""
        run = await runtime.run(script="echo to stdout; echo bad thing >&2; exit 3")

        first = await runtime.until(run, lambda seen: seen.phase == "backoff")
        loop = await runtime.until(run, lambda seen: seen.cause == "crash_loop")

        assert first.exit_code == 3
        assert "exited with code 3" in first.message
        assert loop.restarts >= 2
        assert "bad thing" in loop.log_tail
        assert ("stderr", "bad thing\n") in await runtime.logs(run, previous=True)

    async def test_signal_is_named(self, runtime: Rig) -> None:
        """Not a negative number."""
        run = await runtime.run(script="kill -SEGV $$")

        assert "SIGSEGV" in (await runtime.until(run, lambda seen: seen.phase == "backoff")).message

    async def test_unknown_command(self, runtime: Rig) -> None:
        """Not started again."""
        run = await runtime.run("no-such-program --port $PORT")

        report = await runtime.until(run, lambda seen: seen.phase == "failed")

        assert report.cause == "command"
        assert "no-such-program" in report.message

    async def test_out_of_memory(self, runtime: Rig) -> None:
        """Recognised, with the limit and what to raise."""
        run = await runtime.run('python -c "x = bytearray(900 << 20); import time; time.sleep(60)"', memory_mib=128)

        report = await runtime.until(run, lambda seen: seen.phase == "backoff")

        assert report.cause == "oom"
        assert "128" in report.message
        assert "metadata.memory" in report.message

    async def test_missing_mount(self, runtime: Rig) -> None:
        """The path is named."""
        run = await runtime.run(SERVER, mounts=(Mount(mount_path="/mnt/data", host_path="/no/such/dir"),))

        report = await runtime.until(run, lambda seen: seen.phase == "failed")

        assert report.cause == "mount"
        assert "/no/such/dir" in report.message

    @pytest.mark.parametrize("path", ["/", "/bin", "/usr/lib", "/etc/x", "relative"])
    async def test_forbidden_mount_path(self, runtime: Rig, path: str, tmp_path: Path) -> None:
        """System directories stay as they are."""
        run = await runtime.run(SERVER, mounts=(Mount(mount_path=path, host_path=str(tmp_path)),))

        assert (await runtime.until(run, lambda seen: seen.phase == "failed")).cause == "mount"

    async def test_requirements_that_do_not_exist(
        self, short_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The installer's words are in the sentence and the log."""
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
        async with process_runtime(short_path / "agent") as runtime:
            run = await runtime.run(SERVER, python_requirements=("no-such-package-of-easel==1.0",))

            report = await runtime.until(run, lambda seen: seen.phase == "failed")

            assert report.cause == "requirements"
            assert "no-such-package-of-easel" in "".join(text for _, text in await runtime.logs(run))

    async def test_archive_with_another_content(self, runtime: Rig) -> None:
        """Never run what was not admitted."""
        digest = runtime.control.pack(app_py="print(1)")
        runtime.control.archives[digest] += b"x"
        run = await runtime.run("python app.py", mounts=(Mount(mount_path="/ml/usercode", code_digest=digest),))

        assert (await runtime.until(run, lambda seen: seen.phase == "failed")).cause == "code"

    async def test_a_killed_replica_comes_back(self, runtime: Rig) -> None:
        """kill -9 of the program: restarted on the same port."""
        run = await runtime.run(SERVER, lifecycle=Lifecycle())
        report = await runtime.ready(run)
        assert report.pid is not None

        os.kill(report.pid, 9)

        again = await runtime.until(run, lambda seen: seen.ready and seen.restarts == 1)
        assert again.port == report.port
        assert again.pid != report.pid
