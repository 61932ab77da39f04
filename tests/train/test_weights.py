"""Files of weights as others make them, with random weights of small networks inside."""

import argparse
import http.server
import os
import re
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from edge_runtime.errors import InputError
from train.encoder import Encoder, new_encoder, save_checkpoint
from train.encoder_families import IMAGENET_MEAN, IMAGENET_STD, RGB
from train.timm_import import timm
from train.weights import (
    SAMPLE4GEO_ARCHITECTURE,
    encoder_from_file,
    fetched_weights,
    load_weights,
    pretrained_encoder,
    read_weights,
)

DATA = Path(os.environ.get("SKYFIX_DATA", "not-set"))
SMALL = "test_convnext"  # Linear layers in its blocks, as ConvNeXt-B has.
HALF: RGB = (0.5, 0.5, 0.5)


def pictures(count: int = 3, height_px: int = 64, width_px: int = 64) -> Tensor:
    rng = np.random.default_rng(1)
    return torch.from_numpy(rng.integers(0, 256, (count, height_px, width_px, 3), np.uint8))


@torch.inference_mode()
def embedded(encoder: Encoder, images: Tensor) -> Any:
    return encoder.eval()(images).numpy()


@torch.inference_mode()
def by_timm(model: nn.Module, images: Tensor, mean: RGB, std: RGB) -> Any:
    """What a network without a classifier gives, with everything around it done by hand."""
    scaled = (images / 255 - torch.tensor(mean)) / torch.tensor(std)
    return nn.functional.normalize(model.eval()(scaled.permute(0, 3, 1, 2))).numpy()


def network(architecture: str = SMALL, **arguments: Any) -> Any:
    torch.manual_seed(5)
    return timm.create_model(architecture, pretrained=False, **arguments).eval()


def sample4geo_state(architecture: str = SMALL, prefix: str = "") -> dict[str, Tensor]:
    """As the authors' checkpoints: one network for both views under `model.`, and logit_scale."""
    body = network(architecture, num_classes=0).state_dict()
    state = {f"{prefix}model.{name}": value for name, value in body.items()}
    return state | {f"{prefix}logit_scale": torch.tensor(3.75)}


def refusal(path: Path, architecture: str | None = SMALL) -> str:
    """The one line that a file is refused with."""
    with pytest.raises(InputError) as caught:
        encoder_from_file(path, architecture=architecture, size_px=64)
    line = str(caught.value)
    assert "\n" not in line
    assert len(line) < 600
    return line


