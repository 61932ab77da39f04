from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from edge_runtime.errors import ArtefactError, InputError
from export.checkpoint_source import open_checkpoint
from train.encoder import new_encoder, save_checkpoint
from train.timm_import import timm
from train.weights import encoder_from_file

NAME = "test_convnext"


@pytest.fixture
def body() -> Any:
    torch.manual_seed(5)
    return timm.create_model(NAME, pretrained=False, num_classes=0).eval()


@pytest.fixture
def sample4geo(tmp_path: Path, body: Any) -> Path:
    state = {f"module.model.{k}": v for k, v in body.state_dict().items()}
    torch.save(state | {"module.logit_scale": torch.tensor(3.0)}, tmp_path / "weights_e40.pth")
    return tmp_path / "weights_e40.pth"


def test_a_folder_of_training_is_opened_as_it_is(exported: Callable[[str], Any]) -> None:
    made = exported("test_resnet")
    opened = open_checkpoint(str(made.checkpoint))
    assert opened.encoder.spec == made.encoder.spec


def test_a_sample4geo_checkpoint_is_what_importing_it_first_makes_of_it(
    tmp_path: Path, sample4geo: Path, body: Any
) -> None:
    opened = open_checkpoint(str(sample4geo), architecture=NAME, size_px=64)
    first = encoder_from_file(sample4geo, architecture=NAME, size_px=64)
    save_checkpoint(tmp_path / "imported", first, {"imported_from": "elsewhere"})
    assert opened.weights_sha256 == open_checkpoint(str(tmp_path / "imported")).weights_sha256
    images = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (2, 64, 64, 3), np.uint8))
    with torch.inference_mode():
        assert torch.equal(opened.encoder(images), first(images))


def test_a_bare_timm_name_takes_the_weights_of_the_hub(
    tmp_path: Path, body: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = {k: v.contiguous() for k, v in body.state_dict().items()}
    save_file(state, tmp_path / "model.safetensors")
    asked = []

    def fetched(architecture: str, **_options: Any) -> Path:
        asked.append(architecture)
        return tmp_path / "model.safetensors"

    monkeypatch.setattr("train.weights.fetched_weights", fetched)
    opened = open_checkpoint(NAME, size_px=64)
    assert asked[0].startswith(NAME)
    assert opened.config["pretrained"] == NAME
    for name, value in body.state_dict().items():
        assert torch.equal(opened.encoder.body.state_dict()[name], value)


@pytest.mark.parametrize(
    ("source", "options", "line"),
    [
        ("convnext_bas", {}, r"near names: \[.*'convnext_base'"),
        ("nothing/here", {}, r"is not there; expected a folder"),
        ("w.pth", {}, r"w\.pth is not there; expected a folder"),
        (NAME, {"architecture": NAME}, "is taken as a timm name; leave --architecture"),
    ],
)
def test_what_is_nothing_is_refused_in_one_line(
    source: str, options: dict[str, Any], line: str
) -> None:
    with pytest.raises(InputError, match=line) as caught:
        open_checkpoint(source, **options)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="not a checkpoint folder"):
        open_checkpoint(str(tmp_path))


def test_a_folder_says_its_own_size(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c", new_encoder("test_resnet", size_px=64), {})
    with pytest.raises(InputError, match="leave --size-px 96 out"):
        open_checkpoint(str(tmp_path / "c"), size_px=96)


def test_a_file_that_is_no_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(b"<html>not found</html>")
    with pytest.raises(InputError, match=r"w\.pth"):
        open_checkpoint(str(tmp_path / "w.pth"), architecture=NAME)


def test_weights_that_cannot_be_fetched_are_handed_in_by_this_commands_own_options(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def unreachable(*_: Any, **_options: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", unreachable)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda **_: None)
    with pytest.raises(InputError, match="--checkpoint FILE --architecture convnext_nano"):
        open_checkpoint("convnext_nano")
