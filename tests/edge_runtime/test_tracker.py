"""Many hypotheses, one rule: belief follows evidence that agrees over time."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.geodesy import distance_m, enu_offset_m, move_lat_lon
from edge_runtime.tracker import Estimate, Measurement, Tracker, TrackerConfig

F64 = npt.NDArray[np.float64]

Place = tuple[float, float]
HERE: Place = (47.5, 8.3)
AREA_M2 = 4e6
CERTAIN = 0.995
OVERWHELMING, STRONG, WEAK = 12.0, 6.0, 1.5


def place(
    east_m: float, north_m: float, evidence: float, *, sigma_m: float = 3.0, at: Place = HERE
) -> Measurement:
    lat, lon = at
    moved = move_lat_lon(lat, lon, east_m, north_m)
    return Measurement(float(moved.lat_deg), float(moved.lon_deg), sigma_m, evidence)


def around(
    rng: np.random.Generator, east_m: float, north_m: float, sigma_m: float = 3.0
) -> tuple[float, float]:
    """A position with its error."""
    east, north = rng.normal((east_m, north_m), sigma_m)
    return float(east), float(north)


def anywhere(rng: np.random.Generator) -> tuple[float, float]:
    east, north = rng.uniform(-1000, 1000, 2)
    return float(east), float(north)


def seen(tracker: Tracker, t_s: float, *matches: Measurement) -> Estimate | None:
    tracker.predict(t_s)
    tracker.update(matches, searched_m2=AREA_M2)
    return tracker.estimate()


def offset_m(estimate: Estimate | None, at: Place = HERE) -> tuple[float, float]:
    """East and north of the estimate from the reference place."""
    assert estimate is not None
    offset = enu_offset_m(*at, estimate.best.lat_deg, estimate.best.lon_deg)
    return float(offset.east_m), float(offset.north_m)


def probability(estimate: Estimate | None) -> float:
    return 0.0 if estimate is None else estimate.probability


def belief(tracker: Tracker) -> float:
    """All of it: every hypothesis and the null one."""
    weights = [math.exp(h.log_weight) for h in tracker.hypotheses()]
    return sum(weights) + math.exp(tracker._log_null) + math.exp(tracker._log_off)


@pytest.fixture
def tracked() -> Tracker:
    """A good track that flies east at 10 m/s; its last frame was at 9 s."""
    tracker = Tracker(AREA_M2)
    for t in range(10):
        seen(tracker, t, place(10.0 * t, 0, STRONG))
    return tracker


# --- laws ------------------------------------------------------------------------------------


@given(seed=st.integers(0, 1000))
def test_all_probabilities_sum_to_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tracker = Tracker(AREA_M2)
    for t in range(8):
        matches = [
            place(*anywhere(rng), float(rng.uniform(-12, 12))) for _ in range(rng.integers(0, 6))
        ]
        seen(tracker, t, *matches)
        assert belief(tracker) == pytest.approx(1)


def test_the_best_hypothesis_comes_first() -> None:
    tracker = Tracker(AREA_M2)
    seen(tracker, 0, place(0, 0, WEAK), place(500, 500, STRONG), place(-500, 0, 0.0))
    weights = [h.log_weight for h in tracker.hypotheses()]
    assert len(weights) == 3
    assert weights == sorted(weights, reverse=True)
    assert offset_m(tracker.estimate()) == pytest.approx((500, 500), abs=0.01)


def test_hypotheses_stay_few_and_sound_over_500_random_frames() -> None:
    rng = np.random.default_rng(0)
    tracker = Tracker(AREA_M2, TrackerConfig(most_hypotheses=12))
    for frame in range(500):
        matches = [place(*anywhere(rng), float(rng.normal(0, 4))) for _ in range(4)]
        seen(tracker, frame * 0.5, *matches)
        assert len(tracker.hypotheses()) <= 12
    for h in tracker.hypotheses():
        assert np.isfinite(h.covariance).all()
        assert np.linalg.eigvalsh(h.covariance).min() > 0
        assert math.isfinite(h.lat_deg + h.lon_deg + h.log_weight)
    assert belief(tracker) == pytest.approx(1)


@pytest.mark.parametrize("at", [(0.0, 0.0), (67.0, 25.0), (-45.0, 179.9999), (10.0, -179.9999)])
def test_a_flight_goes_the_same_anywhere_on_earth(at: Place) -> None:
    rng = np.random.default_rng(4)
    plan = [[(*around(rng, 12 * t, -5 * t), 3.0), (*anywhere(rng), 4.0)] for t in range(12)]
    ends = []
    for origin in (HERE, at):
        tracker = Tracker(AREA_M2)
        for t, frame in enumerate(plan):
            seen(tracker, t, *(place(e, n, evidence, at=origin) for e, n, evidence in frame))
        estimate = tracker.estimate()
        assert estimate is not None
        assert -180 <= estimate.best.lon_deg < 180
        ends.append((*offset_m(estimate, origin), estimate.probability, estimate.best.sigma_m))
    assert ends[1] == pytest.approx(ends[0], abs=0.02)


def test_more_evidence_is_never_believed_less() -> None:
    believed = [
        probability(seen(Tracker(AREA_M2), 0, place(0, 0, evidence)))
        for evidence in np.linspace(-12, 12, 25)
    ]
    assert (np.diff(believed) > 0).all()


# --- from nothing ----------------------------------------------------------------------------


def test_a_tracker_that_saw_nothing_knows_nothing() -> None:
    tracker = Tracker(AREA_M2)
    assert tracker.estimate() is None
    assert seen(tracker, 0) is None
    assert seen(tracker, 1) is None
    assert tracker.hypotheses() == []


def test_one_overwhelming_match_is_believed() -> None:
    estimate = seen(Tracker(AREA_M2), 0, place(100, -50, OVERWHELMING))
    assert probability(estimate) > CERTAIN
    assert offset_m(estimate) == pytest.approx((100, -50), abs=1e-3)
    assert estimate is not None
    assert estimate.best.sigma_m == pytest.approx(3)


@pytest.mark.parametrize("share", [1.0, 0.1])
@pytest.mark.parametrize("evidence", [-5.0, 0.0, WEAK, 3.0])
def test_the_first_match_is_believed_as_bayes_says(evidence: float, share: float) -> None:
    """Right place searched, found and agreeing (0.7 e^x) against not among the matches (0.3).

    With a chance of 2 % that the flight begins off the map; no new ground has told of that yet.
    """
    tracker = Tracker(AREA_M2)
    tracker.update([place(0, 0, evidence)], searched_m2=share * AREA_M2)
    likelihood = 0.98 * 0.7 * math.exp(evidence) * share
    expected = likelihood / (likelihood + 0.3)
    assert probability(tracker.estimate()) == pytest.approx(expected, rel=1e-9)


def test_one_weak_match_is_not_believed() -> None:
    assert probability(seen(Tracker(AREA_M2), 0, place(0, 0, WEAK))) < CERTAIN


def test_weak_matches_that_agree_become_believed() -> None:
    tracker = Tracker(AREA_M2)
    rng = np.random.default_rng(1)
    for t in range(4):
        estimate = seen(tracker, t, place(*around(rng, 10 * t, 0), WEAK))
    assert probability(estimate) > CERTAIN
    assert math.dist(offset_m(estimate), (30, 0)) < 8


def test_weak_matches_that_disagree_do_not_become_believed() -> None:
    tracker = Tracker(AREA_M2)
    for t in range(8):
        angle = 2 * math.pi * t / 8
        there = place(800 * math.cos(angle), 800 * math.sin(angle), WEAK)
        assert probability(seen(tracker, t, there)) < CERTAIN


def test_the_true_place_wins_over_chance_matches_of_every_frame() -> None:
    rng = np.random.default_rng(2)
    tracker = Tracker(AREA_M2)
    for t in range(10):
        chance = [place(*anywhere(rng), e) for e in (2.0, 1.0, 0.0)]
        true = place(*around(rng, 0, 15 * t), 0.5)
        estimate = seen(tracker, t, *chance, true)
    assert probability(estimate) > CERTAIN
    assert math.dist(offset_m(estimate), (0, 135)) < 10


# --- a prior ---------------------------------------------------------------------------------


def test_a_prior_is_believed_but_not_wholly() -> None:
    tracker = Tracker(AREA_M2)
    tracker.start_at(*HERE, 20.0)
    estimate = tracker.estimate()
    assert estimate is not None
    assert estimate.probability == pytest.approx(0.95)
    assert estimate.best.sigma_m == pytest.approx(20)
    assert belief(tracker) == pytest.approx(1)


def test_a_prior_makes_a_weak_match_enough() -> None:
    prior = Tracker(AREA_M2)
    prior.start_at(*HERE, 20.0)
    assert probability(seen(prior, 0, place(10, 10, WEAK))) > CERTAIN


def test_a_wrong_prior_is_given_up() -> None:
    tracker = Tracker(AREA_M2)
    tracker.start_at(*HERE, 20.0)
    for t in range(6):
        estimate = seen(tracker, t, place(900, 15.0 * t, STRONG))
    assert probability(estimate) > CERTAIN
    assert offset_m(estimate) == pytest.approx((900, 75), abs=5)


def test_a_hovering_drone_does_not_talk_itself_into_a_weak_match() -> None:
    """The same ground looks alike in every frame: thirty frames of it are one witness."""
    tracker = Tracker(AREA_M2)
    for t in range(30):
        estimate = seen(tracker, t, place(0, 0, WEAK))
    once = seen(Tracker(AREA_M2), 0, place(0, 0, WEAK))
    assert probability(estimate) < CERTAIN
    assert probability(estimate) == pytest.approx(probability(once), abs=0.05)


def test_a_better_match_of_the_same_view_counts_by_its_advantage() -> None:
    tracker = Tracker(AREA_M2)
    seen(tracker, 0, place(0, 0, WEAK))
    later = seen(tracker, 1, place(0, 0, OVERWHELMING))
    at_once = seen(Tracker(AREA_M2), 0, place(0, 0, OVERWHELMING))
    assert probability(later) == pytest.approx(probability(at_once), abs=0.01)


def test_a_doubtful_track_does_not_keep_a_velocity_made_of_two_places() -> None:
    """Two matches 25 m apart are no 25 m/s when a hovering drone explains the second as well."""
    tracker = Tracker(AREA_M2)
    seen(tracker, 0, place(0, 0, WEAK))
    for t in range(1, 5):
        estimate = seen(tracker, t, place(25, 0, STRONG))
    assert offset_m(estimate) == pytest.approx((25, 0), abs=6)


def test_weak_matches_over_ever_new_ground_are_believed() -> None:
    tracker = Tracker(AREA_M2)
    for t in range(12):
        estimate = seen(tracker, t, place(20.0 * t, 0, WEAK))
    assert probability(estimate) > CERTAIN


def test_a_sharp_prior_says_more_than_a_vague_one() -> None:
    believed = []
    for sigma_m in (5.0, 50.0, 300.0):
        tracker = Tracker(AREA_M2)
        tracker.start_at(*HERE, sigma_m)
        believed.append(probability(seen(tracker, 0, place(3, 0, -2.0))))
    assert believed[0] > believed[1] > believed[2]


# --- following -------------------------------------------------------------------------------


def test_a_good_track_is_not_moved_by_a_wrong_match(tracked: Tracker) -> None:
    before = tracked.estimate()
    after = seen(tracked, 10, place(-700, 400, 5.0))
    assert before is not None
    assert after is not None
    assert after.best.track_id == before.best.track_id
    assert math.dist(offset_m(after), (100, 0)) < 5
    assert after.probability > 0.9
    assert after.best.misses == 1


def test_a_track_finds_its_velocity_from_positions_alone(tracked: Tracker) -> None:
    estimate = tracked.estimate()
    assert estimate is not None
    assert estimate.best.velocity_mps == pytest.approx([10, 0], abs=0.5)
    assert estimate.best.since_match_s == 0


def test_a_kidnapped_drone_is_found_again_on_a_new_track(tracked: Tracker) -> None:
    old = tracked.estimate()
    assert old is not None
    frames = 0
    estimate: Estimate | None = old
    while estimate is not None and estimate.best.track_id == old.best.track_id:
        frames += 1
        assert frames <= 8
        estimate = seen(tracked, 9 + frames, place(1000 + 5 * frames, 0, STRONG))
    assert frames > 1  # One frame alone does not overturn a good track.
    for more in range(3):
        estimate = seen(tracked, 10 + frames + more, place(1005 + 5 * (frames + more), 0, STRONG))
    assert probability(estimate) > CERTAIN
    assert math.dist(offset_m(estimate), (1005 + 5 * (frames + 2), 0)) < 10


def test_dead_reckoning_follows_the_measured_velocity() -> None:
    tracker = Tracker(AREA_M2)
    seen(tracker, 0, place(0, 0, OVERWHELMING))
    for t in range(1, 11):
        tracker.predict(t, (8.0, -3.0))
        tracker.update([], searched_m2=AREA_M2, velocity_mps=(8.0, -3.0))
    estimate = tracker.estimate()
    # The first second knows no velocity before its end, hence the tolerance.
    assert offset_m(estimate) == pytest.approx((80, -30), abs=5)
    assert estimate is not None
    assert estimate.best.since_match_s == pytest.approx(10)
    assert estimate.best.misses == 10


def test_uncertainty_grows_without_matches_and_shrinks_with_one(tracked: Tracker) -> None:
    sigmas = []
    for t in range(10, 15):
        estimate = seen(tracked, t)
        assert estimate is not None
        sigmas.append(estimate.best.sigma_m)
    assert (np.diff(sigmas) > 0).all()
    estimate = seen(tracked, 15, place(150, 0, STRONG))
    assert estimate is not None
    assert estimate.best.sigma_m < sigmas[0]
    assert estimate.best.misses == 0


def test_measured_velocity_slows_the_growth_of_uncertainty() -> None:
    def sigma_m(velocity: tuple[float, float] | None) -> float:
        tracker = Tracker(AREA_M2)
        seen(tracker, 0, place(0, 0, OVERWHELMING))
        for t in range(1, 6):
            tracker.predict(t, velocity)
            tracker.update([], searched_m2=AREA_M2)
        estimate = tracker.estimate()
        assert estimate is not None
        return estimate.best.sigma_m

    assert sigma_m((5.0, 0.0)) < 0.3 * sigma_m(None)


@pytest.mark.parametrize("t_s", [9.0, 8.0, -1e9])
def test_a_clock_that_stands_still_or_runs_back_moves_nothing(tracked: Tracker, t_s: float) -> None:
    before = tracked.hypotheses()
    tracked.predict(t_s)
    for old, new in zip(before, tracked.hypotheses(), strict=True):
        assert distance_m(old.lat_deg, old.lon_deg, new.lat_deg, new.lon_deg) < 1e-6
        np.testing.assert_array_equal(old.covariance, new.covariance)
        np.testing.assert_array_equal(old.velocity_mps, new.velocity_mps)
        assert old.since_match_s == new.since_match_s


def elapsed_s(tracker: Tracker, *times_s: float) -> list[float]:
    """How much older the best hypothesis's last match becomes at each time."""
    ages = [tracker.hypotheses()[0].since_match_s]
    for t_s in times_s:
        tracker.predict(t_s)
        ages.append(tracker.hypotheses()[0].since_match_s)
    return np.diff(ages).tolist()


