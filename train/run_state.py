"""Everything a run needs to go on after an interruption as if there had been none.

What is drawn at random depends on the seed, the epoch, the step and the row alone, so no state of
a generator is kept.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from edge_runtime.artefact import open_artefact, writing_artefact
from edge_runtime.errors import ArtefactError, InputError
from train.config import TrainConfig
from train.optimisation import Optimisation
from train.pair_table import PairTable

I32 = npt.NDArray[np.int32]

_FREE = ("threads", "workers", "save_steps", "evaluate_epochs", "chunk_size", "compile")
"""Settings a resumed run may change without becoming another run."""

_SAMPLED_NAMES = 1000


@dataclass(frozen=True, kw_only=True)
class RunState:
    """Where a run is."""

    epoch: int
    """Epochs finished."""
    step: int
    """Steps of the next epoch that are done too."""
    history: list[dict[str, Any]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    """Of those steps."""
    sampler: str = "chance"
    neighbours: I32 | None = None
    data: str = ""
    """Fingerprint of the table."""


def run_folder(out: Path) -> Path:
    """Beside a checkpoint: state, logs and summary of the run that makes it."""
    return out.with_name(out.name + ".run")


def fingerprint(table: PairTable) -> str:
    """Hex sha256 of what a table pairs with what; of image names, not of their pixels."""
    digest = hashlib.sha256(f"{table.name} {len(table.photos)} {len(table.tiles)}".encode())
    digest.update(np.ascontiguousarray(table.tile_of_photo).tobytes())
    for images in (table.photos, table.tiles):
        step = max(1, len(images) // _SAMPLED_NAMES)
        for row in range(0, len(images), step):
            # The file's own name: a moved data set is still the same data.
            digest.update(Path(images.images.name(row)).name.encode())
        for column in (images.lat_deg, images.lon_deg):
            if column is not None:
                digest.update(np.ascontiguousarray(column).tobytes())
    return digest.hexdigest()


def save_run_state(
    folder: Path, optimisation: Optimisation, config: TrainConfig, state: RunState
) -> None:
    """Write the state atomically; the one before it is replaced whole."""
    with writing_artefact(folder, "training-state", {}) as scratch:
        save_file(_tensors(optimisation.encoder.state_dict()), scratch / "model.safetensors")
        if optimisation.average is not None:
            average = optimisation.average.state_dict()
            save_file(_tensors(average), scratch / "average.safetensors")
        moments = {
            f"{name}.{row}": value
            for row, values in optimisation.optimiser.state_dict()["state"].items()
            for name, value in values.items()
        }
        save_file(_tensors(moments), scratch / "optimiser.safetensors")
        if state.neighbours is not None:
            np.save(scratch / "neighbours.npy", state.neighbours)
        values = asdict(state) | {
            "neighbours": state.neighbours is not None,
            "step_count": optimisation.step_count,
            "scaler": optimisation.scaler.state_dict(),
            "config": asdict(config),
        }
        (scratch / "state.json").write_text(json.dumps(values) + "\n")


def load_run_state(
    folder: Path, optimisation: Optimisation, config: TrainConfig, *, data: str
) -> RunState:
    """Bring an interrupted run's state back.

    Args:
        folder: written by `save_run_state`.
        optimisation: of the same config; its weights, moments and averages are replaced.
        config: must be the interrupted run's, but for what changes no result.
        data: fingerprint of the table, which must be the same too.

    Raises:
        ArtefactError: damaged.
        InputError: another config or other data; what differs is named.
    """
    open_artefact(folder, "training-state")
    try:
        values = json.loads((folder / "state.json").read_text())
        before = json.loads(json.dumps(asdict(config)))
        differs = [
            f"{name} {values['config'].get(name)} then, {value} now"
            for name, value in before.items()
            if name not in _FREE and values["config"].get(name) != value
        ]
        if differs:
            msg = (
                f"{folder} is of another run ({'; '.join(differs)}); "
                "use its settings, or another --out"
            )
            raise InputError(msg)
        if values["data"] != data:
            msg = f"{folder} was trained on other data than this; use the same, or another --out"
            raise InputError(msg)
        optimisation.encoder.load_state_dict(load_file(folder / "model.safetensors"), strict=True)
        if optimisation.average is not None:
            average = load_file(folder / "average.safetensors")
            optimisation.average.load_state_dict(average, strict=True)
        _load_moments(optimisation.optimiser, load_file(folder / "optimiser.safetensors"))
        optimisation.scaler.load_state_dict(values["scaler"])
        optimisation.step_count = values["step_count"]
        neighbours = np.load(folder / "neighbours.npy") if values["neighbours"] else None
        return RunState(
            epoch=values["epoch"],
            step=values["step"],
            history=values["history"],
            losses=values["losses"],
            sampler=values["sampler"],
            neighbours=neighbours,
            data=values["data"],
        )
    except (KeyError, ValueError, OSError, RuntimeError) as error:
        if isinstance(error, InputError):
            raise
        msg = f"{folder} cannot be resumed ({error}); train again without --resume"
        raise ArtefactError(msg) from error


def _tensors(state: dict[str, Any]) -> dict[str, Tensor]:
    """Copies on the CPU: safetensors refuses tensors that share memory."""
    return {name: value.detach().cpu().clone().contiguous() for name, value in state.items()}


def _load_moments(optimiser: torch.optim.Optimizer, flat: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in flat.items():
        name, row = key.rsplit(".", 1)
        state.setdefault(int(row), {})[name] = value
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
