import math
from pathlib import Path

import pytest

from edge_runtime import camera_exif
from edge_runtime.camera_exif import EstimatedCamera, camera_from_exif, hfov_of_film_deg
from edge_runtime.errors import InputError
from edge_runtime.states.exif import PhotoFacts


def estimated(monkeypatch: pytest.MonkeyPatch, facts: PhotoFacts) -> EstimatedCamera:
    monkeypatch.setattr(camera_exif, "read_exif", lambda _: facts)
    return camera_from_exif(Path("photo.jpg"))


def test_film_is_measured_along_its_diagonal() -> None:
    """24 mm on the diagonal of a 4:3 sensor is 71.6 degrees wide; on the width it were 73.7."""
    assert hfov_of_film_deg(24.0, 4000, 3000) == pytest.approx(71.6, abs=0.1)
    assert hfov_of_film_deg(24.0, 4000, 2250) == pytest.approx(71.6, abs=0.1)
    assert hfov_of_film_deg(24.0, 5472, 3648) == pytest.approx(73.74, abs=0.01)


def test_a_calibration_by_the_maker_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = PhotoFacts(
        width_px=5472, height_px=3648, model="FC6310R", focal_mm=8.8, focal_35mm_mm=24,
        calibrated=(3659.78, 3653.17, -7.71, 45.9, -0.269, 0.116, -0.0001, -0.0003, -0.0358),
    )  # fmt: skip
    found = estimated(monkeypatch, facts)
    assert found.camera.fx_px == 3659.78
    assert found.camera.cx_px == pytest.approx(5471 / 2 - 7.71)
    assert found.camera.distortion == (-0.269, 0.116, -0.0001, -0.0003, -0.0358)
    assert found.hfov_sigma_deg < 1


def test_a_calibration_is_reduced_with_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = PhotoFacts(
        width_px=2736, height_px=1824, exif_width_px=5472,
        calibrated=(3660.0, 3650.0, -8.0, 46.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    )  # fmt: skip
    camera = estimated(monkeypatch, facts).camera
    assert (camera.fx_px, camera.cx_px) == pytest.approx((1830.0, 2735 / 2 - 4.0))


def test_known_sensors_agree_with_their_makers_field_of_view(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """DJI: Phantom 4 Pro 84 degrees along the diagonal; Mini 2 as measured over known distances."""
    pro = PhotoFacts(width_px=5472, height_px=3648, model="FC6310", focal_mm=8.8)
    tangent = math.tan(math.radians(estimated(monkeypatch, pro).hfov_deg / 2))
    diagonal = 2 * math.degrees(math.atan(tangent * math.hypot(1, 2 / 3)))
    assert diagonal == pytest.approx(84.0, abs=0.5)
    mini = PhotoFacts(
        width_px=4000, height_px=2250, model="FC7303", focal_mm=4.49, focal_35mm_mm=24
    )
    assert estimated(monkeypatch, mini).hfov_deg == pytest.approx(69.0, abs=0.5)


def test_pixels_per_millimetre_and_focal_length_give_the_field(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A Canon SX260 HS: 6.2 mm behind 4.5 mm is 69 degrees."""
    facts = PhotoFacts(width_px=1280, height_px=960, focal_mm=4.5, pixels_per_mm=5245.9 / 25.4)
    assert estimated(monkeypatch, facts).hfov_deg == pytest.approx(69.1, abs=0.2)


def test_the_film_convention_is_the_last_resort_and_says_how_far_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    facts = PhotoFacts(width_px=4000, height_px=3000, focal_35mm_mm=24.0)
    found = estimated(monkeypatch, facts)
    assert found.hfov_sigma_deg >= 3.0
    assert "diagonal" in found.how


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (PhotoFacts(width_px=4000, height_px=3000), "nothing about its field of view"),
        (
            PhotoFacts(width_px=4000, height_px=3000, focal_mm=5.0),
            "nothing about its field of view",
        ),
        (PhotoFacts(width_px=4000, height_px=3000, focal_35mm_mm=24, zoom=2.0), "2 times digital"),
    ],
)
def test_a_field_of_view_is_never_guessed(
    monkeypatch: pytest.MonkeyPatch, facts: PhotoFacts, expected: str
) -> None:
    with pytest.raises(InputError, match=expected):
        estimated(monkeypatch, facts)
