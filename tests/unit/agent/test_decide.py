"""The agent's pure decisions: restarts, probes, exits, ports, environment, listening."""

from __future__ import annotations

import pytest

from easel_agent.decide import exits, listening, mounts
from easel_agent.decide.environment import Surroundings, command_line, environment, expand
from easel_agent.decide.indexes import arguments, uv_environment
from easel_agent.decide.ports import candidates
from easel_agent.decide.probing import (
    FAST_PERIOD_S,
    ProbeState,
    observe,
    starting_period_s,
    startup_budget_s,
    target_port,
)
from easel_agent.decide.restarts import RestartPolicy, after_exit
from easel_agent.model import Exit, Killed, Listening, Refusal
from easel_contracts.spec import ExecCheck, HttpCheck, Mount, Probe, Resources, RevisionSpec, RunSpec, TcpCheck

FAILED = Exit(code=1, ran_s=0.2, was_ready=False)
STABLE = Exit(code=1, ran_s=100.0, was_ready=True)


class TestRestarts:
    """Back-off and crash loops."""

    def test_delay_doubles_up_to_a_cap(self) -> None:
        """1, 2, 4 … 60 seconds."""
        delays, failures = [], 0
        for _ in range(9):
            restart = after_exit(FAILED, failures, RestartPolicy())
            failures = restart.failures_in_row
            delays.append(restart.delay_s)

        assert delays == [1, 2, 4, 8, 16, 32, 60, 60, 60]

    def test_a_stable_run_begins_a_new_row(self) -> None:
        """One crash after a long good run is no loop."""
        restart = after_exit(STABLE, 8, RestartPolicy())

        assert (restart.failures_in_row, restart.delay_s, restart.crash_loop) == (1, 1.0, False)

    def test_a_long_run_that_was_never_ready_is_a_failure(self) -> None:
        """Time alone is not success."""
        restart = after_exit(Exit(code=1, ran_s=1000, was_ready=False), 2, RestartPolicy())

        assert restart.crash_loop

    def test_the_delay_never_overflows(self) -> None:
        """After any number of failures."""
        assert after_exit(FAILED, 10**9, RestartPolicy()).delay_s == 60


class TestProbes:
    """Thresholds and periods."""

    def test_verdict_changes_only_at_thresholds(self) -> None:
        """Two failures of three change nothing; the third does; one success turns it back."""
        probe = Probe(check=TcpCheck(), failure_threshold=3)
        state = observe(ProbeState(), probe, None)
        verdicts = []
        for failure in ("a", "b", "c", None):
            state = observe(state, probe, failure)
            verdicts.append(state.verdict)

        assert verdicts == [True, True, False, True]

    def test_successes_must_follow_each_other(self) -> None:
        """A failure between begins the count again."""
        probe = Probe(check=TcpCheck(), success_threshold=2)
        state = ProbeState()
        for failure in (None, "x", None):
            state = observe(state, probe, failure)

        assert state.verdict is None
        assert observe(state, probe, None).verdict is True

    def test_unknown_is_not_failed(self) -> None:
        """Below both thresholds there is no verdict."""
        assert observe(ProbeState(), Probe(check=TcpCheck()), "x").verdict is None

    def test_budget_counts_failures_in_time(self) -> None:
        """initial delay + period × threshold; the node's limit without a probe."""
        probe = Probe(check=TcpCheck(), initial_delay_s=5, period_s=10, failure_threshold=30)

        assert startup_budget_s(probe, 1800) == 305
        assert startup_budget_s(None, 1800) == 1800

    def test_probing_a_starting_program_is_fast_but_never_dear(self) -> None:
        """Every 50 ms, unless a probe itself takes long."""
        assert starting_period_s(1, 0.001) == FAST_PERIOD_S
        assert starting_period_s(1, 0.1) == pytest.approx(0.4)
        assert starting_period_s(100, 0.001) > FAST_PERIOD_S

    def test_the_declared_port_means_the_replicas_own(self) -> None:
        """DESIGN 4b.5; another port (e.g. of metrics) stays."""
        assert target_port(HttpCheck(port=8000), 8000, 21000) == 21000
        assert target_port(TcpCheck(), 8000, 21000) == 21000
        assert target_port(TcpCheck(port=9000), 8000, 21000) == 9000
        assert target_port(ExecCheck(command=("x",)), 8000, 21000) == 21000


