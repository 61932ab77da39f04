"""Imagery in, satellite index out: stage, plan, embed in parts, assemble, exchange.

Runs through a backend, so a laptop without torch can make an index for the field. Every step
leaves files in `OUT.build` from which a later run, or others side by side, go on; the index itself
appears at once when all is done, and until then an older one stays whole.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from edge_runtime.backends.protocol import Backend
from edge_runtime.bundle import Bundle
from edge_runtime.errors import InputError
from edge_runtime.satellite_imagery import Progress
from export.index_assembly import SearchOptions, assemble
from export.index_claims import claimed
from export.index_embedding import embed_parts
from export.index_folder import BuildFolder, build_folder_of
from export.index_plan import PlanOptions, grid_positions, plan_options_from_json
from export.index_preparation import (
    BuildOptions,
    encoder_identity,
    parts_of,
    prepare,
    require_square,
)
from export.index_update import open_kept

__all__ = ["build_index", "grid_positions", "merge_index"]


def build_index(
    imagery: Sequence[Path],
    out: Path,
    bundle: Bundle,
    backend: Backend,
    plan: PlanOptions,
    options: BuildOptions | None = None,
    *,
    say: Callable[[str], None] = lambda _line: None,
    progress: Progress = lambda _stage, _done: None,
) -> int | None:
    """Write an index folder, or a shard's share of one.

    Args:
        imagery: georeferenced rasters.
        out: index folder; an older index there is replaced whole.
        bundle: the encoder, which the index is bound to.
        backend: where the encoder runs.
        plan: the tiles.
        options: how it is built.
        say: told a line that people should see.
        progress: told the stage and the fraction done.

    Returns:
        Rows of the finished index; None for a shard.

    Raises:
        ImageryError: unusable imagery, or no tile of this size fits on it.
        InputError: the encoder's input is not square, or an earlier run was asked for something
            else.
        ArtefactError: `out` is something else than an index.
    """
    options = options or BuildOptions()
    require_square(bundle)
    kept = None
    if options.update is not None:
        kept = open_kept(options.update, encoder_identity(bundle, backend))
    folder = BuildFolder(build_folder_of(out))
    if options.restart:
        folder.remove()
    prepared = prepare(folder, imagery, bundle, backend, plan, options, say=say, progress=progress)
    embed_parts(prepared, bundle, backend, options.shard, kept, progress)
    if options.shard is not None:
        return None
    return merge_index(
        folder,
        out,
        search=options.search,
        keep_embeddings=options.keep_embeddings,
        progress=progress,
    )


def merge_index(
    folder: BuildFolder,
    out: Path,
    *,
    search: SearchOptions | None = None,
    keep_embeddings: bool = True,
    progress: Progress = lambda _stage, _done: None,
) -> int:
    """Make the index of parts that are all there, and remove the build folder.

    Args:
        folder: where shards embedded.
        out: index folder.
        search: how vectors are stored and searched.
        keep_embeddings: leave what an update needs beside the index.
        progress: told the stage and the fraction done.

    Returns:
        Rows of the index.

    Raises:
        InputError: parts are missing or damaged, or another process is at it.
        ImageryError: no tile was kept.
    """
    plan = folder.plan()
    with claimed(folder.root / "assembly.claim") as mine:
        if not mine:
            msg = f"another process puts an index together in {folder.root}; wait for it to end"
            raise InputError(msg)
        rows = assemble(
            folder,
            plan,
            parts_of(folder, plan),
            plan_options_from_json(plan["options"]),
            out,
            search=search or SearchOptions(),
            keep_embeddings=keep_embeddings,
            progress=progress,
        )
        folder.remove()
    return rows
