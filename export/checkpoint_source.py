"""What can be exported: a checkpoint folder, a file of weights, the name of a timm network."""

import tempfile
from pathlib import Path

from edge_runtime.errors import InputError
from train.encoder import Checkpoint, load_checkpoint, save_checkpoint
from train.encoder_families import require_architecture
from train.weights import encoder_from_file, pretrained_encoder

_WEIGHTS_SUFFIXES = (".pth", ".pt", ".bin", ".safetensors", ".ckpt")


def open_checkpoint(
    source: str, *, architecture: str | None = None, size_px: int | None = None
) -> Checkpoint:
    """Open whatever holds an encoder.

    Files and names become what `python -m train import-weights` makes of them, so the weights'
    hash, which indexes are bound to, is the same either way.

    Args:
        source: a folder written by `python -m train`; a file (official Sample4Geo checkpoint, timm
            state dict); or a timm name, whose pretrained weights come from the hub or its cache.
        architecture: timm name of a file that does not say its own.
        size_px: side of the square input of a file or name; by default what it was trained on.

    Raises:
        ArtefactError: a folder that is no checkpoint, or is altered.
        InputError: neither folder nor file nor a name timm knows (the nearest names are given), or
            options that a folder does not take.
    """
    path = Path(source)
    if path.is_dir():
        for name, value in (("--architecture", architecture), ("--size-px", size_px)):
            if value is not None:
                msg = f"{source} is a folder, which says its own; leave {name} {value} out"
                raise InputError(msg)
        return load_checkpoint(path)
    if path.is_file():
        encoder = encoder_from_file(path, architecture=architecture, size_px=size_px)
        origin = {"imported_from": path.name}
    elif path.suffix.lower() in _WEIGHTS_SUFFIXES or len(path.parts) > 1:
        msg = (
            f"{source} is not there; expected a folder written by python -m train, a file of "
            "weights, or the name of a timm network, as convnext_nano.in12k_ft_in1k"
        )
        raise InputError(msg)
    else:
        if architecture is not None:
            msg = f"{source} is taken as a timm name; leave --architecture {architecture} out"
            raise InputError(msg)
        require_architecture(source)
        encoder = pretrained_encoder(
            source, size_px=size_px, hand_in=f"--checkpoint FILE --architecture {source}"
        )
        origin = {"pretrained": source}
    with tempfile.TemporaryDirectory() as folder:
        save_checkpoint(Path(folder) / "checkpoint", encoder, origin)
        return load_checkpoint(Path(folder) / "checkpoint")
