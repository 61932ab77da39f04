"""Pictures that show nothing, and those that only look as if."""

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("cv2")

from edge_runtime.sources.picture_watch import FROZEN_AFTER, PictureWatch

U8 = npt.NDArray[np.uint8]
RNG = np.random.default_rng(0)


def scene(seed: int, height: int = 96, width: int = 128) -> U8:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def noisy(level: int, spread: int) -> U8:
    noise = np.random.default_rng(level).integers(-spread, spread + 1, (96, 128, 3))
    return np.clip(level + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("image", "problem"),
    [
        pytest.param(np.zeros((96, 128, 3), np.uint8), "the picture is black", id="zero"),
        pytest.param(noisy(8, 6), "the picture is black", id="noise of a covered lens"),
        pytest.param(np.full((96, 128, 3), 255, np.uint8), "the picture is white", id="white"),
        pytest.param(
            np.full((96, 128, 3), 128, np.uint8), "the picture is of one colour", id="grey"
        ),
        pytest.param(scene(1), "", id="a scene"),
        pytest.param(noisy(128, 8), "", id="haze"),
        pytest.param(noisy(14, 14), "", id="dusk"),
        pytest.param(np.zeros((3, 3, 3), np.uint8), "the picture is black", id="tiny"),
    ],
)
def test_what_a_picture_shows(image: U8, problem: str) -> None:
    assert PictureWatch(may_freeze=True).look(image).problem == problem


def test_what_begins_and_ends_is_said_once() -> None:
    watch = PictureWatch(may_freeze=True)
    black = np.zeros((96, 128, 3), np.uint8)
    images = [scene(1), black, black, black, scene(2), scene(3)]
    events = [watch.look(image).events for image in images]
    assert events == [
        (),
        ("the picture is black",),
        (),
        (),
        ("the picture is no longer black",),
        (),
    ]


def test_a_picture_that_repeats_is_a_fault_from_the_fifth_on() -> None:
    watch = PictureWatch(may_freeze=True)
    verdicts = [watch.look(scene(1)) for _ in range(FROZEN_AFTER + 2)]
    assert [v.problem for v in verdicts[: FROZEN_AFTER - 1]] == [""] * (FROZEN_AFTER - 1)
    assert verdicts[-1].problem == "the camera shows the same picture for 7 frames"
    assert [v.events for v in verdicts[-3:]] == [(verdicts[-3].problem,), (), ()]
    after = watch.look(scene(2))
    assert after.problem == ""
    assert after.events == ("the picture moves again after 7 equal frames",)


def test_one_pixel_that_differs_is_no_repeat() -> None:
    watch = PictureWatch(may_freeze=True)
    for k in range(4 * FROZEN_AFTER):
        image = scene(1)
        image[0, k, 0] ^= 1  # where the sample does not look
        assert watch.look(image).problem == ""


def test_a_file_may_repeat_its_pictures() -> None:
    watch = PictureWatch(may_freeze=False)
    assert {watch.look(scene(1)).problem for _ in range(50)} == {""}


def test_every_change_of_size_is_said_once() -> None:
    watch = PictureWatch(may_freeze=True)
    events = [
        watch.look(scene(k, *size)).events
        for k, size in enumerate([(96, 128)] * 2 + [(48, 64)] * 2)
    ]
    assert events == [(), (), ("the frames changed their size from 128x96 to 64x48",), ()]
