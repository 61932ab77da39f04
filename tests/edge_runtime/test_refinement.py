"""From candidates to metres, and evidence that tells the right place from wrong ones."""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from edge_runtime.geodesy import distance_m, move_lat_lon
from edge_runtime.ground_view import GroundView, ViewHypothesis
from edge_runtime.imagery import ImageryStore
from edge_runtime.match_evidence import correlation_log_evidence, usual_chance_z
from edge_runtime.matches import Candidate, Match, SearchRange
from edge_runtime.refinement import FINE_GSD_M, MERGE_M, REACH_M, VIEW_MARGIN, Refiner

U8 = npt.NDArray[np.uint8]
F64 = npt.NDArray[np.float64]
MakeMBTiles = Callable[..., Path]

LAT_DEG, LON_DEG = 47.5, 8.3
SIZE_M = 80.0
VIEW_PX = 2 * math.ceil(SIZE_M * VIEW_MARGIN / FINE_GSD_M / 2)
HEIGHT_M = 100.0
SEARCH = SearchRange((-12.0, -6.0, -3.0, 0.0, 3.0, 6.0, 12.0), (0.94, 1.0, 1.06))


def paint(x: F64, y: F64) -> U8:
    """Noise of several sizes with roads and roofs on it; the western fifth is bare."""
    rng = np.random.default_rng(3)
    picture = np.full((*x.shape, 3), 120.0)
    for sigma, strength in ((2.0, 18), (8.0, 22), (25.0, 22)):
        layer = cv2.GaussianBlur(rng.normal(size=x.shape), (0, 0), sigma)
        picture += (strength * layer / layer.std())[..., None]
    canvas = np.clip(picture, 0, 255).astype(np.uint8)
    high, wide = x.shape
    for _ in range(90):
        centre, size = rng.uniform(0, (wide, high)), rng.uniform(8, 30, 2)
        corners = cv2.boxPoints((centre.tolist(), size.tolist(), float(rng.uniform(0, 90))))
        cv2.fillPoly(canvas, [corners.astype(np.int32)], rng.integers(30, 230, 3).tolist())
    for _ in range(10):
        ends = rng.integers(0, (wide, high), (2, 2)).tolist()
        cv2.line(canvas, ends[0], ends[1], (190, 185, 180), 6, cv2.LINE_AA)
    canvas[:, : wide // 5] = 120
    return canvas


@pytest.fixture(scope="module")
def imagery(tmp_path_factory: pytest.TempPathFactory, make_mbtiles: MakeMBTiles) -> Path:
    path = tmp_path_factory.mktemp("refinement") / "imagery.mbtiles"
    return make_mbtiles(path, paint, lat_deg=LAT_DEG, lon_deg=LON_DEG, across=4)


@pytest.fixture(scope="module")
def store(imagery: Path) -> Iterator[ImageryStore]:
    opened = ImageryStore(imagery)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def refiner(store: ImageryStore) -> Refiner:
    return Refiner(store)


def at(east_m: float, north_m: float) -> tuple[float, float]:
    """A position by its offset from the middle of the map."""
    moved = move_lat_lon(LAT_DEG, LON_DEG, east_m, north_m)
    return float(moved.lat_deg), float(moved.lon_deg)


def candidate(east_m: float, north_m: float, *, view: int = 0, row: int = 7) -> Candidate:
    return Candidate(*at(east_m, north_m), view, 0.5, row)


@pytest.fixture
def view_of(store: ImageryStore) -> Callable[..., GroundView]:
    """A view of a place, as a camera would give it with a wrong heading and height.

    `yaw_error_deg` is added to the heading to get the true one, `scale` multiplies the height.
    """

    def make(
        east_m: float,
        north_m: float,
        *,
        yaw_error_deg: float = 0.0,
        scale: float = 1.0,
        centre_m: tuple[float, float] = (0.0, 0.0),
        look_m: tuple[float, float] = (0.0, 0.0),
    ) -> GroundView:
        size_px = 2 * VIEW_PX
        whole = store.patch(
            *at(east_m, north_m), size_m=size_px * FINE_GSD_M, size_px=size_px
        ).image
        # Pixel by pixel: which ground is seen where the view, made with the wrong pose, shows it.
        angle = math.radians(yaw_error_deg)
        steps = (np.arange(VIEW_PX) - (VIEW_PX - 1) / 2) * FINE_GSD_M
        east, south = np.meshgrid(steps, steps)
        north = -south
        true_east = scale * (east * math.cos(angle) + north * math.sin(angle))
        true_north = scale * (north * math.cos(angle) - east * math.sin(angle))
        middle = (size_px - 1) / 2
        columns = (middle + true_east / FINE_GSD_M).astype(np.float32)
        rows = (middle - true_north / FINE_GSD_M).astype(np.float32)
        image = np.asarray(cv2.remap(whole, columns, rows, cv2.INTER_LINEAR), np.uint8)
        return GroundView(
            image=image,
            mask=np.full((VIEW_PX, VIEW_PX), 255, np.uint8),
            size_m=VIEW_PX * FINE_GSD_M,
            centre_east_m=centre_m[0],
            centre_north_m=centre_m[1],
            look_east_m=look_m[0],
            look_north_m=look_m[1],
            hypothesis=ViewHypothesis(30.0, HEIGHT_M),
        )

    return make


def best(refiner: Refiner, view: GroundView, *candidates: Candidate, **options: Any) -> Match:
    matches = refined(refiner, view, *candidates, **options)
    assert matches
    return matches[0]


def refined(
    refiner: Refiner,
    view: GroundView,
    *candidates: Candidate,
    search: SearchRange = SEARCH,
    most_windows: int = 20,
) -> list[Match]:
    found = refiner.refine([view], candidates, search, size_m=SIZE_M, most_windows=most_windows)
    return refiner.sharpened([view], found, size_m=SIZE_M)


def error_m(match: Match, east_m: float, north_m: float) -> float:
    return float(distance_m(*at(east_m, north_m), match.lat_deg, match.lon_deg))


WRONG = (candidate(-60, 200), candidate(180, 160), candidate(180, -150), candidate(0, -200))


# --- locating --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("yaw_error_deg", "scale"), [(0.0, 1.0), (4.0, 1.0), (-7.0, 0.96), (5.0, 1.05)]
)
@pytest.mark.parametrize("off_m", [(25.0, 0.0), (-18.0, 17.0)])
def test_a_turned_and_scaled_view_is_located_within_a_metre(
    refiner: Refiner,
    view_of: Callable[..., GroundView],
    yaw_error_deg: float,
    scale: float,
    off_m: tuple[float, float],
) -> None:
    view = view_of(40, 30, yaw_error_deg=yaw_error_deg, scale=scale)
    match = best(refiner, view, candidate(40 + off_m[0], 30 + off_m[1]))
    assert error_m(match, 40, 30) < 1.0
    assert match.yaw_deg == pytest.approx(30 + yaw_error_deg, abs=1)
    assert match.height_m == pytest.approx(HEIGHT_M * scale, rel=0.01)