def test_an_interval_is_counted_once_though_the_clock_stepped_back_in_it(tracked: Tracker) -> None:
    assert elapsed_s(tracked, 10, 4, 11, 12) == [1, 0, 1, 1]


def test_a_clock_that_was_set_back_goes_on_from_there(tracked: Tracker) -> None:
    assert elapsed_s(tracked, 10, 4, 5, 6, 8, 9.5, 10.5) == [1, 0, 1, 1, 2, 1.5, 0.5]


def test_a_clock_that_leaps_ahead_loses_the_track_but_breaks_nothing(tracked: Tracker) -> None:
    tracked.predict(1e300, (10.0, 0.0))
    (best, *_) = tracked.hypotheses()
    assert math.isfinite(best.lat_deg + best.lon_deg + best.sigma_m)
    assert best.sigma_m > 1000


def test_frames_without_matches_keep_the_track_but_not_the_certainty(tracked: Tracker) -> None:
    before = tracked.estimate()
    for t in range(10, 200):
        estimate = seen(tracked, t)
    assert before is not None
    assert estimate is not None
    assert estimate.best.track_id == before.best.track_id
    assert estimate.probability < before.probability
    assert belief(tracked) == pytest.approx(1)


# --- the edge of the map, and weak agreement ---------------------------------------------------