# --- Sample4Geo checkpoints ----------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip format", "old format"])
def test_a_sample4geo_checkpoint_is_known_by_what_it_holds_and_embeds_the_same(
    prefix: str, zipped: bool, tmp_path: Path
) -> None:
    state = sample4geo_state(prefix=prefix)
    torch.save(state, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    weights = read_weights(tmp_path / "w.pth")
    assert (weights.kind, weights.logit_scale) == ("sample4geo", 3.75)
    encoder = encoder_from_file(tmp_path / "w.pth", architecture=SMALL, size_px=64)
    assert not encoder.training
    assert float(encoder.logit_scale.detach()) == 3.75
    expected = by_timm(network(num_classes=0), pictures(), HALF, HALF)
    assert embedded(encoder, pictures()) == pytest.approx(expected, abs=1e-5)


@pytest.mark.slow
def test_official_checkpoints_have_343_entries_and_give_the_papers_encoder(tmp_path: Path) -> None:
    state = sample4geo_state("convnext_base", prefix="module.")
    assert len(state) == 343
    assert state["module.model.stages.0.blocks.0.mlp.fc1.weight"].shape == (512, 128)
    torch.save(state, tmp_path / "weights_e40.pth")
    encoder = encoder_from_file(tmp_path / "weights_e40.pth", photo_size_px=(140, 768))
    spec = encoder.spec
    assert spec.architecture == SAMPLE4GEO_ARCHITECTURE
    assert (spec.height_px, spec.width_px, spec.embedding_size) == (384, 384, 1024)
    assert (spec.mean, spec.std) == (IMAGENET_MEAN, IMAGENET_STD)
    assert spec.resize == "stretch, bilinear, no antialias"
    body = network("convnext_base", num_classes=0)
    for size in ((384, 384), (140, 768)):
        images = pictures(1, *size)
        expected = by_timm(body, images, IMAGENET_MEAN, IMAGENET_STD)
        assert embedded(encoder, images) == pytest.approx(expected, abs=1e-5)
    del state["module.model.stages.2.blocks.26.mlp.fc2.bias"]
    torch.save(state, tmp_path / "weights_e40.pth")
    line = refusal(tmp_path / "weights_e40.pth", architecture=None)
    assert "341 tensors where it has 342, without stages.2.blocks.26.mlp.fc2.bias" in line


def changed(change: Callable[[dict[str, Tensor]], None], path: Path) -> Path:
    state = sample4geo_state()
    change(state)
    torch.save(state, path)
    return path


def without(name: str) -> Callable[[dict[str, Tensor]], None]:
    def change(state: dict[str, Tensor]) -> None:
        del state[name]

    return change


FC1 = "model.stages.0.blocks.0.mlp.fc1.weight"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param(without("logit_scale"), "and nothing beside them", id="no temperature"),
        pytest.param(without("model.stem.0.bias"), "without stem.0.bias", id="a layer less"),
        pytest.param(
            lambda s: s.update({"model.extra": torch.zeros(1)}), "with extra", id="a layer more"
        ),
        pytest.param(
            lambda s: s.update(optimiser=torch.zeros(1)),
            "logit_scale, optimiser beside them",
            id="another entry",
        ),
        pytest.param(
            lambda s: s.update({FC1: s[FC1][:, :, None, None]}),
            r"[96, 24, 1, 1] where it has [96, 24]",
            id="convolutions for linear layers",
        ),
        pytest.param(
            lambda s: s.update({FC1: s[FC1] * torch.nan}), "not finite", id="not a number"
        ),
        pytest.param(
            lambda s: s.update(logit_scale=torch.zeros(2)), "one number", id="two temperatures"
        ),
        pytest.param(
            lambda s: s.update({"module." + FC1: s.pop(FC1)}),
            "beside them",
            id="a prefix on some only",
        ),
    ],
)
def test_an_altered_sample4geo_checkpoint_is_refused_with_what_is_wrong(
    change: Callable[[dict[str, Tensor]], None], said: str, tmp_path: Path
) -> None:
    assert said in refusal(changed(change, tmp_path / "w.pth"))


def test_a_sample4geo_checkpoint_of_another_network_is_refused_and_nothing_is_loaded(
    tmp_path: Path,
) -> None:
    torch.save(sample4geo_state("test_convnext2"), tmp_path / "w.pth")
    encoder = new_encoder(SMALL, size_px=64)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    with pytest.raises(InputError, match=f"do not fit {SMALL}: 54 tensors where it has 99"):
        load_weights(encoder, read_weights(tmp_path / "w.pth"))
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


# --- timm's weights ------------------------------------------------------------------------------


