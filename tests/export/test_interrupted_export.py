"""Whatever ends an export, the older bundle stays whole and the next export cleans up."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_runtime.bundle import Bundle
from export.cli import main

ROOT = Path(__file__).parents[2]


def digests(folder: Path) -> dict[str, str]:
    return {
        p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()
    }


def started(checkpoint: Path, out: Path) -> "subprocess.Popen[bytes]":
    command = ["bundle", "--checkpoint", str(checkpoint), "--out", str(out)]
    return subprocess.Popen(
        [sys.executable, "-m", "export", *command],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


@pytest.mark.slow
def test_an_export_that_is_killed_leaves_the_older_bundle_and_the_next_one_cleans_up(
    exported: Callable[[str], Any], tmp_path: Path
) -> None:
    made = exported("test_resnet")
    out = tmp_path / "bundle"
    shutil.copytree(made.bundle, out)
    before = digests(out)
    # The moment in which files are being written is found by watching, the others are drawn.
    rng = np.random.default_rng(6)
    for wait_s in (None, *rng.uniform(0.0, 3.0, 2)):
        process = started(made.checkpoint, out)
        if wait_s is None:
            while process.poll() is None and not list(tmp_path.glob(".bundle.*.tmp/*")):
                time.sleep(0.005)
        else:
            while process.poll() is None and not list(tmp_path.glob(".bundle.*.tmp")):
                time.sleep(0.005)
            time.sleep(wait_s)
        process.send_signal(signal.SIGKILL)
        process.wait()
        if process.returncode == 0:  # It was done before it could be killed.
            shutil.rmtree(out)
            shutil.copytree(made.bundle, out)
        assert digests(out) == before
        Bundle.open(out)
    assert started(made.checkpoint, out).wait() == 0
    Bundle.open(out)
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.usefixtures("quick_export")
def test_a_full_disk_is_one_line_and_leaves_the_older_bundle(
    exported: Callable[[str], Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = exported("test_resnet")
    out = tmp_path / "bundle"
    shutil.copytree(made.bundle, out)
    before = digests(out)

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("edge_runtime.artefact.os.fsync", full)
    assert main(["bundle", "--checkpoint", str(made.checkpoint), "--out", str(out)]) == 2
    said = capsys.readouterr().err.splitlines()
    assert said == ["export: No space left on device; free some space, or write somewhere else"]
    assert digests(out) == before
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]