def test_the_longer_nothing_matches_the_more_it_takes_to_be_believed() -> None:
    fresh, blind = Tracker(AREA_M2), Tracker(AREA_M2)
    for t in range(120):
        seen(blind, t)
    match = place(0, 0, WEAK + 2)
    at_once, later = seen(fresh, 0, match), seen(blind, 120, match)
    assert 1 - probability(later) > 20 * (1 - probability(at_once))
    assert probability(seen(blind, 121, place(0, 0, OVERWHELMING))) > 0.99


def test_a_drone_that_hovers_over_what_matches_is_not_taken_to_be_off_the_map() -> None:
    tracker = Tracker(AREA_M2)
    for t in range(60):
        seen(tracker, t, place(0, 0, WEAK))
    assert math.exp(tracker._log_off) < 0.1


def test_one_strong_match_confirms_and_a_weak_one_does_not() -> None:
    strong = seen(Tracker(AREA_M2), 0, place(0, 0, 8.5))
    weak = seen(Tracker(AREA_M2), 0, place(0, 0, 6.5))
    assert strong is not None
    assert weak is not None
    assert (strong.confirmed, weak.confirmed) == (True, False)


def test_weak_matches_confirm_over_two_views_of_new_ground_only() -> None:
    hovering, flying = Tracker(AREA_M2), Tracker(AREA_M2)
    for t in range(13):
        there = seen(hovering, t, place(0, 0, 3.0))
        along = seen(flying, t, place(10.0 * t, 0, 3.0))
        assert there is not None
        assert along is not None
        assert not there.confirmed
        assert along.confirmed == (t >= 9)  # 90 m of 45 m views


