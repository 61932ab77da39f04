"""One rank of test_distributed.py: trains as told and writes what it saw."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from train.batches import BatchPlan
from train.config import TrainConfig
from train.distributed import joined_ranks
from train.encoder import new_encoder
from train.fit import fit
from train.optimisation import Optimisation
from train.pair_table import ImageArray, ImageSet, PairTable

CONFIG = TrainConfig(
    architecture="test_convnext",
    size_px=32,
    ground_size_m=24.0,
    shift_m=2.0,
    epochs=3,
    batch_size=8,
    sampling="both",
    neighbours=8,
    select=4,
    refresh_epochs=2,
    recolour=1.0,
    threads=1,
    workers=0,
)
PAIRS = 43  # Neither ranks nor batches share them evenly.


def made_table() -> PairTable:
    """Noise with positions, the same on every rank."""
    rng = np.random.default_rng(0)
    where = {"lat_deg": rng.uniform(47, 47.01, PAIRS), "lon_deg": rng.uniform(8, 8.01, PAIRS)}
    images = rng.integers(0, 256, (2, PAIRS, 40, 40, 3), np.uint8)
    return PairTable(
        name="noise",
        photos=ImageSet(images=ImageArray(images[0]), view="photo", **where),
        tiles=ImageSet(images=ImageArray(images[1]), view="tile", **where),
        tile_of_photo=np.arange(PAIRS),
        geometry="aligned",
        margin=1.25,
    )


def main(out: Path) -> None:
    """Write gradients of one step, an epoch's batches, neighbours and a short training."""
    table = made_table()
    with joined_ranks() as ranks:
        found: dict[str, Any] = {}
        for chunk_size in (None, 3):
            torch.manual_seed(0)
            encoder = new_encoder(CONFIG.architecture, size_px=32)
            config = replace(CONFIG, chunk_size=chunk_size)
            optimisation = Optimisation(encoder, config, ranks, steps_per_epoch=5)
            optimisation.train()
            rows = ranks.share(np.arange(8))
            assert isinstance(table.photos.images, ImageArray)
            assert isinstance(table.tiles.images, ImageArray)
            photos, tiles = (
                torch.from_numpy(source.images[rows, :32, :32].copy())
                for source in (table.photos.images, table.tiles.images)
            )
            done = optimisation.step(photos, tiles)
            found[f"{chunk_size} loss"] = np.array(done.loss)
            for name, value in encoder.named_parameters():
                assert value.grad is not None
                found[f"{chunk_size} grad {name}"] = value.grad.numpy()
        plan = BatchPlan(table, CONFIG)
        shares = [ranks.share(batch) for batch in plan.epoch(0)]
        found["batches"] = np.stack([ranks.joined(share) for share in shares])
        plan.refresh(encoder, 2, ranks, lambda _stage, _done: None)
        assert plan.neighbours is not None
        found["neighbours"] = plan.neighbours
        found["total"] = np.array([ranks.total(ranks.rank + 1), ranks.smallest(ranks.rank + 5)])
        losses: list[float] = []
        torch.manual_seed(0)
        fit(
            new_encoder(CONFIG.architecture, size_px=32),
            table,
            CONFIG,
            out / f"ckpt{ranks.world_size}",
            ranks=ranks,
            report=lambda epoch: losses.append(epoch.loss),
        )
        found["losses"] = np.array(losses)
        path = out / f"{ranks.world_size}_{ranks.rank}"
        np.savez(path.with_suffix(".npz"), **found)
        path.with_suffix(".json").write_text(json.dumps({"first": ranks.first}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
