"""Runs every benchmark, one after the other, and prints one table: gate, measured, ratio, met or not.

Exit code 0 only where every gate was measured and met. Each benchmark is a program of its own and is cut off at its
time limit; all together take about twenty minutes. Nothing else should run on the machine.

    make bench        or: python benchmarks/run_all.py [NAME ...] [--quick]
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

HERE = Path(__file__).resolve().parent
BENCHMARKS: dict[str, tuple[list[str], list[str], int]] = {
    # name: arguments, arguments with --quick, longest time in seconds
    "platform_idle": (["--seconds", "30", "--starts", "2"], ["--seconds", "10", "--starts", "1"], 150),
    "create_to_first_200": (["--creates", "15"], ["--creates", "10"], 120),
    "containers": (["--rounds", "15", "--crowds", "2"], ["--rounds", "8", "--crowds", "1"], 420),
    "commit_to_live": (["--changes", "150"], ["--changes", "60"], 150),
    "facts": (["--backlog", "5000", "--quiet", "30"], ["--backlog", "2000", "--quiet", "10"], 240),
    "route_apply": (
        ["--sizes", "100,1000,10000"],
        ["--sizes", "100,1000", "--changes", "100", "--seconds", "3", "--kills", "3"],
        900,
    ),
    "weight_change": (["--changes", "500"], ["--changes", "100"], 420),
    "held_requests": (["--rounds", "60", "--wakes", "20"], ["--rounds", "20", "--wakes", "6"], 420),
    "rolling_updates": (["--updates", "60"], ["--updates", "20"], 420),
    "canary": ([], ["--quick"], 900),
    "peers": (["--rounds", "5"], ["--rounds", "2", "--seconds", "2"], 600),
    "envoy_route": (["--rounds", "4", "--seconds", "2"], ["--rounds", "2", "--seconds", "1"], 180),
}
NEED_WRK = {"envoy_route", "peers"}
GIVE_UP_S = 60
"""For an interrupted benchmark to stop what it started."""


def main() -> int:
    """Exit code 0 where every gate was measured and met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(BENCHMARKS)}; all without")
    parser.add_argument("--quick", action="store_true", help="fewer rounds: minutes less, noisier")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(BENCHMARKS):
        parser.error(f"no benchmark named {', '.join(sorted(unknown))}; there are: {', '.join(BENCHMARKS)}")
    print(machine(), flush=True)
    began = time.monotonic()
    rows: list[list[str]] = []
    for name in arguments.names or BENCHMARKS:
        rows += run(name, quick=arguments.quick)
    table(rows)
    missed = sum(row[-1] != "met" for row in rows)
    print(f"\n{len(rows) - missed} of {len(rows)} gates met, {time.monotonic() - began:.0f} s")
    return 1 if missed else 0


def run(name: str, *, quick: bool) -> list[list[str]]:
    """A row for each gate of a benchmark; one that says why where it did not get to its end."""
    full, short, limit_s = BENCHMARKS[name]
    print(f"\n== {name}", flush=True)
    if name in NEED_WRK and not have_wrk():
        print("wrk is missing and cannot be installed here (Debian: apt-get install wrk)")
        return [[name, "-", "-", "-", "NOT MEASURED: no wrk"]]
    command = [sys.executable, str(HERE / f"{name}.py"), *(short if quick else full)]
    output, code = finish(subprocess.Popen(command, cwd=HERE, stdout=subprocess.PIPE, text=True), limit_s)
    lines = output.splitlines()
    print("\n".join(line for line in lines if not line.startswith("GATE ")), flush=True)
    rows = [[cell.strip() for cell in line.removeprefix("GATE ").split("|")] for line in lines
            if line.startswith("GATE ")]  # fmt: skip
    if code is None:
        rows.append([name, "-", "-", "-", f"NOT MEASURED: longer than {limit_s} s"])
    elif not rows or (code and all(row[-1] == "met" for row in rows)):
        rows.append([name, "-", "-", "-", f"NOT MEASURED: ended with {code}"])
    return rows


def finish(benchmark: subprocess.Popen[str], limit_s: float) -> tuple[str, int | None]:
    """What it printed and its exit code; None where it took too long: it is interrupted, and stops its platform."""
    try:
        return benchmark.communicate(timeout=limit_s)[0], benchmark.returncode
    except subprocess.TimeoutExpired:
        benchmark.send_signal(signal.SIGINT)
    try:
        return benchmark.communicate(timeout=GIVE_UP_S)[0], None
    except subprocess.TimeoutExpired:
        benchmark.kill()
        return benchmark.communicate()[0], None


def have_wrk() -> bool:
    """Whether wrk is there; installs it from the system's packages as root."""
    if shutil.which("wrk") is None and os.geteuid() == 0 and shutil.which("apt-get"):
        quiet = {"stdout": subprocess.DEVNULL, "check": False}
        subprocess.run(["apt-get", "-qq", "update"], **quiet)  # type: ignore[call-overload]
        subprocess.run(["apt-get", "-qq", "install", "-y", "wrk"], **quiet)  # type: ignore[call-overload]
    return shutil.which("wrk") is not None


def machine() -> str:
    """What it runs on, for the dated results."""
    model = next((line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), platform.machine())  # fmt: skip
    memory = psutil.virtual_memory().total / 2**30
    now, load = time.strftime("%Y-%m-%d %H:%M"), psutil.getloadavg()[0]
    return (f"{now}, {psutil.cpu_count()} cores ({model}), {memory:.0f} GiB, Linux {platform.release()}, "
            f"Python {platform.python_version()}, load average {load:.1f} before")  # fmt: skip


def table(rows: list[list[str]]) -> None:
    """All gates, as Markdown."""
    head = ["what", "measured", "gate", "ratio", ""]
    widths = [max(len(row[n]) for row in [head, *rows]) for n in range(len(head))]
    print()
    for row in [head, ["-" * width for width in widths], *rows]:
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |")


if __name__ == "__main__":
    sys.exit(main())