def test_a_chance_match_near_the_prediction_does_not_end_the_misses(tracked: Tracker) -> None:
    for t in (10, 11):
        seen(tracked, t)
    estimate = seen(tracked, 12, place(10.0 * 12 + 6, 0, 0.5))
    assert estimate is not None
    assert estimate.best.misses == 3
    again = seen(tracked, 13, place(10.0 * 13, 0, OVERWHELMING))
    assert again is not None
    assert again.best.misses == 0


# --- against the textbook --------------------------------------------------------------------


def kalman_slowly(
    frames: Sequence[tuple[float, tuple[float, float], tuple[float, float] | None]], sigma_m: float
) -> tuple[F64, F64]:
    """Constant-velocity Kalman filter (Bar-Shalom 2001, section 5.2), one axis after another.

    Each frame: time since the last one, measured position, measured velocity before it.
    """
    states, covariances = [], []
    for axis in (0, 1):
        x = np.array([frames[0][1][axis], 0.0])
        p = np.diag([sigma_m**2, 15.0**2])
        for dt, position, velocity in frames[1:]:
            f = np.array([[1, dt], [0, 1]])
            g = np.array([dt**2 / 2, dt])
            x, p = f @ x, f @ p @ f.T + np.outer(g, g) * 2.0**2
            measured = [] if velocity is None else [(np.array([0, 1.0]), velocity[axis], 1.0)]
            measured.append((np.array([1.0, 0]), position[axis], sigma_m))
            for h, z, sigma in measured:
                k = p @ h / (h @ p @ h + sigma**2)
                x = x + k * (z - h @ x)
                p = (np.eye(2) - np.outer(k, h)) @ p @ (np.eye(2) - np.outer(k, h)).T + np.outer(
                    k, k
                ) * sigma**2
        states.append(x)
        covariances.append(p)
    return np.array(states), np.array(covariances)


