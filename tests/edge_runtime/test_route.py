"""Route files in the forms that planners write them, and what is not one of them."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_runtime.errors import InputError
from edge_runtime.geodesy import haversine_m
from edge_runtime.route import Route, read_route, walk

CORNERS = [(47.3977, 8.5456, 30.0), (47.3985, 8.5466, 50.0), (47.3991, 8.5449, 50.0)]

GOOGLE_EARTH_KML = """<?xml version="1.0" encoding="UTF-8"?>
<kml xmlns="http://www.opengis.net/kml/2.2" xmlns:gx="http://www.google.com/kml/ext/2.2" \
xmlns:kml="http://www.opengis.net/kml/2.2" xmlns:atom="http://www.w3.org/2005/Atom">
<Document>
\t<name>Survey.kml</name>
\t<Style id="inline"><LineStyle><color>ff0000ff</color><width>2</width></LineStyle></Style>
\t<Placemark>
\t\t<name>Launch</name>
\t\t<Point><coordinates>8.5456,47.3977,0</coordinates></Point>
\t</Placemark>
\t<Placemark>
\t\t<name>Way</name>
\t\t<styleUrl>#inline</styleUrl>
\t\t<LineString>
\t\t\t<tessellate>1</tessellate>
\t\t\t<coordinates>
\t\t\t\t8.5456,47.3977,30 8.5466,47.3985,50 8.5449,47.3991,50
\t\t\t</coordinates>
\t\t</LineString>
\t</Placemark>
</Document>
</kml>
"""
TRACK_KML = """<?xml version="1.0" encoding="UTF-8"?>
<kml xmlns="http://www.opengis.net/kml/2.2" xmlns:gx="http://www.google.com/kml/ext/2.2">
<Placemark><gx:Track><altitudeMode>absolute</altitudeMode>
<when>2024-05-28T02:02:09Z</when><when>2024-05-28T02:02:35Z</when><when>2024-05-28T02:02:44Z</when>
<gx:coord>8.5456 47.3977 30</gx:coord><gx:coord>8.5466 47.3985 50</gx:coord>
<gx:coord>8.5449 47.3991 50</gx:coord>
</gx:Track></Placemark></kml>
"""
BILLION_LAUGHS = """<?xml version="1.0"?>
<!DOCTYPE kml [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>
<kml xmlns="http://www.opengis.net/kml/2.2"><LineString><coordinates>&b;</coordinates></LineString>
</kml>
"""
OUTSIDE_ENTITY = """<?xml version="1.0"?>
<!DOCTYPE kml SYSTEM "file:///etc/passwd">
<kml/>
"""


def simple(command: int, params: list[float | None], frame: int = 3) -> dict[str, Any]:
    """A mission item as QGroundControl 4 saves it."""
    return {
        "AMSLAltAboveTerrain": None,
        "Altitude": params[6],
        "AltitudeMode": 1,
        "autoContinue": True,
        "command": command,
        "doJumpId": 1,
        "frame": frame,
        "params": params,
        "type": "SimpleItem",
    }


def place(command: int, lat: float, lon: float, alt: float) -> dict[str, Any]:
    return simple(command, [0, 0, 0, None, lat, lon, alt])


def qgc_plan(items: list[dict[str, Any]], home: Any = (47.3970, 8.5450, 488.0)) -> str:
    mission = {
        "cruiseSpeed": 15,
        "firmwareType": 12,
        "globalPlanAltitudeMode": 1,
        "hoverSpeed": 5,
        "items": items,
        "plannedHomePosition": None if home is None else list(home),
        "vehicleType": 2,
        "version": 2,
    }
    plan = {
        "fileType": "Plan",
        "geoFence": {"circles": [], "polygons": [], "version": 2},
        "groundStation": "QGroundControl",
        "mission": mission,
        "rallyPoints": {"points": [], "version": 2},
        "version": 1,
    }
    return json.dumps(plan, indent=4)


def survey(corners: list[tuple[float, float, float]]) -> dict[str, Any]:
    """A survey with the waypoints that QGroundControl made of it, camera commands between."""
    trigger = simple(206, [25, 0, 1, 0, 0, 0, 0], frame=2)
    items = [item for corner in corners for item in (place(16, *corner), trigger)]
    return {
        "TransectStyleComplexItem": {
            "CameraCalc": {"CameraName": "Manual (no camera specs)", "DistanceToSurface": 50},
            "CameraTriggerInTurnAround": True,
            "Items": items,
            "VisualTransectPoints": [list(corner[:2]) for corner in corners],
            "version": 2,
        },
        "angle": 27,
        "complexItemType": "survey",
        "entryLocation": 0,
        "polygon": [[47.0, 8.0], [47.0, 8.01], [47.01, 8.01]],
        "type": "ComplexItem",
        "version": 5,
    }


def line(corners: list[list[float]]) -> dict[str, Any]:
    return {"type": "LineString", "coordinates": corners}


GEO_CORNERS = [[lon, lat, alt] for lat, lon, alt in CORNERS]
GOOD = {
    "feature collection.geojson": json.dumps(
        {
            "type": "FeatureCollection",
            "features": [
                {
                    "type": "Feature",
                    "properties": {"name": "launch"},
                    "geometry": {"type": "Point", "coordinates": [8.5456, 47.3977]},
                },
                {"type": "Feature", "properties": {}, "geometry": line(GEO_CORNERS)},
            ],
        }
    ),
    "bare.json": json.dumps(line(GEO_CORNERS)),
    "one of many.geojson": json.dumps({"type": "MultiLineString", "coordinates": [GEO_CORNERS]}),
    "google earth.kml": GOOGLE_EARTH_KML,
    "track.kml": TRACK_KML,
    "waypoints.plan": qgc_plan(
        [place(22, *CORNERS[0]), place(16, *CORNERS[1]), place(16, *CORNERS[2])]
    ),
    "survey.plan": qgc_plan([place(22, *CORNERS[0]), survey(CORNERS[1:])]),
    "commas.csv": "name,Latitude,Longitude,alt\na,47.3977,8.5456,30\nb,47.3985,8.5466,50\n"
    "c,47.3991,8.5449,50\n",
    "byte order mark.csv": "\ufefflat_deg,lon_deg,height_m\n47.3977,8.5456,30\n"
    "47.3985,8.5466,50\n47.3985,8.5466,50\n47.3991,8.5449,50\n",
}


@pytest.mark.parametrize("name", GOOD)
def test_every_planners_file_gives_the_same_route(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(GOOD[name], encoding="utf-8")
    route = read_route(tmp_path / name)
    assert route.lat_deg.tolist() == [c[0] for c in CORNERS]
    assert route.lon_deg == pytest.approx([c[1] for c in CORNERS], abs=1e-9)
    assert route.height_m.tolist() == [c[2] for c in CORNERS]


def test_a_plan_starts_at_home_where_take_off_has_no_place_and_returns_there(
    tmp_path: Path,
) -> None:
    path = tmp_path / "mission.plan"
    items = [
        simple(22, [15, 0, 0, None, None, None, 30]),
        simple(530, [0, 2, None, None, None, None, None], frame=2),
        place(16, *CORNERS[1]),
        simple(20, [0, 0, 0, 0, 0, 0, 0], frame=2),
    ]
    path.write_text(qgc_plan(items))
    route = read_route(path)
    assert route.lat_deg.tolist() == [47.3970, 47.3985, 47.3970]
    assert route.height_m.tolist() == [488.0, 50.0, 488.0]


def test_heights_that_a_file_does_not_give_are_nan(tmp_path: Path) -> None:
    path = tmp_path / "flat.geojson"
    path.write_text(json.dumps(line([[8.5, 47.3], [8.6, 47.3]])))
    assert np.isnan(read_route(path).height_m).all()


BAD = {
    "no ending": ("route", "x", r"expected a route as \.geojson, \.kml, \.plan or \.csv"),
    "another kind": ("route.gpx", "<gpx/>", r"ends in '\.gpx'; expected"),
    "not JSON": ("a.geojson", "{", "is not JSON"),
    "a list": ("a.geojson", "[]", "holds a JSON list; expected an object"),
    "deep JSON": ("a.geojson", "[" * 100_000, "is not JSON"),
    "no line": (
        "a.geojson",
        json.dumps({"type": "Point", "coordinates": [8, 47]}),
        "has 0 LineStrings; expected a route of exactly one",
    ),
    "two lines": (
        "a.geojson",
        json.dumps({"type": "MultiLineString", "coordinates": [GEO_CORNERS, GEO_CORNERS]}),
        "has 2 LineStrings",
    ),
    "text for numbers": (
        "a.geojson",
        json.dumps(line([["8.5", "47"], [8, 47]])),  # type: ignore[list-item]
        "has no usable coordinates .* expected",
    ),
    "endless numbers": (
        "a.geojson",
        '{"type": "LineString", "coordinates": [[8, 1e999], [8, 47]]}',
        "has no usable coordinates",
    ),
    "one point": ("a.geojson", json.dumps(line([[8, 47]])), "has 1 different positions"),
    "standing still": ("a.geojson", json.dumps(line([[8, 47]] * 3)), "has 1 different positions"),
    "swapped axes": (
        "a.geojson",
        json.dumps(line([[47.0, 120.0], [47.1, 120.0]])),
        r"latitude 120\.0+ is outside .* is the order \(lat, lon\)\?",
    ),
    "not XML": ("a.kml", "<kml", "is not usable KML"),
    "entities": ("a.kml", BILLION_LAUGHS, "declares a document type"),
    "an outside entity": ("a.kml", OUTSIDE_ENTITY, "declares a document type"),
    "KML without a line": ("a.kml", "<kml><Placemark/></kml>", "has 0 LineStrings"),
    "KML of words": (
        "a.kml",
        "<kml><LineString><coordinates>here there</coordinates></LineString></kml>",
        "has no usable coordinates",
    ),
    "another plan": ("a.plan", '{"fileType": "Mission"}', "expected a QGroundControl Plan"),
    "no mission": ("a.plan", '{"fileType": "Plan"}', "is not a usable QGroundControl plan"),
    "items of text": (
        "a.plan",
        '{"fileType": "Plan", "mission": {"items": ["fly"]}}',
        "is not a usable QGroundControl plan",
    ),
    "a structure scan": (
        "a.plan",
        qgc_plan([{"type": "ComplexItem", "complexItemType": "StructureScan", "version": 3}]),
        "holds the complex item 'StructureScan' without its waypoints",
    ),
    "an empty plan": ("a.plan", qgc_plan([]), "has 0 different positions"),
    "CSV without names": ("a.csv", "47.3,8.5\n47.4,8.6\n", "expected lat_deg and lon_deg"),
    "CSV with a gap": ("a.csv", "lat,lon\n47.3,8.5\n47.4,\n", "line 3 has no usable position"),
    "CSV with NaN": ("a.csv", "lat,lon\nnan,8.5\n47.4,8\n", "line 2 has no usable position"),
    "nothing": ("a.csv", "", "has columns none"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_route_is_refused_in_one_line(case: str, tmp_path: Path) -> None:
    name, text, says = BAD[case]
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=says) as caught:
        read_route(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_absent_a_binary_and_a_huge_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read as text"):
        read_route(tmp_path / "absent.kml")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(InputError, match="cannot be read as text"):
        read_route(tmp_path / "binary.csv")
    with (tmp_path / "huge.csv").open("wb") as stream:
        stream.truncate(65 << 20)
    with pytest.raises(InputError, match="expected a route of less than 64 MB"):
        read_route(tmp_path / "huge.csv")


def test_steps_are_equal_short_and_reach_both_ends() -> None:
    route = Route(
        lat_deg=np.array([0.0, 0.0, 0.01]),
        lon_deg=np.array([179.995, -179.995, -179.995]),
        height_m=np.full(3, math.nan),
    )
    points = walk(route, 7.0)
    # One degree of the equator is 111,319.49 m, the first of the meridian 110,574.39 m (NGA).
    assert route.length_m == pytest.approx(1113.1949 + 1105.7439, rel=1e-6)
    assert points.at_m[0] == 0
    assert points.at_m[-1] == pytest.approx(route.length_m)
    steps = np.diff(points.at_m)
    assert np.ptp(steps) < 1e-6
    assert 6.9 < steps[0] <= 7.0
    apart = haversine_m(
        points.lat_deg[:-1], points.lon_deg[:-1], points.lat_deg[1:], points.lon_deg[1:]
    )
    assert apart.max() < 7.1
    assert (points.lat_deg[-1], points.lon_deg[-1]) == pytest.approx((0.01, -179.995))


def test_steps_that_make_no_sense_are_refused() -> None:
    route = Route(lat_deg=np.array([0.0, 10.0]), lon_deg=np.zeros(2), height_m=np.full(2, math.nan))
    with pytest.raises(InputError, match="expected more than 0"):
        walk(route, 0.0)
    with pytest.raises(InputError, match="Give a larger --step-m"):
        walk(route, 0.1)
