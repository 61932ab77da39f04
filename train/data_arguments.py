"""Which data a command works on: a data set by preset, a made-up world, or own photographs."""

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edge_runtime.errors import InputError
from train.config import TrainConfig
from train.presets import PRESETS
from train.settings import with_settings

if TYPE_CHECKING:
    from train.datasets.catalogue import Reader
    from train.pair_table import PairTable, RetrievalTask
    from train.pairs import PhotoFolder
    from train.progress import ProgressBars

    Say = Callable[[str], None]

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
    add_simulation_arguments(parser)


def preset_of(args: argparse.Namespace) -> TrainConfig:
    """The recipe named, or the made-up world's."""
    return PRESETS[args.preset or "world"]


TableOf = Callable[[TrainConfig, "ProgressBars"], "PairTable"]
TasksOf = Callable[[TrainConfig, "ProgressBars"], "tuple[list[RetrievalTask], float]"]


def find_training(args: argparse.Namespace, config: TrainConfig, say: "Say") -> TableOf:
    """Find the pairs to learn from, before anything costly is done.

    Returns:
        What reads them, given the sizes of the encoder.

    Raises:
        InputError: no data is named, or it is not there.
    """
    if args.preset == "imagery":
        _require_imagery(args)
        return lambda config, progress: simulated_table(args, config, progress)
    if _is_public(args):
        table = _reader(args, config).training(args.data, note=say)
        return lambda _config, _progress: table
    folders = _folders(args, "train")
    name = "photographs" if args.world is None else f"{args.world.name}/train"
    return lambda config, progress: _photographs(folders, config, progress, name)


def find_tasks(args: argparse.Namespace, config: TrainConfig, say: "Say") -> TasksOf:
    """Find the tasks to be measured on.

    Returns:
        What reads them and the margin of their images, given the sizes of the encoder.

    Raises:
        InputError: no data is named, or it is not there.
    """
    if args.preset == "imagery":
        _require_imagery(args)

        def simulated(
            config: TrainConfig, progress: "ProgressBars"
        ) -> "tuple[list[RetrievalTask], float]":
            from train.evaluation import task_of

            table = simulated_table(args, config, progress)
            return [task_of(table, name="simulated-view-to-tile")], table.margin

        return simulated
    if _is_public(args):
        tasks = _reader(args, config).tasks(args.data, note=say)
        return lambda _config, _progress: (tasks, 1.0)
    folders = _folders(args, "held_out")

    def read(config: TrainConfig, progress: "ProgressBars") -> "tuple[list[RetrievalTask], float]":
        from train.evaluation import task_of

        name = "photographs" if args.world is None else f"{args.world.name}/held-out"
        table = _photographs(folders, config, progress, name)
        return [task_of(table)], table.margin

    return read


def simulated_table(
    args: argparse.Namespace, config: TrainConfig, progress: "ProgressBars"
) -> "PairTable":
    """Places of `--imagery` with views as the drone that will fly would see them.

    Raises:
        InputError: a setting of the simulation, the camera or the imagery cannot be used.
    """
    from edge_runtime.camera import Camera
    from train.simulated_config import SimulationConfig
    from train.simulated_views import imagery_pairs

    simulation = with_settings(SimulationConfig(), args.simulate)
    if args.camera is not None:
        simulation = dataclasses.replace(simulation, camera=Camera.load(args.camera))
    return imagery_pairs(
        args.imagery,
        config=simulation,
        size_px=config.size_px,
        ground_size_m=config.ground_size_m,
        count=args.places,
        seed=config.seed,
        progress=progress,
    )


def add_simulation_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what shapes the simulated drone."""
    parser.add_argument(
        "--simulate",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting of the simulated drone: docs/adapting.md",
    )
    parser.add_argument("--places", type=int, default=1500, help="places an epoch shows")


def _require_imagery(args: argparse.Namespace) -> None:
    if args.imagery is None:
        msg = "--preset imagery needs --imagery, a georeferenced raster of where you will fly"
        raise InputError(msg)


def _reader(args: argparse.Namespace, config: TrainConfig) -> "Reader":
    """The preset's reader; tiles of own photographs are cut as large as the config says."""
    from train.datasets.catalogue import reader
    from train.datasets.folder import Folder

    found = reader(args.preset)
    if isinstance(found, Folder):
        return dataclasses.replace(found, ground_size_m=config.ground_size_m)
    return found


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
    folders: "Sequence[PhotoFolder]", config: TrainConfig, progress: "ProgressBars", name: str
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
                name=name,
                progress=progress,
            )
            for folder in folders
        ]
    )
