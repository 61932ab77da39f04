"""Python, the computer, its memory and its disk."""

import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from edge_runtime.backends.protocol import usable_cores
from edge_runtime.doctor.finding import Finding
from edge_runtime.doctor.system_files import SystemFiles

_LOW_MEMORY_GIB = 0.5
"""A small encoder, an index of 10,000 tiles and their libraries take about this much."""
_LOW_DISK_GIB = 1.0


def python() -> Iterator[Finding]:
    """The interpreter."""
    old = sys.version_info < (3, 10)
    inside = "" if sys.prefix == sys.base_prefix else f", environment {sys.prefix}"
    yield Finding(
        what="Python",
        verdict="broken" if old else "works",
        detail=f"{platform.python_version()}{inside}",
        remedy="install Python 3.10 or newer" if old else "",
        needed=True,
    )


def computer(system: SystemFiles) -> Iterator[Finding]:
    """Processor, cores and the board."""
    cpu = re.search(
        r"^(?:model name|Model)\s*:\s*(.+)$", system.text("/proc/cpuinfo"), re.MULTILINE
    )
    name = f" {cpu[1].strip()}" if cpu else ""
    total, usable = os.cpu_count() or 1, usable_cores()
    cores = f"{total} cores" if usable == total else f"{usable} of {total} cores"
    yield Finding(
        what="computer",
        verdict="works",
        detail=f"{platform.machine()}{name}, {cores}, {platform.system()} {platform.release()}",
    )
    if system.board:
        release = system.text("/etc/nv_tegra_release").partition(", GCID")[0].lstrip("# ")
        yield Finding(
            what="board",
            verdict="works",
            detail=system.board + (f", Linux for Tegra {release}" if release else ""),
        )


def memory(system: SystemFiles) -> Iterator[Finding]:
    """What is there, what is free, and a container's limit."""
    told = dict(re.findall(r"^(\w+):\s+(\d+) kB$", system.text("/proc/meminfo"), re.MULTILINE))
    if "MemTotal" not in told:
        yield Finding(what="memory", verdict="note", detail="/proc/meminfo does not tell")
        return
    gib = {name: int(kb) / 2**20 for name, kb in told.items()}
    free = gib.get("MemAvailable", gib["MemTotal"])
    limit = system.number("/sys/fs/cgroup/memory.max")
    limited = ""
    if limit is not None and limit / 2**30 < gib["MemTotal"]:
        used = system.number("/sys/fs/cgroup/memory.current") or 0
        free = min(free, (limit - used) / 2**30)
        limited = f", limited to {limit / 2**30:.1f} GiB here"
    low = free < _LOW_MEMORY_GIB
    yield Finding(
        what="memory",
        verdict="note" if low else "works",
        detail=f"{gib['MemTotal']:.1f} GiB, {free:.1f} GiB free{limited}",
        remedy="stop other programs, or add swap: sudo fallocate -l 4G /swapfile" if low else "",
    )
    swap, unused = gib.get("SwapTotal", 0.0), gib.get("SwapFree", 0.0)
    busy = swap > 0 and unused < swap / 2
    yield Finding(
        what="swap",
        verdict="note" if busy else "works",
        detail=f"{swap:.1f} GiB, {unused:.1f} GiB free" if swap else "none",
        remedy="stop other programs: what is swapped out answers late" if busy else "",
    )


def disk(folder: Path) -> Iterator[Finding]:
    """Where logs would go: the folder the command was given in."""
    free_gib = shutil.disk_usage(folder).free / 2**30
    read_only = bool(os.statvfs(folder).f_flag & os.ST_RDONLY) or not os.access(folder, os.W_OK)
    if read_only:
        yield Finding(
            what="disk here",
            verdict="broken",
            detail=f"{folder} cannot be written to",
            remedy="run skyfix where logs can be written, or give --out",
        )
        return
    low = free_gib < _LOW_DISK_GIB
    yield Finding(
        what="disk here",
        verdict="broken" if low else "works",
        detail=f"{folder}: {free_gib:.1f} GiB free",
        remedy="free some space: logs and recordings need it" if low else "",
    )
