"""The recipes hold every value of the paper's section 4."""

import dataclasses

import pytest

from edge_runtime.errors import InputError
from train.datasets.catalogue import DATASETS
from train.presets import CVUSA, PRESETS, UNIVERSITY1652, VIGOR, scaled_to_memory

PAPER = {
    "architecture": "convnext_base.fb_in22k_ft_in1k_384",
    "size_px": 384,
    "batch_size": 128,
    "learning_rate": 1e-3,
    "weight_decay": 0.01,
    "schedule": "cosine",
    "label_smoothing": 0.1,
    "precision": "fp16",
    "clip_value": 100.0,
    "flip": 0.5,
    "rotate": 0.75,
    "recolour": 1.0,
    "tile_grid": 0.4,
}
GROUND = {
    "epochs": 40,
    "warmup_epochs": 1.0,
    "sampling": "both",
    "neighbours": 128,
    "select": 64,
    "refresh_epochs": 4,
    "photo_grid": 0.5,
}


@pytest.mark.parametrize(
    ("config", "values"),
    [
        pytest.param(CVUSA, {**PAPER, **GROUND, "photo_size_px": (140, 768)}, id="CVUSA, CVACT"),
        pytest.param(VIGOR, {**PAPER, **GROUND, "photo_size_px": (384, 768)}, id="VIGOR"),
        pytest.param(
            UNIVERSITY1652,
            {
                **PAPER,
                "epochs": 1,
                "warmup_epochs": 0.1,
                "sampling": "random",
                "photo_grid": 0.4,
                "photo_size_px": (384, 384),
            },
            id="University-1652",
        ),
    ],
)
def test_a_recipe_is_the_papers(config: object, values: dict[str, object]) -> None:
    assert {name: getattr(config, name) for name in values} == values


def test_every_data_set_has_a_recipe_and_every_recipe_data() -> None:
    assert set(PRESETS) == set(DATASETS) | {"world", "imagery"}


@pytest.mark.parametrize(("gib", "batch"), [(8, 8), (12, 16), (24, 32)])
def test_batch_neighbours_and_rate_shrink_together(gib: int, batch: int) -> None:
    small = scaled_to_memory(CVUSA, gib)
    assert (small.batch_size, small.neighbours, small.select) == (batch, batch, batch // 2)
    assert small.learning_rate == pytest.approx(CVUSA.learning_rate * batch / 128)
    changed = {
        name for name, value in dataclasses.asdict(small).items() if value != getattr(CVUSA, name)
    }
    assert changed == {"batch_size", "neighbours", "select", "learning_rate", "checkpointing"}


def test_another_memory_is_refused() -> None:
    with pytest.raises(InputError, match="there are 8, 12 and 24"):
        scaled_to_memory(CVUSA, 10)
