"""Map files that are complete at any moment, and say nothing where nothing is known."""

import csv
import errno
import itertools
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.errors import InputError
from edge_runtime.fix import Fix
from edge_runtime.geodesy import distance_m
from edge_runtime.outputs.opening import open_output
from edge_runtime.outputs.protocol import Output
from edge_runtime.outputs.tailed_file import TailedFile
from edge_runtime.outputs.track_file import LINE_POINTS

KML = "{http://www.opengis.net/kml/2.2}"
GPX = "{http://www.topografix.com/GPX/1/1}"
MAY_2026 = 1_777_627_800.125
"""2026-05-01T09:30:00.125Z (date -d @1777627800 -u)."""

GOOD = Fix(
    seq=0,
    frame='a<&>"é.jpg',
    t_exposure_s=MAY_2026,
    t_fix_s=0.1,
    status="OK",
    mode="TRACK",
    reason="",
    lat_deg=47.5,
    lon_deg=8.25,
    eph_m=2.5,
    yaw_deg=12.0,
    probability=0.999,
)


def flight(statuses: str, *, start_s: float = MAY_2026) -> list[Fix]:
    """One fix a letter: O is OK, L lost, D dead reckoning, A abstained."""
    names = {"O": "OK", "L": "LOST", "D": "DEGRADED", "A": "ABSTAIN"}
    fixes = []
    for k, letter in enumerate(statuses):
        known = letter in "OD"
        fixes.append(
            replace(
                GOOD,
                seq=k,
                t_exposure_s=start_s + k,
                status=names[letter],  # type: ignore[arg-type]
                reason="" if letter == "O" else "dark & <cloudy>",
                lat_deg=47.5 + 1e-4 * k if known else None,
                lon_deg=8.25 if known else None,
                eph_m=2.5 if known else None,
            )
        )
    return fixes


def written(uri: str, fixes: list[Fix]) -> None:
    output = open_output(uri)
    for fix in fixes:
        output.write(fix)
    output.close()


def features(path: Path, kind: str) -> list[dict[str, Any]]:
    collection = json.loads(path.read_text())
    assert collection["type"] == "FeatureCollection"
    return [f for f in collection["features"] if f["properties"]["kind"] == kind]


def xml_root(path: Path) -> ET.Element:
    return ET.fromstring(path.read_text())


# --- what is in them -----------------------------------------------------------------------------


def test_geojson_has_a_point_a_fix_lines_between_them_and_gaps(tmp_path: Path) -> None:
    path = tmp_path / "track.geojson"
    written(str(path), flight("AOOLLDOOO"))
    points = features(path, "fix")
    assert [p["properties"]["seq"] for p in points] == [1, 2, 6, 7, 8]
    assert points[0]["geometry"] == {"type": "Point", "coordinates": [8.25, 47.5001]}
    assert points[0]["properties"]["time_utc"] == "2026-05-01T09:30:01.125Z"
    assert points[0]["properties"]["eph_m"] == 2.5
    lines = [line["geometry"]["coordinates"] for line in features(path, "track")]
    assert lines == [
        [[8.25, 47.5001], [8.25, 47.5002]],
        [[8.25, 47.5006], [8.25, 47.5007], [8.25, 47.5008]],
    ]
    gaps = [gap["properties"] for gap in features(path, "gap")]
    assert [(g["fixes"], g["begin_t_s"] - MAY_2026, g["end_t_s"] - MAY_2026) for g in gaps] == [
        (1, 0, 0),
        (3, 3, 5),
    ]
    assert all(gap["geometry"] is None for gap in features(path, "gap"))


def test_kml_has_points_with_their_time_and_lines(tmp_path: Path) -> None:
    path = tmp_path / "track.kml"
    written(str(path), flight("OOLO"))
    marks = xml_root(path).findall(f"{KML}Document/{KML}Placemark")
    points = [m for m in marks if m.find(f"{KML}Point") is not None]
    assert [m.findtext(f"{KML}Point/{KML}coordinates") for m in points] == [
        "8.2500000,47.5000000",
        "8.2500000,47.5001000",
        "8.2500000,47.5003000",
    ]
    assert points[0].findtext(f"{KML}TimeStamp/{KML}when") == "2026-05-01T09:30:00.125Z"
    lines = [m.findtext(f"{KML}LineString/{KML}coordinates") for m in marks]
    assert [line for line in lines if line] == ["8.2500000,47.5000000 8.2500000,47.5001000"]
    gaps = [m for m in marks if (m.findtext(f"{KML}name") or "").startswith("gap")]
    assert [gap.findtext(f"{KML}name") for gap in gaps] == ["gap of 1 fixes"]
    assert "dark & <cloudy>" in (gaps[0].findtext(f"{KML}description") or "")


