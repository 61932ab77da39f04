"""The dialects, one cue each with made-up values; the real files where they are at hand."""

import os
from pathlib import Path

import pytest

from edge_runtime.errors import InputError
from edge_runtime.state import VehicleState
from edge_runtime.states.opening import open_states
from edge_runtime.states.recording import RecordedStates
from edge_runtime.states.srt import read_srt

CUE = "00:00:{:02d},{:03d} --> 00:00:{:02d},{:03d}"


def srt(tmp_path: Path, *bodies: str, encoding: str = "utf-8", newline: str = "\n") -> Path:
    """Cues half a second apart."""
    text = "".join(
        f"{k + 1}\n{CUE.format(k // 2, k % 2 * 500, (k + 1) // 2, (k + 1) % 2 * 500)}\n{body}\n\n"
        for k, body in enumerate(bodies)
    )
    path = tmp_path / "video.srt"
    path.write_bytes(text.replace("\n", newline).encode(encoding))
    return path


BRACKETS = (
    '<font size="28">FrameCnt: 1, DiffTime: 33ms\n2026-01-02 10:11:12.345\n[iso: 100] '
    "[shutter: 1/1000.0] [fnum: 1.7] [ev: 0] [color_md : default] [focal_len: 24.00] "
    "[latitude: 47.10001] [longitude: 8.20001] [rel_alt: 19.600 abs_alt: 729.642] [ct: 56] </font>"
)
MISSPELT = (
    '<font size="36">FrameCnt : 1, DiffTime : 16ms\n2026-01-02 10:11:12,345,678\n[iso : 120] '
    "[focal_len : 240] [latitude : 47.100012] [longtitude : 8.200012] [altitude: 213.9] </font>"
)
GPS_COMMAS = (
    "F/5.6, SS 400, ISO 100, EV +0.7, GPS (8.200012, 47.100012, 16), HOME (8.2, 47.1, 7.60m), "
    "D 153.32m, H 17.39m, H.S 1.84m/s, V.S 0.00m/s, F.PRY (-8.9°, 2.9°, -75.0°), "
    "G.PRY (-27.3°, 0.1°, -76.0°)"
)
NOT_KNOWN = (
    "F/2.8, SS 30, ISO 260, EV -1.7, GPS (8.2, 47.1, 17), D 221.2m, H 200.70m, H.S n/a, V.S n/a"
)
BAROMETER = (
    "HOME(8.2000,47.1000) 2026.01.02 10:11:12\nGPS(8.2001,47.1001,16) BAROMETER:1.9\n"
    "ISO:100 Shutter:60 EV: Fnum:2.2"
)
OLD = "HOME(8.2,47.1) 2026.1.2 10:11:12\nGPS(8.2001,47.1001,16) Hb:1.9 Hs:0.7\nISO:100 TV:60"
LATITUDE_FIRST = "2026.01.02 10:11:12\nGPS(47.1001,8.2001,0.0M) BAROMETER:0.3M"


