from pathlib import Path

import pytest

from edge_runtime.errors import InputError
from edge_runtime.state import VehicleState
from edge_runtime.states.csv_table import read_csv
from edge_runtime.states.recording import RecordedStates


def csv_file(tmp_path: Path, text: str, encoding: str = "utf-8") -> Path:
    path = tmp_path / "telemetry.csv"
    path.write_bytes(text.encode(encoding))
    return path


def only(tmp_path: Path, text: str) -> VehicleState:
    (state,) = rows_of(csv_file(tmp_path, text))
    return state


def rows_of(path: Path) -> list[VehicleState]:
    return [sample.state for sample in read_csv(path).samples]


def test_every_column_arrives_in_its_field(tmp_path: Path) -> None:
    header = (
        "t_s,height_m,yaw_deg,pitch_deg,roll_deg,gimbal_yaw_deg,gimbal_pitch_deg,"
        "gimbal_roll_deg,velocity_east_mps,velocity_north_mps"
    )
    assert only(tmp_path, f"{header}\n1,2,3,4,5,6,7,8,9,10\n") == VehicleState(
        t_s=1,
        height_m=2,
        yaw_deg=3,
        pitch_deg=4,
        roll_deg=5,
        gimbal_yaw_deg=6,
        gimbal_pitch_deg=7,
        gimbal_roll_deg=8,
        velocity_east_mps=9,
        velocity_north_mps=10,
    )


@pytest.mark.parametrize("height", ["height_m", "height_above_ground_m"])
@pytest.mark.parametrize("yaw", ["yaw_deg", "heading_deg"])
@pytest.mark.parametrize("time", ["t_s", "timestamp_s", "timestamp_seconds"])
def test_aliases_mean_the_same(tmp_path: Path, height: str, yaw: str, time: str) -> None:
    state = only(tmp_path, f"{time},{height},{yaw}\n7.5,100,270\n")
    assert (state.t_s, state.height_m, state.yaw_deg) == (7.5, 100.0, 270.0)


def test_the_preferred_name_wins_over_its_alias(tmp_path: Path) -> None:
    assert only(tmp_path, "t_s,height_above_ground_m,height_m\n0,1,2\n").height_m == 2.0


def test_order_spaces_and_unknown_columns_do_not_matter(tmp_path: Path) -> None:
    state = only(tmp_path, "camera, yaw_deg ,note,  t_s\nX, 12.5 ,hello, 3 \n")
    assert (state.t_s, state.yaw_deg, state.height_m) == (3.0, 12.5, None)


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_byte_order_mark_and_windows_lines_are_read(tmp_path: Path, newline: str) -> None:
    path = csv_file(tmp_path, newline.join(["filename,height_m", "a.jpg,80", ""]), "utf-8-sig")
    assert [s.height_m for s in rows_of(path)] == [80.0]


@pytest.mark.parametrize("cell", ["", "   ", "nan", "NaN", "inf"])
def test_what_is_not_known_is_none_and_never_zero(tmp_path: Path, cell: str) -> None:
    state = only(tmp_path, f"t_s,height_m,yaw_deg\n0,{cell},1\n")
    assert state.height_m is None
    assert state.yaw_deg == 1.0


def test_rows_keep_their_order_and_names(tmp_path: Path) -> None:
    samples = read_csv(
        csv_file(tmp_path, "filename,t_s,height_m\n b.jpg ,5,1\na.jpg,6,2\n")
    ).samples
    assert [(s.name, s.state.t_s, s.state.height_m) for s in samples] == [
        ("b.jpg", 5.0, 1.0),
        ("a.jpg", 6.0, 2.0),
    ]


def test_heights_above_take_off_are_not_heights_above_ground(tmp_path: Path) -> None:
    for name in ("height_above_takeoff_m", "alt_rel_m", "rel_alt_m"):
        state = only(tmp_path, f"t_s,{name}\n0,7\n")
        assert (state.height_m, state.height_above_takeoff_m) == (None, 7.0)


def test_iso_times_count_from_the_first_row(tmp_path: Path) -> None:
    text = (
        "filename,time_utc,height_m\n"
        "a,2024-10-30T10:05:15,1\nb,2024-10-30T10:05:15.250,1\nc,2024-10-30 10:06:15,1\n"
    )
    rows = rows_of(csv_file(tmp_path, text))
    assert [s.t_s for s in rows] == pytest.approx([0.0, 0.25, 60.0])


def test_iso_times_may_end_in_z(tmp_path: Path) -> None:
    text = "filename,time_utc,height_m\na,2024-10-30T10:05:15Z,1\nb,2024-10-30T10:05:16Z,1\n"
    assert [s.t_s for s in rows_of(csv_file(tmp_path, text))] == [0.0, 1.0]


def test_a_gimbal_that_is_zero_in_every_row_was_not_recorded(tmp_path: Path) -> None:
    header = "t_s,yaw_deg,gimbal_yaw_deg,gimbal_pitch_deg,gimbal_roll_deg"
    rows = rows_of(csv_file(tmp_path, f"{header}\n0,1,0,0.0,\n1,1,0,0,0\n"))
    assert {(s.gimbal_yaw_deg, s.gimbal_pitch_deg, s.gimbal_roll_deg) for s in rows} == {
        (None, None, None)
    }