class TestExits:
    """Causes and sentences."""

    def test_code_and_hint(self) -> None:
        """The number is named, and what it usually means."""
        found = exits.explain(exits.ExitFacts(exit=Exit(code=127, ran_s=0.1, was_ready=False), limit_mib=1, delay_s=1))

        assert found.cause == "exit"
        assert "code 127" in found.message
        assert "not found" in found.message

    def test_out_of_memory_wins_over_the_signal(self) -> None:
        """With what was used, what was allowed, and what to change."""
        facts = exits.ExitFacts(exit=Exit(code=-9, ran_s=3, was_ready=True), limit_mib=512, out_of_memory=True,
                                peak_mib=512.3, crash_loop=True, failures_in_row=4, delay_s=8)  # fmt: skip
        found = exits.explain(facts)

        assert found.cause == "oom"
        assert "used 512 MiB of 512; raise metadata.memory" in found.message

    def test_crash_loop(self) -> None:
        """Says how often."""
        found = exits.explain(exits.ExitFacts(exit=FAILED, limit_mib=1, crash_loop=True, failures_in_row=3, delay_s=4))

        assert found.cause == "crash_loop"
        assert "3 failures in a row" in found.message
        assert "in 4 s" in found.message

    def test_our_own_kill_is_not_called_a_crash(self) -> None:
        """The probe is named."""
        killed = Killed(reason="liveness", detail="3 times in a row: GET / answered 500")
        found = exits.explain(exits.ExitFacts(exit=Exit(code=-9, ran_s=9, was_ready=True), limit_mib=1, killed=killed))

        assert found.cause == "probe"
        assert "answered 500" in found.message
        assert "SIGKILL" not in found.message

    def test_exit_zero(self) -> None:
        """A server must not end."""
        found = exits.explain(exits.ExitFacts(exit=Exit(code=0, ran_s=0.1, was_ready=False), limit_mib=1))

        assert "foreground" in found.message

    @pytest.mark.parametrize(("errno", "word"), [(2, "not found"), (13, "chmod"), (8, "#!"), (7, "too long")])
    def test_start_failures(self, errno: int, word: str) -> None:
        """Each in words."""
        found = exits.explain_start("command", errno, "Argument list too long", ("prog",))

        assert found.cause == "command"
        assert word in found.message

    def test_stages(self) -> None:
        """A failed mount is the mount's fault, not the command's."""
        assert exits.explain_start("mount", 2, "x", ("p",)).cause == "mount"
        assert exits.explain_start("separate", 1, "x", ("p",)).cause == "internal"

    def test_isolation_that_does_not_work(self) -> None:
        """What an ordinary user can do about it; the kernel's words where there is nothing to add."""
        spent = exits.explain_trial("separate", 28, "unshare: No space left on device", user_ns=True)
        forbidden = exits.explain_trial("mount", 13, "mount none at /: Permission denied", user_ns=True)

        assert spent.startswith("unshare: No space left on device: ")
        assert "user.max_user_namespaces" in spent
        assert "kernel.unprivileged_userns_clone" in forbidden
        assert exits.explain_trial("separate", 1, "unshare: no", user_ns=False) == "separate: unshare: no"
        assert exits.explain_trial("command", 1, "no", user_ns=True) == "command: no"


class TestListening:
    """Whose port, and which."""

    def test_own_port_on_any_address(self) -> None:
        """IPv4 or IPv6 wildcard, or the address itself."""
        for ip in ("0.0.0.0", "::", "127.0.0.1"):
            assert listening.where("127.0.0.1", 21000, 8000, [Listening(ip=ip, port=21000)]) is None

    def test_declared_port(self) -> None:
        """Recognised, with what to write instead."""
        found = listening.where("127.0.0.1", 21034, 8000, [Listening(ip="0.0.0.0", port=8000)])

        assert found is not None
        assert found.cause == "wrong_port"
        assert "bound 8000, wanted 21034" in found.message
        assert "--port $PORT" in found.message

    def test_loopback_only(self) -> None:
        """Not reachable from another machine."""
        found = listening.where("10.0.0.5", 21000, 8000, [Listening(ip="127.0.0.1", port=21000)])

        assert found is not None
        assert "bind 0.0.0.0" in found.message

    def test_nothing(self) -> None:
        """Not wrong, only not yet."""
        found = listening.where("127.0.0.1", 21000, 8000, [])

        assert found is not None
        assert found.cause == "probe"


def run(command: str | None = None, script: str | None = None) -> RunSpec:
    """A replica to be started."""
    revision = RevisionSpec(
        number=3, resources=Resources(cpu=1, memory_mib=1), port=8000, command=command, script=script
    )
    return RunSpec(workspace="default", service="ocr", replica="ocr-3-abcde", revision=revision)


AROUND = Surroundings(
    port=21000, address="10.0.0.1", node="n1", home="/h", tmp="/tmp", python_bin="/venv/bin", venv="/venv", inherited={}
)  # fmt: skip