def saved(state: dict[str, Any], path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return path


@pytest.mark.parametrize("architecture", ["test_resnet", SMALL, "mobilenetv3_small_050"])
@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "w.bin", "misnamed.safetensors.bin"])
def test_timm_weights_lose_their_classifier_and_nothing_else(
    architecture: str, name: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    if name.startswith("misnamed"):
        save_file(network(architecture, num_classes=10).state_dict(), path)
    else:
        saved(network(architecture, num_classes=10).state_dict(), path)
    assert read_weights(path).kind == "timm"
    encoder = encoder_from_file(path, architecture=architecture, size_px=64)
    model = network(architecture, num_classes=10)
    model.reset_classifier(0)
    cfg = timm.get_pretrained_cfg(architecture)
    assert cfg is not None
    expected = by_timm(model, pictures(), *(encoder.spec.mean, encoder.spec.std))
    assert (encoder.spec.mean, encoder.spec.std) == (cfg.mean, cfg.std)
    assert embedded(encoder, pictures()) == pytest.approx(expected, abs=1e-5)


def test_normalisation_and_size_are_those_of_the_weights_not_imagenets(tmp_path: Path) -> None:
    path = saved(network("mobilevitv2_050").state_dict(), tmp_path / "w.safetensors")
    spec = encoder_from_file(path, architecture="mobilevitv2_050").spec
    assert (spec.mean, spec.std) == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    assert (spec.height_px, spec.width_px) == (256, 256)
    given = encoder_from_file(
        path, architecture="mobilevitv2_050", size_px=64, mean=HALF, std=IMAGENET_STD
    ).spec
    assert (given.mean, given.std, given.height_px) == (HALF, IMAGENET_STD, 64)


@pytest.mark.parametrize("wrapper", ["state_dict", "model"])
def test_a_state_dict_within_a_training_checkpoint_is_found(wrapper: str, tmp_path: Path) -> None:
    path = saved({"epoch": 3, wrapper: network().state_dict()}, tmp_path / "w.pth")
    assert read_weights(path).state.keys() == network().state_dict().keys()


def test_weights_of_a_distilled_network_lose_both_classifiers(tmp_path: Path) -> None:
    architecture, arguments = "deit_tiny_distilled_patch16_224", {"depth": 1}
    model = network(architecture, img_size=32, **arguments)
    path = saved(model.state_dict(), tmp_path / "w.safetensors")
    encoder = encoder_from_file(
        path, architecture=architecture, size_px=32, model_args={"img_size": 32, "depth": 1}
    )
    loaded = encoder.body.state_dict()
    assert set(model.state_dict()) - set(loaded) == {
        f"{head}.{kind}" for head in ("head", "head_dist") for kind in ("weight", "bias")
    }
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in loaded.items())


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_become_float32(kind: torch.dtype, tmp_path: Path) -> None:
    original = network("test_resnet").state_dict()
    state = {k: v.to(kind) if v.is_floating_point() else v for k, v in original.items()}
    path = saved(state, tmp_path / "w.safetensors")
    encoder = encoder_from_file(path, architecture="test_resnet", size_px=64)
    loaded = encoder.body.state_dict()
    assert encoder.body_dtype == torch.float32
    for name, value in loaded.items():
        assert value.dtype == original[name].dtype
        assert torch.equal(value, state[name].to(value.dtype))


def authors_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """ConvNeXt's state dict as its authors publish it (facebookresearch/ConvNeXt's layer names)."""
    renamed = {}
    for name, value in state.items():
        parts = name.split(".")
        match parts:
            case ["stem", layer, kind]:
                new = f"downsample_layers.0.{layer}.{kind}"
            case ["stages", stage, "downsample", layer, kind]:
                new = f"downsample_layers.{stage}.{layer}.{kind}"
            case ["stages", stage, "blocks", block, *rest]:
                names = {"conv_dw": "dwconv", "fc1": "pwconv1", "fc2": "pwconv2"}
                layers = [names.get(r, r) for r in rest if r != "mlp"]
                new = ".".join(["stages", stage, block, *layers])
            case ["head", "norm", kind]:
                new = f"norm.{kind}"
            case _:
                new = f"head.{parts[-1]}"
        # Theirs are linear layers throughout; timm's small ones are 1x1 convolutions.
        renamed[new] = value[:, :, 0, 0] if "pwconv" in new and value.ndim == 4 else value
    return renamed


def test_a_file_from_the_networks_authors_is_renamed_as_timm_does(tmp_path: Path) -> None:
    model = network("convnext_atto")
    path = saved({"model": authors_names(model.state_dict())}, tmp_path / "w.pth")
    assert "downsample_layers.0.0.weight" in read_weights(path).state
    encoder = encoder_from_file(path, architecture="convnext_atto", size_px=64)
    for name, value in encoder.body.state_dict().items():
        assert torch.equal(value, model.state_dict()[name])