def test_a_gimbal_that_moved_once_was_recorded_throughout(tmp_path: Path) -> None:
    header = "t_s,yaw_deg,gimbal_yaw_deg,gimbal_pitch_deg,gimbal_roll_deg"
    rows = rows_of(csv_file(tmp_path, f"{header}\n0,1,0,0,0\n1,1,0,-90,0\n"))
    assert [s.gimbal_pitch_deg for s in rows] == [0.0, -90.0]
    assert [s.gimbal_roll_deg for s in rows] == [0.0, 0.0]


def test_ignored_names_are_left_out(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "t_s,height_m,yaw_deg\n0,50,12\n")
    state = read_csv(path, ignore=frozenset({"yaw_deg"})).samples[0].state
    assert (state.height_m, state.yaw_deg) == (50.0, None)


def test_positions_are_kept_apart_from_states(tmp_path: Path) -> None:
    text = "t_s,height_m,lat_deg,lon_deg\n0,50,47.5,8.3\n1,50,,8.4\n2,50,47.6,8.5\n"
    samples = read_csv(csv_file(tmp_path, text)).samples
    assert not any("lat" in name for name in vars(samples[0].state))
    assert [sample.position for sample in samples] == [(47.5, 8.3), None, (47.6, 8.5)]


@pytest.mark.parametrize(
    ("header", "timed"), [("filename", False), ("filename,t_s", True), ("t_s", True)]
)
def test_a_file_without_times_says_so(tmp_path: Path, header: str, timed: bool) -> None:
    telemetry = read_csv(csv_file(tmp_path, f"{header},yaw_deg\n1,1,1\n"))
    assert telemetry.timed == timed


def test_a_name_to_ignore_that_there_is_not_is_refused(tmp_path: Path) -> None:
    recording = read_csv(csv_file(tmp_path, "t_s,height_m\n0,50\n"))
    with pytest.raises(InputError, match=r"ignore are \['yaw'\]; known: .*'yaw_deg'"):
        RecordedStates(recording, ignore=frozenset({"yaw"}))


def test_swapped_coordinates_are_refused(tmp_path: Path) -> None:
    text = "t_s,height_m,lat_deg,lon_deg\n0,50,,\n1,50,103.8,1.35\n"
    with pytest.raises(InputError, match=r"103\.8; is the order \(lat, lon\)\?"):
        read_csv(csv_file(tmp_path, text))


@pytest.mark.parametrize("cell", ["12m", "1;5", "north"])
def test_text_for_a_number_is_refused_by_line_and_column(tmp_path: Path, cell: str) -> None:
    text = f"t_s,heading_deg\n0,1\n1,{cell}\n"
    expected = f"line 3: heading_deg is '{cell}'; expected a number or an empty cell"
    with pytest.raises(InputError, match=expected):
        read_csv(csv_file(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("", "no rows; expected one row", id="empty"),
        pytest.param("t_s,height_m\n", "no rows; expected one row", id="header alone"),
        pytest.param("height_m\n5\n", "expected filename or t_s", id="no key"),
        pytest.param("t_s,note\n0,5\n", "expected height_m .* yaw_deg", id="nothing useful"),
        pytest.param("filename,time_utc,yaw_deg\na,now,5\n", "expected ISO 8601", id="time"),
    ],
)
def test_an_unusable_file_is_refused_with_what_was_expected(
    tmp_path: Path, text: str, expected: str
) -> None:
    with pytest.raises(InputError, match=expected):
        read_csv(csv_file(tmp_path, text))


def test_a_missing_file_and_one_that_is_not_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot be read .* expected a CSV"):
        read_csv(tmp_path / "none.csv")
    (tmp_path / "photo.csv").write_bytes(b"\xff\xd8\xff\xe0\x00\x10JFIF\x00")
    with pytest.raises(InputError, match=r"cannot be read .* expected a CSV"):
        read_csv(tmp_path / "photo.csv")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("height_m,filename\n5,a.jpg\n6\n", id="filename"),
        pytest.param("filename,height_m,time_utc\na,5\n", id="time"),
    ],
)
def test_a_row_cut_short_is_refused_by_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match="line"):
        read_csv(csv_file(tmp_path, text))


def test_times_with_and_without_a_zone_are_refused_by_line(tmp_path: Path) -> None:
    text = "filename,time_utc,height_m\na,2024-10-30T10:05:15+00:00,1\nb,2024-10-30T10:05:16,1\n"
    with pytest.raises(InputError, match="line 3"):
        read_csv(csv_file(tmp_path, text))


def test_an_empty_time_is_refused_by_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="line 3"):
        read_csv(csv_file(tmp_path, "t_s,height_m\n1000,5\n,5\n1002,5\n"))


def test_the_line_number_counts_empty_lines(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="line 4"):
        read_csv(csv_file(tmp_path, "t_s,height_m\n0,5\n\n1,five\n"))


def test_two_rows_for_one_frame_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.jpg"):
        read_csv(csv_file(tmp_path, "filename,height_m\na.jpg,5\na.jpg,6\n"))
