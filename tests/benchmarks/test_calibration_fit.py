"""Errors of a known law in, honest radii out."""

import math

import numpy as np
import pytest

from benchmarks.calibration_fit import (
    LEVELS,
    Errors,
    RadiusFit,
    beliefs,
    calibration,
    coverage,
    fit_radius,
    independent_errors,
    left_out_in_turn,
    upper_bound,
)
from edge_runtime.errors import InputError


def flight(
    seed: int, *, factor: float, floor_m: float = 0.0, count: int = 2000, name: str = ""
) -> Errors:
    """Round normal errors whose true sigma is hypot(floor, factor x stated)."""
    rng = np.random.default_rng(seed)
    stated = rng.uniform(0.5, 6.0, count)
    sigma = np.hypot(floor_m, factor * stated)
    error = sigma * np.hypot(rng.standard_normal(count), rng.standard_normal(count))
    return Errors(
        name=name or f"flight {seed}",
        t_s=np.arange(count, dtype=np.float64) / 2,
        stated_m=stated,
        error_m=error,
        probability=np.full(count, 0.9999),
        asked=0.995,
    )


@pytest.mark.parametrize("factor", [0.3, 0.7, 1.0, 2.5])
def test_a_known_factor_is_found(factor: float) -> None:
    fit = fit_radius([flight(1, factor=factor), flight(2, factor=factor)])
    assert fit.factor == pytest.approx(factor, rel=0.04)
    assert fit.floor_m <= 0.3 * factor


def test_a_known_floor_is_found() -> None:
    fit = fit_radius([flight(k, factor=0.5, floor_m=2.0) for k in range(3)])
    assert fit.floor_m == pytest.approx(2.0, rel=0.2)
    assert fit.factor == pytest.approx(0.5, rel=0.15)


def test_coverage_holds_on_flights_that_were_not_fitted() -> None:
    flights = [flight(k, factor=0.6, count=600) for k in range(6)]
    fits = left_out_in_turn(flights)
    assert fits is not None
    seen = coverage(flights, fits)
    assert seen.within_68 == pytest.approx(0.6827, abs=0.03)
    assert seen.within_95 == pytest.approx(0.95, abs=0.015)


def test_heavy_tails_share_the_gap_between_both_radii() -> None:
    """No one radius is right for errors of a Student law; the worse of both gaps is smallest."""
    rng = np.random.default_rng(5)
    count = 4000
    plain = flight(3, factor=1.0, count=count)
    error = plain.stated_m * np.hypot(rng.standard_t(2, count), rng.standard_t(2, count))
    heavy = Errors(
        name="heavy",
        t_s=plain.t_s,
        stated_m=plain.stated_m,
        error_m=error,
        probability=plain.probability,
        asked=0.995,
    )

    def worst(factor: float) -> float:
        seen = coverage([heavy], [RadiusFit(factor=factor, floor_m=0.0)])
        return max(abs(seen.within_68 - 0.6827), abs(seen.within_95 - 0.95))

    fit = fit_radius([heavy])
    assert fit.floor_m == 0.0
    slow = min(worst(f) for f in np.arange(0.5, 3.0, 0.02))
    assert worst(fit.factor) == pytest.approx(slow, abs=0.005)


def test_false_answers_do_not_widen_the_radius() -> None:
    good = flight(1, factor=0.7)
    error = good.error_m.copy()
    error[::20] = 900.0
    spoilt = Errors(
        name="spoilt",
        t_s=good.t_s,
        stated_m=good.stated_m,
        error_m=error,
        probability=good.probability,
        asked=0.995,
    )
    assert fit_radius([spoilt]).factor == pytest.approx(fit_radius([good]).factor, rel=0.03)


def test_a_margin_is_added_where_errors_are_few() -> None:
    """(n + 1) / n of conformal prediction: fewer errors, wider radii, on the average of draws."""
    few = [fit_radius([flight(k, factor=1.0, count=60)]) for k in range(40)]
    other = flight(99, factor=1.0)
    inside = [np.mean(other.error_m <= 2.448 * fit.eph_m(other.stated_m)) for fit in few]
    assert float(np.mean(inside)) >= 0.94


def test_independent_frames_count_whole_and_repeated_ones_once() -> None:
    fresh = flight(1, factor=1.0, count=1000)
    assert independent_errors(fresh) == pytest.approx(1000, rel=0.15)
    held = Errors(
        name="held",
        t_s=fresh.t_s,
        stated_m=np.repeat(fresh.stated_m[:100], 10),
        error_m=np.repeat(fresh.error_m[:100], 10),
        probability=fresh.probability,
        asked=0.995,
    )
    assert independent_errors(held) == pytest.approx(100, rel=0.3)


def test_too_few_answers_are_refused() -> None:
    with pytest.raises(InputError, match="49 answers with a truth; expected at least 50"):
        fit_radius([flight(1, factor=1.0, count=49)])


def test_one_flight_says_nothing_of_another() -> None:
    made = calibration([flight(1, factor=1.0)], index_id="i", bundle_id="b", truth="flights")
    assert made.unseen is None
    assert made.fitted.flights == 1


def test_beliefs_count_stretches_and_not_frames() -> None:
    """20 frames at 2 Hz are one stretch of 10 s; 3 false frames in one stretch are one failure."""
    count = 200
    error, probability = np.full(count, 1.0), np.full(count, 0.9996)
    error[41:44] = 800.0
    probability[41:44] = 0.9985
    told = Errors(
        name="told",
        t_s=np.arange(count, dtype=np.float64) / 2,
        stated_m=np.ones(count),
        error_m=error,
        probability=probability,
        asked=0.995,
    )
    by_threshold = {s.ok_probability: (s.false, s.trials) for s in beliefs([told])}
    assert by_threshold[0.995] == (1, 10)
    assert by_threshold[0.998] == (1, 10)
    assert by_threshold[0.999] == (0, 10)
    assert min(by_threshold) == 0.995, "below what was asked in flight nothing is known"
    assert max(by_threshold) == 0.9995, "above the highest belief nothing is known"


@pytest.mark.parametrize(
    ("count", "n", "expected"),
    [
        pytest.param(0, 60, 0.0487, id="rule of three, Hanley and Lippman-Hand 1983"),
        pytest.param(0, 299, 0.00997, id="299 of 299 prove 99 %, Wilks 1941"),
        pytest.param(1, 10, 0.3942, id="Clopper and Pearson 1934, 1 of 10, one-sided 95 %"),
        pytest.param(5, 5, 1.0, id="all false"),
    ],
)
def test_the_upper_bound_of_a_share_is_clopper_pearsons(
    count: int, n: int, expected: float
) -> None:
    assert upper_bound(count, n) == pytest.approx(expected, abs=2e-4)


def test_with_none_false_the_bound_has_a_closed_form() -> None:
    for n in (1, 7, 100, 5000):
        assert upper_bound(0, n) == pytest.approx(1 - 0.05 ** (1 / n), rel=1e-6)


def test_levels_are_those_of_a_round_normal_error() -> None:
    for share, sigmas in LEVELS:
        assert 1 - math.exp(-(sigmas**2) / 2) == pytest.approx(share, abs=5e-4)
