import math
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.accuracy import SUCCESS_M, WITHIN_68, WITHIN_95, accuracy_row
from benchmarks.scored_flight import read_truth, score_flight
from edge_runtime.errors import InputError
from edge_runtime.fix import Fix

WriteLog = Callable[..., Path]
WriteTruth = Callable[..., Path]
MakeFix = Callable[..., Fix]


@pytest.fixture
def row_of(write_log: WriteLog, write_truth: WriteTruth) -> Callable[..., object]:
    def make(fixes: list[Fix], frames: int | None = None) -> object:
        flight = score_flight(write_log(fixes), write_truth(frames or len(fixes)))
        return accuracy_row([flight])

    return make


def test_abstaining_always_is_never_a_success(row_of: Callable, make_fix: MakeFix) -> None:  # type: ignore[type-arg]
    row = row_of([make_fix(k, status="ABSTAIN") for k in range(8)])
    assert all(row.success[str(d)].share == 0.0 for d in SUCCESS_M)
    assert row.abstained.share == 1.0
    assert (row.median_error_m, row.first_ok_s, row.false_fixes.count) == (None, None, 0)


def test_a_perfect_log_is_always_a_success(row_of: Callable, make_fix: MakeFix) -> None:  # type: ignore[type-arg]
    row = row_of([make_fix(k) for k in range(8)])
    assert all(row.success[str(d)].share == 1.0 for d in SUCCESS_M)
    assert row.median_error_m == pytest.approx(0.0, abs=1e-6)
    assert row.first_ok_s == 0.0


def test_errors_are_metres_on_the_ground(row_of: Callable, make_fix: MakeFix) -> None:  # type: ignore[type-arg]
    row = row_of([make_fix(k, east_m=e) for k, e in enumerate([2.0, 4.0, 6.0, 30.0, 80.0])])
    assert row.median_error_m == pytest.approx(6.0, abs=1e-3)
    assert row.max_error_m == pytest.approx(80.0, abs=1e-2)
    counts = [row.success[str(d)].count for d in (1, 3, 5, 10, 20, 50, 100)]
    assert counts == [0, 1, 2, 3, 3, 4, 5]
    assert (row.false_fixes.count, row.false_fixes.n) == (1, 5)


@pytest.mark.parametrize("status", ["ABSTAIN", "LOST", "DEGRADED"])
def test_only_ok_is_an_answer(row_of: Callable, make_fix: MakeFix, status: str) -> None:  # type: ignore[type-arg]
    place = make_fix(0)
    fix = make_fix(0, status=status, lat_deg=place.lat_deg, lon_deg=place.lon_deg)
    row = row_of([fix])
    assert row.answered.count == row.success["100"].count == 0


@pytest.mark.parametrize("value", [None, math.nan, math.inf])
def test_a_position_that_is_not_finite_is_no_success(
    row_of: Callable,  # type: ignore[type-arg]
    make_fix: MakeFix,
    value: float | None,
) -> None:
    row = row_of([make_fix(0, lat_deg=value), make_fix(1)])
    assert row.success["100"].count == row.answered.count == 1


def test_a_literal_nan_in_a_log_is_no_success(
    write_log: WriteLog, write_truth: WriteTruth, make_fix: MakeFix
) -> None:
    log = write_log([make_fix(0), make_fix(1)])
    log.write_text(log.read_text().replace(f"{make_fix(1).lat_deg}", "NaN", 1))
    row = accuracy_row([score_flight(log, write_truth(2))])
    assert row.success["100"].count == 1


def test_a_frame_missing_from_the_log_is_an_attempt(
    write_log: WriteLog, write_truth: WriteTruth, make_fix: MakeFix
) -> None:
    log, truth = write_log([make_fix(0), make_fix(3)]), write_truth(4)
    row = accuracy_row([score_flight(log, truth)])
    assert (row.frames, row.missing.count, row.success["5"].share) == (4, 2, 0.5)
    row = accuracy_row([score_flight(log, truth, logged_only=True)])
    assert (row.frames, row.missing.count, row.success["5"].share) == (2, 0, 1.0)


