import math
from dataclasses import fields

import pytest

from edge_runtime.errors import InputError
from train.simulated_config import SimulationConfig

NUMBERS = [f.name for f in fields(SimulationConfig) if isinstance(f.default, float)]


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [-0.1, 1e6, math.nan])
def test_every_number_has_a_range_that_is_named(name: str, value: float) -> None:
    with pytest.raises(InputError, match=rf"{name} is .*; expected 0 to "):
        SimulationConfig(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NUMBERS)
def test_every_difference_can_be_turned_off(name: str) -> None:
    assert getattr(SimulationConfig(**{name: 0.0}), name) == 0  # type: ignore[arg-type]


@pytest.mark.parametrize("height_m", [(0.0, 100.0), (120.0, 100.0), (50.0, math.inf)])
def test_heights_no_drone_flies_at_are_refused(height_m: tuple[float, float]) -> None:
    with pytest.raises(InputError, match=r"height_m is .* expected 1 < lowest <= highest"):
        SimulationConfig(height_m=height_m)


@pytest.mark.parametrize("jpeg_quality", [(0, 90), (95, 50), (50, 101)])
def test_jpeg_qualities_that_are_none_are_refused(jpeg_quality: tuple[int, int]) -> None:
    with pytest.raises(InputError, match=r"jpeg_quality is .* expected 1 <="):
        SimulationConfig(jpeg_quality=jpeg_quality)
