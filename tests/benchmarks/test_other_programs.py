"""Other programs' share of the processor: known counters, and this machine's."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import other_programs
from benchmarks.other_programs import LEAST_S, OtherPrograms

TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def stat(path: Path, used_s: float, *, idle_s: float = 0.0, guest_s: float = 0.0) -> Path:
    """Every core used `used_s` in each of the six ways, and was free for `idle_s` in two."""
    used, idle, guest = (round(s / TICK_S) for s in (used_s, idle_s, guest_s))
    line = f"{used} {used} {used} {idle} {idle} {used} {used} {used} {guest} {guest}"
    cores = sorted(os.sched_getaffinity(0))
    elsewhere = f"cpu{cores[-1] + 1} 9{line}\n"
    path.write_text(
        f"cpu  {line}\n" + "".join(f"cpu{k} {line}\n" for k in cores) + elsewhere + "intr 1 2 3\n"
    )
    return path


def test_what_others_used_is_what_was_used_less_what_is_ours(tmp_path: Path) -> None:
    now_s, own_s = 100.0, 5.0
    path = stat(tmp_path / "stat", 1.0)
    others = OtherPrograms(stat=path, clock_s=lambda: now_s, own_s=lambda: own_s)
    stat(path, 1.5, idle_s=7.0, guest_s=3.0)
    now_s, own_s = 110.0, 6.0
    cores = len(os.sched_getaffinity(0))
    assert others.cores() == pytest.approx((6 * 0.5 * cores - 1.0) / 10.0)


def test_less_than_nothing_is_nothing(tmp_path: Path) -> None:
    now_s, own_s = 0.0, 0.0
    path = stat(tmp_path / "stat", 1.0)
    others = OtherPrograms(stat=path, clock_s=lambda: now_s, own_s=lambda: own_s)
    now_s, own_s = 2.0, 0.01
    assert others.cores() == 0.0


def test_too_short_a_time_says_nothing(tmp_path: Path) -> None:
    now_s = 0.0
    others = OtherPrograms(stat=stat(tmp_path / "stat", 1.0), clock_s=lambda: now_s)
    now_s = 0.9 * LEAST_S
    assert others.cores() is None


@pytest.mark.parametrize("text", [None, "", "cpu  1 2 3\n", "cpu0 1 2\n", "cpu0 a b c d e f g h\n"])
def test_a_system_without_counters_says_nothing(tmp_path: Path, text: str | None) -> None:
    now_s = 0.0
    path = tmp_path / "stat"
    if text is not None:
        path.write_text(text)
    others = OtherPrograms(stat=path, clock_s=lambda: now_s)
    now_s = 10.0
    assert others.cores() is None


WORKER = (
    "import sys, time\n"
    "while time.process_time() < 0.5: pass\n"
    "print(time.process_time(), flush=True)\n"
    "sys.stdin.read()\n"
)
"""Works for half a second of processor time, tells how long, and stays."""


@pytest.mark.parametrize("ours", [True, False], ids=["descendant", "other program"])
def test_a_program_beside_us_is_seen_and_a_descendant_is_ours(*, ours: bool) -> None:
    """The worker tells its own time, and what else runs here can only add to others' share."""
    used: list[float] = []
    counted = other_programs._own_s
    before_s = counted()
    others = OtherPrograms(own_s=None if ours else lambda: counted() - sum(used))
    began_s = time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-c", WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as worker:
        assert worker.stdout is not None
        used.append(float(worker.stdout.readline()))
        cores = others.cores()
        own_s = counted() - before_s
        took_s = time.monotonic() - began_s
    assert own_s >= used[0] - 0.1
    if not ours:
        assert cores is not None
        assert cores * took_s >= used[0] / 2  # Some kernels count by samples.
