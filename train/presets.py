"""Recipes by name: the paper's, with every value of its section 4, and what small machines need.

The paper trains ConvNeXt-B on several GPUs with 128 pairs a batch. On one smaller GPU the batch,
the neighbours and the learning rate shrink together: batches of 8 to 24 are reported to work with
a smaller rate. Which batch fits was calculated, not measured (docs/training.md).
"""

from dataclasses import replace
from typing import Literal, get_args

from edge_runtime.errors import InputError
from train.config import TrainConfig

GpuMemoryGib = Literal[8, 12, 24]

CVUSA = TrainConfig(
    architecture="convnext_base.fb_in22k_ft_in1k_384",
    size_px=384,
    photo_height_px=140,
    photo_width_px=768,
    epochs=40,
    batch_size=128,
    learning_rate=1e-3,
    weight_decay=0.01,
    schedule="cosine",
    warmup_epochs=1.0,
    label_smoothing=0.1,
    clip_value=100.0,
    sampling="both",
    neighbours=128,
    select=64,
    refresh_epochs=4,
    flip=0.5,
    rotate=0.75,
    recolour=1.0,
    photo_grid=0.5,
    tile_grid=0.4,
    precision="fp16",
    channels_last=True,
    evaluate_epochs=4,
)
"""Deuser et al. 2023, arXiv:2303.11851, section 4; CVACT is trained the same way."""

VIGOR = replace(CVUSA, photo_height_px=384)

UNIVERSITY1652 = replace(
    CVUSA,
    photo_height_px=None,
    photo_width_px=None,
    epochs=1,
    warmup_epochs=0.1,
    sampling="random",
    photo_grid=0.4,
    evaluate_epochs=1,
    save_steps=100,
)
"""One epoch shows every drone photo once; neither sampler is used (section 4)."""

SUES200 = UNIVERSITY1652
"""The paper applies University-1652's recipe."""

FOLDER = replace(UNIVERSITY1652, epochs=10, warmup_epochs=1.0, ground_size_m=100.0)
"""Own photographs are fewer than 37,854, so they are shown more often."""

WORLD = TrainConfig(evaluate_epochs=4)

ADAPT = TrainConfig(
    epochs=14,
    batch_size=96,
    learning_rate=1e-3,
    warmup_epochs=0.4,
    label_smoothing=0.02,
    temperature=0.04,
    freeze_norms=True,
    ema_decay=0.95,
    sampling="both",
    neighbours=64,
    select=32,
    refresh_epochs=1,
    exclude="overlap",
    exclude_overlap=0.55,
    recolour=0.0,
)
"""To the imagery of one area, from weights that have seen the world (docs/adapting.md). Many and
hard negatives matter: a few places drawn by chance are soon told apart, and some tile of the map
stays everyone's nearest. Tiles that share most of their ground are no negatives; those that share
some are, because an index is full of them. Colours are the simulation's work."""

PRESETS: dict[str, TrainConfig] = {
    "cvusa": CVUSA,
    "cvact": CVUSA,
    "cvact-test": CVUSA,
    "vigor-same": VIGOR,
    "vigor-cross": VIGOR,
    "university1652": UNIVERSITY1652,
    "sues200": SUES200,
    **{f"sues200-{height_m}": SUES200 for height_m in (150, 200, 250, 300)},
    "folder": FOLDER,
    "world": WORLD,
    "imagery": ADAPT,
}

_BATCH_OF_GIB: dict[int, int] = {8: 8, 12: 16, 24: 32}


def scaled_to_memory(config: TrainConfig, gib: int) -> TrainConfig:
    """A recipe for one GPU with less memory: batch, neighbours and learning rate shrink together.

    Neighbours stay as many as a batch and half of them are chosen, as in the paper; the rate is
    linear in the batch. Activations are recomputed, which trades a third of the time for memory.

    Args:
        config: a recipe for 128 pairs a batch.
        gib: memory of the GPU: 8, 12 or 24.

    Raises:
        InputError: another size.
    """
    if gib not in get_args(GpuMemoryGib):
        msg = f"no recipe for a GPU of {gib} GiB; there are 8, 12 and 24"
        raise InputError(msg)
    batch = min(_BATCH_OF_GIB[gib], config.batch_size)
    return replace(
        config,
        batch_size=batch,
        neighbours=min(batch, config.neighbours),
        select=min(batch // 2, config.select),
        learning_rate=config.learning_rate * batch / config.batch_size,
        checkpointing=True,
    )
