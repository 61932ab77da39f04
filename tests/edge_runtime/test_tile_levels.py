"""Levels and turned copies: what a view is compared with."""

import math
from dataclasses import replace

import numpy as np
import pytest

from edge_runtime.camera import Camera
from edge_runtime.ground_view import ViewHypothesis, ground_view
from edge_runtime.index_format import TileLevel
from edge_runtime.state import VehicleState
from edge_runtime.tile_levels import level_for, untried_hypotheses, visible_square_m

CAMERA = Camera.from_hfov(400, 300, 60.0)


def levels(*sizes_m: float) -> list[TileLevel]:
    return [TileLevel(size_m=size, stride_m=size / 4) for size in sizes_m]


@pytest.mark.parametrize("height_m", [50.0, 120.0, 400.0])
def test_the_visible_square_fills_the_short_side_of_a_nadir_view(height_m: float) -> None:
    side_m = visible_square_m(CAMERA, height_m)
    # 60 degrees across 400 px: the long side is 2 h tan 30 degrees.
    assert side_m == pytest.approx(2 * height_m * math.tan(math.radians(30)) * 300 / 400)
    state = VehicleState(t_s=0.0, height_m=height_m, yaw_deg=0.0)
    frame = np.full((300, 400, 3), 90, np.uint8)
    view = [
        ground_view(frame, CAMERA, state, ViewHypothesis(0.0, height_m), size_m=m, size_px=200)
        for m in (side_m * 0.99, side_m * 1.05)
    ]
    assert view[0] is not None
    assert view[1] is not None
    assert view[0].coverage == 1.0
    assert view[1].coverage < 1.0


def test_a_camera_that_looks_ahead_sees_farther_and_not_without_end() -> None:
    down, ahead = CAMERA, replace(CAMERA, mount_pitch_deg=-45.0)
    assert visible_square_m(ahead, 100.0) == pytest.approx(
        math.sqrt(2) * visible_square_m(down, 100.0)
    )
    assert visible_square_m(ahead, 100.0, gimbal_pitch_deg=-90.0) == visible_square_m(down, 100.0)
    level = visible_square_m(CAMERA, 100.0, gimbal_pitch_deg=0.0)
    assert level == pytest.approx(2 * visible_square_m(down, 100.0))  # As at 60 degrees.


@pytest.mark.parametrize(
    ("square_m", "expected_m"), [(10, 50), (50, 50), (77, 50), (78, 80), (126, 80), (900, 130)]
)
def test_the_largest_tiles_that_are_seen_whole_are_taken(
    square_m: float, expected_m: float
) -> None:
    assert level_for(levels(50, 80, 130), square_m).size_m == expected_m


def test_headings_that_turned_tiles_try_already_are_left_out() -> None:
    every = [ViewHypothesis(30.0 * k, h) for k in range(12) for h in (80.0, 100.0)]
    assert untried_hypotheses(every, (0.0,)) == every

    def yaws(count: int) -> list[float]:
        kept = untried_hypotheses(every, [360.0 / count * k for k in range(count)])
        assert {h.height_m for h in kept} == {80.0, 100.0}
        return [h.yaw_deg for h in kept if h.height_m == 80.0]

    assert yaws(12) == [0.0]
    assert yaws(4) == [0.0, 30.0, 60.0]
    assert yaws(6) == [0.0, 30.0]