def test_dinov2s_own_file_loses_its_mask_token_and_fits_another_size(tmp_path: Path) -> None:
    model = network("vit_small_patch14_dinov2", depth=1)
    state = model.state_dict() | {"mask_token": torch.zeros(1, 384)}
    path = saved(state, tmp_path / "dinov2_vits14_pretrain.pth")
    encoder = encoder_from_file(
        path, architecture="vit_small_patch14_dinov2", size_px=56, model_args={"depth": 1}
    )
    loaded = encoder.body.state_dict()
    assert state["pos_embed"].shape == (1, 1 + 37 * 37, 384)
    assert loaded["pos_embed"].shape == (1, 1 + 4 * 4, 384)
    for name in loaded.keys() - {"pos_embed"}:
        assert torch.equal(loaded[name], state[name])


@pytest.mark.parametrize("photo_px", [None, (48, 128)])
def test_position_embeddings_of_another_size_are_resampled_as_timm_does(
    photo_px: tuple[int, int] | None, tmp_path: Path
) -> None:
    state = network("test_vit").state_dict()  # Of 160 px.
    path = saved(state, tmp_path / "w.safetensors")
    encoder = encoder_from_file(path, architecture="test_vit", size_px=64, photo_size_px=photo_px)
    own = {k: v for k, v in state.items() if not k.startswith("head.")}
    expected = timm.create_model(
        "test_vit",
        pretrained=True,
        pretrained_cfg_overlay={"state_dict": own, "num_classes": 0},
        num_classes=0,
        img_size=64,
    )
    assert encoder.body.state_dict()["pos_embed"].shape[1] < state["pos_embed"].shape[1]
    for name, value in encoder.body.state_dict().items():
        assert torch.equal(value, expected.state_dict()[name])


@pytest.mark.parametrize(
    ("written", "read"),
    [
        pytest.param(SMALL, "test_resnet", id="another network"),
        pytest.param("test_convnext2", "test_convnext3", id="a sibling of the same shapes"),
        pytest.param("vit_tiny_patch16_224", "eva02_tiny_patch14_224", id="another transformer"),
    ],
)
def test_timm_weights_of_another_network_are_refused(
    written: str, read: str, tmp_path: Path
) -> None:
    arguments = {"img_size": 112, "depth": 1} if "vit" in written else {}
    path = saved(network(written, **arguments).state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=f"do not fit {read}: .* tensors where it has"):
        encoder_from_file(path, architecture=read, size_px=112)


def test_weights_of_another_patch_size_are_refused_though_timm_would_resample_them(
    tmp_path: Path,
) -> None:
    state = network("test_vit").state_dict()
    state["patch_embed.proj.weight"] = state["patch_embed.proj.weight"][:, :, :14, :14].clone()
    path = saved(state, tmp_path / "w.safetensors")
    assert "[64, 3, 14, 14] where it has [64, 3, 16, 16]" in refusal(path, "test_vit")


def test_weights_without_a_layer_are_refused(tmp_path: Path) -> None:
    state = network("test_resnet").state_dict()
    lost = next(name for name in state if name.endswith("conv1.weight"))
    del state[lost]
    path = saved(state, tmp_path / "w.safetensors")
    assert f"without {lost}" in refusal(path, "test_resnet")


def test_a_plain_state_dict_must_be_named(tmp_path: Path) -> None:
    path = saved(network().state_dict(), tmp_path / "w.safetensors")
    assert "name it: --architecture NAME" in refusal(path, architecture=None)


@pytest.mark.skipif(not (DATA / "weights").is_dir(), reason="SKYFIX_DATA does not name the sets")
def test_published_half_precision_weights_of_mobilenet_load_and_tell_pictures_apart() -> None:
    path = DATA / "weights" / "mobilenetv2_100_coral_ptq_fp16.safetensors"
    encoder = encoder_from_file(
        path, architecture="mobilenetv2_100", model_args={"pad_type": "same"}
    )
    assert (encoder.spec.height_px, encoder.spec.embedding_size) == (224, 1280)
    loaded, file = encoder.body.state_dict(), load_file(path)
    assert all(torch.equal(value, file[name].to(value.dtype)) for name, value in loaded.items())
    found = embedded(encoder, pictures(3, 224, 224))
    assert np.isfinite(found).all()
    assert (found @ found.T)[0, 1] < 0.9999


# --- files that are no weights -------------------------------------------------------------------


