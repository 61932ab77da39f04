"""The samples of a stream, and how well an encoder answers each of them exactly once."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from benchmarks.measurement import Quality
from benchmarks.stream_plan import StreamPlan
from edge_runtime.backends.protocol import open_backend
from edge_runtime.bundle import Bundle
from edge_runtime.errors import InputError
from edge_runtime.preprocess import EncoderSpec, resize_to_encoder
from edge_runtime.sources.photographs import PHOTO_SUFFIXES

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]

PROBES = "probes of bundle"
"""What a row's data begin with where no photographs were given."""


@dataclass(frozen=True, kw_only=True)
class Samples:
    """The library that queries are drawn from."""

    images: U8
    """(S, H, W, 3) RGB, at the encoder's size."""
    reference: F32
    """(S, D) embeddings they should get."""
    reference_name: str
    data: str


def samples_of(plan: StreamPlan, bundle: Bundle) -> Samples:
    """The samples and the embeddings that the trained encoder gives them.

    Raises:
        InputError: the folder has fewer than two photographs, or one cannot be read.
        BundleError: no probes.
    """
    if plan.photographs is None:
        images, reference = bundle.probes(plan.precision or "fp32")
        return Samples(
            images=images[: plan.samples],
            reference=reference[: plan.samples],
            reference_name="torch eager fp32",
            data=f"{PROBES} {bundle.id}",
        )
    folder = plan.photographs
    if not folder.is_dir():
        msg = f"{folder} is not a folder; expected photographs"
        raise InputError(msg)
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in PHOTO_SUFFIXES)
    if len(paths) < 2:
        msg = f"{folder} has {len(paths)} photographs; expected at least 2"
        raise InputError(msg)
    images = np.stack([_read(path, bundle.spec) for path in paths[: plan.samples]])
    with_fp32 = open_backend(bundle, "ort-cpu", precision="fp32", threads=plan.threads)
    try:
        reference = _embedded(with_fp32.embed, images, 1)
    finally:
        with_fp32.close()
    return Samples(
        images=images,
        reference=reference,
        reference_name=f"{with_fp32.info.library} on the CPU, fp32",
        data=f"{len(images)} photographs of {folder.name}",
    )


def accuracy_run(embed: Callable[[U8], F32], samples: Samples, *, batch: int) -> Quality:
    """Embed every sample exactly once and compare with the reference; nothing is timed.

    Args:
        embed: the backend's.
        samples: at least two.
        batch: samples per query, as in the speed run.
    """
    found = _embedded(embed, samples.images, batch)
    cosines = np.sum(found * samples.reference, axis=1) / (
        np.linalg.norm(found, axis=1) * np.linalg.norm(samples.reference, axis=1)
    )
    nearest = [_nearest_other(queries, samples.reference) for queries in (found, samples.reference)]
    return Quality(
        pictures=len(found),
        reference=samples.reference_name,
        min_cosine=float(cosines.min()),
        median_cosine=float(np.median(cosines)),
        top1_agreement=float(np.mean(nearest[0] == nearest[1])),
        recall_at_1=None,
        success_20m=None,
        gallery=len(found) - 1,
        data=samples.data,
    )


def _embedded(embed: Callable[[U8], F32], images: U8, batch: int) -> F32:
    """(S, D) float32; the last query is filled up with the first samples, whose answers drop."""
    out = []
    for start in range(0, len(images), batch):
        rows = np.arange(start, start + batch) % len(images)
        out.append(embed(images[rows])[: len(images) - start])
    return np.concatenate(out)


def _nearest_other(queries: F32, gallery: F32) -> I64:
    """(S,) the row of the gallery that is most like each query, its own left out."""
    similarity = queries @ gallery.T
    np.fill_diagonal(similarity, -np.inf)
    return np.asarray(similarity.argmax(axis=1), np.int64)


def _read(path: Path, spec: EncoderSpec) -> U8:
    bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if bgr is None:
        msg = f"{path} cannot be read as an image; expected JPEG, PNG or the like. Remove it"
        raise InputError(msg)
    return resize_to_encoder(np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8), spec)