@pytest.mark.parametrize("with_velocity", [False, True])
def test_a_single_track_is_the_textbook_kalman_filter(with_velocity: bool) -> None:
    rng = np.random.default_rng(3)
    frames: list[tuple[float, tuple[float, float], tuple[float, float] | None]] = []
    t, tracker = 0.0, Tracker(AREA_M2)
    for number in range(15):
        dt = float(rng.uniform(0.1, 1.0)) if number else 0.0
        t += dt
        east, north = around(rng, 6 * t, 2 * t, 2.0)
        moving = (6.0, 2.0) if with_velocity and number else None
        frames.append((dt, (east, north), moving))
        tracker.predict(t, moving)
        tracker.update([place(east, north, OVERWHELMING)], searched_m2=AREA_M2)
    states, covariances = kalman_slowly(frames, 3.0)
    best = tracker.hypotheses()[0]
    assert offset_m(tracker.estimate()) == pytest.approx(states[:, 0], abs=1e-3)
    assert best.velocity_mps == pytest.approx(states[:, 1], abs=1e-3)
    for axis in (0, 1):
        np.testing.assert_allclose(
            best.covariance[axis::2, axis::2], covariances[axis], rtol=1e-6, atol=1e-6
        )
    # The axes stay independent but for the doubt that the track began anew here.
    np.testing.assert_allclose(best.covariance[0::2, 1::2], 0, atol=1e-6)


@pytest.mark.parametrize(("sigmas", "explained"), [(3.5, True), (4.5, False), (-4.5, False)])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_match_outside_four_sigma_starts_another_hypothesis(
    tracked: Tracker, axis: int, sigmas: float, explained: bool
) -> None:
    before = tracked.hypotheses()[0]
    tracked.predict(10)
    expected = tracked.hypotheses()[0]
    spread_m = math.sqrt(expected.covariance[axis, axis] + 3.0**2)
    shift = (sigmas * spread_m, 0.0) if axis == 0 else (0.0, sigmas * spread_m)
    east, north = offset_m(tracked.estimate())
    tracked.update([place(east + shift[0], north + shift[1], STRONG)], searched_m2=AREA_M2)
    old = next(h for h in tracked.hypotheses() if h.track_id == before.track_id)
    assert (old.misses == 0) == explained


def test_hypotheses_of_one_place_become_one() -> None:
    tracker = Tracker(AREA_M2)
    seen(tracker, 0, place(0, 0, WEAK), place(5, 0, WEAK), place(100, 0, WEAK))
    assert len(tracker.hypotheses()) == 2
    assert belief(tracker) == pytest.approx(1)
