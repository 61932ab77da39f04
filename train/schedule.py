"""The learning rate over a run, stepped per iteration."""

import math

from train.config import TrainConfig


def learning_rate_factor(step: int, config: TrainConfig, *, per_epoch: int) -> float:
    """Factor on the learning rate at a step.

    A linear rise over the warm-up, then a cosine to 0 at the last step, or 1 throughout
    (Deuser et al. 2023, section 4).

    Args:
        step: 0 for the first.
        config: epochs, warm-up and the schedule's name.
        per_epoch: steps of one epoch.
    """
    warmup = round(config.warmup_epochs * per_epoch)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if config.schedule == "constant":
        return 1.0
    fraction = (step - warmup) / max(1, config.epochs * per_epoch - warmup)
    return 0.5 * (1 + math.cos(math.pi * min(fraction, 1.0)))
