from collections.abc import Callable
from dataclasses import fields, replace

import numpy as np
import numpy.typing as npt
import pytest

from train.simulated_changes import changed
from train.simulated_config import SimulationConfig
from train.simulated_fields import smooth_field
from train.simulated_light import another_season, cast_shadows, other_materials, relit
from train.simulated_sharpness import blurred, other_detail, recorded, resolved

F32 = npt.NDArray[np.float32]
STEP_M = 0.5
NOTHING = SimulationConfig(
    **{f.name: 0.0 for f in fields(SimulationConfig) if isinstance(f.default, float)},  # type: ignore[arg-type]
    jpeg_quality=(100, 100),
)
Stage = Callable[[F32, float, SimulationConfig, np.random.Generator], F32]
STAGES = [
    pytest.param(relit, id="light"),
    pytest.param(changed, id="changes"),
    pytest.param(resolved, id="sharpness"),
]


@pytest.fixture
def ground() -> F32:
    """Blocks of colour with grain: roofs, streets, fields."""
    rng = np.random.default_rng(0)
    blocks = rng.uniform(0.1, 0.9, (12, 12, 3)).repeat(8, axis=0).repeat(8, axis=1)
    return np.asarray(np.clip(blocks + 0.03 * rng.standard_normal(blocks.shape), 0, 1), np.float32)


@pytest.mark.parametrize("stage", STAGES)
def test_with_everything_off_nothing_changes(stage: Stage, ground: F32) -> None:
    for seed in range(5):
        after = stage(ground, STEP_M, NOTHING, np.random.default_rng(seed))
        assert np.abs(after - ground).max() < 1e-5


@pytest.mark.parametrize("stage", STAGES)
def test_views_stay_images_and_the_imagery_is_not_written_to(stage: Stage, ground: F32) -> None:
    before = ground.copy()
    for seed in range(10):
        after = stage(ground, STEP_M, SimulationConfig(), np.random.default_rng(seed))
        assert after.dtype == np.float32
        assert after.shape == ground.shape
        assert after.min() >= 0
        assert after.max() <= 1
    assert np.array_equal(ground, before)