class _RunsCode:
    """What a malicious pickle does: call something while it is read."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.trace,))


@pytest.mark.parametrize("zipped", [True, False], ids=["zip format", "old format"])
def test_a_pickle_that_would_run_code_is_refused_and_runs_nothing(
    zipped: bool, tmp_path: Path
) -> None:
    state = {"model.a": torch.zeros(1), "trap": _RunsCode(tmp_path / "ran")}
    torch.save(state, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    assert "would run code of whoever made the file" in refusal(tmp_path / "w.pth")
    assert not (tmp_path / "ran").exists()
    torch.load(tmp_path / "w.pth", weights_only=False)
    assert (tmp_path / "ran").exists(), "the trap itself does not work"


def test_objects_beside_tensors_are_named(tmp_path: Path) -> None:
    torch.save({"args": argparse.Namespace(lr=1.0), **network().state_dict()}, tmp_path / "w.pth")
    assert "objects beside tensors (argparse.Namespace)" in refusal(tmp_path / "w.pth")
    torch.save({"epoch": 3, **network().state_dict()}, tmp_path / "w.pth")
    assert "hold epoch beside tensors" in refusal(tmp_path / "w.pth")
    torch.save([torch.zeros(1)], tmp_path / "w.pth")
    assert "hold list" in refusal(tmp_path / "w.pth")
    torch.save({}, tmp_path / "w.pth")
    assert "hold no tensors" in refusal(tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param(b"<!DOCTYPE html>\n<html>", "web page saved in place", id="web page"),
        pytest.param(b"\n  <html lang=en>", "download button", id="another web page"),
        pytest.param(
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull", id="LFS"
        ),
        pytest.param(b"", "empty file", id="empty"),
        pytest.param(b"not tensors", "cannot be read", id="text"),
        pytest.param(b"\x00" * 4096, r"get the file again|cannot be read", id="zeros"),
    ],
)
def test_what_is_often_saved_in_place_of_weights_is_named(
    content: bytes, said: str, tmp_path: Path
) -> None:
    for name in ("w.pth", "w.safetensors"):
        (tmp_path / name).write_bytes(content)
        assert re.search(said, refusal(tmp_path / name))


@pytest.mark.parametrize("keep", [0.999, 0.5, 0.01])
@pytest.mark.parametrize("form", ["zip format", "old format", "safetensors"])
def test_a_file_that_was_cut_off_is_refused_as_such(form: str, keep: float, tmp_path: Path) -> None:
    path = tmp_path / "w.bin"
    state = sample4geo_state()
    if form == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=form == "zip format")
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data))])
    line = refusal(path)
    assert "cut off" in line
    assert "get the file again" in line


def test_an_archive_of_checkpoints_is_to_be_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "pretrained.zip", "w") as archive:
        archive.writestr("pretrained/cvusa/weights.pth", b"weights")
    line = refusal(tmp_path / "pretrained.zip")
    assert "archive of pretrained/cvusa/weights.pth" in line
    assert "Unpack it" in line


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_torchscript_program_is_refused(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "w.pt")
    assert "TorchScript program" in refusal(tmp_path / "w.pt")


def test_a_missing_file_or_a_folder_is_refused(tmp_path: Path) -> None:
    assert "not a file; expected a safetensors file" in refusal(tmp_path / "w.pth")
    assert "not a file" in refusal(tmp_path)


def test_the_weights_within_our_own_checkpoint_lead_to_its_folder(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "ckpt", new_encoder(SMALL, size_px=64), {})
    line = refusal(tmp_path / "ckpt" / "model.safetensors")
    assert "--from FOLDER" in line


# --- the hub -------------------------------------------------------------------------------------


@dataclass
class Hub:
    """A stand-in for the hub's file server, on this machine."""

    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    served = Hub()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, *, body: bool) -> None:
            served.asked.append(f"{self.command} {self.path}")
            data = served.files.get(self.path)
            self.send_response(404 if data is None else 200)
            self.send_header("X-Repo-Commit", "0" * 40)
            if data is None:
                self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("ETag", '"1"')
            self.send_header("Content-Length", str(len(data or b"")))
            self.end_headers()
            if body and data:
                self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    at_hub(monkeypatch, f"http://127.0.0.1:{server.server_port}", tmp_path / "cache")
    yield served
    server.shutdown()
    server.server_close()
    thread.join()


