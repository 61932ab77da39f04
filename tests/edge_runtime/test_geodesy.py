import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.errors import InputError
from edge_runtime.geodesy import (
    MERCATOR_MAX_LAT_DEG,
    check_lat_lon,
    distance_m,
    enu_offset_m,
    from_mercator_unit,
    haversine_m,
    mercator_metres_per_unit,
    mercator_unit,
    move_lat_lon,
    radii_of_curvature_m,
    wrap_degrees,
)

LAT = st.floats(-85, 85)
LON = st.floats(-180, 180)
METRES = st.floats(-2000, 2000)


def geodesic_m(lat_a: float, lon_a: float, lat_b: float, lon_b: float) -> float:
    """Vincenty's inverse formula on WGS 84 (Survey Review 23/176, 1975): the slow reference."""
    a, f = 6378137.0, 1 / 298.257223563
    b = a * (1 - f)
    u1, u2 = (math.atan((1 - f) * math.tan(math.radians(v))) for v in (lat_a, lat_b))
    d_lon = math.radians((lon_b - lon_a + 540) % 360 - 180)
    lam = d_lon
    for _ in range(100):
        sin_s = math.hypot(
            math.cos(u2) * math.sin(lam),
            math.cos(u1) * math.sin(u2) - math.sin(u1) * math.cos(u2) * math.cos(lam),
        )
        if sin_s == 0:
            return 0.0
        cos_s = math.sin(u1) * math.sin(u2) + math.cos(u1) * math.cos(u2) * math.cos(lam)
        s = math.atan2(sin_s, cos_s)
        sin_a = math.cos(u1) * math.cos(u2) * math.sin(lam) / sin_s
        cos2_a = 1 - sin_a**2
        cos_2m = cos_s - 2 * math.sin(u1) * math.sin(u2) / cos2_a if cos2_a else 0.0
        c = f / 16 * cos2_a * (4 + f * (4 - 3 * cos2_a))
        before = lam
        lam = d_lon + (1 - c) * f * sin_a * (
            s + c * sin_s * (cos_2m + c * cos_s * (2 * cos_2m**2 - 1))
        )
        if abs(lam - before) < 1e-13:
            break
    u_2 = cos2_a * (a**2 - b**2) / b**2
    big_a = 1 + u_2 / 16384 * (4096 + u_2 * (-768 + u_2 * (320 - 175 * u_2)))
    big_b = u_2 / 1024 * (256 + u_2 * (-128 + u_2 * (74 - 47 * u_2)))
    d_s = (
        big_b
        * sin_s
        * (
            cos_2m
            + big_b
            / 4
            * (
                cos_s * (2 * cos_2m**2 - 1)
                - big_b / 6 * cos_2m * (4 * sin_s**2 - 3) * (4 * cos_2m**2 - 3)
            )
        )
    )
    return b * big_a * (s - d_s)


def test_the_reference_knows_vincentys_flinders_peak_to_buninyong() -> None:
    """Geoscience Australia, GDA technical manual 2.4, section 4.3: 54972.271 m (GRS 80)."""
    a = (-(37 + 57 / 60 + 3.72030 / 3600), 144 + 25 / 60 + 29.52440 / 3600)
    b = (-(37 + 39 / 60 + 10.15610 / 3600), 143 + 55 / 60 + 35.38390 / 3600)
    assert geodesic_m(*a, *b) == pytest.approx(54972.271, abs=1e-3)


@given(LAT, LON, METRES, METRES)
def test_moving_and_measuring_are_inverse(
    lat: float, lon: float, east: float, north: float
) -> None:
    moved = move_lat_lon(lat, lon, east, north)
    back = enu_offset_m(lat, lon, moved.lat_deg, moved.lon_deg)
    # A longitude near 180 is stored to 3e-14 degrees, which is 3 nm.
    assert float(back.east_m) == pytest.approx(east, abs=2e-8)
    assert float(back.north_m) == pytest.approx(north, abs=2e-8)


@given(LAT, LON, METRES, METRES)
def test_from_a_to_b_is_minus_from_b_to_a(
    lat: float, lon: float, east: float, north: float
) -> None:
    b = move_lat_lon(lat, lon, east, north)
    there = enu_offset_m(lat, lon, b.lat_deg, b.lon_deg)
    back = enu_offset_m(b.lat_deg, b.lon_deg, lat, lon)
    assert float(there.east_m) == pytest.approx(-float(back.east_m), abs=1e-8)
    assert float(there.north_m) == -float(back.north_m)


