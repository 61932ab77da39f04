"""How an encoder is trained. Saved with every checkpoint.

The defaults train a small encoder from nothing on a CPU in about three minutes. They differ from
the paper, which starts from pretrained weights: hard negatives from the first epoch on teach
an untrained network next to nothing (docs/training.md has the figures). `train.presets` holds the
paper's recipes.
"""

import typing
from dataclasses import dataclass
from typing import Any, Literal, get_args

from edge_runtime.errors import InputError

Sampling = Literal["random", "gps", "similarity", "both"]
"""random: shuffled batches. gps: neighbours on the ground throughout. similarity: shuffled until
the first refresh, then neighbours in the encoder's eyes. both: gps, then similarity (the paper)."""

GpsDistance = Literal["metres", "published"]
"""metres: true distances. published: degrees fed to a formula that wants radians, as the paper's
scripts do for CVUSA and VIGOR: for exact reproduction only."""

Exclude = Literal["none", "semi-positives", "overlap"]
"""Tiles that may not be a photo's negatives: none, those a data set names as overlapping (VIGOR),
or every one whose footprint overlaps the true tile's."""

Precision = Literal["fp32", "bf16", "fp16"]

Schedule = Literal["cosine", "constant"]

Distillation = Literal["none", "relations", "embeddings"]
"""What a student takes from a teacher. relations: how alike it finds the pairs of a batch; sizes
may differ. embeddings: the teacher's own vectors, so its index serves the student."""

MARGIN = 1.25
"""Aligned pairs are cut this much larger than the encoder's view, so training can shift and turn
them."""

