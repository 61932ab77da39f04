import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_runtime.satellite_index import SatelliteIndex

KILLS = int(os.environ.get("SKYFIX_KILLS", "6"))
"""How often a build is killed; more than 6 take minutes (docs/index.md)."""

CHILD = Path(__file__).with_name("index_kill_child.py")


def start(*arguments: object) -> "subprocess.Popen[str]":
    """A build in a process of its own, which has loaded everything and begins now."""
    root = CHILD.parents[2]
    process = subprocess.Popen(
        [sys.executable, str(CHILD), *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "go\n"
    return process


def ended(process: "subprocess.Popen[str]") -> int:
    assert process.stdout is not None
    process.stdout.close()
    return process.wait()


def files_of(folder: Path) -> dict[str, str]:
    """Digest of every file but the manifest, which says when it was made."""
    return {
        p.name: hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.iterdir())
        if p.name != "manifest.json" and not p.name.startswith(".")
    }


def id_of(folder: Path) -> str:
    index = SatelliteIndex.open(folder)
    index.close()
    return index.id


@pytest.mark.slow
def test_a_build_killed_at_random_moments_leaves_the_old_index_or_ends_at_the_same_bytes(
    exported: Callable[[str], Any],
    make_raster: Callable[..., Any],
    coloured_noise: Callable[..., Any],
    tmp_path: Path,
) -> None:
    bundle = exported("test_resnet").bundle
    source = make_raster(tmp_path / "map.tif", coloured_noise(), crs="EPSG:3857", side=390).path
    older, whole, out = (tmp_path / name for name in ("older", "whole", "index"))
    assert ended(start(source, bundle, older, 60)) == 0
    process = start(source, bundle, whole, 90)
    started_s = time.perf_counter()
    assert ended(process) == 0
    work_s = time.perf_counter() - started_s
    older_id, whole_id = id_of(older), id_of(whole)
    assert older_id != whole_id
    shutil.copytree(older, out)

    rng = np.random.default_rng(KILLS)
    killed = finished = 0
    while killed < KILLS:
        process = start(source, bundle, out, 90)
        # A resumed build is shorter: early moments of a clean one are late ones of what is left.
        time.sleep(float(rng.choice([rng.uniform(0, 1), rng.beta(1, 4)])) * work_s)
        process.kill()
        killed += ended(process) != 0
        found = id_of(out)
        assert found in (older_id, whole_id)
        if found == whole_id:  # It was killed while it cleaned up, or too late.
            finished += 1
            assert files_of(out) == files_of(whole)
            shutil.rmtree(out)
            shutil.copytree(older, out)
    assert ended(start(source, bundle, out, 90)) == 0
    assert id_of(out) == whole_id
    assert files_of(out) == files_of(whole)
    beside = sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(("index", ".index")))
    assert beside == ["index", "index.embeddings"]
    sys.stdout.write(f"killed {killed} times, {finished} builds had ended\n")
