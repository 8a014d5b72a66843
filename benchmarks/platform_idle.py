"""What the platform costs while it does nothing: warm start, idle CPU and memory, against the gates.

    python benchmarks/platform_idle.py [--seconds 30] [--starts 3]

Memory is the proportional set size (PSS): shared pages are counted once. A new home is made and removed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from measuring import verdict

from easel_kit.testing import free_port
from easel_standalone import api

UP_GATE_S = 10.0
CPU_GATE_PERCENT = 5.0
PSS_GATE_MIB = 900.0
SETTLE_S = 10.0
"""After the start: pools fill, first look-ups end."""
MIB = 1024 * 1024


def main() -> int:
    """Exit code 0 where every gate holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0, help="how long idle CPU is measured")
    parser.add_argument("--starts", type=int, default=3, help="warm starts")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ez", dir="/tmp") as directory:
        home = Path(directory) / "home"
        wanted = api.Options(port=free_port(), control_port=free_port())
        try:
            cold_s, warm_s, down_s = _starts(home, wanted, arguments.starts)
            time.sleep(SETTLE_S)
            rows = _idle(api.status(home).pid, arguments.seconds)
        finally:
            api.down(home)
    return _report(cold_s, warm_s, down_s, rows)


def _starts(home: Path, wanted: api.Options, count: int) -> tuple[float, list[float], list[float]]:
    """Seconds to ready: the first time, then warm; seconds to stop. The platform is up in the end."""
    ups, downs = [], []
    for number in range(count + 1):
        if number:
            downs.append(_seconds(lambda: api.down(home)))
        ups.append(_seconds(lambda: api.up_detached(home, wanted)))
    return ups[0], ups[1:], downs


def _seconds(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def _idle(supervisor: int, seconds: float) -> dict[str, tuple[float, float]]:
    """Process → (percent of one core, PSS in MiB); a store's processes are added up."""
    before, began = _cpu_s(supervisor), time.perf_counter()
    time.sleep(seconds)
    after, took = _cpu_s(supervisor), time.perf_counter() - began
    rows: dict[str, tuple[float, float]] = {}
    for pid, (name, cpu_s, pss_mib) in after.items():
        used = cpu_s - before[pid][1] if pid in before else cpu_s
        percent, pss = rows.get(name, (0.0, 0.0))
        rows[name] = (percent + 100 * used / took, pss + pss_mib)
    return rows


def _cpu_s(supervisor: int) -> dict[int, tuple[str, float, float]]:
    parent = psutil.Process(supervisor)
    found = {}
    for process in [parent, *parent.children(recursive=True)]:
        try:
            times = process.cpu_times()
            found[process.pid] = (_name(process), times.user + times.system, process.memory_full_info().pss / MIB)
        except psutil.NoSuchProcess:
            continue
    return found


def _name(process: psutil.Process) -> str:
    module = next((part for part in process.cmdline() if part.startswith("easel_")), "")
    return module.removeprefix("easel_").replace("standalone", "supervisor") or process.name()


def _report(cold_s: float, warm_s: list[float], down_s: list[float], rows: dict[str, tuple[float, float]]) -> int:
    print(f"{'process':<12} {'CPU %':>7} {'PSS MiB':>9}")
    for name, (percent, pss) in sorted(rows.items(), key=lambda row: -row[1][1]):
        print(f"{name:<12} {percent:>7.2f} {pss:>9.1f}")
    cpu = sum(percent for percent, _ in rows.values())
    pss = sum(mib for _, mib in rows.values())
    warm = statistics.median(warm_s)
    print(f"\nfirst start {cold_s:.1f} s, stop {statistics.median(down_s):.1f} s")
    load = psutil.getloadavg()[0]
    print(f"machine: {psutil.cpu_count()} cores, load average {load:.1f} (what others do counts against the start)")
    met = [
        verdict("easel up to ready, warm (median)", warm, UP_GATE_S, "s"),
        verdict("idle platform, CPU", cpu, CPU_GATE_PERCENT, "% of a core"),
        verdict("idle platform, memory (PSS)", pss, PSS_GATE_MIB, "MiB"),
    ]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