@given(st.floats(-70, 70), LON, st.floats(0, 360), st.sampled_from([1000.0, 10_000.0]))
def test_the_tangent_plane_is_as_good_as_its_module_says(
    lat: float, lon: float, bearing: float, reach: float
) -> None:
    east, north = reach * math.sin(math.radians(bearing)), reach * math.cos(math.radians(bearing))
    b = move_lat_lon(lat, lon, east, north)
    error = abs(geodesic_m(lat, lon, float(b.lat_deg), float(b.lon_deg)) - reach)
    assert error < (0.05 if reach == 1000 else 2.0)


@given(LAT, LON, LAT, LON)
def test_the_sphere_is_within_six_parts_in_a_thousand_of_the_ellipsoid(
    lat_a: float, lon_a: float, lat_b: float, lon_b: float
) -> None:
    if abs((lon_b - lon_a + 540) % 360 - 180) > 170:
        return  # Vincenty's iteration does not converge near the antipode.
    expected = geodesic_m(lat_a, lon_a, lat_b, lon_b)
    assert float(haversine_m(lat_a, lon_a, lat_b, lon_b)) == pytest.approx(
        expected, rel=6e-3, abs=1e-6
    )


@given(st.floats(-85, 85), st.floats(-180, 179.999))
def test_mercator_and_back_is_the_same_place(lat: float, lon: float) -> None:
    back = from_mercator_unit(*mercator_unit(lat, lon))
    assert float(back.lat_deg) == pytest.approx(lat, abs=1e-9)
    assert float(back.lon_deg) == pytest.approx(lon, abs=1e-9)


@given(st.floats(-80, 80), LON)
def test_metres_per_unit_is_the_slope_of_mercator(lat: float, lon: float) -> None:
    x0, y0 = mercator_unit(lat, lon)
    x1, y1 = mercator_unit(*move_lat_lon(lat, lon, 10.0, 0.0))
    x2, y2 = mercator_unit(*move_lat_lon(lat, lon, 0.0, 10.0))
    along_x, along_y = mercator_metres_per_unit(lat)
    assert float((x1 - x0) % 1.0) * along_x == pytest.approx(10.0, abs=1e-4)
    assert float(y0 - y2) * along_y == pytest.approx(10.0, abs=1e-3)
    assert float(y1) == float(y0)
    assert float(x2) == pytest.approx(float(x0) % 1.0, abs=1e-12) or lon in (-180, 180)


@given(st.floats(-1e4, 1e4))
def test_a_wrapped_angle_is_in_range_and_points_the_same_way(angle: float) -> None:
    wrapped = float(wrap_degrees(angle))
    assert -180 <= wrapped < 180
    assert math.cos(math.radians(wrapped - angle)) == pytest.approx(1.0, abs=1e-9)


@given(LAT, LON)
def test_no_distance_to_oneself(lat: float, lon: float) -> None:
    assert float(distance_m(lat, lon, lat, lon)) == 0
    assert float(haversine_m(lat, lon, lat, lon)) == 0


def test_arrays_give_what_their_elements_give() -> None:
    rng = np.random.default_rng(1)
    lat, lon = rng.uniform(-80, 80, 20), rng.uniform(-180, 180, 20)
    offset = enu_offset_m(lat[0], lon[0], lat, lon)
    one_by_one = [enu_offset_m(lat[0], lon[0], *p) for p in zip(lat, lon, strict=True)]
    assert np.array_equal(offset.east_m, [o.east_m for o in one_by_one])
    assert np.array_equal(offset.north_m, [o.north_m for o in one_by_one])


@pytest.mark.parametrize(
    ("a", "b", "expected_m"),
    [
        # One degree of latitude centred on the equator and on 60 N; one of longitude on the
        # equator (WGS 84 series, NGA: 110574.39, 111412.24, 111319.49).
        pytest.param((-0.5, 0), (0.5, 0), 110574.4, id="latitude at the equator"),
        pytest.param((59.5, 0), (60.5, 0), 111412.2, id="latitude at 60 N"),
        pytest.param((-60.5, 9), (-59.5, 9), 111412.2, id="latitude at 60 S"),
        pytest.param((0, 0), (0, 1), 111319.5, id="longitude at the equator"),
        pytest.param((0, 179.5), (0, -179.5), 111319.5, id="across the antimeridian"),
        pytest.param((60, 10), (60, 11), 55800.0, id="longitude at 60 N"),
    ],
)
def test_known_lengths_of_a_degree(
    a: tuple[float, float], b: tuple[float, float], expected_m: float
) -> None:
    assert float(distance_m(*a, *b)) == pytest.approx(expected_m, abs=0.8)


def test_east_is_positive_east_and_north_is_positive_north() -> None:
    offset = enu_offset_m(47.0, 8.0, 47.001, 8.001)
    assert float(offset.east_m) > 70
    assert float(offset.north_m) > 100
    across = enu_offset_m(0.0, 179.9999, 0.0, -179.9999)
    assert float(across.east_m) == pytest.approx(22.26, abs=0.01)


