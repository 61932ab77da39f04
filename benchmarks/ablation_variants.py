"""What an ablation changes, one thing at a time, and the trainings that it changes it in."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from train.config import TrainConfig

Group = Literal["samplers", "beyond", "distillation"]

START = replace(
    TrainConfig(),
    size_px=64,
    epochs=3,
    learning_rate=1e-3,
    sampling="random",
    exclude="overlap",
    schedule="constant",
)
"""Shuffled batches, from pretrained weights."""

GOING_ON = replace(
    START, epochs=4, learning_rate=1e-3, warmup_epochs=0.5, schedule="cosine", refresh_epochs=1
)
"""As the paper's 40 epochs, in small: neighbours on the ground for a tenth to a quarter of them."""

STUDENT = replace(
    TrainConfig(),
    size_px=START.size_px,
    epochs=10,
    sampling="random",
    exclude="overlap",
)
"""Smaller and faster than its teacher, and from nothing."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One thing changed."""

    name: str
    group: Group
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of the config it goes on with."""
    embedding_size: int | None = None
    """Measured with this prefix of the embedding."""
    turned_deg: float = 0.0
    """Measured with photographs turned by up to this."""
    fuse: int = 1
    """Measured with so many frames averaged."""
    like: str | None = None
    """Trained as this other variant, whose weights are measured."""
    distils: bool = False
    """A student from nothing; with a teacher where its settings say so."""
    asymmetric: bool = False
    """The gallery is the teacher's: photographs by the student, tiles by the teacher."""


VARIANTS = (
    Variant(name="shuffled", group="samplers"),
    Variant(name="GPS", group="samplers", settings={"sampling": "gps"}),
    Variant(name="similarity", group="samplers", settings={"sampling": "similarity"}),
    Variant(name="GPS, then similarity", group="samplers", settings={"sampling": "both"}),
    Variant(
        name="GPS, then similarity; overlapping tiles as negatives",
        group="samplers",
        settings={"sampling": "both", "exclude": "none"},
    ),
    Variant(
        name="shuffled; overlapping tiles as negatives",
        group="samplers",
        settings={"exclude": "none"},
    ),
    Variant(name="photos as negatives too", group="beyond", settings={"photo_negatives": True}),
    Variant(name="weights averaged", group="beyond", settings={"ema_decay": 0.95}),
    Variant(
        name="first 64 numbers, as trained", group="beyond", like="shuffled", embedding_size=64
    ),
    Variant(
        name="first 64 numbers, trained to (Matryoshka)",
        group="beyond",
        settings={"embedding_sizes": (64, 256)},
        embedding_size=64,
    ),
    Variant(
        name="all numbers, trained so",
        group="beyond",
        like="first 64 numbers, trained to (Matryoshka)",
    ),
    Variant(name="heading 30 deg off, as trained", group="beyond", like="shuffled", turned_deg=30),
    Variant(
        name="heading 30 deg off, trained to",
        group="beyond",
        settings={"heading_error_deg": 30.0},
        turned_deg=30,
    ),
    Variant(
        name="heading right, trained so", group="beyond", like="heading 30 deg off, trained to"
    ),
    Variant(name="three frames fused", group="beyond", like="shuffled", fuse=3),
    Variant(name="student alone", group="distillation", distils=True),
    Variant(
        name="student of relations",
        group="distillation",
        settings={"distillation": "relations"},
        distils=True,
    ),
    Variant(
        name="student of embeddings",
        group="distillation",
        settings={"distillation": "embeddings"},
        distils=True,
    ),
    Variant(
        name="student's photos, teacher's tiles",
        group="distillation",
        like="student of embeddings",
        distils=True,
        asymmetric=True,
    ),
)
