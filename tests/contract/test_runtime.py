"""What every runtime of replicas promises: processes and containers alike."""

from __future__ import annotations

import asyncio
import os
import urllib.request
import zipfile
from pathlib import Path
from typing import Any

import psutil
import pytest

from easel_contracts.metrics import ReplicaMetrics
from easel_contracts.spec import ExecCheck, HttpCheck, Mount, Probe
from easel_kit.testing import eventually
from tests.contract.agent.rig import Rig, process_runtime

SERVER = "python -m http.server $PORT"
FAST: dict[str, Any] = {"period_s": 0.1, "timeout_s": 5}


only_processes = pytest.mark.parametrize("kind", ["process"], indirect=True)
"""What containers do in another way, see test_containers.py."""


def get(url: str) -> tuple[int, bytes]:
    """GET without a proxy."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=5) as answer:
        return answer.status, answer.read()


class TestLife:
    """From Start to Stop."""

    async def test_a_server_becomes_ready_and_answers(self, runtime: Rig) -> None:
        """Ready means: a request to the reported address is answered by the replica."""
        run = await runtime.run(SERVER)

        report = await runtime.ready(run)

        status, _ = await asyncio.to_thread(get, f"http://{report.ip}:{report.port}/")
        assert status == 200
        assert report.phase == "running"
        assert {"fetch", "start", "probe"} <= report.phase_s.keys()

    async def test_a_second_start_changes_nothing(self, runtime: Rig) -> None:
        """Start is idempotent by replica id."""
        run = await runtime.run(SERVER)
        first = await runtime.ready(run)

        known = runtime.agent.fleet.start(run, 1)

        assert known
        assert runtime.agent.fleet.replicas[run.replica].report.pid == first.pid

    async def test_a_stopped_replica_is_not_started_by_a_late_command(self, runtime: Rig) -> None:
        """The end is final."""
        run = await runtime.run(SERVER)
        await runtime.ready(run)
        await runtime.stop(run)

        assert runtime.agent.fleet.start(run, 1)
        assert run.replica not in runtime.agent.fleet.replicas

    async def test_two_replicas_have_two_addresses(self, runtime: Rig) -> None:
        """One of its own for each."""
        reports = [await runtime.ready(run) for run in [await runtime.run(SERVER), await runtime.run(SERVER)]]

        assert (reports[0].ip, reports[0].port) != (reports[1].ip, reports[1].port)

    async def test_many_at_once(self, runtime: Rig) -> None:
        """Starts do not get in each other's way."""
        runs = [await runtime.run("sleep 100") for _ in range(15)]

        reports = [await runtime.until(run, lambda seen: seen.pid is not None) for run in runs]

        addresses = {(report.ip, report.port) for report in reports}
        assert len({report.pid for report in reports}) == len(addresses) == 15

    async def test_stop_leaves_nothing(self, runtime: Rig) -> None:
        """Also processes that left the group and the session are gone, and the directory with them."""
        run = await runtime.run(script="setsid setsid sleep 300 & (setsid sleep 301 &) ; " + SERVER)
        await runtime.ready(run)
        replica = runtime.agent.fleet.replicas[run.replica]
        assert replica.program is not None
        running = runtime.processes(run)
        assert len(running) >= 4

        await runtime.stop(run)

        assert not [process for process in running if process.is_running()]
        assert not replica.directory.exists()

    async def test_sigterm_only_when_wanted(self, runtime: Rig) -> None:
        """With enable_sigterm the program can say goodbye."""
        script = "trap 'echo goodbye; exit 0' TERM; python -m http.server $PORT & wait"
        polite, rude = await runtime.run(script=script), await runtime.run(script=script)
        await runtime.ready(polite)
        await runtime.ready(rude)

        await runtime.stop(polite, sigterm=True, idle=False)
        await runtime.stop(rude, grace_s=0.2, idle=False)

        assert ("stdout", "goodbye\n") in await runtime.logs(polite)
        assert ("stdout", "goodbye\n") not in await runtime.logs(rude)

    async def test_without_sigterm_a_busy_replica_lives_until_the_grace_period_ends(self, runtime: Rig) -> None:
        """Stop without signal waits; a second Stop that says idle ends it at once."""
        run = await runtime.run(SERVER)
        report = await runtime.ready(run)
        stopping = asyncio.create_task(runtime.stop(run, grace_s=300, idle=False))
        await runtime.until(run, lambda seen: seen.phase == "stopping")
        assert report.pid is not None
        assert psutil.pid_exists(report.pid)

        await runtime.stop(run, grace_s=300, idle=True)

        assert (await stopping).phase == "stopped"

    async def test_probes_fall_silent_when_it_is_stopped(self, runtime: Rig) -> None:
        """A replica that ends is not told ready once more, however long its grace period."""
        probe = Probe(check=ExecCheck(command=("sh", "-c", "echo asked >> asked")), **FAST)
        run = await runtime.run(SERVER, readiness=probe)
        await runtime.ready(run)
        asked = runtime.home(run) / "asked"
        stopping = asyncio.create_task(runtime.stop(run, grace_s=300, idle=False))
        await runtime.until(run, lambda seen: seen.phase == "stopping")
        size = asked.stat().st_size
        other = await runtime.run(SERVER, readiness=probe)
        mark = runtime.home(other) / "asked"
        await eventually(lambda: mark.exists() and mark.stat().st_size > 30)  # as many probes as the first would have

        assert asked.stat().st_size <= size + len("asked\n")  # one may have been on its way
        await runtime.stop(run)
        await stopping
        phases = [report.phase for report in runtime.seen[run.replica]]
        assert phases[phases.index("stopping") :] == ["stopping", "stopped"]


