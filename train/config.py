"""How an encoder is trained. Saved with every checkpoint.

The defaults train a small encoder from nothing on a CPU in about two minutes. They differ from the
paper, which starts from pretrained weights: hard negatives from the first epoch on teach
an untrained network next to nothing (docs/training.md has the figures).
"""

from dataclasses import dataclass
from typing import Literal

from edge_runtime.errors import InputError

Sampling = Literal["random", "gps", "similarity", "both"]
"""random: shuffled batches. gps: neighbours on the ground throughout. similarity: shuffled until
the first refresh, then neighbours in the encoder's eyes. both: gps, then similarity (the paper)."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A training run."""

    architecture: str = "mobilenetv4_conv_small"
    """timm name of the shared encoder."""
    size_px: int = 128
    """Side of the encoder's square input."""
    ground_size_m: float = 96.0
    """Side of the square of ground it looks at."""
    epochs: int = 12
    batch_size: int = 64
    """Pairs per step, so 2 x batch_size images."""
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
    refresh_epochs: int = 8
    """Similarity neighbours are computed anew every so many epochs."""
    flip: float = 0.5
    """Probability of mirroring both views."""
    rotate: float = 0.75
    """Probability of turning both views by the same multiple of 90 degrees."""
    recolour: float = 0.2
    """Factor on the probabilities of the recipe's colour jitter, blur and dropout, 0..1."""
    shift_m: float = 14.0
    """Tiles are shifted by up to this, as the nearest tile of an index is."""
    threads: int | None = None
    """CPU threads; None for all."""
    seed: int = 1

    def __post_init__(self) -> None:
        """Refuse values that cannot train."""
        if self.batch_size < 2:
            msg = f"batch_size is {self.batch_size}; InfoNCE needs at least 2 pairs per batch"
            raise InputError(msg)
        if self.epochs < 1 or not self.learning_rate > 0:
            msg = f"epochs {self.epochs}, learning_rate {self.learning_rate}: both must be positive"
            raise InputError(msg)
        if self.size_px % 32:
            msg = f"size_px is {self.size_px}; expected a multiple of 32"
            raise InputError(msg)
        if not 0 <= self.shift_m < 0.12 * self.ground_size_m * 2:
            msg = f"shift_m is {self.shift_m}; expected 0 to a quarter of ground_size_m"
            raise InputError(msg)
