import cv2
import numpy as np
import pytest

from edge_runtime.frame_pyramid import FramePyramid

RNG = np.random.default_rng(5)


def picture(height: int, width: int) -> np.ndarray:
    """Smooth enough that averages of averages are averages."""
    noise = RNG.integers(0, 256, (height, width, 3), np.uint8)
    return np.asarray(cv2.GaussianBlur(noise, (0, 0), 4.0), np.uint8)


@pytest.mark.parametrize("size", [(480, 640), (1080, 1920), (375, 500), (481, 641)])
@pytest.mark.parametrize("factor", [0.8, 0.5, 0.42, 0.21, 0.1])
def test_is_the_area_average_of_the_frame(size: tuple[int, int], factor: float) -> None:
    frame = picture(*size)
    shrunk = FramePyramid(frame).shrunk(factor)
    once = cv2.resize(frame, shrunk.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert shrunk.shape == (round(size[0] * factor), round(size[1] * factor), 3)
    apart = np.abs(shrunk.astype(np.int16) - once.astype(np.int16))
    # Every halving rounds to a whole grey level, and cells that are cut in two count as even.
    assert apart.mean() < 1.0
    assert np.percentile(apart, 99) <= 4


def test_even_ground_stays_as_it_is() -> None:
    frame = np.full((480, 640, 3), (12, 130, 255), np.uint8)
    assert (FramePyramid(frame).shrunk(0.13) == frame[0, 0]).all()


def test_is_the_frame_itself_where_it_is_hardly_too_fine() -> None:
    frame = picture(48, 64)
    assert FramePyramid(frame).shrunk(0.95) is frame
    assert FramePyramid(frame).shrunk(3.0) is frame


def test_never_shrinks_a_side_below_16_pixels() -> None:
    assert FramePyramid(picture(48, 64)).shrunk(1e-6).shape[:2] == (16, 21)


def test_makes_each_resolution_once() -> None:
    pyramid = FramePyramid(picture(480, 640))
    assert pyramid.shrunk(0.3) is pyramid.shrunk(0.3)
