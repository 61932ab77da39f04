"""How fast and how completely an index is searched, beside faiss and NumPy, on one core.

**What is inside the clock**: float32 queries in, rows out; for `open`, from a path to an index
that answers, digests checked where there are any. Every contender runs in a process of its own, so
that its memory is its own, on the same vectors and queries (`benchmarks.search_map`), one thread
while it searches. Files are in the page cache. Recall counts the true ten nearest of the
embeddings before they were stored.
"""

import gc
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from benchmarks.memory_use import resident_mib
from benchmarks.rows import Provenance, cpu_name, provenance
from benchmarks.search_contenders import Contender, Faiss, K, Plain, Skyfix, recall
from benchmarks.search_map import SimulatedMap
from edge_runtime.errors import InputError
from edge_runtime.geodesy import distance_m
from edge_runtime.index_format import CENTRE, EMBEDDINGS, TILES, VectorType
from edge_runtime.near_prior import Circle
from edge_runtime.vector_search import centred

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
ContenderName = Literal["skyfix", "faiss flat", "faiss hnsw", "numpy"]
Task = Literal["open", "whole map", "circle"]

_DISTINCT_QUERIES = 200
_OPENINGS = 20
_ROW_BLOCK = 1 << 14


@dataclass(frozen=True, kw_only=True)
class SearchRow(Provenance):
    """One contender at one task."""

    kind: str = "search"
    contender: ContenderName
    library: str
    """With its version."""
    task: Task
    tiles: int
    dimensions: int
    stored_as: str
    """Type of the vectors, and settings of the search."""
    stride_m: float
    """Between tiles."""
    radius_m: float | None
    """Of the circle."""
    compared_tiles: float | None
    """Mean number of tiles in the circle."""
    queries_per_call: int
    calls: int
    p50_ms: float
    p99_ms: float
    cpu_p99_ms: float
    """Of the calling thread's time on a core: what p99 is where nothing else runs."""
    recall_at_10: float | None
    build_s: float
    """Embeddings on disk to a searchable index."""
    files_mib: float
    own_mib: float
    """Anonymous memory after the searches less before opening: what the process needs."""
    mapped_mib: float
    """File pages mapped, which the system takes back when it likes."""
    built_with_mib: float
    """Most anonymous and mapped memory of the process ever, building included."""
    cpu: str
    vectors: str = "simulated map (benchmarks.search_map)"


class _Job(NamedTuple):
    folder: Path
    contender: ContenderName
    dtype: VectorType
    stride_m: float
    radius_m: float
    batch: int
    calls: int


def run(
    *,
    tiles: int = 100_000,
    dimensions: int = 1024,
    dtype: VectorType = "f16",
    stride_m: float = 100.0,
    radius_m: float = 2000.0,
    batch: int = 1,
    calls: int = 1000,
    contenders: tuple[ContenderName, ...] = get_args(ContenderName),
    folder: Path | None = None,
    done: Callable[[list[SearchRow]], None] = lambda _rows: None,
    said: Callable[[str], None] = lambda _line: None,
) -> list[SearchRow]:
    """Measure contenders on one simulated map.

    Args:
        tiles: of the map.
        dimensions: of an embedding.
        dtype: how our index stores embeddings; the others hold float32.
        stride_m: between neighbouring tiles.
        radius_m: of the circle around a prior.
        batch: queries in a call.
        calls: timed per task.
        contenders: whom to measure; faiss is left out where it is not installed.
        folder: for files, up to 16 bytes per tile and dimension; None for a temporary one.
        done: called with the rows of each contender as soon as they are there.
        said: told what goes on and what is left out.

    Returns:
        For each contender: open, whole map, circle.

    Raises:
        InputError: nobody is left to measure, or counts below 1.
    """
    present = tuple(c for c in contenders if not c.startswith("faiss") or find_spec("faiss"))
    if len(present) < len(contenders):
        said("faiss is not installed and left out; install it with: pip install faiss-cpu")
    if not present or min(tiles, dimensions, batch, calls) < 1 or not radius_m >= 0:
        msg = (
            f"{len(present)} contenders, {tiles} tiles, {dimensions} dimensions, {batch} queries, "
            f"{calls} calls, radius {radius_m:g} m; expected 1 or more of each, and 0 m or more"
        )
        raise InputError(msg)
    if folder is not None and not folder.is_dir():
        msg = f"{folder} is not a folder; expected one to write files into"
        raise InputError(msg)
    found = []
    with tempfile.TemporaryDirectory(dir=folder) as name:
        root = Path(name)
        said(f"simulating {tiles} x {dimensions}")
        made = SimulatedMap(tiles, dimensions, stride_m=stride_m)
        made.write(str(root / EMBEDDINGS))
        rows, queries = made.queries(_DISTINCT_QUERIES)
        np.save(root / TILES, made.tiles)
        np.save(root / "queries.npy", queries)
        np.save(root / "query_rows.npy", rows)
        del made
        _write_truth(root)
        for contender in present:
            said(f"measuring {contender}")
            job = _Job(root, contender, dtype, stride_m, radius_m, batch, calls)
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                rows_of_one = pool.apply(_measured, (job,))
            done(rows_of_one)
            found += rows_of_one
    return found


def _contender(name: ContenderName, folder: Path) -> Contender:
    match name:
        case "skyfix":
            return Skyfix(folder)
        case "numpy":
            return Plain(folder)
        case "faiss flat":
            return Faiss(folder, "flat")
        case "faiss hnsw":
            return Faiss(folder, "hnsw")


