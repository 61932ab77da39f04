"""What must hold before anything is embedded: imagery that is made, tiles that are planned."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from edge_runtime.artefact import sha256_of_json
from edge_runtime.backends.protocol import Backend
from edge_runtime.bundle import Bundle
from edge_runtime.errors import InputError
from edge_runtime.imagery import ImageryStore
from edge_runtime.satellite_imagery import Progress
from export.index_assembly import SearchOptions
from export.index_folder import BuildFolder
from export.index_imagery import ImageryOptions, what_is_unknown
from export.index_parts import Parts, part_dtype
from export.index_plan import Places, PlanOptions, plan_places

PART_ROWS = 512
"""What a kill costs at most: ten minutes of a base network on one CPU, a second of a GPU."""


class Shard(NamedTuple):
    """One of several processes that embed an index together, counted from 1."""

    number: int
    of: int


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """How an index is built; only `imagery` and `search` show in the result."""

    imagery: ImageryOptions = field(default_factory=ImageryOptions)
    """How the imagery kept in the index is made."""
    search: SearchOptions = field(default_factory=SearchOptions)
    """How its vectors are stored and searched."""
    shard: Shard | None = None
    """Embed this share only, and do not assemble."""
    restart: bool = False
    """Begin again, whatever an earlier run left."""
    update: Path | None = None
    """An older index, whose embeddings are used where pictures did not change."""
    keep_embeddings: bool = True
    """Leave what an update needs beside the index."""
    part_rows: int = PART_ROWS
    """Rows of a part, about."""

    def __post_init__(self) -> None:
        """Refuse shards that are none, and one that would undo the others."""
        if self.shard is not None and not 1 <= self.shard.number <= self.shard.of:
            msg = f"shard is {self.shard.number}/{self.shard.of}; expected 1/N to N/N"
            raise InputError(msg)
        if self.shard is not None and self.restart:
            msg = (
                "--restart was given to a shard, and would remove what others embed; begin again "
                "with --restart --dry-run, then start the shards"
            )
            raise InputError(msg)


class Prepared(NamedTuple):
    """A build folder with its imagery and plan, ready to be filled."""

    folder: BuildFolder
    options: PlanOptions
    places: Places
    plan: dict[str, Any]


def prepare(
    folder: BuildFolder,
    imagery: Sequence[Path],
    bundle: Bundle,
    backend: Backend,
    options: PlanOptions,
    build: BuildOptions,
    *,
    dry: bool = False,
    say: Callable[[str], None],
    progress: Progress,
) -> Prepared:
    """Stage the imagery and plan the tiles, or find both as an earlier run left them.

    Args:
        folder: where.
        imagery: georeferenced rasters.
        bundle: the encoder.
        backend: where it will run.
        options: the tiles.
        build: how it is built.
        dry: do not hold the folder to this plan.
        say: told a line that people should see.
        progress: told the stage and the fraction done.
    """
    made = build.imagery
    record = folder.stage_imagery(made.asked(imagery), made.writer(imagery), progress)
    unknown = what_is_unknown(record["sources"])
    if unknown is not None:
        say(unknown)
    store = ImageryStore(folder.imagery)
    bounds = store.bounds
    store.close()
    places = plan_places(bounds, options)
    plan = {
        "schema": 1,
        "imagery_sha256": record["sha256"],
        "options": options.to_json(),
        "places": len(places),
        "places_sha256": places.sha256,
        "part_places": max(1, build.part_rows // options.headings),
        "encoder": encoder_identity(bundle, backend),
        "architecture": bundle.spec.architecture,
        "embedding_size": bundle.spec.embedding_size,
    }
    plan = json.loads(json.dumps(plan))  # As it will be read: the parts are bound to its digest.
    if not dry:
        folder.agree_on(plan)
        _require_space(folder, plan, options)
    return Prepared(folder, options, places, plan)


def parts_of(folder: BuildFolder, plan: dict[str, Any]) -> Parts:
    """The parts that a plan consists of."""
    return Parts(
        folder.parts,
        sha256_of_json(plan),
        places=plan["places"],
        part_places=plan["part_places"],
        embedding_size=plan["embedding_size"],
    )


def encoder_identity(bundle: Bundle, backend: Backend) -> dict[str, str]:
    """What two runs must share for a picture to have one embedding."""
    info = backend.info
    return {
        "weights_sha256": bundle.weights_sha256,
        "preprocessing_sha256": bundle.spec.preprocessing_hash(),
        "provider": info.provider,
        "precision": info.precision,
        "library": info.library,
    }


def require_square(bundle: Bundle) -> None:
    """Refuse an encoder whose input is not square.

    Raises:
        InputError: it is not.
    """
    spec = bundle.spec
    if spec.height_px != spec.width_px:
        msg = f"encoder input is {spec.height_px}x{spec.width_px} px; an index needs a square one"
        raise InputError(msg)


def _require_space(folder: BuildFolder, plan: dict[str, Any], options: PlanOptions) -> None:
    """Refuse to begin what cannot end: parts, their assembly and the index lie on this disk."""
    row_bytes = part_dtype(plan["embedding_size"]).itemsize
    needed = 3 * plan["places"] * options.headings * row_bytes
    there = sum(p.stat().st_size for p in folder.parts.glob("*.npy"))
    free = shutil.disk_usage(folder.root).free
    if needed - there > free:
        msg = (
            f"{folder.root.parent} has {free / 1e6:.0f} MB free; this index needs about "
            f"{(needed - there) / 1e6:.0f} MB while it is built. Free some space, or give another "
            "--out"
        )
        raise InputError(msg)