@pytest.mark.parametrize(
    ("body", "height", "position", "focal"),
    [
        pytest.param(BRACKETS, 19.6, (47.10001, 8.20001), 24.0, id="brackets"),
        pytest.param(MISSPELT, None, (47.100012, 8.200012), 24.0, id="misspelt, focal times ten"),
        pytest.param(GPS_COMMAS, 17.39, (47.100012, 8.200012), None, id="commas"),
        pytest.param(NOT_KNOWN, 200.7, (47.1, 8.2), None, id="n/a"),
        pytest.param(BAROMETER, 1.9, (47.1001, 8.2001), None, id="barometer"),
        pytest.param(OLD, 1.9, (47.1001, 8.2001), None, id="old"),
        pytest.param(LATITUDE_FIRST, 0.3, (47.1001, 8.2001), None, id="latitude first"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_every_dialect_gives_height_and_position(
    tmp_path: Path,
    body: str,
    height: float | None,
    position: tuple[float, float],
    focal: float | None,
    encoding: str,
    newline: str,
) -> None:
    recording = read_srt(srt(tmp_path, body, body, encoding=encoding, newline=newline))
    assert [s.state.t_s for s in recording.samples] == [0.0, 0.5]
    assert recording.samples[0].state.height_above_takeoff_m == height
    assert recording.samples[0].position == position
    assert recording.focal_35mm_mm == focal


def test_flight_and_gimbal_angles_are_pitch_roll_yaw(tmp_path: Path) -> None:
    state = read_srt(srt(tmp_path, GPS_COMMAS)).samples[0].state
    assert state == VehicleState(
        t_s=0.0, height_above_takeoff_m=17.39, pitch_deg=-8.9, roll_deg=2.9, yaw_deg=-75.0,
        gimbal_pitch_deg=-27.3, gimbal_roll_deg=0.1, gimbal_yaw_deg=-76.0,
    )  # fmt: skip


@pytest.mark.parametrize(("angles", "known"), [(("10.5", "-90.0"), True), (("0.0", "0"), False)])
def test_a_gimbal_by_its_keys_is_read_unless_it_is_all_zero(
    tmp_path: Path, angles: tuple[str, str], known: bool
) -> None:
    body = f"{BRACKETS} [gb_yaw: {angles[0]} gb_pitch: {angles[1]} gb_roll: 0.0]"
    state = read_srt(srt(tmp_path, body)).samples[0].state
    expected = (10.5, -90.0, 0.0) if known else (None, None, None)
    assert (state.gimbal_yaw_deg, state.gimbal_pitch_deg, state.gimbal_roll_deg) == expected


def test_a_lone_altitude_is_a_height_only_when_the_user_says_so(tmp_path: Path) -> None:
    path = srt(tmp_path, MISSPELT)
    assert "may be above the sea or above take-off" in read_srt(path).notes[0]
    sample = read_srt(path, altitude_is_height=True).samples[0]
    assert sample.state.height_above_takeoff_m == 213.9


def test_dates_in_place_of_cue_times_count_from_the_first(tmp_path: Path) -> None:
    path = tmp_path / "dated.SRT"
    path.write_text(
        "1\n2026.01.02 10:11:12,250,100\n[latitude : 47.1] [longtitude : 8.2]\n\n"
        "2\n2026.01.02 10:11:13,250,100\n[latitude : 47.1] [longtitude : 8.2]\n\n"
    )
    assert [s.state.t_s for s in read_srt(path).samples] == [0.0, 1.0]


def test_frames_with_dates_find_cues_by_the_date_in_them(tmp_path: Path) -> None:
    source = open_states(str(srt(tmp_path, BRACKETS, BRACKETS)))
    date_s = 1767348672.345  # 2026-01-02 10:11:12.345 UTC
    assert source.at("x", date_s + 0.25).height_above_takeoff_m == 19.6


def test_positions_in_the_wrong_order_are_told_by_their_size(tmp_path: Path) -> None:
    body = "GPS (47.1, 121.5, 16), H 20.0m"
    recording = read_srt(srt(tmp_path, body))
    assert recording.samples[0].position == (47.1, 121.5)
    assert "read the other way round" in recording.notes[0]


@pytest.mark.parametrize("cut", [30, 80, 150])
def test_a_cue_cut_off_is_left_out_and_said(tmp_path: Path, cut: int) -> None:
    recording = read_srt(srt(tmp_path, GPS_COMMAS, GPS_COMMAS[:cut]))
    assert len(recording.samples) == 1
    assert "cut off in its last cue" in recording.notes[0]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param("", r"no cues \(0 characters\)", id="empty"),
        pytest.param("1\n", r"no cues \(1 characters\)", id="one digit"),
        pytest.param("\xff\xd8\x00 binary", "no cues", id="binary"),
        pytest.param(
            "1\n00:00:00,000 --> 00:00:01,000\n[iso : 100] [ct : 5627]\n",
            "1 cues without a height, an attitude or a position",
            id="nothing of use",
        ),
    ],
)
def test_what_says_nothing_is_refused_in_one_line(
    tmp_path: Path, content: str, expected: str
) -> None:
    path = tmp_path / "video.srt"
    path.write_text(content)
    with pytest.raises(InputError, match=expected) as raised:
        open_states(str(path))
    assert "\n" not in str(raised.value)


def test_coarse_positions_give_no_heading(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="in steps of 11 m, too coarse for a heading"):
        open_states(str(srt(tmp_path, BAROMETER, BAROMETER)), heading="track")


def data_folder() -> Path:
    folder = Path(os.environ.get("SKYFIX_DATA", "none"))
    if not (folder / "srt" / "dji_samples").is_dir():
        pytest.skip("SKYFIX_DATA has no srt/dji_samples")
    return folder


@pytest.mark.parametrize(
    ("name", "cues", "heights"),
    [
        ("MAVIC3.srt", 12318, True),
        ("air2s.srt", 17, False),
        ("m2zoom.SRT", 7113, False),
        ("mavic_2_style.SRT", 468, False),
        ("mavic_2pro_new.SRT", 8952, False),
        ("mavic_mini.SRT", 117, True),
        ("mavic_pro.SRT", 468, True),
        ("mavic_pro_buggy.SRT", 546, True),
        ("old_format.SRT", 468, True),
        ("matrice_300.srt", 381, True),
        ("p4_rtk.SRT", 55, True),
        ("p4p_sample.SRT", 5, True),
        ("broken_incomplete.SRT", 19, True),
        ("broken_incomplete2.SRT", 5, False),
    ],
)
def test_real_files_of_every_dialect_are_read(name: str, cues: int, heights: bool) -> None:
    recording = read_srt(data_folder() / "srt" / "dji_samples" / name)
    assert abs(len(recording.samples) - cues) <= 1
    known = [s.state.height_above_takeoff_m is not None for s in recording.samples]
    assert all(known) if heights else not any(known)
    # Two of them have cues that are cut off in the middle of the file.
    assert sum(s.position is not None for s in recording.samples) >= 0.8 * cues


def test_real_subtitles_give_a_heading_by_their_track() -> None:
    """The drone climbs until 32 s, flies west-north-west from 36 s on and rests at 90 s."""
    folder = data_folder() / "ariel" / "flight_0017"
    path = next(folder.glob("*.SRT"))
    source = open_states(str(path), heading="track")
    assert isinstance(source, RecordedStates)
    assert source.at("x", 20.0).yaw_deg is None
    heading = source.at("x", 60.0).yaw_deg
    assert heading is not None
    assert 285 < heading < 300
    assert source.at("x", 90.0).yaw_deg is None
    assert open_states(str(path), heading="track-held").at("x", 60.0).yaw_deg == heading