def _measured(job: _Job) -> list[SearchRow]:
    """Build, open and search; meant for a process of its own."""
    contender = _contender(job.contender, job.folder)
    began = time.perf_counter()
    contender.build(job.dtype, job.stride_m)
    build_s = time.perf_counter() - began
    contender.open()  # Imports, and the digests that only the first opening of a copy computes.
    contender.close()
    open_ms = _timed(lambda _: (contender.open(), contender.close()), _OPENINGS, 1)
    queries = np.load(job.folder / "queries.npy")
    truth = np.load(job.folder / "truth.npy")
    places = np.load(job.folder / TILES, mmap_mode="r")[np.load(job.folder / "query_rows.npy")]
    circles = [Circle(float(p["lat_deg"]), float(p["lon_deg"]), job.radius_m) for p in places]
    batches = [queries[(n + np.arange(job.batch)) % len(queries)] for n in range(_DISTINCT_QUERIES)]
    gc.collect()
    own_before, mapped_before = resident_mib("RssAnon"), resident_mib("RssFile")
    contender.open()
    whole_ms = _timed(lambda n: contender.whole(batches[n]), job.calls, len(batches))
    circle_ms = _timed(lambda n: contender.circle(batches[n], circles[n]), job.calls, len(batches))
    own_after, mapped_after = resident_mib("RssAnon"), resident_mib("RssFile")
    peak_mib = resident_mib("VmHWM")
    whole_recall = recall(truth, contender.whole(queries))
    answers = np.concatenate(
        [contender.circle(queries[n : n + 1], c) for n, c in enumerate(circles)]
    )
    contender.close()
    expected, inside = _truth_in_circles(job.folder, queries, circles)
    tasks: tuple[tuple[Task, F64, float | None], ...] = (
        ("open", open_ms, None),
        ("whole map", whole_ms, whole_recall),
        ("circle", circle_ms, recall(expected, answers)),
    )
    return [
        SearchRow(
            **provenance(),
            contender=job.contender,
            library=contender.library,
            task=task,
            tiles=np.load(job.folder / TILES, mmap_mode="r").shape[0],
            dimensions=queries.shape[1],
            stored_as=contender.stored_as,
            stride_m=job.stride_m,
            radius_m=job.radius_m if task == "circle" else None,
            compared_tiles=inside if task == "circle" else None,
            queries_per_call=0 if task == "open" else job.batch,
            calls=len(times),
            p50_ms=float(np.percentile(times[:, 0], 50)),
            p99_ms=float(np.percentile(times[:, 0], 99)),
            cpu_p99_ms=float(np.percentile(times[:, 1], 99)),
            recall_at_10=found,
            build_s=build_s,
            files_mib=sum(path.stat().st_size for path in contender.files) / 2**20,
            own_mib=own_after - own_before,
            mapped_mib=mapped_after - mapped_before,
            built_with_mib=peak_mib,
            cpu=cpu_name(),
        )
        for task, times, found in tasks
    ]


def _timed(call: Callable[[int], object], calls: int, distinct: int) -> F64:
    """Time calls, over arguments 0 ... distinct - 1 in turn.

    Returns:
        (calls, 2) milliseconds passed, and milliseconds on a core.
    """
    for n in range(min(20, distinct)):
        call(n)
    times = np.empty((calls, 2))
    for n in range(calls):
        on_core = time.thread_time()
        began = time.perf_counter()
        call(n % distinct)
        passed = time.perf_counter() - began
        times[n] = 1e3 * passed, 1e3 * (time.thread_time() - on_core)
    return times


def _write_truth(root: Path) -> None:
    """centre.npy, and truth.npy: the ten nearest of every query, by float32 in blocks."""
    embeddings = np.load(root / EMBEDDINGS, mmap_mode="r")
    queries = np.load(root / "queries.npy")
    total = np.zeros(embeddings.shape[1])
    for start in range(0, len(embeddings), _ROW_BLOCK):
        total += embeddings[start : start + _ROW_BLOCK].sum(axis=0, dtype=np.float64)
    centre = np.asarray(total / len(embeddings), np.float32)
    np.save(root / CENTRE, centre)
    every = [
        np.arange(start, min(start + _ROW_BLOCK, len(embeddings)))
        for start in range(0, len(embeddings), _ROW_BLOCK)
    ]
    moved = centred(queries, centre)
    values = np.zeros((len(queries), 0), np.float32)
    rows = np.zeros((len(queries), 0), np.int64)
    for here in every:
        block = centred(np.asarray(embeddings[here[0] : here[-1] + 1], np.float32), centre)
        values = np.concatenate([values, moved @ block.T], axis=1)
        rows = np.concatenate([rows, np.broadcast_to(here, (len(queries), len(here)))], axis=1)
        best = np.argpartition(-values, min(K, values.shape[1]) - 1, axis=1)[:, :K]
        values = np.take_along_axis(values, best, axis=1)
        rows = np.take_along_axis(rows, best, axis=1)
    np.save(root / "truth.npy", rows)


def _truth_in_circles(root: Path, queries: F32, circles: list[Circle]) -> tuple[I64, float]:
    """The ten nearest of each query among the tiles of its circle, and how many those are."""
    embeddings = np.load(root / EMBEDDINGS, mmap_mode="r")
    tiles = np.load(root / TILES)
    centre = np.load(root / CENTRE)
    expected = np.full((len(queries), K), -1, np.int64)
    inside = []
    for n, circle in enumerate(circles):
        far_m = distance_m(circle.lat_deg, circle.lon_deg, tiles["lat_deg"], tiles["lon_deg"])
        rows = np.flatnonzero(far_m <= circle.radius_m)
        block = centred(np.asarray(embeddings[rows], np.float32), centre)
        best = rows[np.argsort(-(block @ centred(queries[n : n + 1], centre)[0]))[:K]]
        expected[n, : len(best)] = best
        inside.append(len(rows))
    return expected, float(np.mean(inside))
