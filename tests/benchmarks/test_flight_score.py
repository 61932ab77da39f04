"""Parts of a made-up flight: what is planned, how it is scored, what is judged."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.flight_laws import Law, laws
from benchmarks.flight_parts import (
    AFTER_MOVE_S,
    BEFORE_MOVE_S,
    MOVED_M,
    FlightPart,
    Step,
    WorldFlight,
    plan_parts,
    read_flights,
    states_of,
)
from benchmarks.flight_score import Answer, FlightRow, flight_row
from benchmarks.scored_flight import Truth
from edge_runtime.calibration import Coverage
from edge_runtime.camera import Camera
from edge_runtime.errors import InputError
from edge_runtime.fix import Fix
from edge_runtime.geodesy import distance_m, move_lat_lon
from edge_runtime.imagery import Bounds
from edge_runtime.state import VehicleState

CAMERA = Camera.from_hfov(640, 480, 70.0)
LAT, LON = 47.0, 15.0
BOUNDS = Bounds(46.9, 14.9, 47.1, 15.0)


def straight(name: str, *, frames: int = 400, mps: float = 12.0) -> WorldFlight:
    """A flight due east from (LAT, LON)."""
    places = [move_lat_lon(LAT, LON, k * mps / 2, 0.0) for k in range(frames)]
    return WorldFlight(
        name=name,
        frames=Path("nowhere"),
        states=tuple(VehicleState(t_s=100 + k / 2, height_m=120.0) for k in range(frames)),
        truths=tuple(
            Truth(
                frame=f"{k:06d}.jpg",
                lat_deg=float(p.lat_deg),
                lon_deg=float(p.lon_deg),
                height_m=120.0,
            )
            for k, p in enumerate(places)
        ),
    )


def planned(part: Any, flights: list[WorldFlight] | None = None, **more: Any) -> list[FlightPart]:
    given = {"starts": 9, "moves": 7, "seed": 3} | more
    return plan_parts(flights or [straight("a"), straight("b")], parts=[part], **given)


def answer(t_s: float, *, status: str = "OK", off_m: float = 0.0, eph_m: float = 2.0) -> Answer:
    there = move_lat_lon(LAT, LON, off_m, 0.0)
    usable = status in ("OK", "DEGRADED")
    fix = Fix(
        seq=0,
        frame="x",
        t_exposure_s=t_s,
        t_fix_s=t_s,
        status=status,  # type: ignore[arg-type]
        mode="TRACK",
        reason="",
        lat_deg=float(there.lat_deg) if usable else None,
        lon_deg=float(there.lon_deg) if usable else None,
        eph_m=eph_m if usable else None,
        latency_ms={"capture": 5.0, "total": 45.0},
    )
    return Answer(fix, LAT, LON, 120.0)


def part_of(kind: Any, answers: list[Answer], *, moved_at: int | None = None) -> FlightPart:
    steps = tuple(Step(0, k, a.fix.t_exposure_s) for k, a in enumerate(answers))
    return FlightPart(part=kind, name=f"{kind}_01", steps=steps, moved_at=moved_at)


def scored(kind: Any, answers: list[Answer], *, moved_at: int | None = None) -> FlightRow:
    return flight_row(
        part_of(kind, answers, moved_at=moved_at),
        answers,
        camera=CAMERA,
        bounds=BOUNDS,
        world_id="w",
        settings="{}",
    )


def law(rows: list[FlightRow], name: str) -> Law:
    return next(found for found in laws(rows) if found.name == name)


def test_the_same_arguments_give_the_same_plan() -> None:
    assert planned("moved") == planned("moved")
    assert planned("start", seed=4) != planned("start")


def test_more_starts_do_not_change_the_moves_nor_earlier_starts() -> None:
    assert planned("start", starts=20)[:9] == planned("start")
    assert planned("moved", starts=20) == planned("moved")


def test_a_moved_drone_is_about_a_kilometre_away_and_its_clock_goes_on() -> None:
    flights = [straight("a"), straight("b")]
    for part in planned("moved", flights):
        assert part.moved_at is not None
        before, after = part.steps[part.moved_at - 1], part.steps[part.moved_at]
        here = flights[before.flight].truths[before.frame]
        there = flights[after.flight].truths[after.frame]
        apart = float(distance_m(here.lat_deg, here.lon_deg, there.lat_deg, there.lon_deg))
        assert MOVED_M[0] <= apart <= MOVED_M[1]
        assert before.flight == after.flight, "the sensors' biases stay the drone's own"
        times = np.array([step.t_s for step in part.steps])
        assert np.allclose(np.diff(times), 0.5)
        assert times[part.moved_at] == pytest.approx(BEFORE_MOVE_S)
        assert times[-1] - times[part.moved_at] == pytest.approx(AFTER_MOVE_S)


def test_a_flight_that_never_gets_far_cannot_be_moved() -> None:
    with pytest.raises(InputError, match=r"nowhere 950 to 1100 m from itself.*--held-out-m 3000"):
        planned("moved", [straight("a", mps=2.0)])


def test_a_whole_flight_is_every_frame_from_time_zero() -> None:
    (part,) = planned("whole", [straight("a", frames=40)])
    assert [s.frame for s in part.steps] == list(range(40))
    assert (part.steps[0].t_s, part.steps[-1].t_s) == (0.0, 19.5)


def test_the_flight_that_is_half_off_the_map_is_flown_over_its_edge() -> None:
    flights = [straight("a", frames=100), straight("b", frames=400)]
    edge = float(move_lat_lon(LAT, LON, 1200.0, 0.0).lon_deg)
    assert [p.name for p in planned("off_map", flights, middle_lon_deg=edge)] == ["off_map_02"]


def test_states_have_the_parts_own_clock() -> None:
    flights = [straight("a")]
    part = planned("start", flights)[0]
    given = list(states_of(part, flights))
    assert [state.t_s for _, state, _ in given] == [step.t_s for step in part.steps]
    assert given[0][0] == Path("nowhere") / given[0][2].frame


def test_a_world_without_flights_says_how_to_make_some(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="python -m train world"):
        read_flights(tmp_path)


def test_velocity_is_never_given_to_the_localizer(tmp_path: Path) -> None:
    folder = tmp_path / "held_out" / "flight_1"
    folder.mkdir(parents=True)
    (folder / "telemetry.csv").write_text(
        "filename,t_s,height_m,yaw_deg,velocity_east_mps,velocity_north_mps\n"
        "0.jpg,0,100,0,3,4\n1.jpg,0.5,100,0,3,4\n"
    )
    (folder / "truth.csv").write_text("filename,lat_deg,lon_deg\n0.jpg,47,15\n1.jpg,47,15\n")
    (flight,) = read_flights(tmp_path)
    assert [s.velocity_east_mps for s in flight.states] == [None, None]
    (folder / "truth.csv").write_text("filename,lat_deg,lon_deg\n1.jpg,47,15\n0.jpg,47,15\n")
    with pytest.raises(InputError, match="do not name the same frames"):
        read_flights(tmp_path)


def test_only_answers_count_and_false_ones_are_no_first_fix() -> None:
    answers = [answer(0.0, status="ABSTAIN"), answer(0.5, off_m=60.0), answer(1.0, off_m=1.0)]
    row = scored("start", answers)
    assert (row.ok, row.false, row.success, row.abstained) == (2, 1, 1, 1)
    assert row.first_right_s is None
    assert scored("start", answers[::2]).first_right_s == 1.0
    assert row.p50_ms == 40.0, "reading the frame is not the localizer's time"


def test_dead_reckoning_is_no_success() -> None:
    row = scored("whole", [answer(0.0), answer(0.5, status="DEGRADED")])
    assert (row.ok, row.success, row.degraded) == (1, 1, 1)


def test_errors_within_the_stated_radii_are_counted() -> None:
    row = scored("whole", [answer(0.0, off_m=m) for m in (3.0, 3.1, 4.8, 5.0)])
    assert (row.within_68, row.within_95) == (1, 3), "radii are 3.03 and 4.90 m for eph 2 m"


def test_being_moved_is_timed_from_the_first_frame_elsewhere() -> None:
    answers = [
        answer(0.0),
        answer(0.5, off_m=1000.0),
        answer(1.0, off_m=1000.0),
        answer(1.5, status="ABSTAIN"),
        answer(2.0, status="LOST"),
        answer(2.5, off_m=30.0),
        answer(3.0, off_m=2.0),
    ]
    row = scored("moved", answers, moved_at=1)
    assert row.false_after_moving == 2
    assert (row.silent_after_s, row.lost_after_s, row.right_after_s) == (0.5, 1.5, 2.5)


def test_frames_that_see_nothing_of_the_map_must_not_be_answered() -> None:
    far = move_lat_lon(LAT, LON, 150.0, 0.0)
    away = Answer(answer(0.0).fix, float(far.lat_deg), float(far.lon_deg), 120.0)
    near = move_lat_lon(LAT, LON, 100.0, 0.0)
    edge = Answer(answer(0.5).fix, float(near.lat_deg), float(near.lon_deg), 120.0)
    row = scored("off_map", [away, edge])
    assert (row.off_frames, row.off_ok) == (1, 1), "100 m beyond the edge it is still in view"
    assert law([row], "off the map").holds is False


def test_laws_hold_for_good_rows_and_say_when_they_are_too_few() -> None:
    # A tenth of a metre steps through the radii of a normal error of sigma 2 m.
    errors = 2.0 * np.sqrt(-2 * np.log(1 - (np.arange(1200) + 0.5) / 1200))
    whole = scored("whole", [answer(k / 2, off_m=float(e)) for k, e in enumerate(errors)])
    assert whole.median_error_m is not None
    assert whole.median_error_m < 5.0
    starts = [scored("start", [answer(0.0)])] * 60
    moved = scored("moved", [answer(0.0), answer(0.5, status="LOST"), answer(1.0)], moved_at=1)
    rows = [whole] * 3 + starts + [moved] * 6
    judged = laws(rows)
    off = {"off the map", "false fixes across the edge"}
    assert {j.name for j in judged if j.holds is not True} == off
    assert not any(j.note for j in judged)
    assert "1 flights; the claim needs 3" in law([whole], "median error").note


def test_without_a_calibration_only_too_small_a_radius_is_wrong() -> None:
    def of(within_68: float, within_95: float) -> Coverage:
        return Coverage(
            flights=1, answers=1000, independent=200.0, within_68=within_68, within_95=within_95
        )

    cautious = scored("whole", [answer(k / 2) for k in range(100)])
    bold = scored("whole", [answer(k / 2, off_m=20.0) for k in range(100)])
    good = [of(0.60, 0.93), of(0.72, 0.95), of(0.75, 0.97)]
    judged = {j.name: j for j in laws([cautious] * 3, left_out=good)}
    name = "errors within the 68 % radius, {}"
    by_others = judged[name.format("calibrated on the other flights")]
    assert by_others.holds is True
    assert by_others.seen.endswith("flights 60.0 %, 72.0 %, 75.0 %")
    assert judged[name.format("without a calibration")].holds is True
    for bad in (of(0.80, 0.95), of(0.55, 0.95)):
        judged = {j.name: j for j in laws([bold] * 3, left_out=[bad] * 3)}
        assert judged[name.format("calibrated on the other flights")].holds is False
        assert judged[name.format("without a calibration")].holds is False


def test_laws_fail_one_by_one() -> None:
    good = [answer(k / 2) for k in range(1200)]
    spoilt = scored("whole", [*good[:-1], answer(0.0, off_m=60.0)])
    assert law([spoilt], "false fixes in flight").holds is False
    lazy = [a if k % 20 else answer(k / 2, status="ABSTAIN") for k, a in enumerate(good)]
    assert law([scored("whole", lazy)], "success at 20 m").holds is False
    off = [answer(k / 2, off_m=6.0) for k in range(1200)]
    assert law([scored("whole", off)], "median error").holds is False
    assert law([scored("whole", good)], "errors within the 68 % radius").holds is False
    late = scored("start", [answer(5.5)])
    assert law([late] * 4 + [scored("start", [answer(0.0)])] * 56, "first fix").holds is False
    never = scored("moved", [answer(0.0), answer(0.5, status="LOST")], moved_at=1)
    assert law([never], "moved: right again").holds is False
    assert law([never], "moved: LOST or right again").holds is True
    wrong = [answer(0.0), *(answer(0.5 + k / 2, off_m=900.0) for k in range(12)), answer(7.0)]
    assert law([scored("moved", wrong, moved_at=1)], "moved: no false fix").holds is False


def test_a_row_survives_being_written(tmp_path: Path) -> None:
    from benchmarks.flight_run import rows_from
    from benchmarks.rows import append_rows

    row = scored("whole", [answer(0.0)])
    append_rows(tmp_path / "rows.jsonl", [row])
    assert rows_from(tmp_path / "rows.jsonl") == [row]
    append_rows(tmp_path / "other.jsonl", [replace(row)])
    text = (tmp_path / "other.jsonl").read_text().replace('"p50_ms"', '"old_ms"')
    (tmp_path / "other.jsonl").write_text(text)
    with pytest.raises(InputError, match="another version"):
        rows_from(tmp_path / "other.jsonl")


def test_settings_are_checked_by_name() -> None:
    from benchmarks.flight_cli import config_from

    assert config_from(["ok_probability=0.9", "height_range_m=[80, 120]"]).height_range_m == (
        80,
        120,
    )
    with pytest.raises(InputError, match=r"there is no 'top'; known: .*top_k"):
        config_from(["top=3"])
    with pytest.raises(InputError, match="expected NAME=VALUE"):
        config_from(["top_k=many"])
