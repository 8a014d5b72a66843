"""As many threads for numerical libraries as the container may use cores.

OpenMP, OpenBLAS, MKL and PyTorch start a thread for every core of the machine; a control group's limit does not show
there, and what a limit lets through is then spent on switching between them. Imported by easel_threads.pth at every
start of Python, before any of these libraries. A value that somebody set stays.
"""

import os

GROUPS = "/sys/fs/cgroup"


def cores(groups: str = GROUPS) -> int:
    """Cores that this container may use, rounded up; the machine's where it has no limit."""
    own = len(os.sched_getaffinity(0))
    limit = _version_2(groups) or _version_1(groups)
    return own if limit is None else max(1, min(own, -int(-limit // 1)))


def _version_2(groups: str) -> "float | None":
    words = _read(f"{groups}/cpu.max").split()
    return int(words[0]) / int(words[1]) if len(words) == 2 and words[0].isdigit() else None


def _version_1(groups: str) -> "float | None":
    for name in ("cpu", "cpu,cpuacct"):
        quota, period = (_read(f"{groups}/{name}/cpu.cfs_{kind}_us").strip() for kind in ("quota", "period"))
        if quota.isdigit() and period.isdigit():  # -1: no limit
            return int(quota) / int(period)
    return None


def _read(file: str) -> str:
    try:
        with open(file) as opened:
            return opened.read()
    except OSError:
        return ""


os.environ.setdefault("OMP_NUM_THREADS", str(cores()))
