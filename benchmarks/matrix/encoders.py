"""The encoders of the matrix: which they are, and their bundles, made once and kept.

Weights are random where nobody gives others. How fast an encoder is does not depend on them; how
good it is does, so rows of random weights have a cosine to the same weights in torch and no recall.
"""

import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from edge_runtime.artefact import sha256_of, sha256_of_json
from edge_runtime.bundle import Bundle
from edge_runtime.errors import BundleError, InputError

Say = Callable[[str], None]

RANDOM = "random, lived in"
_MAKER = 1
"""Grows when bundles are made otherwise."""
_NAMED = re.compile(r"(?P<architecture>[a-zA-Z0-9_.]+)[-:](?P<size_px>\d+)")


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One encoder that may be measured."""

    architecture: str
    """timm name."""
    size_px: int
    gmac: float
    """Multiply-accumulates of one picture, 1e9: for the plan alone."""
    weights: Path | None = None
    """A file of pretrained ones; None for random ones."""
    bundle: Path | None = None
    """Ready made; None where it is to be made."""
    checkpoint: Path | None = None
    """Of that bundle, where it is at hand."""
    label: str = ""
    """Name, where the architecture's and the size do not tell it from others."""

    @property
    def name(self) -> str:
        """Short, as "convnext_base-384"."""
        return self.label or f"{self.architecture.partition('.')[0]}-{self.size_px}"


