"""A checkpoint and a bundle to be timed: random weights, or a file's.

The same graphs, types and quantisation as an encoder that flies, by the same functions of `export`.
Two things are left out for random weights: the search for layers that INT8 may have, and the gates,
which compare pictures that only a trained encoder tells apart. Rows say what the gates would have
said. Nothing made here flies: it is bound to no index.
"""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from benchmarks.random_checkpoint import GROUND_SIZE_M, random_checkpoint
from edge_runtime.artefact import sha256_of, writing_artefact
from edge_runtime.bundle import PROBES
from edge_runtime.command_line import run_command
from export.activation_ranges import activation_ranges
from export.bundle_export import export_bundle
from export.calibration_images import calibration_images
from export.checkpoint_source import open_checkpoint
from export.int8_search import open_session
from export.judge import trained_embed
from export.mixed_precision import to_mixed_precision
from export.onnx_encoder import check_structure, encoder_to_onnx, set_metadata
from export.paired_latency import paired_latency
from export.probes import probe_images, resize_probes
from export.qdq_graph import QdqGraph
from export.quantisation import finished_int8, has_vnni
from train.encoder import Checkpoint, load_checkpoint, save_checkpoint

U8 = npt.NDArray[np.uint8]

_CALIBRATION = 12
"""Pictures: where activations overflow shows in fewer, and INT8 of random weights is not flown."""
_PROBES = 4
_ROUNDS = 16
NOT_JUDGED = "random weights: made to be timed, not judged by gates"


def timed_bundle(opened: Checkpoint, out: Path, imagery: Path) -> None:
    """Write FP32, FP16 and INT8 files of an encoder whose weights are random.

    Args:
        opened: the checkpoint.
        out: bundle folder.
        imagery: georeferenced raster to measure activations on.
    """
    encoder = opened.encoder
    spec = encoder.spec
    images = calibration_images([imagery], spec, images=_CALIBRATION).calibration
    meta: dict[str, Any] = {
        "encoder": asdict(spec),
        "weights_sha256": opened.weights_sha256,
        "preprocessing_sha256": spec.preprocessing_hash(),
        "precisions": {},
        "refused": {},
    }
    probes = probe_images(spec, count=_PROBES)
    with writing_artefact(out, "bundle", meta) as folder:
        raw, resized = resize_probes(spec)
        np.savez(
            folder / PROBES,
            images=probes,
            embeddings=trained_embed(encoder)(probes),
            made_up=np.ones(len(probes), np.bool_),
            raw=raw,
            resized=resized,
        )
        full = encoder_to_onnx(encoder)
        fp32 = _written(full, folder / "encoder.fp32.onnx")
        meta["precisions"]["fp32"] = _entry(fp32)
        half = to_mixed_precision(full, activation_ranges(full, images)).model
        set_metadata(half, precision="fp16")
        meta["precisions"]["fp16"] = _entry(_written(half, folder / "encoder.fp16.onnx"))
        del full, half
        int8, what = _int8(fp32, images)
        path = folder / "encoder.int8.onnx"
        path.write_bytes(finished_int8(int8, fp32, "cpu", NOT_JUDGED))
        check_structure(path)
        meta["precisions"]["int8"] = _entry(path) | {"target": "cpu", "quantised": what}


def _int8(fp32: Path, images: U8) -> tuple[onnx.ModelProto, str]:
    """All layers in INT8, or all but depthwise convolutions: whichever is faster here."""
    graph = QdqGraph(fp32, "cpu", reduce_range=not has_vnni())
    ranges = graph.ranges(images, "min-max")
    every = {layer.name for layer in graph.layers}
    pointwise = {layer.name for layer in graph.layers if layer.kind != "depthwise"}
    model = graph.with_int8(every, ranges)
    if not pointwise or pointwise == every:
        return model, "every layer"
    other = graph.with_int8(pointwise, ranges)
    image = {"images": images[:1]}
    one, two = (open_session(m.SerializeToString(), 1) for m in (model, other))
    found = paired_latency(
        lambda: one.run(None, image), lambda: two.run(None, image), threads=1, rounds=_ROUNDS
    )
    if found.ratio < 1:
        return other, "all but depthwise convolutions"
    return model, "every layer"


def _written(model: onnx.ModelProto, path: Path) -> Path:
    path.write_bytes(model.SerializeToString())
    check_structure(path)
    return path


def _entry(path: Path) -> dict[str, Any]:
    return {
        "judged_by": NOT_JUDGED,
        "size_bytes": path.stat().st_size,
        "onnx_sha256": sha256_of(path),
    }


def _make(
    architecture: str, size_px: str, folder: str, imagery: str, weights: str | None = None
) -> None:
    """Write `checkpoint` and `bundle` into a folder.

    Raises:
        SkyfixError: no such network, or it cannot be exported.
    """
    root = Path(folder)
    if weights is None:
        random_checkpoint(architecture, int(size_px), root / "checkpoint")
        timed_bundle(load_checkpoint(root / "checkpoint"), root / "bundle", Path(imagery))
        return
    encoder = open_checkpoint(weights, architecture=architecture, size_px=int(size_px)).encoder
    save_checkpoint(root / "checkpoint", encoder, {"imported_from": Path(weights).name})
    export_bundle(
        root / "checkpoint",
        root / "bundle",
        calibration=[Path(imagery)],
        precisions=("fp32", "fp16", "int8"),
        tile_m=GROUND_SIZE_M,
        say=print,
    )


if __name__ == "__main__":
    sys.exit(run_command("matrix", lambda: _make(*sys.argv[1:]), stopped="stopped"))
