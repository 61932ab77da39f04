"""Checkpoint in, bundle out: ONNX per precision, probes, gates, manifest."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from edge_runtime.artefact import sha256_of, writing_artefact
from edge_runtime.bundle import PROBES
from edge_runtime.engine_store import ENGINES
from edge_runtime.errors import GateError, InputError
from edge_runtime.gates import GateReport
from edge_runtime.index_gate import IndexGateReport
from edge_runtime.precision import Precision
from export.activation_ranges import activation_ranges
from export.calibration_images import CalibrationImages, calibration_images
from export.half_arithmetic import half_embed
from export.judge import Judge, Verdict, onnx_embed, trained_embed
from export.onnx_encoder import check_structure, encoder_to_onnx, set_metadata
from export.precision_search import mixed_precision_that_holds
from export.probes import probe_images, resize_probes
from export.qdq_graph import Int8Target
from export.quantisation import quantise
from train.encoder import Checkpoint, Encoder, load_checkpoint

U8 = npt.NDArray[np.uint8]
Say = Callable[[str], None]
Progress = Callable[[str, float], None]

MAX_PROBES = 32
"""In a bundle: made-up ones first, then images held out of calibration. Every start embeds them."""
_ORT = "ONNX Runtime on the CPU"
_TRIAL_IMAGES = 8
_TRIAL_COSINE = 0.9998
"""Of FP16 on images of the calibration, so that others keep the gate's."""
_CALIBRATION_IMAGES = 96
_MADE_UP_IMAGES = 24
"""Are enough to see where activations overflow; scales of INT8 need real images anyway."""


@dataclass(frozen=True, kw_only=True)
class ShippedPrecision:
    """A precision that passed every gate."""

    gates: GateReport
    judged_by: str
    """Whose arithmetic the gates saw."""
    on_index: IndexGateReport | None
    """What the gate on the user's index measured, where one was given."""
    size_bytes: int
    onnx_sha256: str
    details: dict[str, Any]
    """Of FP16: nodes that stay in FP32. Of INT8: its target, speed and what was left in float."""

    def to_json(self) -> dict[str, Any]:
        """Plain values for the manifest."""
        report = self.gates.to_json() | {
            "judged_by": self.judged_by,
            "size_bytes": self.size_bytes,
            "onnx_sha256": self.onnx_sha256,
        }
        if self.on_index is not None:
            report["on_index"] = self.on_index.to_json()
        return report | self.details


@dataclass(frozen=True, kw_only=True)
class ExportedBundle:
    """What came of an export."""

    shipped: dict[Precision, ShippedPrecision]
    refused: dict[Precision, str]
    """Why a precision is not in the bundle."""


def export_bundle(
    checkpoint: Path | Checkpoint,
    out: Path,
    *,
    calibration: Sequence[Path] = (),
    precisions: Sequence[Precision] = ("fp32", "fp16"),
    embedding_size: int | None = None,
    index: Path | None = None,
    int8_target: Int8Target = "cpu",
    tile_m: float | None = None,
    say: Say = lambda _: None,
    progress: Progress = lambda _stage, _done: None,
) -> ExportedBundle:
    """Write a bundle folder; a precision that fails its gates is left out and named.

    Args:
        checkpoint: folder written by `python -m train`, or an opened one.
        out: bundle folder to write; an older bundle there is replaced whole, at the very end. Its
            engines stay beside: they can be refitted with the new weights.
        calibration: photographs and maps of the user's, to measure activations on; two thirds of
            them calibrate, the rest judge. Made-up images by default.
        precisions: to export; fp32 is required.
        embedding_size: keep only so many numbers of an embedding, as Matryoshka training allows;
            None for all.
        index: a satellite index to look places up in as the last gate.
        int8_target: which kernels an INT8 file is for.
        tile_m: side of the squares cut from maps, where the checkpoint does not say.
        say: called with one line per stage.
        progress: told a stage and the fraction of it that is done.

    Returns:
        What was shipped and refused.

    Raises:
        GateError: fp32 itself does not agree with the checkpoint.
        ArtefactError: not a checkpoint.
        InputError: fp32 is not among the precisions, or the embedding is not that long.
        ImageryError: a map among the calibration images is unusable.
    """
    if "fp32" not in precisions:
        msg = f"precisions are {list(precisions)}; expected fp32 among them: every backend runs it"
        raise InputError(msg)
    opened = checkpoint if isinstance(checkpoint, Checkpoint) else load_checkpoint(checkpoint)
    encoder = opened.encoder
    if embedding_size is not None:
        encoder.shorten(embedding_size)
    spec = encoder.spec
    seen = calibration_images(
        calibration,
        spec,
        images=_CALIBRATION_IMAGES if calibration else _MADE_UP_IMAGES,
        size_m=tile_m,
    )
    say(seen.note())
    probes = probe_images(spec)
    made_up = len(probes)
    judged_on = np.concatenate([probes, seen.held_out]) if seen.real else probes
    probes = judged_on[:MAX_PROBES]
    meta: dict[str, Any] = {
        "encoder": asdict(spec),
        "weights_sha256": opened.weights_sha256,
        "preprocessing_sha256": spec.preprocessing_hash(),
        "precisions": {},
        "refused": {},
    }
    result = ExportedBundle(shipped={}, refused={})
    result = ExportedBundle(shipped={}, refused={})
    with (
        writing_artefact(out, "bundle", meta, unlisted=ENGINES) as folder,
        Judge(opened, judged_on, made_up, index, progress=progress) as judge,
    ):
        raw, resized = resize_probes(spec)
        np.savez(
            folder / PROBES,
            images=probes,
            embeddings=judge.reference[: len(probes)],
            made_up=np.arange(len(probes)) < made_up,
            raw=raw,
            resized=resized,
        )
        full = encoder_to_onnx(encoder)
        result.shipped["fp32"] = _fp32(full, folder, judge)
        say(_line("fp32", result.shipped["fp32"]))
        others: dict[Precision, Callable[[], ShippedPrecision]] = {
            "fp16": lambda: _fp16(full, folder, encoder, seen.calibration, judge),
            "int8": lambda: _int8(folder, seen, int8_target, judge, say),
        }
        for precision, write in others.items():
            if precision not in precisions:
                continue
            try:
                result.shipped[precision] = write()
                say(_line(precision, result.shipped[precision]))
            except GateError as error:
                (folder / f"encoder.{precision}.onnx").unlink(missing_ok=True)
                result.refused[precision] = str(error)
                say(f"{precision}: refused: {error}")
        for precision, shipped in result.shipped.items():
            meta["precisions"][precision] = shipped.to_json()
        meta["refused"] = dict(result.refused)
    return result


