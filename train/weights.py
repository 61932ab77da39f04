"""Weights in: what others trained becomes an encoder, strictly or not at all.

Two kinds of file are known by what they hold, not by their name:

* official Sample4Geo checkpoints: a network under `model.` with timm's names, and `logit_scale`;
* timm's own weights: state dicts as its hub keeps them, or as the network's authors published them
  where timm knows how to rename those.
"""

import re
import sys
import threading
import zipfile
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from edge_runtime.errors import InputError
from train.encoder import Encoder, new_encoder
from train.encoder_families import RGB, SizePx, family_of, one_line
from train.timm_import import timm

SAMPLE4GEO_ARCHITECTURE = "convnext_base.fb_in22k_ft_in1k_384"
SAMPLE4GEO_SIZE_PX = 384
"""Of tiles, in every data set (Deuser et al. 2023, arXiv:2303.11851, section 4)."""

HUB_ANSWER_S = 10.0
"""How long the hub may take to say that it has a file. The download itself may take longer."""

HAND_IN = "--weights FILE"

WeightsKind = Literal["sample4geo", "timm"]

_FORMATS = "expected a safetensors file or a PyTorch state dict (.pth, .bin)"


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Tensors from a file."""

    path: Path
    kind: WeightsKind
    state: Mapping[str, Tensor]
    """Of the network, by name. Floating-point ones are float32 and finite."""
    logit_scale: float | None = None
    """Logarithm of the inverse temperature, in Sample4Geo checkpoints."""


def read_weights(path: Path) -> Weights:
    """Read a file of weights and find out what it is.

    Nothing in the file is run: pickles are read as tensors only.

    Raises:
        InputError: it is not a file of weights; what it is instead, where that can be told.
    """
    state = {name: _widened(value) for name, value in _tensors(path).items()}
    if all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): value for name, value in state.items()}
    for name, value in state.items():
        if not torch.isfinite(value).all():
            msg = (
                f"weights {path}: {name} holds values that are not finite; expected numbers. "
                "Get the file again, or an earlier checkpoint of that training"
            )
            raise InputError(msg)
    body = {n.removeprefix("model."): v for n, v in state.items() if n.startswith("model.")}
    if any(name.startswith("body.") for name in state):
        msg = (
            f"weights {path} are out of a checkpoint folder of skyfix; expected those of others. "
            "Start from the folder: --from FOLDER"
        )
        raise InputError(msg)
    if not body:
        return Weights(path=path, kind="timm", state=state)
    rest = sorted(name for name in state if not name.startswith("model."))
    if rest != ["logit_scale"] or state["logit_scale"].numel() != 1:
        msg = (
            f"weights {path} hold {len(body)} entries model.* and {_some(rest) or 'nothing'} "
            "beside them; a Sample4Geo checkpoint has one number logit_scale there and no more. "
            "Get the file again, or save its network alone, without the prefix"
        )
        raise InputError(msg)
    scale = float(state["logit_scale"])
    return Weights(path=path, kind="sample4geo", state=body, logit_scale=scale)


def load_weights(encoder: Encoder, weights: Weights) -> None:
    """Fill an encoder. Every tensor of it is set, and nothing in the file is left over.

    Except for classifiers, because encoders have none. Position embeddings of another image size
    are resampled as timm does it.

    Args:
        encoder: filled in place; left alone when this fails.
        weights: as read.

    Raises:
        InputError: they belong to another network; how they differ.
    """
    body = encoder.body
    state = dict(weights.state)
    if weights.kind == "timm":
        state = _without_classifiers(body, state)
    differs = _difference(body, state)
    if differs and weights.kind == "timm":
        converted = _converted(body, dict(weights.state))
        if converted is not None and not _difference(body, converted):
            state, differs = converted, ""
    if differs:
        msg = (
            f"weights {weights.path} do not fit {encoder.spec.architecture}: {differs}. "
            "Give weights of that network, or the name of theirs as the architecture"
        )
        raise InputError(msg)
    body.load_state_dict(state, strict=True)
    if weights.logit_scale is not None:
        with torch.no_grad():
            encoder.logit_scale.fill_(weights.logit_scale)


def encoder_from_file(
    path: Path,
    *,
    architecture: str | None = None,
    size_px: int | None = None,
    photo_size_px: SizePx | None = None,
    mean: RGB | None = None,
    std: RGB | None = None,
    ground_size_m: float | None = None,
    model_args: Mapping[str, Any] | None = None,
) -> Encoder:
    """An encoder from a file of weights.

    Args:
        path: Sample4Geo checkpoint or timm state dict.
        architecture: timm name; None for the paper's, which only Sample4Geo checkpoints imply.
        size_px: side of the tiles; None for 384 of Sample4Geo's, or what timm's were trained on.
        photo_size_px: (height, width) of photos; None for the same.
        mean: of RGB in 0..1; None for what these weights were trained with, as timm knows it.
        std: the same.
        ground_size_m: side of the square of ground the encoder looks at, where that is fixed.
        model_args: passed on to timm.

    Returns:
        The encoder, in evaluation mode.

    Raises:
        InputError: the file is unreadable, of another network, or of an unknown one.
    """
    weights = read_weights(path)
    if architecture is None and weights.kind == "timm":
        msg = (
            f"weights {path} are a plain state dict, which does not say of which network; "
            "name it: --architecture NAME, as convnext_nano.in12k_ft_in1k"
        )
        raise InputError(msg)
    architecture = architecture or SAMPLE4GEO_ARCHITECTURE
    family = family_of(architecture)
    if size_px is None:
        trained_px = family.pretrained_size_px
        size_px = SAMPLE4GEO_SIZE_PX if weights.kind == "sample4geo" else trained_px
    encoder = new_encoder(
        architecture,
        size_px=size_px,
        photo_size_px=photo_size_px,
        mean=mean or family.mean,
        std=std or family.std,
        ground_size_m=ground_size_m,
        model_args=model_args,
    )
    load_weights(encoder, weights)
    return encoder.eval()


def pretrained_encoder(
    architecture: str,
    *,
    size_px: int | None = None,
    photo_size_px: SizePx | None = None,
    ground_size_m: float | None = None,
    model_args: Mapping[str, Any] | None = None,
    hand_in: str = HAND_IN,
) -> Encoder:
    """An encoder with timm's pretrained weights, from the hub or from its cache.

    Args:
        architecture: timm name; without a tag, the recommended weights or timm's own choice.
        size_px: side of the tiles; None for what the weights were trained on.
        photo_size_px: (height, width) of photos; None for the same.
        ground_size_m: side of the square of ground the encoder looks at, where that is fixed.
        model_args: passed on to timm.
        hand_in: options that take a file instead, for the error.

    Returns:
        The encoder, in evaluation mode.

    Raises:
        InputError: timm has no such network or weights, or the hub cannot be reached: which file
            to fetch by other means, and how to hand it in.
    """
    tagged = family_of(architecture).architecture
    return encoder_from_file(
        fetched_weights(tagged, hand_in=hand_in),
        architecture=tagged,
        size_px=size_px,
        photo_size_px=photo_size_px,
        ground_size_m=ground_size_m,
        model_args=model_args,
    )


def fetched_weights(architecture: str, *, hand_in: str = HAND_IN) -> Path:
    """The file of timm's pretrained weights: from the hub's cache on this machine, or fetched.

    Args:
        architecture: timm name with a tag.
        hand_in: options that take a file instead, for the error.

    Raises:
        InputError: timm has no weights for it, or they cannot be had now; where they are.
    """
    from huggingface_hub import (
        get_hf_file_metadata,
        hf_hub_download,
        hf_hub_url,
        try_to_load_from_cache,
    )
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    cfg = timm.get_pretrained_cfg(architecture)
    if cfg is None or not (cfg.hf_hub_id or cfg.url):
        msg = (
            f"timm has no pretrained weights {architecture}; it has "
            f"{_some(timm.list_pretrained(architecture.partition('.')[0] + '.*')) or 'none'}"
        )
        raise InputError(msg)
    if not cfg.hf_hub_id:
        raise InputError(
            _how_to_fetch(architecture, hand_in, "not on the hub either", str(cfg.url))
        )
    published = cfg.url if isinstance(cfg.url, str) else None
    repository, _, revision = cfg.hf_hub_id.partition("@")
    names = [cfg.hf_hub_filename or "model.safetensors"]
    if not cfg.hf_hub_filename:
        names.append("pytorch_model.bin")  # Older repositories have nothing else.
    at: dict[str, Any] = {"repo_id": repository, "revision": revision or None}
    for name in names:
        cached = try_to_load_from_cache(filename=name, **at)
        if isinstance(cached, str):
            return Path(cached)
    for name in names:
        url = hf_hub_url(filename=name, **at)
        try:
            # Asked first, because the download itself would retry for half a minute.
            _within(HUB_ANSWER_S, partial(get_hf_file_metadata, url, timeout=HUB_ANSWER_S))
            return Path(hf_hub_download(filename=name, **at))
        except Exception as error:  # Of the HTTP library too, which changes with the hub's.
            if isinstance(error, EntryNotFoundError) and not isinstance(
                error, LocalEntryNotFoundError
            ):
                continue
            reason = f"the hub does not give them ({one_line(error)[:100]})"
            raise InputError(
                _how_to_fetch(architecture, hand_in, reason, url, published)
            ) from error
    reason = f"{repository} holds none of {', '.join(names)}"
    raise InputError(
        _how_to_fetch(architecture, hand_in, reason, hf_hub_url(filename=names[0], **at))
    )


def _how_to_fetch(architecture: str, hand_in: str, reason: str, *urls: str | None) -> str:
    places = " or ".join(url for url in urls if url)
    return (
        f"the weights {architecture} are not on this machine, and {reason}. Fetch {places} where "
        f"there is a network, and hand the file in: {hand_in}"
    )


def _within(limit_s: float, ask: Callable[[], object]) -> None:
    """Call something that may hang longer than its own limit, as name servers let it.

    Raises:
        TimeoutError: it did.
        Exception: what it raised.
    """
    answer: Future[None] = Future()

    def run() -> None:
        try:
            ask()
        except Exception as error:  # noqa: BLE001  (handed to the caller)
            answer.set_exception(error)
        else:
            answer.set_result(None)

    threading.Thread(target=run, daemon=True).start()
    answer.result(limit_s)


def _tensors(path: Path) -> dict[str, Tensor]:
    """The state dict of a file.

    Raises:
        InputError: there is none.
    """
    if not path.is_file():
        msg = f"weights {path} are not a file; {_FORMATS}"
        raise InputError(msg)
    with path.open("rb") as file:
        head = file.read(512)
    _refuse_look_alikes(path, head)
    if head[8:9] == b"{":
        try:
            return load_file(path)
        except Exception as error:  # Of the safetensors library, which has its own.
            msg = f"weights {path} are cut off or damaged ({one_line(error)}); get the file again"
            raise InputError(msg) from error
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # Of the unpickler, of the archive, of the disk.
        said = f"{type(error).__name__} {error}"
        raise InputError(_why_unreadable(path, said)) from error
    for name in ("state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(name), dict):
            loaded = loaded[name]
            break
    if isinstance(loaded, dict) and loaded:
        tensors = {k: v.detach() for k, v in loaded.items() if isinstance(v, Tensor)}
        if len(tensors) == len(loaded) and all(isinstance(k, str) for k in loaded):
            return tensors
    held = type(loaded).__name__
    if isinstance(loaded, dict):
        others = [str(k) for k, v in loaded.items() if not isinstance(v, Tensor)]
        held = f"{_some(others)} beside tensors" if others else "no tensors"
    msg = f"weights {path} hold {held}; {_FORMATS}: names and tensors alone"
    raise InputError(msg)


def _refuse_look_alikes(path: Path, head: bytes) -> None:
    """What is often saved under the name of weights.

    Raises:
        InputError: it is one of those.
    """
    text = head.lstrip().lower()
    if not head:
        msg = f"weights {path} are an empty file; get it again"
    elif text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        msg = (
            f"weights {path} are a web page saved in place of the file behind it; {_FORMATS}. "
            "Use the page's download button, or the address of the file itself"
        )
    elif text.startswith(b"version https://git-lfs"):
        msg = (
            f"weights {path} are a Git LFS pointer, which stands for the file; {_FORMATS}. "
            "Fetch it with: git lfs pull"
        )
    elif head.startswith(b"PK") and not zipfile.is_zipfile(path):
        msg = f"weights {path} are cut off: their end is missing; get the file again"
    elif head.startswith(b"PK") and (members := _members(path)) is not None:
        msg = (
            f"weights {path} are an archive of {_some(members)}; {_FORMATS}. "
            "Unpack it and give one of the files"
        )
    else:
        return
    raise InputError(msg)


def _members(path: Path) -> list[str] | None:
    """Names in a ZIP archive that PyTorch did not write; None if it did."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    return None if any(name.endswith("/data.pkl") for name in names) else names


