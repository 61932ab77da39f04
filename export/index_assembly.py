"""All parts in, one index out, exchanged with the older one in one step."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edge_runtime.artefact import writing_artefact
from edge_runtime.errors import ImageryError, InputError
from edge_runtime.imagery import ImageryStore
from edge_runtime.index_format import IMAGERY, TILE_DTYPE, TILES, VectorType
from edge_runtime.satellite_imagery import Progress
from export.index_folder import BuildFolder
from export.index_parts import Parts
from export.index_plan import MIN_TILE_COVERAGE, Places, PlanOptions, plan_places
from export.index_update import keep
from export.index_vectors import write_vectors

U64 = npt.NDArray[np.uint64]
Rows = npt.NDArray[np.void]


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """How vectors are stored and searched."""

    dtype: VectorType = "f16"
    """Of the stored numbers."""
    kind: Literal["auto", "exact", "graph"] = "auto"
    """How the whole map is searched; `auto` takes a graph for large maps."""
    min_recall: float = 0.99
    """Least recall@10 against exact search; 0 accepts any."""


def assemble(
    folder: BuildFolder,
    plan: dict[str, Any],
    parts: Parts,
    options: PlanOptions,
    out: Path,
    *,
    search: SearchOptions,
    keep_embeddings: bool,
    progress: Progress,
) -> int:
    """Write the index folder of a build whose parts are all there.

    Nothing of who embedded what, where and when enters: the same plan gives the same bytes.

    Args:
        folder: the build.
        plan: what it is built to.
        parts: the embedded rows.
        options: the plan's tiles.
        out: index folder; an older index there is replaced whole.
        search: how vectors are stored and searched.
        keep_embeddings: leave what an update needs beside the index.
        progress: told the stage and the fraction done.

    Returns:
        Number of rows.

    Raises:
        InputError: parts are missing or damaged, or places are planned otherwise here.
        ImageryError: no tile was kept.
    """
    places = _places(folder, plan, options)
    raw, tiles, digests, level_rows = _gather(folder, parts, places, plan, progress)
    if len(tiles) == 0:
        sizes = ", ".join(f"{size.size_m:.0f}" for size in options.sizes)
        without = f" that is not {' or '.join(options.leave_out)}" if options.leave_out else ""
        folder.remove()
        msg = (
            f"no {sizes} m tile{without} fits on the imagery with {MIN_TILE_COVERAGE:.0%} "
            "coverage; give more imagery or a smaller --tile-m"
        )
        raise ImageryError(msg)
    levels = options.levels(level_rows)
    encoder = plan["encoder"]
    meta: dict[str, Any] = {
        "weights_sha256": encoder["weights_sha256"],
        "preprocessing_sha256": encoder["preprocessing_sha256"],
        "architecture": plan["architecture"],
        "embedded_by": {name: encoder[name] for name in ("provider", "precision", "library")},
        "sources": folder.sources(),
        "tiles": len(tiles),
        "levels": [asdict(level) for level in levels],
        "grid": options.grid,
        "left_out": list(options.leave_out),
    }
    with writing_artefact(out, "index", meta) as index:
        _take_over(folder.imagery, index / IMAGERY)
        np.save(index / TILES, tiles)
        embeddings = np.load(raw, mmap_mode="r", allow_pickle=False)
        meta["search"] = write_vectors(
            index,
            embeddings,
            levels,
            dtype=search.dtype,
            kind=search.kind,
            min_recall=search.min_recall,
            progress=progress,
        )
    if keep_embeddings:
        keep(out, raw, digests, encoder)
    return len(tiles)


def _places(folder: BuildFolder, plan: dict[str, Any], options: PlanOptions) -> Places:
    store = ImageryStore(folder.imagery)
    places = plan_places(store.bounds, options)
    store.close()
    if places.sha256 != plan["places_sha256"]:
        msg = (
            f"{folder.root} was planned by another version of skyfix: tiles lie elsewhere here. "
            "Finish it with that version, or give --restart"
        )
        raise InputError(msg)
    return places


def _gather(
    folder: BuildFolder, parts: Parts, places: Places, plan: dict[str, Any], progress: Progress
) -> tuple[Path, np.ndarray, U64, list[int]]:
    """Put parts one after the other, one in memory at a time.

    Returns:
        File of the raw embeddings, table of tiles, digests, and how many rows each level has.
    """
    missing = parts.missing()
    heads: list[Rows] = []
    raw = folder.root / "raw.npy"
    body = folder.root / f".raw.{os.getpid()}.tmp"
    try:
        with body.open("wb") as stream:
            for part in () if missing else range(len(parts)):
                rows = parts.read(part)
                if rows is None:
                    parts.path(part).unlink(missing_ok=True)
                    missing.append(part)
                    continue
                stream.write(np.ascontiguousarray(rows["embedding"]).tobytes())
                heads.append(rows[["place", "heading_deg", "marks", "digest"]].copy())
                progress("assembling", (part + 1) / len(parts))
        if missing:
            _refuse_missing(folder, missing, len(parts))
        count = sum(map(len, heads))
        _with_header(body, raw, (count, plan["embedding_size"]))
    finally:
        body.unlink(missing_ok=True)
    tiles = np.zeros(count, TILE_DTYPE)
    place = _column(heads, "place", np.int64)
    tiles["lat_deg"], tiles["lon_deg"] = places.lat_deg[place], places.lon_deg[place]
    tiles["heading_deg"] = _column(heads, "heading_deg", np.float32)
    tiles["marks"] = _column(heads, "marks", np.uint8)
    starts = np.searchsorted(place, places.level_starts)
    return raw, tiles, _column(heads, "digest", np.uint64), np.diff(starts).tolist()


def _column(heads: Sequence[Rows], name: str, dtype: type[np.generic]) -> np.ndarray:
    return np.concatenate([np.zeros(0, dtype), *(head[name].astype(dtype) for head in heads)])


def _with_header(body: Path, out: Path, shape: tuple[int, int]) -> None:
    """Make an `.npy` file of the bytes of a float16 matrix whose length was not known before."""
    array = np.lib.format.open_memmap(out, mode="w+", dtype=np.float16, shape=shape)
    with body.open("rb") as stream:
        for first in range(0, shape[0], 4096):
            rows = min(4096, shape[0] - first)
            data = np.frombuffer(stream.read(rows * shape[1] * 2), np.float16)
            array[first : first + rows] = data.reshape(rows, shape[1])
    array.flush()


def _refuse_missing(folder: BuildFolder, missing: Sequence[int], total: int) -> None:
    some = ", ".join(str(part) for part in missing[:5]) + (", …" if len(missing) > 5 else "")
    msg = (
        f"{folder.root} lacks {len(missing)} of {total} parts ({some}), or they are damaged; run "
        "the shards that have not ended again, or the command without --shard"
    )
    raise InputError(msg)


def _take_over(source: Path, target: Path) -> None:
    """Put a file where it belongs without copying it, where the file system can."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
