"""A made-up world: procedural satellite imagery and drone photos of the same ground."""

from train.world.config import WorldConfig
from train.world.make import make_world

__all__ = ["WorldConfig", "make_world"]