class TestEnvironment:
    """Variables and command line."""

    def test_the_user_wins_but_not_over_identity(self) -> None:
        """PATH may be changed, PORT may not."""
        env = environment(run("x"), {"PATH": "/mine", "PORT": "80", "A": "b"}, AROUND)

        assert (env["PATH"], env["PORT"], env["A"]) == ("/mine", "21000", "b")
        assert (env["POD_NAME"], env["NAMESPACE"], env["SERVICE_NAME"]) == ("ocr-3-abcde", "default", "ocr")
        assert env["VIRTUAL_ENV"] == "/venv"

    def test_command_words(self) -> None:
        """Quotes group, variables are filled in after splitting, unknown names stay."""
        env = {"PORT": "21000", "DIR": "a b"}
        found = command_line(run("serve --port $PORT -d ${DIR} 'x y' $UNKNOWN 5$"), env, "/bin/sh")

        assert found == ("serve", "--port", "21000", "-d", "a b", "x y", "$UNKNOWN", "5$")

    def test_script(self) -> None:
        """Given to a shell as it is."""
        assert command_line(run(script="a; b $PORT"), {}, "/bin/sh") == ("/bin/sh", "-c", "a; b $PORT")

    @pytest.mark.parametrize("command", ["", "  ", "'open"])
    def test_unusable_commands(self, command: str) -> None:
        """Said, not run."""
        assert isinstance(command_line(run(command), {}, "/bin/sh"), Refusal)

    def test_expand_leaves_the_longest_name(self) -> None:
        """$PORTS is not $PORT and an s."""
        assert expand("$PORTS ${PORT}S", {"PORT": "1"}) == "$PORTS 1S"


class TestPorts:
    """Next fit."""

    def test_a_freed_port_rests(self) -> None:
        """The next one is tried first, wrapping round."""
        assert list(candidates(10, 14, 12, {14})) == [13, 10, 11, 12]

    def test_full(self) -> None:
        """No candidate."""
        assert list(candidates(10, 12, 11, {10, 11, 12})) == []

    def test_first(self) -> None:
        """From the beginning."""
        assert next(candidates(10, 12, 9, set())) == 10


class TestMountRules:
    """What may be mounted where."""

    @pytest.mark.parametrize("path", ["/", "/usr", "/etc/ssl", "/bin", "/proc/x", "/tmp", "/mnt/../usr", "x"])
    def test_system_paths(self, path: str) -> None:
        """Refused."""
        assert mounts.refusal([Mount(mount_path=path, host_path="/data")], []) is not None

    @pytest.mark.parametrize("path", ["/mnt/data/", "/ml/model", "/tmp/x", "/root/.cache/hub", "/home/u/m"])
    def test_allowed_paths(self, path: str) -> None:
        """As users write them."""
        assert mounts.refusal([Mount(mount_path=path, host_path="/data")], ["/easel"]) is None

    def test_overlap(self) -> None:
        """Neither equal nor one in the other."""
        pair = [Mount(mount_path="/a/b", host_path="/x"), Mount(mount_path="/a/b/c", host_path="/y")]

        assert "overlap" in str(mounts.refusal(pair, []))
        assert mounts.refusal([pair[0], Mount(mount_path="/a/bc", host_path="/y")], []) is None

    @pytest.mark.parametrize("source", ["/easel/keys", "/easel", "/", "/proc/1"])
    def test_sources_of_our_own(self, source: str) -> None:
        """Never handed out, also not by a directory above."""
        assert mounts.refusal([Mount(mount_path="/mnt/x", host_path=source)], ["/easel/keys"]) is not None


class TestIndexes:
    """pip's settings as uv's."""

    def test_files_variables_and_uvs_own(self) -> None:
        """uv's own over PIP_* over files; lists are translated."""
        env = {"PIP_INDEX_URL": "http://b/simple", "PIP_FIND_LINKS": "/w /x", "UV_INDEX": "http://d", "UV_PROJECT": "p"}
        files = {"index-url": "http://a/simple", "extra-index-url": "http://c\nhttp://e", "trusted-host": "h"}

        found = uv_environment(env, files)

        assert found["UV_DEFAULT_INDEX"] == "http://b/simple"
        assert found["UV_FIND_LINKS"] == "/w,/x"
        assert found["UV_INDEX"] == "http://d"
        assert found["UV_INSECURE_HOST"] == "h"
        assert "UV_PROJECT" not in found

    def test_a_machine_without_an_index(self) -> None:
        """uv has an option for that, and no variable; PIP_NO_INDEX wins over the file."""
        assert arguments({}, {"no-index": "true"}) == ("--no-index",)
        assert arguments({"PIP_NO_INDEX": "1"}, {}) == ("--no-index",)
        assert arguments({"PIP_NO_INDEX": "0"}, {"no-index": "1"}) == ()

    def test_nothing_configured(self) -> None:
        """uv's default index."""
        assert arguments({}, {}) == ()
        assert "UV_DEFAULT_INDEX" not in uv_environment({"HOME": "/x"}, {})
