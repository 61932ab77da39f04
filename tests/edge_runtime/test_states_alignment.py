import math

import numpy as np
import numpy.typing as npt
import pytest

from edge_runtime.errors import InputError
from edge_runtime.state import VehicleState
from edge_runtime.states.sample import Sample

cv2 = pytest.importorskip("cv2")

from edge_runtime.states.alignment import (  # noqa: E402 - needs OpenCV
    Rates,
    measure_offset_s,
    offset_of_rates,
    said_rates,
    seen_rates,
)

U8 = npt.NDArray[np.uint8]
F64 = npt.NDArray[np.float64]


TURNS = [(1, 60), (5, -40), (8, 95), (14, -30), (16, 70), (22, -120), (25, 20), (31, 90), (33, -50)]
TURNS += [(40, 130), (44, -80), (51, 35), (54, 60), (57, -110), (66, 45), (69, 75), (77, -60)]
"""When the drone turns, in seconds, and by how many degrees: no stretch looks like another."""


def yaw_deg(t_s: F64) -> F64:
    return np.asarray(sum(by * (1 + np.tanh(t_s - when)) / 2 for when, by in TURNS), np.float64)


def telemetry(until_s: float, rate_hz: float, *, noise_deg: float = 0.0) -> list[Sample]:
    rng = np.random.default_rng(5)
    t_s = np.arange(0.0, until_s, 1 / rate_hz)
    yaws = yaw_deg(t_s) + rng.normal(0, noise_deg, len(t_s))
    return [
        Sample(state=VehicleState(t_s=float(t), yaw_deg=float((y + 180) % 360 - 180)))
        for t, y in zip(t_s, yaws, strict=True)
    ]


def camera_rates(offset_s: float, seconds: float, *, noise: float, rate_hz: float = 5.0) -> Rates:
    """What frames would show that begin 10 s into the flight on a clock of their own."""
    rng = np.random.default_rng(3)
    moments = np.arange(10.0, 10.0 + seconds, 1 / rate_hz)
    rates = np.diff(yaw_deg(moments)) * rate_hz
    return Rates(
        (moments[1:] + moments[:-1]) / 2 - offset_s, rates + rng.normal(0, noise, len(rates))
    )


@pytest.mark.parametrize("offset_s", [-21.37, -0.4, 0.0, 3.123, 25.0])
@pytest.mark.parametrize("rate_hz", [5.0, 10.0, 50.0])
def test_an_offset_is_found_to_a_fraction_of_a_sample(offset_s: float, rate_hz: float) -> None:
    seen = camera_rates(offset_s, 30.0, noise=2.0)
    found = offset_of_rates(seen, said_rates(telemetry(80.0, rate_hz)))
    assert found.offset_s == pytest.approx(offset_s, abs=0.05)
    assert found.correlation > 0.9


def test_noise_of_the_compass_moves_it_little() -> None:
    seen = camera_rates(4.2, 40.0, noise=4.0)
    found = offset_of_rates(seen, said_rates(telemetry(80.0, 5.0, noise_deg=1.0)))
    assert found.offset_s == pytest.approx(4.2, abs=0.1)


def photographs(offset_s: float, seconds: float, rate_hz: float = 4.0) -> list[tuple[float, U8]]:
    """Ground of blurred noise under a camera that looks down, turns and moves on."""
    rng = np.random.default_rng(11)
    ground = cv2.GaussianBlur(rng.integers(0, 256, (900, 900), np.uint8), (0, 0), 3)
    ground = cv2.normalize(ground, None, 0, 255, cv2.NORM_MINMAX)
    frames = []
    for t_s in np.arange(0.0, seconds, 1 / rate_hz):
        yaw = math.radians(float(yaw_deg(np.array([t_s + offset_s]))[0]))
        # Right and down of the picture, as columns east and rows south of the ground.
        right = np.array([math.cos(yaw), math.sin(yaw)])
        down = np.array([-math.sin(yaw), math.cos(yaw)])
        centre = np.array([450.0 + 1.5 * t_s, 450.0])
        corner = centre - 120 * right - 120 * down
        to_ground = np.column_stack([right, down, corner])
        picture = cv2.warpAffine(
            ground, to_ground, (240, 240), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        )
        frames.append((float(t_s), np.asarray(picture, np.uint8)))
    return frames


def test_pictures_show_how_fast_the_drone_turns() -> None:
    frames = photographs(12.0, 15.0)
    seen = seen_rates(frames)
    t_s = np.array([t for t, _ in frames])
    expected = np.diff(yaw_deg(t_s + 12.0)) / np.diff(t_s)
    assert len(seen.deg_s) == len(expected)
    assert np.median(np.abs(seen.deg_s - expected)) < 0.5


def test_pictures_and_telemetry_give_the_offset() -> None:
    found = measure_offset_s(photographs(12.3, 20.0), telemetry(60.0, 10.0))
    assert found.offset_s == pytest.approx(12.3, abs=0.05)
    assert found.correlation > 0.95
    assert found.overlap_s == pytest.approx(20.0, abs=1.0)


def test_a_straight_flight_is_refused() -> None:
    straight = [Sample(state=VehicleState(t_s=k / 5, yaw_deg=90.0)) for k in range(300)]
    with pytest.raises(InputError, match=r"the telemetry turn by 0\.0 deg/s only"):
        offset_of_rates(camera_rates(0.0, 30.0, noise=0.1), said_rates(straight))


def test_another_flight_is_refused() -> None:
    rng = np.random.default_rng(1)
    t_s = np.arange(0, 30, 0.2)
    other = Rates(t_s, np.convolve(rng.normal(0, 20, len(t_s)), np.ones(9) / 9, "same"))
    with pytest.raises(InputError, match="fits clearly"):
        offset_of_rates(other, said_rates(telemetry(80.0, 10.0)))


def test_turns_that_repeat_are_refused() -> None:
    """Equal circles fit at every turn of them: no offset is better than the next."""
    t_s = np.arange(0.0, 100.0, 0.1)
    said = Rates(t_s, 20 * np.sin(2 * math.pi * t_s / 8.0))
    seen = Rates(t_s[300:600], said.deg_s[300:600])
    with pytest.raises(InputError, match="fits clearly"):
        offset_of_rates(seen, said)


def test_too_little_is_refused() -> None:
    with pytest.raises(InputError, match="too few to measure a time offset"):
        measure_offset_s(photographs(0.0, 2.0), telemetry(60.0, 10.0))
    flat = [(k / 4, np.full((240, 240), 128, np.uint8)) for k in range(60)]
    with pytest.raises(InputError, match="the frames give 0 turning rates"):
        measure_offset_s(flat, telemetry(60.0, 10.0))
