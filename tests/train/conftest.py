"""A tiny world, its pairs and a fresh small encoder, shared by the training tests."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from train.config import TrainConfig
from train.encoder import Encoder, new_encoder
from train.pair_table import PairTable
from train.pairs import load_pairs, world_folders
from train.world import WorldConfig, make_world

torch.set_num_threads(1)  # Small networks gain nothing from more, and the tests run side by side.

TINY = TrainConfig(
    architecture="test_resnet",
    size_px=64,
    ground_size_m=48.0,
    epochs=2,
    batch_size=8,
    sampling="random",
    neighbours=8,
    select=4,
    refresh_epochs=1,
    shift_m=4.0,
    warmup_epochs=0.5,
    threads=1,
)


@pytest.fixture(scope="session")
def tiny_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 photographs over 300 m of ground, no flights. Read only: it is shared."""
    out = tmp_path_factory.mktemp("tiny") / "world"
    make_world(
        out,
        WorldConfig(
            seed=3,
            train_size_m=300,
            train_photos=24,
            held_out_size_m=50,
            flights=0,
            min_height_m=50,
            max_height_m=70,
            photo_width_px=320,
            photo_height_px=240,
            threads=1,
        ),
    )
    return out


@pytest.fixture(scope="session")
def tiny_pairs(tiny_world: Path) -> PairTable:
    """The tiny world's pairs at 64 px and 48 m."""
    (folder,) = world_folders(tiny_world, "train")
    return load_pairs(
        folder.photos,
        folder.imagery,
        telemetry=folder.telemetry,
        truth=folder.truth,
        camera=folder.camera,
        size_m=TINY.ground_size_m,
        size_px=TINY.size_px,
    )


@pytest.fixture(scope="session")
def tiny_config() -> TrainConfig:
    return TINY


@pytest.fixture(scope="session")
def make_encoder() -> Callable[..., Encoder]:
    """A small encoder whose random weights come from a seed."""

    def make(seed: int = 0, architecture: str = "test_resnet", size_px: int = 64) -> Encoder:
        torch.manual_seed(seed)
        return new_encoder(architecture, size_px=size_px, ground_size_m=TINY.ground_size_m)

    return make