@pytest.mark.parametrize("yaw_error_deg", [0.0, 6.0])
@pytest.mark.parametrize("scale", [1.0, 1.05])
def test_the_drone_is_where_the_views_offset_says(
    refiner: Refiner, view_of: Callable[..., GroundView], yaw_error_deg: float, scale: float
) -> None:
    """The offsets were computed with the wrong pose, so they turn and grow with it too."""
    view = view_of(
        40, 30, yaw_error_deg=yaw_error_deg, scale=scale, centre_m=(50.0, -20.0), look_m=(80.0, 9.0)
    )
    angle = math.radians(yaw_error_deg)
    rotation = scale * np.array(
        [[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]
    )
    drone = np.array([40, 30]) - rotation @ (50.0, -20.0)
    look = drone + rotation @ (80.0, 9.0)
    match = best(refiner, view, candidate(40 + 20, 30 - 10))
    assert error_m(match, *drone) < 1.5
    assert float(distance_m(*at(*look), match.look_lat_deg, match.look_lon_deg)) < 1.5


def test_an_inverted_contrast_is_located_all_the_same(
    refiner: Refiner, view_of: Callable[..., GroundView]
) -> None:
    view = view_of(40, 30)
    inverted = replace(view, image=np.asarray(255 - view.image, np.uint8))
    match = best(refiner, inverted, candidate(60, 30), *WRONG)
    assert error_m(match, 40, 30) < 1.0
    assert match.log_evidence > 5


def test_half_a_view_is_enough(refiner: Refiner, view_of: Callable[..., GroundView]) -> None:
    view = view_of(40, 30)
    mask = view.mask.copy()
    mask[:, : VIEW_PX // 2] = 0
    image = view.image.copy()
    image[mask == 0] = 128
    match = best(refiner, replace(view, image=image, mask=mask), candidate(60, 30), *WRONG)
    assert error_m(match, 40, 30) < 1.5


def test_a_place_beyond_the_reach_is_not_found(
    refiner: Refiner, view_of: Callable[..., GroundView]
) -> None:
    matches = refined(refiner, view_of(40, 30), candidate(40 + REACH_M + 30, 30), *WRONG)
    assert all(error_m(match, 40, 30) > 10 for match in matches)
    assert all(match.log_evidence < 2 for match in matches)


# --- evidence --------------------------------------------------------------------------------


def test_evidence_is_high_at_the_right_place_and_low_at_wrong_ones(
    refiner: Refiner, view_of: Callable[..., GroundView]
) -> None:
    view = view_of(40, 30, yaw_error_deg=2.0, scale=1.02)
    first, *others = refined(refiner, view, *WRONG, candidate(50, 20))
    assert error_m(first, 40, 30) < 1
    assert first.log_evidence > 10
    assert len(others) == len(WRONG)
    assert max(match.log_evidence for match in others) < 0


@pytest.mark.parametrize("reach_m", [15.0, REACH_M])
def test_controls_that_are_in_memory_change_nothing(
    store: ImageryStore, view_of: Callable[..., GroundView], reach_m: float
) -> None:
    def found(refiner: Refiner, reach_m: float) -> list[Match]:
        view = view_of(40, 30)
        here = [candidate(45, 25)]
        options: Any = {"size_m": SIZE_M, "most_windows": 1, "controls": WRONG, "reach_m": reach_m}
        return refiner.refine([view], here, SEARCH, **options)

    used = Refiner(store)
    for other_m in (REACH_M, 21.0):
        found(used, other_m)
    # NaN is not equal to itself, so they are compared as they are written.
    assert str(found(used, reach_m)) == str(found(Refiner(store), reach_m))


def test_controls_show_what_chance_reaches_here(
    refiner: Refiner, view_of: Callable[..., GroundView]
) -> None:
    view, right = view_of(40, 30), candidate(45, 25)
    options: Any = {"size_m": SIZE_M, "most_windows": 1}
    alone = refiner.refine([view], [right], SEARCH, **options)[0]
    beside = refiner.refine([view], [right], SEARCH, controls=WRONG, **options)[0]
    twins = refiner.refine([view], [right], SEARCH, controls=[right] * 3, **options)[0]
    assert alone.z == pytest.approx(twins.z, rel=0.1)
    assert beside.log_evidence > 8
    assert error_m(beside, 40, 30) < 1.5


def test_evidence_means_what_it_says_over_many_places(
    refiner: Refiner, view_of: Callable[..., GroundView]
) -> None:
    """A likelihood ratio averages to one where the hypothesis is wrong, or to less if careful."""
    rng = np.random.default_rng(0)
    right: list[float] = []
    wrong: list[float] = []
    for _ in range(10):
        east, north = (float(v) for v in rng.uniform((-100, -250), 250))
        others = [candidate(*rng.uniform((-100, -300), 300).tolist()) for _ in range(6)]
        for match in refined(refiner, view_of(east, north), candidate(east + 10, north), *others):
            (right if error_m(match, east, north) < 3 else wrong).append(match.log_evidence)
    assert len(right) == 10
    assert min(right) > 10
    assert len(wrong) > 40
    assert float(np.mean(np.exp(wrong))) < 2


def test_matches_come_strongest_first_and_name_different_places(
    refiner: Refiner, view_of: Callable[..., GroundView]
) -> None:
    around = [candidate(e, n) for e in (-40.0, 0.0, 40.0, 80.0) for n in (0.0, 40.0, 80.0)]
    matches = refined(refiner, view_of(40, 30), *around)
    evidence = [match.log_evidence for match in matches]
    assert evidence == sorted(evidence, reverse=True)
    for a, b in itertools.combinations(matches, 2):
        assert distance_m(a.lat_deg, a.lon_deg, b.lat_deg, b.lon_deg) > 8


def test_features_add_evidence_and_say_how_well_they_agree(
    refiner: Refiner, view_of: Callable[..., GroundView]
) -> None:
    match = best(refiner, view_of(40, 30), candidate(50, 30), *WRONG)
    assert match.inliers >= 8
    assert 0 <= match.reprojection_px < 1
    assert (match.row, match.view, match.similarity) == (7, 0, 0.5)


def test_a_view_of_nothing_gives_no_match(
    refiner: Refiner, view_of: Callable[..., GroundView]
) -> None:
    view = view_of(40, 30)
    bare = replace(view, image=np.full_like(view.image, 128))
    assert refined(refiner, bare, candidate(40, 30), *WRONG) == []


def test_a_view_over_bare_imagery_is_not_believed(
    refiner: Refiner, view_of: Callable[..., GroundView]
) -> None:
    matches = refined(refiner, view_of(40, 30), candidate(-345, 0), candidate(-345, 100))
    assert all(match.log_evidence < 2 for match in matches)


def test_candidates_off_the_map_are_not_believed(
    refiner: Refiner, view_of: Callable[..., GroundView]
) -> None:
    matches = refined(refiner, view_of(40, 30), candidate(5000, 0), candidate(0, 90_000))
    assert all(match.log_evidence < 2 for match in matches)
    assert all(math.isfinite(match.log_evidence) for match in matches)


@pytest.mark.parametrize("excess_z", [-1e300, -50.0, 50.0, 1e300, math.inf, -math.inf])
def test_the_evidence_of_a_correlation_is_bounded(excess_z: float) -> None:
    assert -12 <= correlation_log_evidence(excess_z) <= 12


def test_the_evidence_of_a_correlation_grows_with_it() -> None:
    evidence = [correlation_log_evidence(float(z)) for z in np.linspace(-10, 20, 301)]
    assert (np.diff(evidence) >= 0).all()
    assert evidence[0] < 0 < evidence[-1]


def test_a_usual_chance_peak_speaks_against_and_a_usual_right_one_for() -> None:
    assert correlation_log_evidence(0.0) < -1
    assert correlation_log_evidence(6.0) > 5


# --- windows ---------------------------------------------------------------------------------


def test_near_candidates_share_a_window(
    refiner: Refiner, view_of: Callable[..., GroundView], monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at = windows_of(refiner, monkeypatch)
    near = [candidate(40, 30, row=1), candidate(40 + MERGE_M - 1, 30, row=2)]
    match = best(refiner, view_of(40, 30), *near)
    assert len(looked_at) == 1
    assert match.row == 1


def test_candidates_of_different_views_do_not_share_a_window(
    refiner: Refiner, view_of: Callable[..., GroundView], monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at = windows_of(refiner, monkeypatch)
    views = [view_of(40, 30), view_of(-60, 200)]
    coarse = refiner.refine(
        views,
        [candidate(50, 30, view=0), candidate(50, 30, view=1), candidate(-50, 190, view=1)],
        SEARCH,
        size_m=SIZE_M,
        most_windows=20,
    )
    assert len(looked_at) == 3
    found = refiner.sharpened(views, coarse, size_m=SIZE_M)
    assert {match.view for match in found[:2]} == {0, 1}
    assert error_m(next(m for m in found if m.view == 0), 40, 30) < 1
    assert error_m(next(m for m in found if m.view == 1), -60, 200) < 1


@pytest.mark.parametrize("most", [1, 3])
def test_no_more_windows_are_looked_at_than_allowed(
    refiner: Refiner,
    view_of: Callable[..., GroundView],
    monkeypatch: pytest.MonkeyPatch,
    most: int,
) -> None:
    looked_at = windows_of(refiner, monkeypatch)
    refined(refiner, view_of(40, 30), *WRONG, candidate(40, 30), most_windows=most)
    assert len(looked_at) == most


def windows_of(refiner: Refiner, monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, float, int]]:
    """Grows with each coarse window that is cut."""
    cut, original = [], refiner._window

    def recorded(lat_deg: float, lon_deg: float, size_px: int, gsd_m: float) -> Any:
        if gsd_m > FINE_GSD_M:
            cut.append((lat_deg, lon_deg, size_px))
        return original(lat_deg, lon_deg, size_px, gsd_m)

    monkeypatch.setattr(refiner, "_window", recorded)
    return cut


def test_no_candidates_give_no_matches(
    refiner: Refiner, view_of: Callable[..., GroundView]
) -> None:
    assert refined(refiner, view_of(40, 30)) == []


def test_a_smaller_search_has_lower_chance_peaks() -> None:
    # The largest of n normal samples lies near sqrt(2 ln n).
    tried = [10, 1_000, 57 * 57 * 21, 1_000_000]
    usual = [usual_chance_z(n) for n in tried]
    assert usual == sorted(usual)
    assert usual[2] == pytest.approx(3.9)
    assert usual[1] == pytest.approx(3.9 - 4.41 + 3.32, abs=0.02)