def test_coverage_compares_errors_with_the_claimed_radius(
    row_of: Callable,  # type: ignore[type-arg]
    make_fix: MakeFix,
) -> None:
    eph = 2.0
    errors = [0.99 * WITHIN_68 * eph, 1.01 * WITHIN_68 * eph, 1.01 * WITHIN_95 * eph]
    row = row_of([make_fix(k, east_m=e) for k, e in enumerate(errors)])
    assert (row.within_68.count, row.within_95.count, row.within_95.n) == (1, 2, 3)


def test_an_answer_without_an_accuracy_is_outside_every_radius(
    row_of: Callable,  # type: ignore[type-arg]
    make_fix: MakeFix,
) -> None:
    row = row_of([make_fix(0, eph_m=None)])
    assert (row.success["1"].count, row.within_95.count) == (1, 0)


def test_first_answer_counts_from_the_first_frame(row_of: Callable, make_fix: MakeFix) -> None:  # type: ignore[type-arg]
    fixes = [make_fix(k, status="ABSTAIN" if k < 3 else "OK") for k in range(6)]
    assert row_of(fixes).first_ok_s == pytest.approx(1.5)


def test_flights_together_count_every_frame_once(
    write_log: WriteLog, write_truth: WriteTruth, make_fix: MakeFix
) -> None:
    good = score_flight(write_log([make_fix(0)], "a.jsonl"), write_truth(1, "a.csv"))
    bad = score_flight(
        write_log([make_fix(k, status="LOST") for k in range(3)], "b.jsonl"),
        write_truth(3, "b.csv"),
    )
    row = accuracy_row([good, bad])
    assert (row.flight, row.frames, row.success["5"].share) == ("all", 4, 0.25)
    assert row.first_ok_s is None


def test_look_points_are_scored_by_themselves(
    tmp_path: Path, write_log: WriteLog, make_fix: MakeFix
) -> None:
    fix = make_fix(0)
    truth = tmp_path / "t.csv"
    truth.write_text(
        "filename,lat_deg,lon_deg,look_lat_deg,look_lon_deg\n"
        f"{fix.frame},0,0,{fix.lat_deg},{fix.lon_deg}\n"
    )
    log = write_log([make_fix(0, look_lat_deg=fix.lat_deg, look_lon_deg=fix.lon_deg)])
    row = accuracy_row([score_flight(log, truth, score="look")], score="look")
    assert row.success["1"].share == 1.0
    assert row.within_68 is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("filename,lat_deg\na.jpg,1\n", "no column lon_deg", id="column"),
        pytest.param("filename,lat_deg,lon_deg\na.jpg,120,24\n", "is the order", id="swapped"),
        pytest.param("filename,lat_deg,lon_deg\na.jpg,nan,24\n", "latitude", id="nan"),
        pytest.param("filename,lat_deg,lon_deg\na.jpg,x,24\n", "expected a number", id="text"),
        pytest.param("filename,lat_deg,lon_deg\na.jpg,,24\n", "is empty", id="empty"),
        pytest.param("filename,lat_deg,lon_deg\na,1,2\na,1,2\n", "appears twice", id="twice"),
        pytest.param("", "no column filename, lat_deg, lon_deg", id="nothing"),
    ],
)
def test_bad_truth_is_refused_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "truth.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=said) as raised:
        read_truth(path)
    assert "\n" not in str(raised.value)
    assert str(path) in str(raised.value)


def test_truth_of_another_flight_is_refused(
    write_log: WriteLog, write_truth: WriteTruth, make_fix: MakeFix
) -> None:
    with pytest.raises(InputError, match="truth of another flight"):
        score_flight(write_log([make_fix(7)]), write_truth(3))


def test_a_frame_logged_twice_is_refused(
    write_log: WriteLog, write_truth: WriteTruth, make_fix: MakeFix
) -> None:
    with pytest.raises(InputError, match="twice"):
        score_flight(write_log([make_fix(0), make_fix(0)]), write_truth(1))


@pytest.mark.parametrize("text", ["", "not json\n", "[1]\n"])
def test_what_is_not_a_log_is_refused(tmp_path: Path, write_truth: WriteTruth, text: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(text)
    with pytest.raises(InputError, match=r"x\.jsonl"):
        score_flight(path, write_truth(1))