def _why_unreadable(path: Path, error: str) -> str:
    found = re.search(r"GLOBAL ([\w.]+)", error)
    if found:
        return (
            f"weights {path} hold objects beside tensors ({found[1]}), and reading those would run "
            f"code of whoever made the file; {_FORMATS}. Save it again with "
            "torch.save(model.state_dict(), FILE) where it was made"
        )
    if "TorchScript" in error:
        return f"weights {path} are a TorchScript program; {_FORMATS}"
    if re.search(r"EOF|corrupted|PytorchStreamReader|Ran out of input", error):
        return f"weights {path} are cut off or damaged; get the file again"
    return f"weights {path} cannot be read ({' '.join(error.split())[:120]}); {_FORMATS}"


def _widened(value: Tensor) -> Tensor:
    return value.float() if value.is_floating_point() else value


def _without_classifiers(body: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    named = vars(body).get("default_cfg", {}).get("classifier", "classifier")
    # Distilled networks have two.
    classifiers = (named,) if isinstance(named, str) else tuple(named or ())
    return {k: v for k, v in state.items() if k.rpartition(".")[0] not in classifiers}


def _converted(body: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor] | None:
    """By timm's own rules for this network: its authors' names, positions of another image size.

    Returns:
        The state dict without classifiers; None where there are no rules, or they do not apply.
    """
    rules = getattr(sys.modules[type(body).__module__], "checkpoint_filter_fn", None)
    if rules is None:
        return None
    try:
        converted = _without_classifiers(body, rules(dict(state), body))
    except (LookupError, RuntimeError, AttributeError, ValueError, TypeError):
        return None  # Rules meet names they were not written for.
    # timm also resamples patch embeddings, which would let weights of another patch size in.
    for name in state.keys() & converted.keys():
        if state[name].shape != converted[name].shape and "pos" not in name:
            return None
    return converted


def _difference(body: nn.Module, state: Mapping[str, Tensor]) -> str:
    """How a state dict differs from a network's in names and shapes; empty if it does not."""
    own = body.state_dict()
    missing = sorted(own.keys() - state.keys())
    foreign = sorted(state.keys() - own.keys())
    reshaped = [
        f"{k} {list(state[k].shape)} where it has {list(own[k].shape)}"
        for k in own
        if k in state and own[k].shape != state[k].shape
    ]
    parts = (("without", missing), ("with", foreign), ("with", reshaped))
    said = [f"{word} {_some(names)}" for word, names in parts if names]
    return f"{len(state)} tensors where it has {len(own)}, {', '.join(said)}" if said else ""


def _some(names: list[str]) -> str:
    """The first names and how many more there are."""
    shown = ", ".join(name[:80] for name in names[:2])
    return f"{shown} and {len(names) - 2} more" if len(names) > 2 else shown