@pytest.mark.parametrize(("percent", "sigmas"), [("68", 1.51), ("95", 2.45)])
def test_circles_have_the_radius_that_holds_so_many_errors(
    tmp_path: Path, percent: str, sigmas: float
) -> None:
    """The factors are those of Fix.eph_m."""
    path = tmp_path / "track.kml"
    written(f"kml:{path}?circles={percent}", [GOOD])
    ring = xml_root(path).findtext(f".//{KML}LinearRing/{KML}coordinates")
    assert ring is not None
    corners = [tuple(map(float, corner.split(","))) for corner in ring.split()]
    assert corners[0] == corners[-1]
    for lon, lat in corners:
        assert distance_m(47.5, 8.25, lat, lon) == pytest.approx(sigmas * 2.5, rel=0.01)


def test_gpx_begins_a_segment_after_each_gap(tmp_path: Path) -> None:
    path = tmp_path / "track.gpx"
    written(str(path), flight("LOODDAOO"))
    segments = xml_root(path).findall(f"{GPX}trk/{GPX}trkseg")
    assert [len(segment.findall(f"{GPX}trkpt")) for segment in segments] == [2, 2]
    point = segments[0][0]
    assert point.attrib == {"lat": "47.5001000", "lon": "8.2500000"}
    assert point.findtext(f"{GPX}time") == "2026-05-01T09:30:01.125Z"
    assert point.findtext(f"{GPX}extensions/{{urn:skyfix:gpx:1}}eph_m") == "2.50"
    order = [child.tag.removeprefix(GPX) for child in point]
    assert order == ["time", "name", "fix", "extensions"]


def test_csv_has_a_row_a_fix_and_no_position_unless_it_is_ok(tmp_path: Path) -> None:
    path = tmp_path / "track.csv"
    written(str(path), flight("OLDA"))
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["status"] for row in rows] == ["OK", "LOST", "DEGRADED", "ABSTAIN"]
    assert [row["lat_deg"] for row in rows] == ["47.5000000", "", "", ""]
    assert [row["eph_m"] for row in rows] == ["2.50", "", "", ""]
    assert rows[0]["frame"] == 'a<&>"é.jpg'
    assert rows[0]["time_utc"] == "2026-05-01T09:30:00.125Z"


@pytest.mark.parametrize("suffix", ["geojson", "kml", "gpx", "csv"])
@pytest.mark.parametrize("status", ["L", "D", "A"])
def test_no_position_leaves_that_is_not_ok(tmp_path: Path, suffix: str, status: str) -> None:
    path = tmp_path / f"track.{suffix}"
    fixes = [replace(f, lat_deg=12.3456, lon_deg=65.4321, eph_m=9.0) for f in flight(status * 3)]
    written(str(path), fixes)
    assert "12.3456" not in path.read_text()
    assert "65.4321" not in path.read_text()