CHOICES = (
    Choice(architecture="convnext_base.fb_in22k_ft_in1k_384", size_px=384, gmac=45.1),
    Choice(architecture="convnext_tiny.fb_in22k_ft_in1k_384", size_px=384, gmac=13.1),
    Choice(architecture="convnext_nano.in12k_ft_in1k", size_px=224, gmac=2.46),
    Choice(architecture="resnet18", size_px=224, gmac=1.82),
    Choice(architecture="convnext_atto.d2_in1k", size_px=256, gmac=0.72),
    Choice(architecture="mobilenetv2_100", size_px=224, gmac=0.31),
    Choice(architecture="mobilenetv4_conv_small", size_px=128, gmac=0.06),
    Choice(architecture="mobilenetv4_conv_small_050", size_px=128, gmac=0.02),
)
"""From the paper's own (Deuser et al. 2023, arXiv:2303.11851, section 4) down to one that two cores
of a laptop embed with in a millisecond."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """An encoder with its files."""

    choice: Choice
    bundle: Path
    checkpoint: Path | None
    """None where torch cannot run it."""
    weights: str
    """Where they come from, for the row."""
    trained: bool
    """For finding places: only then a recall says anything."""
    gated: bool
    """Its files passed the gates of the export, so its answers must pass them here."""

    @property
    def name(self) -> str:
        """Short, as "convnext_base-384"."""
        return self.choice.name


def chosen(
    names: Sequence[str],
    sizes_px: Sequence[int],
    weights: Mapping[str, Path],
    bundles: Sequence[Path],
    checkpoints: Sequence[Path],
) -> list[Choice]:
    """What the user asks for, largest first.

    Args:
        names: of `CHOICES`, or ARCHITECTURE:SIZE_PX for any other network of timm; the user's
            bundles alone if there are no names but bundles; else all of `CHOICES`.
        sizes_px: sides to make each at, in place of its own.
        weights: files of pretrained weights by the encoder's name.
        bundles: ready ones.
        checkpoints: of the bundles, in any order.

    Raises:
        InputError: a name that is none, or weights for an encoder that is not among them.
    """
    known = {choice.name: choice for choice in CHOICES}
    if names:
        asked = [known[name] if name in known else _named(name, known) for name in names]
    else:
        asked = [] if bundles else list(CHOICES)
    if sizes_px:
        asked = [
            replace(c, size_px=size_px, gmac=c.gmac * (size_px / c.size_px) ** 2)
            for c in asked
            for size_px in sizes_px
        ]
    found = {choice.name: choice for choice in asked}
    for name, file in weights.items():
        if name not in found:
            msg = f"--weights names {name!r}, which is not measured; expected one of {[*found]}"
            raise InputError(msg)
        found[name] = replace(found[name], weights=file)
    given = [_given(root, checkpoints) for root in bundles]
    for choice in given:
        if choice.name in found:
            choice = replace(choice, label=f"{choice.name}-given")
        found[choice.name] = choice
    return sorted(found.values(), key=lambda choice: -choice.gmac)


def _named(name: str, known: Mapping[str, Choice]) -> Choice:
    match = _NAMED.fullmatch(name)
    if match is None:
        msg = (
            f"{name!r} is no encoder; expected one of {', '.join(known)}, or ARCHITECTURE:SIZE_PX, "
            "as fastvit_t8:256"
        )
        raise InputError(msg)
    # What it costs is not known before it is made, and matters only to the plan.
    return Choice(
        architecture=match["architecture"], size_px=int(match["size_px"]), gmac=_UNKNOWN_GMAC
    )


_UNKNOWN_GMAC = 1.0


def _given(root: Path, checkpoints: Sequence[Path]) -> Choice:
    """A ready bundle with its checkpoint, told by the digest of the weights."""
    from export.graph_costs import graph_costs

    bundle = Bundle.open(root)
    checkpoint = next(
        (path for path in checkpoints if _weights_sha256(path) == bundle.weights_sha256), None
    )
    macs = graph_costs(bundle.onnx_path("fp32")).macs
    return Choice(
        architecture=bundle.spec.architecture,
        size_px=bundle.spec.height_px,
        gmac=macs / 1e9,
        bundle=root,
        checkpoint=checkpoint,
    )


def _weights_sha256(checkpoint: Path) -> str:
    file = checkpoint / "model.safetensors"
    if not file.is_file():
        msg = f"{checkpoint} holds no model.safetensors; expected a folder of python -m train"
        raise InputError(msg)
    return sha256_of(file)


def prepare(choice: Choice, work: Path, imagery: Path, *, say: Say = lambda _: None) -> Prepared:
    """The encoder's files; made now where they are not there yet.

    Args:
        choice: which.
        work: folder in which made ones are kept.
        imagery: georeferenced raster to measure activations on.
        say: told what takes long.

    Raises:
        SkyfixError: it cannot be made; the message is its maker's last line.
    """
    if choice.bundle is not None:
        bundle = Bundle.open(choice.bundle)
        return Prepared(
            choice=choice,
            bundle=choice.bundle,
            checkpoint=choice.checkpoint,
            weights=f"given, {bundle.weights_sha256[:12]}",
            trained=not _is_random(choice.checkpoint),
            gated=True,
        )
    made_of = {
        "maker": _MAKER,
        "architecture": choice.architecture,
        "size_px": choice.size_px,
        "weights": sha256_of(choice.weights) if choice.weights else RANDOM,
        "libraries": {name: version(name) for name in ("torch", "timm", "onnx", "onnxruntime")},
    }
    folder = work / "encoders" / f"{choice.name}-{sha256_of_json(made_of)[:8]}"
    weights = RANDOM if choice.weights is None else f"file {choice.weights.name}, not for places"
    done = Prepared(
        choice=choice,
        bundle=folder / "bundle",
        checkpoint=folder / "checkpoint",
        weights=weights,
        trained=False,
        gated=choice.weights is not None,
    )
    try:
        Bundle.open(done.bundle)
    except BundleError:
        took = f"about {8 + 1.5 * choice.gmac:.0f} s"
        if choice.weights is not None:
            took = "through the gates, some minutes"
        say(f"{choice.name}: exporting, {took}")
        folder.mkdir(parents=True, exist_ok=True)
        _make(choice, folder, imagery)
    return done


def _make(choice: Choice, folder: Path, imagery: Path) -> None:
    """In a process of its own: exporters leave memory and settings behind."""
    command = [
        *(sys.executable, "-m", "benchmarks.matrix.encoder_making", choice.architecture),
        *(str(choice.size_px), str(folder), str(imagery)),
        *([str(choice.weights)] if choice.weights else []),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    (folder / "making.log").write_text(done.stdout + done.stderr)
    if done.returncode:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        msg = f"{choice.name} cannot be made: {lines[-1] if lines else done.returncode}"
        raise InputError(msg)


def _is_random(checkpoint: Path | None) -> bool:
    """Whether a checkpoint says that its weights were never trained."""
    if checkpoint is None:
        return False
    from train.encoder import load_checkpoint

    return "random_seed" in load_checkpoint(checkpoint).config