def test_half_the_equator_is_half_the_circumference_of_the_mean_sphere() -> None:
    """Degrees taken for radians would give anything but this."""
    assert float(haversine_m(0, 0, 0, 180)) == pytest.approx(math.pi * 6371008.8)
    assert float(haversine_m(-90, 0, 90, 77)) == pytest.approx(math.pi * 6371008.8)
    assert float(haversine_m(0, -179, 0, 179)) == pytest.approx(2 * 111195.08, abs=0.1)


def test_radii_of_curvature_at_the_equator_and_the_pole() -> None:
    """NGA.STND.0036 table 3.6: a (1 - e^2) = 6335439.327, polar radius c = 6399593.6258."""
    meridian, prime_vertical = radii_of_curvature_m([0.0, 90.0])
    assert meridian == pytest.approx([6335439.327, 6399593.6258], abs=1e-3)
    assert prime_vertical == pytest.approx([6378137.0, 6399593.6258], abs=1e-3)


@pytest.mark.parametrize(
    ("lat", "lon", "x", "y"),
    [
        pytest.param(0.0, 0.0, 0.5, 0.5, id="null island"),
        pytest.param(MERCATOR_MAX_LAT_DEG, -180.0, 0.0, 0.0, id="north-west corner"),
        pytest.param(-MERCATOR_MAX_LAT_DEG, 180.0, 1.0, 1.0, id="south-east corner"),
        pytest.param(90.0, 0.0, 0.5, 0.0, id="the pole is clipped"),
        pytest.param(-90.0, 0.0, 0.5, 1.0, id="the south pole is clipped"),
    ],
)
def test_corners_of_the_mercator_square(lat: float, lon: float, x: float, y: float) -> None:
    assert [float(v) for v in mercator_unit(lat, lon)] == pytest.approx([x, y], abs=1e-12)


@pytest.mark.parametrize(
    ("lat", "lon", "zoom", "tile"),
    [
        # mercantile's documented example, and the OpenStreetMap wiki's for its slippy map formula.
        pytest.param(40.0, -105.0, 9, (106, 193), id="mercantile"),
        pytest.param(51.51202, 0.02435, 17, (65544, 43582), id="openstreetmap wiki"),
    ],
)
def test_known_map_tiles(lat: float, lon: float, zoom: int, tile: tuple[int, int]) -> None:
    x, y = mercator_unit(lat, lon)
    assert (int(x * 2**zoom), int(y * 2**zoom)) == tile


def test_positions_at_the_edges_of_the_range_are_accepted() -> None:
    check_lat_lon([-90, 90, 0, 0], [-180, 360, 180, 0])
    check_lat_lon([], [])


def test_swapped_coordinates_are_refused() -> None:
    with pytest.raises(InputError, match=r"latitude 103\.8.*is the order \(lat, lon\)\?"):
        check_lat_lon(103.8, 1.35)
    with pytest.raises(InputError, match=r"latitude -122\.4.*is the order \(lat, lon\)\?"):
        check_lat_lon([10.0, -122.4], [10.0, 37.7])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(InputError, match="latitude"):
        check_lat_lon(bad, 0.0)
    with pytest.raises(InputError, match="longitude"):
        check_lat_lon(0.0, bad)


@pytest.mark.parametrize("lon", [-180.001, 360.001])
def test_longitudes_outside_both_conventions_are_refused(lon: float) -> None:
    with pytest.raises(InputError, match=r"longitude .* outside"):
        check_lat_lon(0.0, lon)


@given(LAT, LON, METRES, METRES)
def test_one_point_moves_as_many_do(lat: float, lon: float, east: float, north: float) -> None:
    one = move_lat_lon(lat, lon, east, north)
    many = move_lat_lon(*(np.array([value]) for value in (lat, lon, east, north)))
    assert float(one.lat_deg) == pytest.approx(float(many.lat_deg[0]), abs=1e-12)
    assert float(one.lon_deg) == pytest.approx(float(many.lon_deg[0]), abs=1e-10)
    there = float(one.lat_deg), float(one.lon_deg)
    back = enu_offset_m(lat, lon, *there)
    seen = enu_offset_m(np.array([lat]), lon, *there)
    assert float(back.east_m) == pytest.approx(float(seen.east_m[0]), abs=1e-6)
    assert float(back.north_m) == pytest.approx(float(seen.north_m[0]), abs=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_one_point_that_is_none_stays_none_and_raises_nothing(bad: float) -> None:
    with np.errstate(invalid="ignore"):
        assert not math.isfinite(float(move_lat_lon(47.0, 8.0, 0.0, bad).lat_deg))
        assert not math.isfinite(float(move_lat_lon(47.0, 8.0, bad, 0.0).lon_deg))
        assert not math.isfinite(float(distance_m(bad, 8.0, 47.0, 8.0)))