@pytest.mark.parametrize("suffix", ["geojson", "kml", "gpx", "csv"])
def test_a_clock_that_does_not_count_from_1970_gives_no_date(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"track.{suffix}"
    written(str(path), flight("OLO", start_s=12.0))
    text = path.read_text()
    assert "1970" not in text
    assert "12.0" in text


@pytest.mark.parametrize("suffix", ["geojson", "kml", "gpx"])
def test_a_new_track_is_not_joined_to_the_old_one(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"track.{suffix}"
    fixes = flight("OOOO")
    written(str(path), [*fixes[:2], *(replace(f, reset_counter=1) for f in fixes[2:])])
    text = path.read_text()
    stretches = {"geojson": '"LineString"', "kml": "<LineString>", "gpx": "<trkseg>"}
    assert text.count(stretches[suffix]) == 2


def test_a_track_across_the_antimeridian_is_not_drawn_around_the_world(tmp_path: Path) -> None:
    path = tmp_path / "track.geojson"
    lons = (179.9998, 179.9999, -179.9999, -179.9998)
    written(str(path), [replace(GOOD, lon_deg=lon) for lon in lons])
    lines = [line["geometry"]["coordinates"] for line in features(path, "track")]
    assert [[lon for lon, _ in line] for line in lines] == [list(lons[:2]), list(lons[2:])]


def test_long_tracks_are_stretches_that_touch(tmp_path: Path) -> None:
    path = tmp_path / "track.geojson"
    count = 3 * LINE_POINTS
    written(str(path), flight("O" * count))
    lines = [line["geometry"]["coordinates"] for line in features(path, "track")]
    assert all(a[-1] == b[0] for a, b in itertools.pairwise(lines))
    assert sum(len(line) - 1 for line in lines) == count - 1


# --- at any moment -------------------------------------------------------------------------------


def check_whole(path: Path) -> None:
    if path.suffix == ".geojson":
        json.loads(path.read_text())
    elif path.suffix == ".csv":
        assert path.read_text().endswith("\n")
    else:
        xml_root(path)


@pytest.mark.parametrize("suffix", ["geojson", "kml", "gpx", "csv"])
def test_a_file_is_complete_after_every_fix(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"track.{suffix}"
    output = open_output(str(path))
    check_whole(path)
    for fix in flight("LLOLOOLAAAOOD" + "O" * (LINE_POINTS + 5) + "L" * 12):
        output.write(fix)
        check_whole(path)
    output.close()
    output.close()
    check_whole(path)


CHILD = textwrap.dedent(
    """
    import sys
    from edge_runtime.fix import Fix
    from edge_runtime.outputs.opening import open_output
    output = open_output(sys.argv[1])
    for seq in range(10**9):
        output.write(Fix(seq=seq, frame="", t_exposure_s=0.0, t_fix_s=0.0, mode="TRACK", reason="",
                         status="OK" if seq % 7 else "LOST", lat_deg=1.0, lon_deg=2.0, eph_m=3.0))
        if seq % 200 == 0:
            print(seq, flush=True)
    """
)


@pytest.mark.parametrize("suffix", ["geojson", "kml", "gpx"])
def test_a_killed_process_leaves_a_complete_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"track.{suffix}"
    for lines in (1, 4):
        with subprocess.Popen(
            [sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout is not None
            for _ in range(lines):
                child.stdout.readline()
            child.send_signal(signal.SIGKILL)
        check_whole(path)


@pytest.mark.parametrize("suffix", ["geojson", "kml", "gpx", "csv"])
def test_a_disk_that_fills_up_leaves_a_complete_file_and_the_fix_may_be_given_again(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, whole = tmp_path / f"track.{suffix}", tmp_path / f"whole.{suffix}"
    fixes = flight("OOLLOOLO")
    output = open_output(str(path))
    room = 1 << 30
    pwrite = os.pwrite

    def with_little_room(fd: int, data: bytes, offset: int) -> int:
        if offset >= room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return pwrite(fd, data[: room - offset], offset)

    monkeypatch.setattr(os, "pwrite", with_little_room)
    failures = 0
    for fix in fixes:
        room = path.stat().st_size + 5
        try:
            output.write(fix)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            failures += 1
            check_whole(path)
            room = 1 << 30
            output.write(fix)
    output.close()
    monkeypatch.undo()
    written(str(whole), fixes)
    assert failures >= 5
    assert path.read_text().split() == whole.read_text().split()


def test_every_fix_costs_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes handed to the system, not seconds: the machine may be busy."""
    path = tmp_path / "track.geojson"
    output = open_output(str(path))
    sizes: list[int] = []
    pwrite = os.pwrite

    def counted(fd: int, data: bytes, offset: int) -> int:
        sizes.append(len(data))
        return pwrite(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", counted)
    for fix in flight("O" * 3000):
        output.write(fix)
    output.close()
    assert max(sizes[-500:]) <= max(sizes[:500]) + 20
    assert max(sizes) < 10_000


def test_a_tail_that_shrinks_leaves_nothing_of_the_old_one(tmp_path: Path) -> None:
    file = TailedFile(tmp_path / "x", "head", "a long tail")
    file.append("b", "]")
    assert (tmp_path / "x").read_text().rstrip() == "headb]"
    file.append("cdefghijklmnop", "]")
    assert (tmp_path / "x").read_text() == "headbcdefghijklmnop]"
    file.close()
    with pytest.raises(OSError, match="closed"):
        file.append("", "")


# --- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("track.txt", r"expected KIND:PLACE with one of geojson, .*mavlink, or a file that ends"),
        ("geojson:", "is not known"),
        ("gif:track.gif", "is not known"),
        ("http://host/track.kml", "is not known"),
        ("kml:track.kml?circles=50", "expected 68 or 95"),
        ("kml:track.kml?circle=95", "no option circle; known for kml: circles"),
        ("geojson:a.geojson?x=1", "no option x; known for geojson: none"),
    ],
)
def test_an_output_that_cannot_be_is_refused(uri: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_output(uri)


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot be written .*choose another file"):
        open_output(str(tmp_path / "file" / "track.kml"))


def test_missing_folders_are_made_and_an_old_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "new" / "track.geojson"
    for _ in range(2):
        written(f"geojson:{path}", [GOOD])
        assert len(features(path, "fix")) == 1


def test_minutes_of_fixes_are_written_in_moments(tmp_path: Path) -> None:
    """Processor time; the limit is a hundred times what they take."""
    outputs: list[Output] = [open_output(str(tmp_path / f"t.{s}")) for s in ("gpx", "csv")]
    began_s = time.process_time()
    for fix in flight("O" * 3600):
        for output in outputs:
            output.write(fix)
    assert time.process_time() - began_s < 30
