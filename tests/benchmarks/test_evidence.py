"""One frame alone: right and chance matches are told apart by the truth, and counted."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import pytest

from benchmarks.evidence import QUANTILES, evidence
from edge_runtime.errors import InputError
from edge_runtime.geodesy import move_lat_lon
from edge_runtime.localizer import Localizer
from edge_runtime.refinement import Match

HERE = (47.0, 8.0)
MEDIAN = QUANTILES.index(50)


def match(east_m: float, z: float, log_evidence: float) -> Match:
    place = move_lat_lon(*HERE, east_m, 0.0)
    values: dict[str, Any] = dict.fromkeys(Match.__dataclass_fields__, 0.0)
    values |= {"row": 0, "view": 0, "inliers": 0, "z": z, "log_evidence": log_evidence}
    values |= {"lat_deg": float(place.lat_deg), "lon_deg": float(place.lon_deg)}
    values |= {"look_lat_deg": HERE[0], "look_lon_deg": HERE[1]}
    return Match(**values)


class PlantedLocalizer:
    """Answers every frame with the same matches."""

    def __init__(self, matches: Sequence[Match]) -> None:
        self.matches = list(matches)

    def match_anywhere(self, frame: object, state: object) -> list[Match]:
        return self.matches


@pytest.fixture
def flight(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    noise = np.random.default_rng(1).integers(0, 256, (32, 32, 3), np.uint8)
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(tmp_path / "photos" / name), noise)
    (tmp_path / "telemetry.csv").write_text("filename,height_m,yaw_deg\na.png,100,0\nb.png,100,0\n")
    (tmp_path / "truth.csv").write_text("filename,lat_deg,lon_deg\na.png,47,8\nb.png,47,8\n")
    return tmp_path


def measured(flight: Path, matches: Sequence[Match], tolerance_m: float = 20.0) -> Any:
    localizer = cast("Localizer", PlantedLocalizer(matches))
    inputs = (flight / "photos", flight / "telemetry.csv", flight / "truth.csv")
    return evidence(localizer, *inputs, tolerance_m=tolerance_m)


def test_a_right_match_is_found_and_its_excess_is_over_the_others(flight: Path) -> None:
    found = measured(flight, [match(3, 9.0, 5.0), match(400, 4.0, -2.0), match(900, 3.0, -3.0)])
    assert (found.frames, found.found.count, found.first.count) == (2, 2, 2)
    assert found.right_excess[MEDIAN] == pytest.approx(9.0 - 3.5)
    assert found.right_evidence[MEDIAN] == pytest.approx(5.0)
    assert found.chance_evidence[MEDIAN] == pytest.approx(-2.5)


def test_a_right_match_behind_a_wrong_one_is_found_but_not_first(flight: Path) -> None:
    found = measured(flight, [match(400, 6.0, 1.0), match(3, 5.0, 0.5)])
    assert (found.found.share, found.first.share) == (1.0, 0.0)


def test_the_tolerance_decides_what_is_right(flight: Path) -> None:
    assert measured(flight, [match(30, 6.0, 1.0)], 20.0).found.count == 0
    assert measured(flight, [match(30, 6.0, 1.0)], 40.0).found.count == 2


def test_no_match_at_all_is_not_found(flight: Path) -> None:
    found = measured(flight, [])
    assert found.found.share == 0.0
    assert all(np.isnan(found.right_excess))


def test_a_truth_of_other_frames_is_refused(flight: Path) -> None:
    (flight / "truth.csv").write_text("filename,lat_deg,lon_deg\nz.png,47,8\n")
    with pytest.raises(InputError, match="expected the same file names"):
        measured(flight, [])
