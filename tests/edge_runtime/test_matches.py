"""From a peak to the drone and back, and which corrections and places are kept."""

import math
from dataclasses import replace

import numpy as np
import pytest

from edge_runtime.correlation import Peak, Warp
from edge_runtime.geodesy import distance_m, enu_offset_m, move_lat_lon
from edge_runtime.ground_view import GroundView, ViewHypothesis
from edge_runtime.matches import (
    Candidate,
    Match,
    SearchRange,
    correction,
    distinct,
    placed,
    turned_offset,
    view_centre,
)

CANDIDATE = Candidate(47.5, 8.3, 3, 0.75, 41)
VIEW = GroundView(
    image=np.zeros((8, 8, 3), np.uint8),
    mask=np.full((8, 8), 255, np.uint8),
    size_m=100.0,
    centre_east_m=50.0,
    centre_north_m=-20.0,
    look_east_m=80.0,
    look_north_m=9.0,
    hypothesis=ViewHypothesis(30.0, 100.0),
)


def peak(*, yaw_deg: float = 0.0, scale: float = 1.0) -> Peak:
    return Peak(
        window=0,
        warp=Warp(yaw_deg=yaw_deg, scale=scale),
        row=8.0,
        column=-12.0,
        ncc=0.25,
        z=6.5,
    )


def match_at(east_m: float, log_evidence: float) -> Match:
    at = move_lat_lon(CANDIDATE.lat_deg, CANDIDATE.lon_deg, east_m, 0.0)
    match = placed(VIEW, CANDIDATE, peak(), gsd_m=0.75, sigma_m=1.5)
    return replace(
        match, lat_deg=float(at.lat_deg), lon_deg=float(at.lon_deg), log_evidence=log_evidence
    )


@pytest.mark.parametrize(("yaw_deg", "scale"), [(0.0, 1.0), (12.0, 0.94), (-170.0, 1.06)])
def test_the_views_centre_is_where_the_peak_was(yaw_deg: float, scale: float) -> None:
    match = placed(VIEW, CANDIDATE, peak(yaw_deg=yaw_deg, scale=scale), gsd_m=0.75, sigma_m=1.5)
    moved = enu_offset_m(CANDIDATE.lat_deg, CANDIDATE.lon_deg, *view_centre(VIEW, match))
    # Twelve pixels left and eight down, of 0.75 m.
    assert (float(moved.east_m), float(moved.north_m)) == pytest.approx((-9.0, -6.0), abs=1e-3)


@pytest.mark.parametrize(("yaw_deg", "scale"), [(0.0, 1.0), (12.0, 0.94), (-170.0, 1.06)])
def test_a_match_gives_back_the_correction_it_was_placed_with(yaw_deg: float, scale: float) -> None:
    match = placed(VIEW, CANDIDATE, peak(yaw_deg=yaw_deg, scale=scale), gsd_m=0.75, sigma_m=1.5)
    assert (match.yaw_deg, match.height_m) == pytest.approx((30.0 + yaw_deg, 100.0 * scale))
    found = correction(VIEW, match)
    assert (found.yaw_deg, found.scale) == pytest.approx((yaw_deg, scale))


def test_the_drone_and_what_it_looks_at_lie_where_the_view_says() -> None:
    """A quarter turn clockwise: what the view has in the east is in the south."""
    match = placed(VIEW, CANDIDATE, peak(yaw_deg=90.0, scale=2.0), gsd_m=0.75, sigma_m=1.5)
    drone = enu_offset_m(CANDIDATE.lat_deg, CANDIDATE.lon_deg, match.lat_deg, match.lon_deg)
    assert (float(drone.east_m), float(drone.north_m)) == pytest.approx(
        (-9.0 + 40.0, -6.0 + 100.0), abs=0.01
    )
    look = enu_offset_m(match.lat_deg, match.lon_deg, match.look_lat_deg, match.look_lon_deg)
    assert (float(look.east_m), float(look.north_m)) == pytest.approx((18.0, -160.0), abs=0.01)


def test_a_placed_match_names_its_candidate_and_claims_nothing_yet() -> None:
    match = placed(VIEW, CANDIDATE, peak(), gsd_m=0.75, sigma_m=1.5)
    assert (match.view, match.similarity, match.row) == (3, 0.75, 41)
    assert (match.ncc, match.z, match.sigma_m) == (0.25, 6.5, 1.5)
    assert (match.inliers, match.log_evidence) == (0, 0.0)
    assert math.isnan(match.reprojection_px)


def test_of_matches_at_one_place_the_strongest_is_kept() -> None:
    first, near, far, near_far = (
        match_at(east_m, evidence)
        for east_m, evidence in ((0.0, 9.0), (7.0, 8.0), (15.5, 7.0), (20.0, 6.0))
    )
    assert distance_m(first.lat_deg, first.lon_deg, near.lat_deg, near.lon_deg) > 6.9
    kept = distinct([first, near, far, near_far])
    assert [match.log_evidence for match in kept] == [9.0, 7.0]


@pytest.mark.parametrize(
    ("offset", "warp", "turned"),
    [
        ((10, 0), (0, 1), (10, 0)),
        ((0, 10), (90, 1), (10, 0)),
        ((10, 0), (90, 1), (0, -10)),
        ((3, 4), (180, 1), (-3, -4)),
        ((10, 0), (0, 1.1), (11, 0)),
        ((0, 10), (45, 2), (20 / math.sqrt(2), 20 / math.sqrt(2))),
    ],
)
def test_a_growing_heading_turns_an_offset_clockwise(
    offset: tuple[float, float], warp: tuple[float, float], turned: tuple[float, float]
) -> None:
    found = turned_offset(*offset, Warp(yaw_deg=warp[0], scale=warp[1]))
    assert found == pytest.approx(turned, abs=1e-9)


def test_the_smallest_correction_is_tried_first() -> None:
    warps = SearchRange((-5.0, 0.0, 5.0), (0.9, 1.0, 1.1)).warps()
    assert warps[0] == Warp(yaw_deg=0.0, scale=1.0)
    assert len({(w.yaw_deg, w.scale) for w in warps}) == 9


def test_only_one_correction_is_wrong_at_a_time_where_few_are_tried() -> None:
    search = SearchRange((-2.0, 0.0, 2.0), (0.98, 1.0, 1.02), combined=False)
    tried = {(w.yaw_deg, w.scale) for w in search.warps()}
    assert tried == {(0, 1), (-2, 1), (2, 1), (0, 0.98), (0, 1.02)}
    assert (search.warps()[0].yaw_deg, search.warps()[0].scale) == (0, 1)