@pytest.mark.parametrize("stage", STAGES)
def test_the_same_random_state_gives_the_same_view(stage: Stage, ground: F32) -> None:
    first, again, other = (
        stage(ground, STEP_M, SimulationConfig(), np.random.default_rng(s)) for s in (1, 1, 2)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(
    "name",
    [
        "exposure_stops",
        "contrast",
        "gamma",
        "white_balance",
        "channel_mix",
        "saturation",
        "equalised",
        "haze",
        "cast_shadows",
        "cloud_shadows",
        "materials",
    ],
)
def test_each_difference_of_light_does_something(name: str, ground: F32) -> None:
    config = replace(NOTHING, **{name: 1.0})  # type: ignore[arg-type]
    change = [
        np.abs(relit(ground, STEP_M, config, np.random.default_rng(seed)) - ground).mean()
        for seed in range(5)
    ]
    assert max(change) > 0.01


def test_a_season_changes_plants_and_leaves_streets_alone() -> None:
    image = np.full((16, 16, 3), 0.5, np.float32)
    image[:8] = (0.2, 0.5, 0.15)
    changes = []
    for seed in range(10):
        after = another_season(image, np.random.default_rng(seed))
        assert np.abs(after[8:] - image[8:]).max() < 1e-6
        changes.append(np.abs(after[:8] - image[:8]).mean())
    assert min(changes) > 0.01


def test_shadows_only_darken_and_fall_near_what_casts_them() -> None:
    ground = np.full((128, 128, 3), 0.3, np.float32)
    ground[56:72, 56:72] = 0.8
    shaded = 0
    for seed in range(20):
        factors = cast_shadows(ground, STEP_M, np.random.default_rng(seed))
        assert factors.max() <= 1
        assert factors.min() > 0.2
        # 12 m of shadow at most, two thirds of a pixel's softness and rounding.
        far = np.ones((128, 128), bool)
        far[28:100, 28:100] = False
        assert factors[far].min() > 0.999
        shaded += int((factors[..., 0] < 0.9).sum() > 20)
    assert shaded >= 5


def test_equal_colours_stay_equal_whatever_the_material(ground: F32) -> None:
    image = ground.copy()
    image[:, 48:] = image[:, :48]
    after = other_materials(image, 0.3, np.random.default_rng(0))
    assert np.allclose(after[:, 48:], after[:, :48], atol=1e-6)
    assert np.abs(after - image).mean() > 0.02


def test_materials_can_swap_which_of_two_surfaces_is_brighter() -> None:
    pair = np.array([[[0.45, 0.5, 0.42], [0.55, 0.52, 0.5]]], np.float32)
    order = {
        bool(np.diff(other_materials(pair, 0.3, np.random.default_rng(s)).mean(axis=2))[0, 0] > 0)
        for s in range(200)
    }
    assert order == {True, False}


# --- changes -----------------------------------------------------------------------------------


def test_more_cars_change_more_ground_about_as_much_as_cars_cover() -> None:
    street = np.full((200, 200, 3), 0.4, np.float32)

    def covered(per_hectare: float) -> float:
        config = replace(NOTHING, cars_per_hectare=per_hectare)
        return float(
            np.mean(
                [
                    (changed(street, STEP_M, config, np.random.default_rng(s)) != street)
                    .any(axis=2)
                    .mean()
                    for s in range(40)
                ]
            )
        )

    few, many = covered(5), covered(50)
    # Half of at most 50 cars on a hectare, 4.4 x 1.85 m, with a shadow that sticks out a little and
    # pixels that are cut: 2 % of the ground, and not twice as much again.
    assert 0.015 < many < 0.045
    assert few < many / 4


def test_repainting_gives_a_surface_another_colour_and_keeps_its_detail() -> None:
    rng = np.random.default_rng(2)
    roof = np.full((64, 64, 3), 0.5, np.float32)
    roof += 0.01 * rng.standard_normal((64, 64, 1)).astype(np.float32)
    config = replace(NOTHING, repainted_per_hectare=200.0)
    after = changed(roof, STEP_M, config, np.random.default_rng(1))
    moved = np.abs(after - roof).max(axis=2) > 0.05
    assert moved.mean() > 0.2
    # Borders of surfaces aside, neighbours differ as they did before.
    detail = np.abs(np.diff(after, axis=0) - np.diff(roof, axis=0))
    assert np.median(detail) < 0.001


# --- sharpness ---------------------------------------------------------------------------------


def energy(image: F32) -> float:
    return float(np.square(np.diff(image, axis=0)).mean())


def test_views_come_out_both_softer_and_sharper_than_the_imagery(ground: F32) -> None:
    config = replace(NOTHING, blur_m=0.8, sharpen=2.0)
    after = [
        energy(resolved(ground, STEP_M, config, np.random.default_rng(seed))) for seed in range(30)
    ]
    assert min(after) < 0.7 * energy(ground)
    assert max(after) > 1.2 * energy(ground)


def test_exchanged_detail_leaves_what_is_coarser(ground: F32) -> None:
    elsewhere = np.random.default_rng(9).uniform(0, 1, ground.shape).astype(np.float32)
    config = replace(NOTHING, detail_m=1.0, lost_detail=1.0, foreign_detail=0.2)
    own, foreign = [], []
    for seed in range(20):
        grey = np.float32(0.25) + ground / np.float32(2)  # Nothing is clipped.
        after = other_detail(grey, elsewhere, STEP_M, config, np.random.default_rng(seed))
        assert np.abs(blurred(after - grey, 4.0)).mean() < 0.01
        change = (after - grey).ravel()
        own.append(np.corrcoef(change, (grey - blurred(grey, 1.0)).ravel())[0, 1])
        foreign.append(np.corrcoef(change, (elsewhere - blurred(elsewhere, 1.0)).ravel())[0, 1])
    # Its own detail goes, detail of the other place comes; which weighs more differs.
    assert np.mean(own) < -0.1
    assert np.mean(foreign) > 0.4


def test_detail_that_is_neither_lost_nor_brought_stays(ground: F32) -> None:
    config = replace(NOTHING, detail_m=1.0)
    after = other_detail(ground, 1 - ground, STEP_M, config, np.random.default_rng(0))
    assert np.abs(after - ground).max() < 1e-6


def test_a_blur_keeps_the_mean_and_a_tiny_one_keeps_all(ground: F32) -> None:
    assert np.array_equal(blurred(ground, 0.1), ground)
    soft = blurred(ground, 2.0)
    assert energy(soft) < 0.2 * energy(ground)
    assert soft.mean() == pytest.approx(float(ground.mean()), abs=0.01)


def test_the_best_jpeg_without_noise_is_the_image(ground: F32) -> None:
    smooth = blurred(ground, 4.0)
    image = recorded(smooth, NOTHING, np.random.default_rng(0))
    assert image.dtype == np.uint8
    assert np.abs(image / 255 - smooth).max() < 0.03


def test_noise_has_at_most_the_spread_it_is_given() -> None:
    grey = np.full((64, 64, 3), 0.5, np.float32)
    config = replace(NOTHING, noise=0.05)
    spreads = [
        float((recorded(grey, config, np.random.default_rng(s)) / 255).std()) for s in range(20)
    ]
    assert max(spreads) < 0.055
    assert max(spreads) > 0.03


def test_a_smooth_field_is_centred_has_unit_spread_and_its_wavelength() -> None:
    fields_of_noise = np.stack(
        [smooth_field(64, np.random.default_rng(s), wavelength_px=16) for s in range(100)]
    )
    assert abs(fields_of_noise.mean()) < 0.1
    assert fields_of_noise.std() == pytest.approx(1.0, abs=0.2)
    near = np.mean(fields_of_noise[:, :, :-2] * fields_of_noise[:, :, 2:])
    far = np.mean(fields_of_noise[:, :, :-24] * fields_of_noise[:, :, 24:])
    assert near > 0.6
    assert abs(far) < 0.15
