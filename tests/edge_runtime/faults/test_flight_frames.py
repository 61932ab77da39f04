"""Frames that show nothing, are damaged, change or are gone: logged, never wrong, not the end."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge_runtime.fix import Fix
from edge_runtime.flight_log import RunSettings, read_log
from edge_runtime.run import run

SPOILT = range(5, 9)
Spoil = Callable[[Path], object]


def plain(grey: int) -> Spoil:
    return lambda path: cv2.imwrite(str(path), np.full((180, 240, 3), grey, np.uint8))


def resized(height_px: int, width_px: int) -> Spoil:
    def spoil(path: Path) -> None:
        image = cv2.imread(str(path))
        assert image is not None
        smaller = cv2.resize(image, (width_px, height_px), interpolation=cv2.INTER_AREA)
        assert cv2.imwrite(str(path), smaller)

    return spoil


def garbage(path: Path) -> None:
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40 + b"IEND")


FAULTS: dict[str, tuple[Spoil, str, str]] = {
    "black": (plain(0), "the picture is black", "the picture is no longer black"),
    "white": (plain(255), "the picture is white", "the picture is no longer white"),
    "of one colour": (plain(120), "of one colour", "is no longer of one colour"),
    "corrupt": (garbage, "cannot be read as an image", ""),
    "of another aspect": (
        resized(180, 120),
        "another aspect ratio means a crop",
        "changed their size from 240x180 to 120x180",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_spoilt_frames_are_records_and_the_next_good_ones_are_ok_again(
    photographs: RunSettings,
    tmp_path: Path,
    flown: Any,
    events: Callable[[Sequence[Fix]], str],
    fault: str,
) -> None:
    spoil, reason, event = FAULTS[fault]
    for k in SPOILT:
        spoil(Path(photographs.source) / f"{k:03d}.png")
    run(photographs, tmp_path / "fixes.jsonl")
    fixes = list(read_log(tmp_path / "fixes.jsonl"))
    assert [fix.seq for fix in fixes] == list(range(len(flown.images)))
    flown.assert_never_wrong(fixes)
    assert {fix.status for fix in fixes[:5]} == {"OK"}
    for k in SPOILT:
        assert fixes[k].status != "OK"
        assert reason in fixes[k].reason
    assert fixes[-1].status == "OK"
    assert event in events(fixes)


def test_frames_of_half_the_size_are_frames_like_any_other(
    photographs: RunSettings,
    tmp_path: Path,
    flown: Any,
    events: Callable[[Sequence[Fix]], str],
) -> None:
    for k in SPOILT:
        resized(90, 120)(Path(photographs.source) / f"{k:03d}.png")
    run(photographs, tmp_path / "fixes.jsonl")
    fixes = list(read_log(tmp_path / "fixes.jsonl"))
    flown.assert_never_wrong(fixes)
    assert sum(fix.status == "OK" for fix in fixes) >= len(fixes) - 1
    assert "changed their size from 240x180 to 120x90" in events(fixes)
    assert "changed their size from 120x90 to 240x180" in events(fixes)


def test_a_frame_that_vanishes_in_flight_is_a_record(
    photographs: RunSettings, tmp_path: Path, flown: Any
) -> None:
    gone = Path(photographs.source) / "010.png"

    def watch(fix: Fix, done: int, total: int | None) -> None:
        if done == 4:
            gone.unlink()

    run(photographs, tmp_path / "fixes.jsonl", watch=watch)
    fixes = list(read_log(tmp_path / "fixes.jsonl"))
    assert [fix.frame for fix in fixes] == [f"{k:03d}.png" for k in range(len(flown.images))]
    flown.assert_never_wrong(fixes)
    assert fixes[10].status == "DEGRADED"
    assert "cannot be read" in fixes[10].reason
    assert [fix.status for fix in fixes[11:]] == ["OK"] * 3