def _fp32(model: onnx.ModelProto, folder: Path, judge: Judge) -> ShippedPrecision:
    path = _written(model, folder / "encoder.fp32.onnx")
    return _shipped(path, judge.judge(onnx_embed(path), "fp32"), judged_by=_ORT)


def _fp16(
    model: onnx.ModelProto, folder: Path, encoder: Encoder, images: U8, judge: Judge
) -> ShippedPrecision:
    few = images[:: max(1, len(images) // _TRIAL_IMAGES)][:_TRIAL_IMAGES]
    mixed = mixed_precision_that_holds(
        model,
        activation_ranges(model, images),
        few,
        trained_embed(encoder)(few),
        min_cosine=_TRIAL_COSINE,
    )
    set_metadata(mixed.model, precision="fp16")
    path = _written(mixed.model, folder / "encoder.fp16.onnx")
    verdict = judge.judge(half_embed(mixed.model), "fp16")
    # Not for its arithmetic, which is FP32, but because this is what opens the file.
    judge.judge_probes(onnx_embed(path), "fp16", where="fp16 by ONNX Runtime")
    return _shipped(
        path,
        verdict,
        judged_by="rounding to FP16 after every FP16 node (export/half_arithmetic.py)",
        kept_in_fp32=[node.to_json() for node in mixed.kept],
        half_nodes=mixed.half_nodes,
    )


def _int8(
    folder: Path, seen: CalibrationImages, target: Int8Target, judge: Judge, say: Say
) -> ShippedPrecision:
    if not seen.real:
        msg = (
            "int8: scales from made-up images are wrong for real ones; give photographs or maps of "
            "your area: --calibration"
        )
        raise GateError(msg)
    path, half = folder / "encoder.int8.onnx", folder / "encoder.fp16.onnx"
    found = quantise(
        folder / "encoder.fp32.onnx",
        path,
        seen.calibration,
        seen.held_out,
        target,
        fp16=half if target == "tensorrt" and half.exists() else None,
        say=say,
    )
    if not found.passed:
        msg = f"int8: {found.reason}"
        raise GateError(msg)
    check_structure(path)
    verdict = judge.judge(onnx_embed(path, fuse_pairs=target == "cpu"), "int8")
    return _shipped(path, verdict, judged_by=_ORT, target=target, quantised=found.to_json())


def _written(model: onnx.ModelProto, path: Path) -> Path:
    path.write_bytes(model.SerializeToString())
    check_structure(path)
    return path


def _shipped(path: Path, verdict: Verdict, *, judged_by: str, **details: Any) -> ShippedPrecision:
    return ShippedPrecision(
        gates=verdict.gates,
        on_index=verdict.on_index,
        judged_by=judged_by,
        size_bytes=path.stat().st_size,
        onnx_sha256=sha256_of(path),
        details=details,
    )


def _line(precision: Precision, shipped: ShippedPrecision) -> str:
    gates = shipped.gates
    line = (
        f"{precision}: {shipped.size_bytes / 1e6:.1f} MB, lowest cosine {gates.min_cosine:.6f}, "
        f"same nearest probe {gates.top1_agreement:.1%}, of five {gates.top5_agreement:.1%}"
    )
    if shipped.on_index is not None:
        found, before = shipped.on_index.found, shipped.on_index.reference
        line += (
            f"; on the index recall@1 {found.recall_at_1:.1%} (trained {before.recall_at_1:.1%}), "
            f"success@20 m {found.success_20m:.1%} ({before.success_20m:.1%})"
        )
    return line