def at_hub(monkeypatch: pytest.MonkeyPatch, url: str, cache: Path) -> None:
    from huggingface_hub import constants

    template = "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")


REPOSITORY = "/timm/test_resnet.r160_in1k/resolve/main/"


def test_pretrained_weights_come_from_the_hub_once(hub: Hub, tmp_path: Path) -> None:
    path = saved(network("test_resnet").state_dict(), tmp_path / "w.safetensors")
    hub.files[REPOSITORY + "model.safetensors"] = path.read_bytes()
    encoder = pretrained_encoder("test_resnet", size_px=64, ground_size_m=50.0)
    assert encoder.spec.architecture == "test_resnet.r160_in1k"
    assert (encoder.spec.mean, encoder.spec.ground_size_m) == (HALF, 50.0)
    model = network("test_resnet")
    model.reset_classifier(0)
    expected = by_timm(model, pictures(), HALF, HALF)
    assert embedded(encoder, pictures()) == pytest.approx(expected, abs=1e-5)
    asked = list(hub.asked)
    assert asked
    again = pretrained_encoder("test_resnet.r160_in1k", size_px=64)
    assert embedded(again, pictures()) == pytest.approx(expected, abs=1e-5)
    assert hub.asked == asked, "the cache was not used"


def test_repositories_with_a_pickle_alone_serve_too(hub: Hub, tmp_path: Path) -> None:
    path = saved(network("test_resnet").state_dict(), tmp_path / "w.bin")
    hub.files[REPOSITORY + "pytorch_model.bin"] = path.read_bytes()
    assert fetched_weights("test_resnet.r160_in1k").read_bytes() == path.read_bytes()


def test_a_repository_without_weights_is_said_so(hub: Hub) -> None:
    with pytest.raises(InputError, match=r"holds none of model\.safetensors, pytorch_model\.bin"):
        fetched_weights("test_resnet.r160_in1k")
    assert len(hub.asked) == 2


def test_no_network_is_one_line_at_once_that_names_file_and_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_hub(monkeypatch, "http://127.0.0.1:9", tmp_path)  # Port 9 takes no connections.
    started = time.monotonic()
    with pytest.raises(InputError) as caught:
        pretrained_encoder("convnext_base")
    # A download alone would be tried again for half a minute.
    assert time.monotonic() - started < 20
    line = str(caught.value)
    assert "\n" not in line
    assert "/timm/convnext_base.fb_in22k_ft_in1k_384/resolve/main/model.safetensors" in line
    assert "https://dl.fbaipublicfiles.com/convnext/convnext_base_22k_1k_384.pth" in line
    assert "--weights FILE" in line


def test_a_hub_that_never_answers_does_not_hold_us_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    over, answered = threading.Event(), threading.Event()

    def hang(*_: Any, **__: Any) -> None:
        over.wait(60)
        answered.set()

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", hang)
    monkeypatch.setattr("train.weights.HUB_ANSWER_S", 0.2)
    at_hub(monkeypatch, "http://127.0.0.1:9", tmp_path)
    with pytest.raises(InputError, match=r"does not give them \(TimeoutError\)"):
        fetched_weights("test_resnet.r160_in1k")
    assert not answered.is_set()
    over.set()


def test_weights_that_are_not_on_the_hub_are_named_by_their_address() -> None:
    with pytest.raises(InputError, match=r"Fetch https://github\.com/.*gcvit_tiny.*\.pth where"):
        fetched_weights("gcvit_tiny.in1k")


def test_networks_without_pretrained_weights_are_refused_with_those_that_have() -> None:
    with pytest.raises(InputError, match="timm has no pretrained weights vit_giant_patch14_224"):
        pretrained_encoder("vit_giant_patch14_224")
    with pytest.raises(InputError, match=r"near names: .*convnext_nano"):
        pretrained_encoder("convnext_nan")
