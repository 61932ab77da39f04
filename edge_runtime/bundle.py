"""The bundle: an encoder exported for any device, and the proof that it is the trained one."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from edge_runtime.artefact import Manifest, open_artefact
from edge_runtime.errors import BundleError, InputError
from edge_runtime.precision import Kernels, Precision
from edge_runtime.preprocess import EncoderSpec, spec_from_json

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]

PROBES = "probes.npz"


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """An opened, verified bundle folder."""

    root: Path
    manifest: Manifest
    spec: EncoderSpec
    """What the encoder takes and gives."""
    weights_sha256: str
    """Of the checkpoint's weights: what an index is bound to."""
    precisions: dict[Precision, dict[str, Any]]
    """Shippable precisions and what their gates measured."""

    @classmethod
    def open(cls, root: Path) -> "Bundle":
        """Open a folder written by `python -m export bundle` and verify every file.

        Raises:
            BundleError: missing, altered, or written by another version.
        """
        manifest = open_artefact(root, "bundle", error=BundleError)
        try:
            return cls(
                root=root,
                manifest=manifest,
                spec=spec_from_json(manifest.meta["encoder"]),
                weights_sha256=manifest.meta["weights_sha256"],
                precisions=manifest.meta["precisions"],
            )
        except (KeyError, InputError) as error:
            msg = f"{root}/manifest.json lacks what a bundle needs ({error}); export it again"
            raise BundleError(msg) from error

    @property
    def id(self) -> str:
        """Short digest of everything in the bundle."""
        return self.manifest.id

    def onnx_path(self, precision: Precision, *, kernels: Kernels | None = None) -> Path:
        """The ONNX file of a precision.

        Args:
            precision: which.
            kernels: whose will run it; INT8 files are made for one kind. None for nobody's.

        Raises:
            BundleError: this precision was not exported, did not pass its gates, is for other
                kernels, or its file is not in the manifest.
        """
        if precision not in self.precisions:
            msg = (
                f"{self.root} has no {precision} encoder, it has {sorted(self.precisions)}; "
                "a precision that failed its gates is not shipped"
            )
            raise BundleError(msg)
        target = self.precisions[precision].get("target", kernels)
        if kernels is not None and target != kernels:
            msg = (
                f"{self.root} has an {precision} encoder for {target}; expected one for {kernels}. "
                f"Export it again with --precision fp16 {precision} --int8-target {kernels}"
            )
            raise BundleError(msg)
        return self.manifest.path_of(self.root, f"encoder.{precision}.onnx", error=BundleError)

    def probes(self, precision: Precision = "fp32") -> tuple[U8, F32]:
        """Probe images (P, H, W, 3) uint8 RGB and the trained encoder's embeddings (P, D) float32.

        INT8 is asked about real images only: its ranges are those of real ones, and made-up
        pictures go far beyond them.

        Args:
            precision: whose probes.

        Raises:
            BundleError: missing, unreadable, none, or not in the encoder's shape.
        """
        images, embeddings, made_up = self._probe_arrays("images", "embeddings", "made_up")
        expected, size = (self.spec.height_px, self.spec.width_px, 3), self.spec.embedding_size
        count = len(images) if images.shape[1:] == expected else 0
        if count == 0 or embeddings.shape != (count, size):
            msg = (
                f"{self.root / PROBES} holds {images.shape} and {embeddings.shape}; with P >= 1, "
                f"expected (P, {', '.join(map(str, expected))}) and (P, {size}). Export the bundle "
                "again"
            )
            raise BundleError(msg)
        if precision != "int8":
            return images, embeddings
        real = ~made_up.astype(bool)
        if real.shape != (count,) or not real.any():
            msg = (
                f"{self.root / PROBES} holds no real image to check INT8 with; export the bundle "
                "again with --calibration"
            )
            raise BundleError(msg)
        return images[real], embeddings[real]

    def resize_probes(self) -> tuple[U8, U8]:
        """Pictures (R, h, w, 3) of another size and what resizing made of them at export.

        Raises:
            BundleError: missing, unreadable, none, or not in the encoder's shape.
        """
        raw, resized = self._probe_arrays("raw", "resized")
        expected = (self.spec.height_px, self.spec.width_px, 3)
        if len(raw) == 0 or resized.shape != (len(raw), *expected):
            msg = (
                f"{self.root / PROBES} holds {raw.shape} to be resized and {resized.shape}; "
                f"expected R >= 1 of each, the latter {expected}. Export the bundle again"
            )
            raise BundleError(msg)
        return raw, resized

    def _probe_arrays(self, *names: str) -> list[npt.NDArray[Any]]:
        path = self.manifest.path_of(self.root, PROBES, error=BundleError)
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
                return [archive[name] for name in names]
        except (OSError, EOFError, KeyError, ValueError, BadZipFile) as error:
            msg = (
                f"{path} cannot be read as probes ({error}); expected {' and '.join(names)}. "
                "Export the bundle again"
            )
            raise BundleError(msg) from error
