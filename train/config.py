"""How an encoder is trained. Saved with every checkpoint.

The defaults train a small encoder from nothing on a CPU in about three minutes. They differ from
the paper, which starts from pretrained weights: hard negatives from the first epoch on teach
an untrained network next to nothing (docs/training.md has the figures).
"""

from dataclasses import dataclass
from typing import Literal, get_args

from edge_runtime.errors import InputError

Sampling = Literal["random", "gps", "similarity", "both"]
"""random: shuffled batches. gps: neighbours on the ground throughout. similarity: shuffled until
the first refresh, then neighbours in the encoder's eyes. both: gps, then similarity (the paper)."""

MARGIN = 1.25
"""Pairs are cut this much larger than the encoder's view, so training can shift and turn them."""

_RANGES = (
    ("size_px", 32, 4096),
    ("ground_size_m", 1, 100_000),
    ("epochs", 1, 1_000_000),
    ("batch_size", 2, 1_000_000),
    ("learning_rate", 1e-9, 1),
    ("weight_decay", 0, 1),
    ("warmup_epochs", 0, 1_000_000),
    ("label_smoothing", 0, 1),
    ("clip_value", 1e-9, 1e9),
    ("neighbours", 1, 1_000_000),
    ("select", 0, 1_000_000),
    ("refresh_epochs", 1, 1_000_000),
    ("flip", 0, 1),
    ("rotate", 0, 1),
    ("recolour", 0, 1),
    ("threads", 1, 1024),
    ("seed", 0, 2**32 - 1),
)
"""Lowest and highest value of each number, both allowed. NaN is in no range."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A training run."""

    architecture: str = "mobilenetv4_conv_small"
    """timm name of the shared encoder."""
    size_px: int = 128
    """Side of the encoder's square input."""
    ground_size_m: float = 96.0
    """Side of the square of ground it looks at."""
    epochs: int = 16
    batch_size: int = 64
    """Pairs per step, so 2 x batch_size images; the loss needs other pairs to compare with."""
    learning_rate: float = 2e-3
    """Of AdamW, at the top of the schedule."""
    weight_decay: float = 0.01
    warmup_epochs: float = 1.0
    """Linear rise before the cosine fall to 0; both stepped per iteration."""
    label_smoothing: float = 0.1
    clip_value: float = 100.0
    """Gradients are clipped to plus and minus this value."""
    sampling: Sampling = "similarity"
    neighbours: int = 64
    """Neighbours kept per location; the paper uses 128 at batch 128."""
    select: int = 32
    """Neighbours drawn per seed, half nearest and half random; the paper uses 64."""
    refresh_epochs: int = 10
    """Similarity neighbours are computed anew every so many epochs."""
    flip: float = 0.5
    """Probability of mirroring both views."""
    rotate: float = 0.75
    """Probability of turning both views by the same multiple of 90 degrees."""
    recolour: float = 0.2
    """Factor on the probabilities of the recipe's colour jitter, blur and dropout, 0..1."""
    shift_m: float = 12.0
    """Tiles are shifted by up to this, as the nearest tile of an index is; the pairs' MARGIN allows
    an eighth of ground_size_m."""
    threads: int | None = None
    """CPU threads; None for all."""
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
        if self.size_px % 32:
            msg = f"size_px is {self.size_px}; expected a multiple of 32"
            raise InputError(msg)
        limit_m = (MARGIN - 1) / 2 * self.ground_size_m
        if not 0 <= self.shift_m <= limit_m:
            msg = (
                f"shift_m is {self.shift_m}; expected 0 to {limit_m:g}, the margin that pairs have "
                f"around a ground_size_m of {self.ground_size_m:g}"
            )
            raise InputError(msg)
        if self.sampling not in get_args(Sampling):
            msg = f"sampling is {self.sampling!r}; expected one of {get_args(Sampling)}"
            raise InputError(msg)
