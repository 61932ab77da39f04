import numpy as np
import numpy.typing as npt
import pytest

from edge_runtime.reduced_frames import ReducedFrames

U8 = npt.NDArray[np.uint8]


def picture(height: int, width: int) -> U8:
    return np.random.default_rng(5).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("cells", [2, 3, 5, 8])
def test_every_pixel_is_the_mean_of_the_ground_it_covers(cells: int) -> None:
    frame = picture(cells * 30, cells * 40)
    means = frame.reshape(30, cells, 40, cells, 3).mean(axis=(1, 3))
    assert np.abs(ReducedFrames(frame).reduced(1 / cells) - means).max() <= 0.5 + 1e-3


@pytest.mark.parametrize("factor", [0.8, 0.42, 0.21])
@pytest.mark.parametrize("size", [(480, 640), (375, 500), (481, 641)])
def test_the_field_of_view_stays_corner_to_corner(size: tuple[int, int], factor: float) -> None:
    height, width = size
    ramp = np.zeros((height, width, 3), np.uint8)
    ramp[..., 0] = np.arange(width) * 255 // (width - 1)
    ramp[..., 1] = (np.arange(height) * 255 // (height - 1))[:, None]
    small = ReducedFrames(ramp).reduced(factor)
    assert small.shape == (round(height * factor), round(width * factor), 3)
    middles = (np.arange(small.shape[1]) + 0.5) / small.shape[1] * 255
    assert small[5, :, 0] == pytest.approx(middles, abs=1.5)
    middles = (np.arange(small.shape[0]) + 0.5) / small.shape[0] * 255
    assert small[:, 5, 1] == pytest.approx(middles, abs=1.5)


def test_a_frame_that_is_hardly_too_fine_is_taken_as_it_is() -> None:
    frame = picture(48, 64)
    assert ReducedFrames(frame).reduced(0.95) is frame
    assert ReducedFrames(frame).reduced(3.0) is frame


def test_no_side_becomes_shorter_than_16_pixels() -> None:
    assert ReducedFrames(picture(48, 64)).reduced(1e-6).shape[:2] == (16, 21)


def test_each_resolution_is_made_once() -> None:
    frames = ReducedFrames(picture(480, 640))
    assert frames.reduced(0.3) is frames.reduced(0.3)