class TestSurroundings:
    """What a program sees."""

    async def test_environment(self, runtime: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
        """Its own values and EAS's variables; nothing of the agent's."""
        monkeypatch.setenv("SECRET_OF_THE_AGENT", "x")
        runtime.control.env = {"MINE": "yes", "PORT": "1"}
        run = await runtime.run(script="env; echo done; sleep 100", env_names=("MINE", "PORT"))

        output = await runtime.printed(run, "done")

        report = runtime.agent.fleet.replicas[run.replica].report
        lines = output.splitlines()
        assert {"MINE=yes", f"PORT={report.port}", f"POD_NAME={run.replica}", "NAMESPACE=default"} <= set(lines)
        assert "SECRET_OF_THE_AGENT" not in output

    async def test_code_is_the_working_directory(self, runtime: Rig) -> None:
        """The first code mount, at its mount_path, read-only."""
        digest = runtime.control.pack(app_py="import os; print('at', os.getcwd(), os.access('.', os.W_OK), flush=True)")
        mount = Mount(mount_path="/ml/usercode", code_digest=digest)
        run = await runtime.run("python app.py", mounts=(mount,))

        assert "at /ml/usercode False" in await runtime.printed(run, "at ")

    async def test_host_directory(self, runtime: Rig, tmp_path: Path) -> None:
        """Read-only by default, writable when asked for; nothing is created on the host outside it."""
        (tmp_path / "model").write_text("weights")
        mounts = (
            Mount(mount_path="/mnt/some/where", host_path=str(tmp_path)),
            Mount(mount_path="/data/out", host_path=str(tmp_path), read_only=False),
        )
        run = await runtime.run(
            script="cat /mnt/some/where/model; touch /mnt/some/where/x || echo refused; "
            "echo result > /data/out/y && echo done; sleep 100",
            mounts=mounts,
        )

        output = await runtime.printed(run, "done")

        assert "weights" in output
        assert "refused" in output
        assert (tmp_path / "y").read_text() == "result\n"
        assert (tmp_path / "y").stat().st_uid == os.geteuid()
        assert not Path("/mnt/some").exists()
        assert not Path("/data/out").exists()

    async def test_code_that_may_be_written_to_is_the_replicas_own(self, runtime: Rig) -> None:
        """A copy for each; the archive stays as it was uploaded."""
        mount = Mount(mount_path="/ml/usercode", code_digest=runtime.control.pack(app_py="x"), read_only=False)
        script = "ls; echo y > new.txt && cp app.py b.py && echo done; sleep 100"
        first = await runtime.run(script=script, mounts=(mount,))
        await runtime.printed(first, "done")

        second = await runtime.run(script=script, mounts=(mount,))

        assert "new.txt" not in await runtime.printed(second, "done")

    async def test_requirements(self, short_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """From the index configured for pip, installed once, on PATH, shared, not writable."""
        make_wheel(tmp_path)
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
        program = "import tiny; print('from', tiny.__file__, flush=True); open(tiny.__file__, 'a')"
        async with process_runtime(short_path / "agent") as runtime:
            script = f'python -c "{program}"; sleep 100'
            runs = [await runtime.run(script=script, python_requirements=("tiny",)) for _ in range(2)]
            outputs = [await runtime.printed(run, "Error: [Errno") for run in runs]
            home = runtime.agent.fleet.node.home / "environments"
            kept = [path for path in home.iterdir() if not path.name.startswith(".")]
            built = sum(output.count("installing") for output in outputs)

        assert all(str(kept[0]) in output for output in outputs)
        assert (len(kept), built) == (1, 1)

    async def test_requirements_from_a_file_in_the_code(
        self, short_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """By the path as the replica sees it."""
        make_wheel(tmp_path)
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
        async with process_runtime(short_path / "agent") as runtime:
            digest = runtime.control.pack(app_py="import tiny; print('found', flush=True)", reqs_txt="tiny==1.0")
            run = await runtime.run(
                "python app.py", mounts=(Mount(mount_path="/ml/usercode", code_digest=digest),),
                python_requirements_path="/ml/usercode/reqs.txt",
            )  # fmt: skip

            assert "found" in await runtime.printed(run, "found")


def make_wheel(directory: Path) -> None:
    """A package `tiny` 1.0."""
    with zipfile.ZipFile(directory / "tiny-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny.py", "")
        wheel.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        wheel.writestr("tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("tiny-1.0.dist-info/RECORD", "tiny.py,,\ntiny-1.0.dist-info/RECORD,,\n")


class TestProbes:
    """Startup, readiness, liveness."""

    async def test_http_readiness_follows_the_answer(self, runtime: Rig) -> None:
        """Unready while the probe fails, ready again when it passes."""
        probe = Probe(check=HttpCheck(path="/ok"), failure_threshold=1, **FAST)
        run = await runtime.run(script="touch ok; exec " + SERVER, readiness=probe)
        await runtime.ready(run)
        home = runtime.home(run)

        (home / "ok").unlink()
        await runtime.until(run, lambda report: report.phase == "running" and "404" in report.message)
        runtime.seen.clear()
        (home / "ok").touch()
        os.chmod(home / "ok", 0o644)

        assert (await runtime.ready(run)).restarts == 0

    async def test_failed_liveness_restarts(self, runtime: Rig) -> None:
        """The sentence names the probe."""
        probe = Probe(check=HttpCheck(path="/missing"), failure_threshold=2, **FAST)
        run = await runtime.run(SERVER, liveness=probe)

        report = await runtime.until(run, lambda seen: seen.phase == "backoff")

        assert report.cause == "probe"
        assert "liveness" in report.message
        assert "404" in report.message
        assert (await runtime.until(run, lambda seen: seen.restarts == 1 and seen.phase == "running")).pid

    async def test_exec_probe_runs_beside_the_program(self, runtime: Rig) -> None:
        """With its files, its user and its environment."""
        probe = Probe(check=ExecCheck(command=("sh", "-c", 'test "$(id -u)" = "$(cat uid)"')), **FAST)
        run = await runtime.run(script="id -u > uid; exec " + SERVER, readiness=probe)

        assert (await runtime.ready(run)).ready

    async def test_startup_that_never_passes(self, runtime: Rig) -> None:
        """Ended after period × threshold, and told so."""
        probe = Probe(check=HttpCheck(path="/missing"), failure_threshold=3, **FAST)
        run = await runtime.run(SERVER, startup=probe)

        report = await runtime.until(run, lambda seen: seen.phase == "backoff")

        assert report.cause == "probe"
        assert "startup" in report.message

    @only_processes
    async def test_a_program_on_the_declared_port(self, runtime: Rig) -> None:
        """It is not ready, and what to change is said."""
        run = await runtime.run("python -m http.server 28765 --bind 127.0.0.1", port=28765)

        report = await runtime.until(run, lambda seen: seen.cause == "wrong_port")

        assert f"bound 28765, wanted {report.port}" in report.message
        assert "$PORT" in report.message
        assert not report.ready


class TestLogs:
    """Kept, streamed."""

    async def test_tail_and_follow(self, runtime: Rig) -> None:
        """The last lines first, then what comes, until the replica ends."""
        wait = "while ! test -e go; do sleep 0.05; done"
        run = await runtime.run(script=f"for i in 1 2 3; do echo line $i; done; {wait}; echo later; sleep 99")
        await runtime.printed(run, "line 3")
        seen: list[str] = []

        async def follow() -> None:
            async for _, data in runtime.agent.fleet.logs(run.replica, tail_lines=1, follow=True, previous=False):
                seen.append(data.decode())

        following = asyncio.create_task(follow())
        (runtime.home(run) / "go").touch()
        await runtime.printed(run, "later")
        await runtime.stop(run)
        await following

        assert seen == ["line 3\n", "later\n", "stopped\n"]

    async def test_long_lines_and_both_streams(self, runtime: Rig) -> None:
        """Nothing is lost of a line of many pieces, nor of streams that are written to in turn."""
        line = "print(f'{n} ' + 'x' * 50000, file=(sys.stdout, sys.stderr)[n % 2], flush=True)"
        program = f"import sys; [{line} for n in range(40)]"
        run = await runtime.run(script=f'python -c "{program}"; echo that is all; sleep 100')

        await runtime.printed(run, "that is all")

        pieces = await runtime.logs(run)
        for number, name in enumerate(("stdout", "stderr")):
            written = "".join(text for stream, text in pieces if stream == name)
            lines = [line for line in written.splitlines() if line != "that is all"]
            assert [line.partition(" ")[0] for line in lines] == [str(n) for n in range(40) if n % 2 == number]
            assert {len(line.partition(" ")[2]) for line in lines} == {50000}


class TestMeasures:
    """CPU and memory once a second."""

    async def test_a_busy_replica_uses_a_core(self, runtime: Rig) -> None:
        """In cores and MiB, of the replica alone."""
        run = await runtime.run('python -c "x = bytearray(50 << 20)\nwhile True: pass"')

        async with asyncio.timeout(20):
            while True:
                found = [
                    m for _, _, m in runtime.published if isinstance(m, ReplicaMetrics) and m.replica == run.replica
                ]
                if any(m.cpu_cores > 0.1 and 45 < m.memory_mib < 200 for m in found):
                    break
                await asyncio.sleep(0.05)
