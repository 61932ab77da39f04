import math
from datetime import datetime, timezone
from pathlib import Path

import pytest

from edge_runtime.errors import InputError
from edge_runtime.state import VehicleState
from edge_runtime.states.csv_table import read_csv
from edge_runtime.states.opening import open_states
from edge_runtime.states.recording import RecordedStates, zones_s

NOON = datetime(2026, 7, 1, 12, 0, tzinfo=timezone.utc).timestamp()


def csv_file(tmp_path: Path, text: str, name: str = "telemetry.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(text.encode())
    return path


def states(tmp_path: Path, text: str, **options: float) -> RecordedStates:
    return RecordedStates(read_csv(csv_file(tmp_path, text)), **options)  # type: ignore[arg-type]


def by_seconds(times: list[float], start: float = 0.0) -> str:
    """Height 100 + t, so a state tells which time it is of."""
    return "t_s,height_m\n" + "".join(f"{start + t!r},{100 + t}\n" for t in times)


def test_rows_are_found_by_name_exactly_as_they_are_written(tmp_path: Path) -> None:
    rows = {
        f"{k:03d}.jpg": (k / 2, round(100 + k / 7, 3), (k * 37) % 360, k % 5 - 2.5, k % 3 - 1.5)
        for k in range(40)
    }
    text = "filename,t_s,height_m,yaw_deg,pitch_deg,roll_deg\n" + "".join(
        f"{name},{','.join(map(str, values))}\n" for name, values in rows.items()
    )
    source = states(tmp_path, text)
    assert source.names == set(rows)
    for name, (t_s, height_m, yaw_deg, pitch_deg, roll_deg) in rows.items():
        assert source.at(name, None) == VehicleState(
            t_s=t_s, height_m=height_m, yaw_deg=yaw_deg, pitch_deg=pitch_deg, roll_deg=roll_deg
        )


def test_rows_without_times_stand_for_themselves(tmp_path: Path) -> None:
    source = states(tmp_path, "filename,height_m\na.jpg,10\nb.jpg,\nc.jpg,500\n")
    assert not source.timed
    assert [source.at(f"{n}.jpg", None).height_m for n in "abc"] == [10.0, None, 500.0]
    assert source.events() == []


def test_a_row_without_time_is_checked_all_the_same(tmp_path: Path) -> None:
    source = states(tmp_path, "filename,height_m\na.jpg,10\nb.jpg,99999\n")
    assert source.at("b.jpg", None).height_m is None
    (line,) = source.events()
    assert "height_m is 99999.0" in line


def test_photographs_of_one_second_have_each_their_own_row(tmp_path: Path) -> None:
    rows = "filename,t_s,height_m,yaw_deg\na.jpg,5,100,10\nb.jpg,5,104,\nc.jpg,6,108,30\n"
    source = states(tmp_path, rows)
    a, b, c = (source.at(f"{n}.jpg", None) for n in "abc")
    assert [s.t_s for s in (a, b, c)] == [5.0, 5.0, 6.0]
    assert [s.height_m for s in (a, b, c)] == [100.0, 104.0, 108.0]
    assert a.yaw_deg == 10.0
    # What a row leaves empty comes from the moment.
    assert b.yaw_deg == 10.0


def test_a_heading_from_the_track_is_not_a_rows_to_say(tmp_path: Path) -> None:
    lines = [f"{k}.jpg,{k // 2},{47.5 + 1e-4 * k},8.3,77" for k in range(20)]
    text = "filename,t_s,lat_deg,lon_deg,yaw_deg\n" + "\n".join(lines) + "\n"
    source = RecordedStates(read_csv(csv_file(tmp_path, text)), heading="track")
    heading = source.at("10.jpg", None).yaw_deg
    assert heading is not None
    assert min(heading, 360 - heading) < 1


def test_frames_between_rows_get_what_is_between(tmp_path: Path) -> None:
    source = states(tmp_path, by_seconds([0, 1, 2, 3]))
    state = source.at("000012", 1.25)
    assert (state.t_s, state.height_m) == pytest.approx((1.25, 101.25))


def test_an_offset_is_added_to_the_frames_time(tmp_path: Path) -> None:
    source = states(tmp_path, by_seconds([0, 1, 2, 3]), time_offset_s=1.5)
    state = source.at("x", 1.0)
    assert (state.t_s, state.height_m) == pytest.approx((1.0, 102.5))


def test_a_frame_without_row_or_time_gets_nothing_and_it_is_said_once(tmp_path: Path) -> None:
    source = states(tmp_path, "filename,height_m\na.jpg,1\n")
    assert source.at("b.jpg", None).height_m is None
    assert source.at("c.jpg", 5.0).height_m is None
    (line,) = source.events()
    assert "no row for frame b.jpg" in line


@pytest.mark.parametrize("t_s", [math.nan, math.inf, None, -1e300, 1e300])
def test_no_time_of_a_frame_stops_the_flight(tmp_path: Path, t_s: float | None) -> None:
    source = states(tmp_path, by_seconds([0, 1, 2]))
    assert source.at("x", t_s).height_m is None


def test_dates_of_frames_find_dates_of_rows(tmp_path: Path) -> None:
    source = states(tmp_path, by_seconds([0, 1, 2, 3], NOON))
    assert source.at("x", NOON + 2.5).height_m == pytest.approx(102.5)
    assert source.events() == []


def test_iso_dates_are_dates_too(tmp_path: Path) -> None:
    text = "time_utc,height_m\n2026-07-01T12:00:00Z,100\n2026-07-01T14:00:01+02:00,101\n"
    source = states(tmp_path, text)
    assert source.at("x", NOON + 0.5).height_m == pytest.approx(100.5)
    assert source.at("video", 0.5).height_m == pytest.approx(100.5)


def test_a_clock_in_another_zone_is_corrected_where_it_is_plain(tmp_path: Path) -> None:
    source = states(tmp_path, by_seconds([0, 1, 2, 3], NOON + 5.5 * 3600))
    assert source.at("a", NOON + 1.5).height_m == pytest.approx(101.5)
    assert source.at("b", NOON + 2.0).t_s == NOON + 2.0
    (line,) = source.events()
    assert "5 h 30 min ahead of the frames', a difference of time zones; corrected" in line


def test_a_clock_in_another_zone_is_only_said_where_several_fit(tmp_path: Path) -> None:
    times = [10.0 * k for k in range(300)]
    source = states(tmp_path, by_seconds(times, NOON + 7200), max_gap_s=20.0)
    assert source.at("a", NOON + 2000.0).height_m is None
    lines = source.events()
    assert any("not corrected, give --time-offset-s" in line for line in lines)


def test_a_clock_that_is_minutes_off_is_not_taken_for_a_zone(tmp_path: Path) -> None:
    source = states(tmp_path, by_seconds([0, 1, 2, 3], NOON + 400))
    assert source.at("a", NOON + 1.5).height_m is None
    assert "taken as unknown" in source.events()[0]


@pytest.mark.parametrize(
    ("moment", "expected"), [(0.0, [3600.0]), (4000.0, []), (-900.0, [4500.0]), (3605.0, [])]
)
def test_zones_are_whole_quarter_hours(moment: float, expected: list[float]) -> None:
    assert zones_s(moment, 3600.0, 3610.0) == expected


def test_a_clock_set_back_begins_a_new_time(tmp_path: Path) -> None:
    before = [(t, 100 + t) for t in range(20)]
    after = [(t, 200 + t) for t in range(10, 30)]
    text = "t_s,height_m\n" + "".join(f"{t},{h}\n" for t, h in before + after)
    source = states(tmp_path, text)
    assert "clock was set back by 9.0 s after 19.00 s" in source.events()[0]
    assert source.at("a", 15.0).height_m == 115.0
    assert source.at("b", 19.0).height_m == 119.0
    assert source.at("c", 12.0).height_m == 212.0  # The frames' clock was set back too.
    assert source.at("d", 25.0).height_m == 225.0
    assert "frames' clock was set back by 7.0 s" in source.events()[0]


def test_rows_out_of_order_are_sorted_and_it_is_said(tmp_path: Path) -> None:
    source = states(tmp_path, by_seconds([0, 1, 3, 2, 4, 6, 5, 7]))
    assert source.at("x", 2.5).height_m == pytest.approx(102.5)
    assert source.events() == ["telemetry: 2 rows were out of order; sorted by time"]


def test_rows_given_twice_count_once(tmp_path: Path) -> None:
    source = states(tmp_path, by_seconds([0, 1, 1, 1, 2]))
    assert source.at("x", 1.5).height_m == pytest.approx(101.5)
    assert source.events() == ["telemetry: 2 rows repeat the row before; left out"]


def test_nan_cells_and_zero_positions_do_no_harm(tmp_path: Path) -> None:
    text = (
        "t_s,height_m,yaw_deg,lat_deg,lon_deg\n0,100,10,0,0\n1,nan,,0.0,0.0\n2,102,30,47,8\n"
        "3,inf,40,999,8\n"
    )
    source = states(tmp_path, text)
    state = source.at("x", 1.0)
    assert (state.height_m, state.yaw_deg) == pytest.approx((101.0, 20.0))
    assert len([line for line in source.events() if "position is 0.0, 0.0" in line]) == 1


def test_relative_heights_are_kept_apart_from_measured_ones(tmp_path: Path) -> None:
    source = states(tmp_path, "t_s,rel_alt_m\n0,50\n1,60\n")
    assert source.at("x", 0.5) == VehicleState(t_s=0.5, height_above_takeoff_m=55.0)
    assert source.knows("height_above_takeoff_m")
    assert not source.knows("height_m")


def test_an_airdata_export_is_read_with_its_units(tmp_path: Path) -> None:
    header = (
        "time(millisecond),datetime(utc),latitude,longitude,height_above_takeoff(feet),"
        "height_above_ground_at_drone_location(feet), xSpeed(mph), ySpeed(mph), "
        "compass_heading(degrees), pitch(degrees), roll(degrees),gimbal_heading(degrees),"
        "gimbal_pitch(degrees),gimbal_roll(degrees),altitude(feet)"
    )
    row = "2026-07-01 12:00:00,47.5,8.5,100,200,10,20,90,1,2,91,-90,0,1500"
    source = states(tmp_path, f"{header}\n0,{row}\n500,{row}\n")
    state = source.at("x", 0.5)
    assert state.height_above_takeoff_m == pytest.approx(30.48)
    assert state.height_m == pytest.approx(60.96)
    assert state.velocity_north_mps == pytest.approx(4.4704)
    assert state.velocity_east_mps == pytest.approx(8.9408)
    assert (state.yaw_deg, state.gimbal_yaw_deg, state.gimbal_pitch_deg) == (90, 91, -90)
    assert source.at("x", NOON + 0.5).yaw_deg == 90


def test_a_photo_table_of_wildnav_gives_angles_and_no_height(tmp_path: Path) -> None:
    text = (
        "Filename,Latitude,Longitude,Altitude,Gimball_Roll,Gimball_Yaw,Gimball_Pitch,Flight_Roll,"
        "Flight_Yaw,Flight_Pitch\na.jpg,60.4,22.4,130,0,45,-90,1,44,2\n"
    )
    source = states(tmp_path, text)
    assert source.at("a.jpg", None) == VehicleState(
        t_s=0.0, yaw_deg=44, pitch_deg=2, roll_deg=1, gimbal_yaw_deg=45, gimbal_pitch_deg=-90,
        gimbal_roll_deg=0,
    )  # fmt: skip
    assert source.positions == ((60.4, 22.4),)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("", "no rows; expected one row", id="empty"),
        pytest.param("height_m\n5\n", "expected filename or t_s", id="no key"),
        pytest.param("t_s,note\n0,x\n", "expected height_m .* yaw_deg", id="nothing useful"),
        pytest.param("t_s,height_m\n0\n", "line 2 is cut short", id="cut short"),
        pytest.param("t_s,height_m\n,5\n", "line 2 has no t_s", id="no time"),
        pytest.param("t_s,height_m\n0,12m\n", "height_m is '12m'; expected a number", id="text"),
        pytest.param("filename,height_m\na,1\na,2\n", "'a' has line 2 already", id="twice"),
        pytest.param("time_utc,height_m\nnow,5\n", "expected ISO 8601", id="no date"),
        pytest.param(
            "t_s,height_m,lat_deg,lon_deg\n0,5,103.8,1.3\n",
            r"is the order \(lat, lon\)",
            id="swapped",
        ),
    ],
)
def test_an_unusable_table_is_refused_with_what_was_expected(
    tmp_path: Path, text: str, expected: str
) -> None:
    with pytest.raises(InputError, match=expected):
        read_csv(csv_file(tmp_path, text))


def test_a_heading_from_a_track_wants_a_track(tmp_path: Path) -> None:
    path = csv_file(tmp_path, by_seconds([0, 1]))
    with pytest.raises(InputError, match="no positions with times"):
        open_states(str(path), heading="track")


@pytest.mark.parametrize("offset", [math.nan, math.inf])
def test_an_offset_that_is_no_time_is_refused(tmp_path: Path, offset: float) -> None:
    with pytest.raises(InputError, match="--time-offset-s"):
        states(tmp_path, by_seconds([0, 1]), time_offset_s=offset)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("none.csv", "does not exist; expected a .csv"), ("photo.png", "ends in .png; expected")],
)
def test_what_cannot_be_opened_is_refused(tmp_path: Path, name: str, expected: str) -> None:
    (tmp_path / "photo.png").write_bytes(b"x")
    with pytest.raises(InputError, match=expected):
        open_states(str(tmp_path / name))
