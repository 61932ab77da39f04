"""Which data a command works on: a data set by preset, a made-up world, or own photographs."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edge_runtime.errors import InputError
from train.config import TrainConfig
from train.presets import PRESETS

if TYPE_CHECKING:
    from train.pair_table import PairTable, RetrievalTask
    from train.pairs import PhotoFolder
    from train.progress import ProgressBars

_OWN = ("photos", "imagery", "telemetry", "truth", "camera")


def add_data_arguments(parser: argparse.ArgumentParser, *, part: str) -> None:
    """Add `--preset`, `--data` and the rest to a command."""
    data = parser.add_argument_group(
        "data",
        "a public data set (--preset and --data, docs/datasets.md), "
        f"a made-up world (its {part} part), or your own photographs: all five of the others",
    )
    data.add_argument("--preset", choices=sorted(PRESETS), help="data set and its recipe")
    data.add_argument("--data", type=Path, help="folder of the preset's data set")
    data.add_argument("--world", type=Path, help="folder written by python -m train world")
    data.add_argument("--photos", type=Path, help="folder of photographs")
    data.add_argument("--imagery", type=Path, help="georeferenced raster below them")
    data.add_argument("--telemetry", type=Path, help="CSV: filename, height_m, yaw_deg, …")
    data.add_argument("--truth", type=Path, help="CSV: filename, lat_deg, lon_deg, height_m, …")
    data.add_argument("--camera", type=Path, help="JSON: width_px, height_px, hfov_deg, …")


def preset_of(args: argparse.Namespace) -> TrainConfig:
    """The recipe named, or the made-up world's."""
    return PRESETS[args.preset or "world"]


def training_table(
    args: argparse.Namespace, config: TrainConfig, progress: "ProgressBars"
) -> "PairTable":
    """The pairs to learn from.

    Raises:
        InputError: no data is named, or it is not there.
    """
    if _is_public(args):
        from train.datasets.catalogue import read_training

        return read_training(args.preset, args.data)
    return _photographs(_folders(args, "train"), config, progress)


def evaluation_tasks(
    args: argparse.Namespace, config: TrainConfig, progress: "ProgressBars"
) -> "tuple[list[RetrievalTask], float]":
    """The tasks to be measured on, and the margin of their images.

    Raises:
        InputError: no data is named, or it is not there.
    """
    if _is_public(args):
        from train.datasets.catalogue import read_tasks

        return read_tasks(args.preset, args.data), 1.0
    from train.evaluation import task_of

    table = _photographs(_folders(args, "held_out"), config, progress)
    return [task_of(table)], table.margin


def _is_public(args: argparse.Namespace) -> bool:
    """Whether a data set is named rather than a world or own photographs."""
    if args.preset in (None, "world", "imagery"):
        if args.data is not None:
            msg = f"--data belongs to a data set's --preset, of {', '.join(sorted(PRESETS))}"
            raise InputError(msg)
        return False
    if args.data is None:
        msg = f"--preset {args.preset} needs --data, the folder of that data set"
        raise InputError(msg)
    return True


def _folders(args: argparse.Namespace, part: str) -> "list[PhotoFolder]":
    from train.pairs import PhotoFolder, world_folders

    if args.world is not None:
        return list(world_folders(args.world, part))
    own = {name: getattr(args, name) for name in _OWN}
    missing = [f"--{name}" for name, value in own.items() if value is None]
    if len(missing) == len(_OWN):
        msg = (
            "no data: give --world, or --preset and --data, "
            "or your own photographs with --photos, --imagery, --telemetry, --truth, --camera"
        )
        raise InputError(msg)
    if missing:
        msg = f"your own photographs need {', '.join(missing)} too"
        raise InputError(msg)
    return [PhotoFolder(**own)]


def _photographs(
    folders: "Sequence[PhotoFolder]", config: TrainConfig, progress: "ProgressBars"
) -> "PairTable":
    from train.pairs import joined, load_pairs

    return joined(
        [
            load_pairs(
                folder.photos,
                folder.imagery,
                telemetry=folder.telemetry,
                truth=folder.truth,
                camera=folder.camera,
                size_m=config.ground_size_m,
                size_px=config.size_px,
                progress=progress,
            )
            for folder in folders
        ]
    )