_RANGES = (
    ("size_px", 16, 4096),
    ("photo_height_px", 16, 4096),
    ("photo_width_px", 16, 4096),
    ("ground_size_m", 1, 100_000),
    ("epochs", 1, 1_000_000),
    ("batch_size", 2, 1_000_000),
    ("learning_rate", 1e-9, 1),
    ("weight_decay", 0, 1),
    ("warmup_epochs", 0, 1_000_000),
    ("label_smoothing", 0, 1),
    ("temperature", 1e-3, 10),
    ("clip_value", 1e-9, 1e9),
    ("neighbours", 1, 1_000_000),
    ("select", 0, 1_000_000),
    ("refresh_epochs", 1, 1_000_000),
    ("exclude_overlap", 0, 0.99),
    ("flip", 0, 1),
    ("rotate", 0, 1),
    ("recolour", 0, 1),
    ("photo_grid", 0, 0.9),
    ("tile_grid", 0, 0.9),
    ("shift_m", 0, 100_000),
    ("heading_error_deg", 0, 180),
    ("chunk_size", 1, 1_000_000),
    ("ema_decay", 0, 0.999999),
    ("distillation_weight", 0, 1000),
    ("save_steps", 1, 1_000_000_000),
    ("evaluate_epochs", 1, 1_000_000),
    ("threads", 1, 1024),
    ("workers", 0, 1024),
    ("seed", 0, 2**32 - 1),
)
"""Lowest and highest value of each number, both allowed. NaN is in no range."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A training run."""

    architecture: str = "mobilenetv4_conv_small"
    """timm name of the shared encoder."""
    size_px: int = 128
    """Side of the encoder's square input: the tile's size."""
    photo_height_px: int | None = None
    """Height photos are stretched to; None for size_px. Panoramas are wider than high."""
    photo_width_px: int | None = None
    """Width photos are stretched to; None for size_px."""
    ground_size_m: float = 96.0
    """Side of the square of ground an aligned view shows. No meaning for other data."""
    epochs: int = 16
    batch_size: int = 64
    """Pairs per step over all ranks, so 2 x batch_size images; the loss compares within a batch."""
    learning_rate: float = 2e-3
    """Of AdamW, at the top of the schedule."""
    weight_decay: float = 0.01
    schedule: Schedule = "cosine"
    """After the warm-up, stepped per iteration: a cosine to 0, or constant."""
    warmup_epochs: float = 1.0
    """Linear rise before it."""
    label_smoothing: float = 0.1
    temperature: float | None = None
    """At the start, learnable; None keeps the weights' own, 0.07 when they are new."""
    clip_value: float = 100.0
    """Gradients are clipped to plus and minus this value."""
    freeze_norms: bool = False
    """Keep batch norms' running statistics as they came, which small batches would spoil."""

    sampling: Sampling = "similarity"
    gps_distance: GpsDistance = "metres"
    neighbours: int = 64
    """Neighbours kept per location; the paper uses 128 at batch 128."""
    select: int = 32
    """Neighbours drawn per seed, half nearest and half random; the paper uses 64."""
    refresh_epochs: int = 10
    """Similarity neighbours are computed anew every so many epochs."""
    exclude: Exclude = "semi-positives"
    """Tiles kept out of each other's batches."""
    exclude_overlap: float = 0.0
    """With exclude=overlap: only tiles that share more than this part of their ground, 0..1."""

    flip: float = 0.5
    """Probability of mirroring both views."""
    rotate: float = 0.75
    """Probability of turning the tile by a multiple of 90 degrees, and the photo as fits it."""
    recolour: float = 0.2
    """Factor on the probabilities of the recipe's compression, colour jitter, blur and dropout."""
    photo_grid: float = 0.4
    """Share of a photo that grid dropout hides when it is drawn; 0.5 for ground panoramas."""
    tile_grid: float = 0.4
    """The same of a tile."""
    shift_m: float | None = None
    """Aligned tiles are shifted by up to this, as the nearest tile of an index is. None for all
    that the pairs' MARGIN allows, an eighth of ground_size_m."""
    heading_error_deg: float = 0.0
    """Aligned photos are turned by up to this either way, 180 for any heading."""

    precision: Precision = "fp32"
    """Of the body under autocast; the loss is always FP32."""
    channels_last: bool = False
    compile: bool = False
    """torch.compile of the body."""
    checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, a third more time."""
    chunk_size: int | None = None
    """Pairs per forward pass and rank; the loss still compares the whole batch (cached embeddings,
    Gao et al. 2021, arXiv:2101.06983). None for all at once."""
    ema_decay: float | None = None
    """Exponential moving average of the weights, which is what is saved; None for none."""

    photo_negatives: bool = False
    """A photo is also told from the batch's other photos, not only from other tiles."""
    embedding_sizes: tuple[int, ...] = ()
    """Prefixes of the embedding that must work alone, as 64,256 (Matryoshka, Kusupati et al. 2022,
    arXiv:2205.13147); empty for none."""
    distillation: Distillation = "none"
    """What is learnt from the teacher given."""
    distillation_weight: float = 1.0

    save_steps: int | None = None
    """Save the training state every so many steps too, for long epochs; None for epochs only."""
    evaluate_epochs: int = 1
    """Retrieval on the evaluation part, where one is given, every so many epochs."""
    threads: int | None = None
    """CPU threads; None leaves it to torch: all, or one a rank under torchrun."""
    workers: int | None = None
    """Processes that load and augment; None chooses: none for data in memory."""
    seed: int = 1

    def __post_init__(self) -> None:
        """Refuse values that cannot train.

        Raises:
            InputError: a value is out of its range or no choice; the range or choices are named.
        """
        for name, lowest, highest in _RANGES:
            value = getattr(self, name)
            if value is not None and not lowest <= value <= highest:
                msg = f"{name} is {value}; expected {lowest} to {highest}"
                raise InputError(msg)
        if self.shift_m is not None and self.shift_m > self._margin_m:
            msg = (
                f"shift_m is {self.shift_m}; expected 0 to {self._margin_m:g}, the margin that "
                f"pairs have around a ground_size_m of {self.ground_size_m:g}"
            )
            raise InputError(msg)
        for name, annotation in typing.get_type_hints(TrainConfig).items():
            choices = get_args(annotation)
            if typing.get_origin(annotation) is Literal and getattr(self, name) not in choices:
                msg = f"{name} is {getattr(self, name)!r}; expected one of {', '.join(choices)}"
                raise InputError(msg)
        if any(size < 1 for size in self.embedding_sizes):
            msg = f"embedding_sizes are {self.embedding_sizes}; expected sizes of 1 and more"
            raise InputError(msg)

    @property
    def largest_shift_m(self) -> float:
        """`shift_m`, or what the margin allows."""
        return self._margin_m if self.shift_m is None else self.shift_m

    @property
    def _margin_m(self) -> float:
        return (MARGIN - 1) / 2 * self.ground_size_m

    @property
    def photo_size_px(self) -> tuple[int, int]:
        """(height, width) photos are stretched to."""
        return (self.photo_height_px or self.size_px, self.photo_width_px or self.size_px)

    @property
    def tile_size_px(self) -> tuple[int, int]:
        """(height, width) tiles are stretched to."""
        return (self.size_px, self.size_px)


def config_from_json(value: dict[str, Any]) -> TrainConfig:
    """Inverse of `dataclasses.asdict` after a trip through JSON.

    Raises:
        InputError: a name is unknown, as of another version.
    """
    try:
        sizes = tuple(value.get("embedding_sizes", ()))
        return TrainConfig(**{**value, "embedding_sizes": sizes})
    except TypeError as error:
        msg = f"not a training configuration of this version ({error})"
        raise InputError(msg) from error
