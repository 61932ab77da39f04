"""Checkpoint in, bundle out: ONNX per precision, probes, gates, manifest."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from edge_runtime.artefact import writing_artefact
from edge_runtime.bundle import PROBES, Precision
from edge_runtime.errors import GateError, InputError
from edge_runtime.gates import GateReport, run_gates
from export.onnx_encoder import export_onnx
from export.probes import probe_images, resize_probes
from train.encoder import load_checkpoint

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class ExportedBundle:
    """What came of an export."""

    shipped: dict[Precision, GateReport]
    refused: dict[Precision, str]
    """Why a precision is not in the bundle."""


def export_bundle(
    checkpoint: Path,
    out: Path,
    *,
    probe_paths: Sequence[Path] = (),
    precisions: Sequence[Precision] = ("fp32", "fp16"),
    embedding_size: int | None = None,
    say: Say = lambda _: None,
) -> ExportedBundle:
    """Write a bundle folder; a precision that fails its gates is left out and named.

    Args:
        checkpoint: folder written by `python -m train`.
        out: bundle folder to write; an older bundle there is replaced whole.
        probe_paths: photographs to use as probes beside the made-up ones.
        precisions: to export; fp32 is required.
        embedding_size: keep only so many numbers of an embedding, as Matryoshka training allows;
            None for all.
        say: called with one line per stage.

    Returns:
        What was shipped and refused.

    Raises:
        GateError: fp32 itself does not agree with the checkpoint.
        ArtefactError: not a checkpoint.
        InputError: fp32 is not among the precisions, or the embedding is not that long.
    """
    if "fp32" not in precisions:
        msg = f"precisions are {list(precisions)}; expected fp32 among them: every backend runs it"
        raise InputError(msg)
    opened = load_checkpoint(checkpoint)
    if embedding_size is not None:
        opened.encoder.shorten(embedding_size)
    images = probe_images(probe_paths, opened.encoder.spec)
    with torch.inference_mode():
        reference = np.concatenate(
            [
                opened.encoder(torch.from_numpy(images[k : k + 8])).numpy()
                for k in range(0, len(images), 8)
            ]
        )
    shipped: dict[Precision, GateReport] = {}
    refused: dict[Precision, str] = {}
    meta: dict[str, Any] = {
        "encoder": asdict(opened.encoder.spec),
        "weights_sha256": opened.weights_sha256,
        "preprocessing_sha256": opened.encoder.spec.preprocessing_hash(),
        "precisions": {},
    }
    with writing_artefact(out, "bundle", meta) as folder:
        raw, resized = resize_probes(opened.encoder.spec)
        np.savez(folder / PROBES, images=images, embeddings=reference, raw=raw, resized=resized)
        for precision in precisions:
            path = folder / f"encoder.{precision}.onnx"
            try:
                export_onnx(opened.encoder, path, precision)
                report = run_gates(_embed(path, images), reference, precision)
            except GateError as error:
                if precision == "fp32":
                    raise
                path.unlink(missing_ok=True)
                refused[precision] = str(error)
                say(f"{precision}: refused: {error}")
                continue
            shipped[precision] = report
            meta["precisions"][precision] = report.to_json()
            say(
                f"{precision}: {path.stat().st_size / 1e6:.1f} MB, lowest cosine "
                f"{report.min_cosine:.6f}, top-1 agreement {report.top1_agreement:.1%}"
            )
    return ExportedBundle(shipped=shipped, refused=refused)


def _embed(path: Path, images: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        str(path), sess_options=options, providers=["CPUExecutionProvider"]
    )
    one_by_one = [session.run(None, {"images": images[k : k + 1]})[0] for k in range(len(images))]
    return np.concatenate(one_by_one)
