"""The judge of an export: each precision against the trained encoder, on probes and on ground."""

import os
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from edge_runtime.gates import Embed, GateReport, gate_encoder
from edge_runtime.index_gate import (
    QUERIES,
    IndexGateReport,
    PlaceQuality,
    Progress,
    embed_queries,
    gate_places,
    place_quality,
    place_queries,
    places_of,
)
from edge_runtime.precision import Precision
from edge_runtime.satellite_index import SatelliteIndex
from export.int8_search import open_session
from train.encoder import Checkpoint, Encoder

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]

BATCHES = (1, 8)
"""Images a call: a frame, and what indexing does."""
_TORCH_BATCH = 4


class Verdict(NamedTuple):
    """What the gates measured of a precision that passed them."""

    gates: GateReport
    on_index: IndexGateReport | None


class Judge:
    """Holds the trained encoder's answers; use as a context, it holds the index open."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        probes: U8,
        made_up: int,
        index: Path | None,
        *,
        queries: int = QUERIES,
        progress: Progress = lambda _stage, _done: None,
    ) -> None:
        """Embed the probes with the trained encoder.

        Args:
            checkpoint: the trained encoder.
            probes: (P, H, W, 3) uint8 RGB, made-up ones first.
            made_up: how many of them. INT8 is judged on the others alone.
            index: whose places are looked up as the last gate; None for no such gate.
            queries: views looked up.
            progress: told a stage and the fraction done.

        Raises:
            IndexFolderError: not an index.
            ImageryError: an index with hardly any imagery.
        """
        self._probes, self._made_up, self._progress = probes, made_up, progress
        self.reference = trained_embed(checkpoint.encoder)(probes)
        """(P, D) the trained encoder's answers to the probes."""
        self._index = None if index is None else SatelliteIndex.open(index)
        if self._index is None:
            return
        try:
            spec, embed = checkpoint.encoder.spec, trained_embed(checkpoint.encoder)
            self._places = places_of(
                self._index, checkpoint.weights_sha256, spec, embed, progress=progress
            )
            self._queries = place_queries(self._index, self._places, spec, count=queries)
            self.trained_quality = self._quality(embed, "views, trained encoder")
        except BaseException:
            self._index.close()
            raise

    def __enter__(self) -> "Judge":
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        if self._index is not None:
            self._index.close()

    def judge(self, embed: Embed, precision: Precision, *, where: str = "") -> Verdict:
        """Put an encoder through every gate.

        Raises:
            GateError: the first gate that fails.
        """
        gates = self.judge_probes(embed, precision, where=where)
        if self._index is None:
            return Verdict(gates, None)
        found = self._quality(embed, f"views, {precision}")
        gate_places(found, self.trained_quality, precision, where=where)
        report = IndexGateReport(
            precision=precision,
            index_id=self._index.id,
            queries=len(self._queries.images),
            tiles=len(self._places.lat_deg),
            reference=self.trained_quality,
            found=found,
        )
        return Verdict(gates, report)

    def judge_probes(self, embed: Embed, precision: Precision, *, where: str = "") -> GateReport:
        """Put an encoder through the gates on probes alone.

        Raises:
            GateError: the first gate that fails.
        """
        first = self._made_up if precision == "int8" else 0
        return gate_encoder(
            embed,
            self._probes[first:],
            self.reference[first:],
            precision,
            where=where,
            batches=BATCHES,
        )

    def _quality(self, embed: Embed, stage: str) -> PlaceQuality:
        embeddings = embed_queries(embed, self._queries, stage=stage, progress=self._progress)
        return place_quality(embeddings, self._queries, self._places)


def trained_embed(encoder: Encoder) -> Embed:
    """The trained encoder as a function of images."""

    @torch.inference_mode()
    def embed(images: U8) -> F32:
        parts = [
            encoder(torch.from_numpy(images[k : k + _TORCH_BATCH])).numpy()
            for k in range(0, len(images), _TORCH_BATCH)
        ]
        return np.concatenate(parts)

    return embed


def onnx_embed(path: Path, *, fuse_pairs: bool = True) -> Embed:
    """An ONNX file as a function of images, by ONNX Runtime on the CPU.

    Args:
        path: the file.
        fuse_pairs: see `export.int8_search.open_session`; False for INT8 files for TensorRT.
    """
    session = open_session(str(path), os.cpu_count() or 1, fuse_pairs=fuse_pairs)
    return lambda images: np.asarray(session.run(["embeddings"], {"images": images})[0])
