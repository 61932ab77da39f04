import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edge_runtime.artefact import writing_artefact
from edge_runtime.errors import ArtefactError, InputError
from train.encoder import (
    INITIAL_LOGIT_SCALE,
    Encoder,
    load_checkpoint,
    new_encoder,
    save_checkpoint,
)
from train.encoder_families import IMAGENET_MEAN, IMAGENET_STD
from train.timm_import import timm

MakeEncoder = Callable[..., Encoder]


def pictures(count: int, size_px: int = 64, seed: int = 1) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(0, 256, (count, size_px, size_px, 3), np.uint8))


@torch.inference_mode()
def embedded(encoder: Encoder, images: torch.Tensor) -> torch.Tensor:
    out: torch.Tensor = encoder.eval()(images)
    return out


@pytest.mark.parametrize(
    ("architecture", "size"),
    [("test_resnet", 96), ("test_convnext", 64), ("mobilenetv3_small_050", 1024)],
)
def test_uint8_pictures_become_float32_rows_of_unit_length(
    architecture: str, size: int, make_encoder: MakeEncoder
) -> None:
    encoder = make_encoder(architecture=architecture)
    found = embedded(encoder, pictures(5))
    assert encoder.spec.embedding_size == size
    assert found.shape == (5, size)
    assert found.dtype == torch.float32
    assert torch.linalg.norm(found, dim=1).numpy() == pytest.approx(1.0, abs=1e-6)


def test_normalisation_is_inside_and_equals_a_manual_call_of_timm(
    make_encoder: MakeEncoder,
) -> None:
    encoder = make_encoder()
    body = timm.create_model("test_resnet", pretrained=False, num_classes=0).eval()
    body.load_state_dict(encoder.body.state_dict())
    images = pictures(4)
    scaled = (images.numpy() / 255 - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
    planes = torch.from_numpy(scaled.transpose(0, 3, 1, 2).astype(np.float32))
    with torch.inference_mode():
        raw = body(planes).numpy()
    expected = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    assert embedded(encoder, images).numpy() == pytest.approx(expected, abs=1e-5)


def test_a_picture_has_the_same_embedding_alone_and_in_a_batch(make_encoder: MakeEncoder) -> None:
    encoder, images = make_encoder(), pictures(6)
    alone = torch.cat([embedded(encoder, images[k : k + 1]) for k in range(6)])
    assert embedded(encoder, images).numpy() == pytest.approx(alone.numpy(), abs=1e-5)


def test_a_black_picture_still_has_a_finite_embedding(make_encoder: MakeEncoder) -> None:
    found = embedded(make_encoder(), torch.zeros(2, 64, 64, 3, dtype=torch.uint8))
    assert torch.isfinite(found).all()


def test_the_temperature_starts_at_007(make_encoder: MakeEncoder) -> None:
    # Deuser et al. 2023, section 4: logit scale ln(1 / 0.07), used as its exponential.
    assert float(make_encoder().logit_scale.detach().exp()) == pytest.approx(1 / 0.07)
    assert pytest.approx(2.6592600) == INITIAL_LOGIT_SCALE


def test_a_checkpoint_brings_back_the_same_encoder(
    make_encoder: MakeEncoder, tmp_path: Path
) -> None:
    encoder, images = make_encoder(), pictures(4)
    with torch.no_grad():
        encoder.logit_scale.fill_(3.25)
    expected = embedded(encoder, images)
    save_checkpoint(tmp_path / "ckpt", encoder, {"note": [1, 2]})
    found = load_checkpoint(tmp_path / "ckpt")
    assert torch.equal(embedded(found.encoder, images), expected)
    assert float(found.encoder.logit_scale.detach()) == 3.25
    assert found.encoder.spec == encoder.spec
    assert found.config["note"] == [1, 2]
    assert not found.encoder.training


def test_a_checkpoint_is_known_by_its_weights_alone(
    make_encoder: MakeEncoder, tmp_path: Path
) -> None:
    digests = []
    for name, seed, note in (("a", 0, "one"), ("b", 0, "two"), ("c", 1, "one")):
        save_checkpoint(tmp_path / name, make_encoder(seed), {"note": note})
        digests.append(load_checkpoint(tmp_path / name).weights_sha256)
    assert digests[0] == digests[1] != digests[2]


def test_arguments_for_timm_are_kept_in_the_checkpoint(tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = new_encoder("test_resnet", size_px=64, model_args={"global_pool": "max"})
    expected = embedded(encoder, pictures(2))
    save_checkpoint(tmp_path / "ckpt", encoder, {})
    assert torch.equal(embedded(load_checkpoint(tmp_path / "ckpt").encoder, pictures(2)), expected)


def test_an_unknown_architecture_is_refused_with_near_names() -> None:
    with pytest.raises(InputError, match=r"near names: .*'mobilenetv4_conv_small'"):
        new_encoder("mobilenetv4_conv_smal", size_px=64)


def test_an_embedding_size_that_the_network_has_not_is_refused(make_encoder: MakeEncoder) -> None:
    spec = replace(make_encoder().spec, embedding_size=97)
    with pytest.raises(InputError, match="gives embeddings of 96; the configuration says 97"):
        Encoder(spec)


def written_over(checkpoint: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Seal a checkpoint again with another config.json, as a careless tool might."""
    weights = (checkpoint / "model.safetensors").read_bytes()
    config = json.loads((checkpoint / "config.json").read_text())
    change(config)
    with writing_artefact(checkpoint, "checkpoint", {}) as folder:
        (folder / "model.safetensors").write_bytes(weights)
        (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("architecture", "size"), [("test_convnext", 64), ("mobilenetv3_small_050", 1024)]
)
def test_weights_of_another_architecture_are_refused_in_one_line(
    architecture: str, size: int, make_encoder: MakeEncoder, tmp_path: Path
) -> None:
    save_checkpoint(tmp_path / "ckpt", make_encoder(), {})
    written_over(
        tmp_path / "ckpt",
        lambda c: c["encoder"].update(architecture=architecture, embedding_size=size),
    )
    with pytest.raises(ArtefactError, match="does not fit this architecture") as caught:
        load_checkpoint(tmp_path / "ckpt")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700
    assert "python -m train fit" in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda c: c.pop("encoder"), id="no encoder"),
        pytest.param(lambda c: c.pop("model_args"), id="no model arguments"),
        pytest.param(lambda c: c["encoder"].pop("mean"), id="no mean"),
        pytest.param(lambda c: c["encoder"].update(colour="sepia"), id="unknown name"),
    ],
)
def test_a_config_of_another_version_is_refused(
    change: Callable[[dict[str, Any]], None], make_encoder: MakeEncoder, tmp_path: Path
) -> None:
    save_checkpoint(tmp_path / "ckpt", make_encoder(), {})
    written_over(tmp_path / "ckpt", change)
    with pytest.raises(ArtefactError, match="train it again"):
        load_checkpoint(tmp_path / "ckpt")


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_an_altered_checkpoint_is_refused(
    name: str, make_encoder: MakeEncoder, tmp_path: Path
) -> None:
    save_checkpoint(tmp_path / "ckpt", make_encoder(), {})
    data = bytearray((tmp_path / "ckpt" / name).read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "ckpt" / name).write_bytes(data)
    with pytest.raises(ArtefactError, match=r"has digest .* Copy the checkpoint folder again"):
        load_checkpoint(tmp_path / "ckpt")


def test_a_missing_checkpoint_names_the_command_that_makes_one(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="Make one with: python -m train fit"):
        load_checkpoint(tmp_path / "nothing")


def test_a_newer_checkpoint_replaces_the_older_one_whole(
    make_encoder: MakeEncoder, tmp_path: Path
) -> None:
    save_checkpoint(tmp_path / "ckpt", make_encoder(0), {"n": 1})
    (tmp_path / "ckpt" / "stray.txt").write_text("left by someone")
    save_checkpoint(tmp_path / "ckpt", make_encoder(1), {"n": 2})
    assert load_checkpoint(tmp_path / "ckpt").config["n"] == 2
    assert not (tmp_path / "ckpt" / "stray.txt").exists()
    shutil.rmtree(tmp_path / "ckpt")
    assert list(tmp_path.iterdir()) == []


# --- what timm refuses -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("architecture", "arguments"),
    [
        pytest.param("convnext_atto.nonsense", {}, id="unknown pretrained tag"),
        pytest.param("vit_tiny_patch16_224", {"img_size": 224}, id="made for another size"),
        pytest.param("test_resnet", {"nonsense": "1"}, id="unknown argument"),
    ],
)
def test_what_timm_cannot_build_is_refused_in_words(
    architecture: str, arguments: dict[str, Any]
) -> None:
    with pytest.raises(InputError, match=architecture):
        new_encoder(architecture, size_px=64, model_args=arguments)


def test_an_embedding_size_before_the_head_is_refused(make_encoder: MakeEncoder) -> None:
    spec = make_encoder(architecture="mobilenetv3_small_050").spec
    with pytest.raises(InputError, match="gives embeddings of 1024"):
        Encoder(replace(spec, embedding_size=288))


# --- two sizes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["test_resnet", "test_convnext", "test_vit"])
def test_one_encoder_embeds_tiles_and_photos_of_another_size(architecture: str) -> None:
    torch.manual_seed(0)
    encoder = new_encoder(architecture, size_px=64, photo_size_px=(48, 128)).eval()
    photos = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (2, 48, 128, 3), np.uint8))
    with torch.inference_mode():
        found = encoder(photos)
    assert found.shape == (2, encoder.spec.embedding_size)
    assert torch.linalg.norm(found, dim=1).numpy() == pytest.approx(1.0, abs=1e-6)
    assert (encoder.spec.height_px, encoder.spec.width_px) == (64, 64)


def test_an_encoder_of_two_sizes_comes_back_from_its_checkpoint(tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = new_encoder("test_vit", size_px=64, photo_size_px=(48, 128)).eval()
    photos = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (2, 48, 128, 3), np.uint8))
    save_checkpoint(tmp_path / "ckpt", encoder, {})
    again = load_checkpoint(tmp_path / "ckpt").encoder
    with torch.inference_mode():
        assert torch.equal(again(photos), encoder(photos))


def test_an_encoder_of_one_size_refuses_photos_of_another() -> None:
    with pytest.raises(InputError, match="takes one size only; photos of 48x128 px and tiles of"):
        new_encoder("mixer_s16_224", size_px=64, photo_size_px=(48, 128))


def test_a_size_that_no_patch_divides_is_refused_with_the_nearest_ones() -> None:
    with pytest.raises(InputError, match=r"384x384 is not\. Try 378x378 or 392x392"):
        new_encoder("vit_small_patch14_dinov2", size_px=384)


# --- training on a CPU ---------------------------------------------------------------------------


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_strided_1x1_convolutions_of_few_channels_have_sound_gradients(
    memory_format: torch.memory_format,
) -> None:
    torch.manual_seed(0)
    encoder = new_encoder("fastvit_t8", size_px=64)
    layer = encoder.body.get_submodule("stem.0.conv_scale.conv")
    assert isinstance(layer, torch.nn.Conv2d)
    assert (layer.kernel_size, layer.stride, layer.in_channels) == ((1, 1), (2, 2), 3)
    plain = torch.nn.Conv2d(3, layer.out_channels, 1, stride=2, bias=False)
    plain.load_state_dict(layer.state_dict())
    layer.to(memory_format=memory_format)  # type: ignore[call-overload]
    images = torch.rand(4, 63, 64, 3).permute(0, 3, 1, 2)
    for _ in range(10):
        layer.zero_grad()
        layer(images).square().sum().backward()
    # Double precision, which oneDNN does not compute.
    plain.double()(images.double()).square().sum().backward()
    assert layer.weight.grad is not None
    assert plain.weight.grad is not None
    assert torch.allclose(layer.weight.grad.double(), plain.weight.grad, rtol=1e-4)
    with torch.no_grad():
        assert torch.allclose(layer(images).double(), plain(images.double()), atol=1e-6)


@pytest.mark.slow
def test_a_network_that_begins_with_such_a_convolution_trains_to_the_end() -> None:
    # In a process of its own, because where it is left as it is the heap breaks and kills it.
    steps = (
        "import torch; from train.encoder import new_encoder; torch.set_num_threads(1)\n"
        "encoder = new_encoder('fastvit_t8', size_px=96).train()\n"
        "images = torch.zeros(4, 96, 96, 3, dtype=torch.uint8)\n"
        "for _ in range(4): encoder(images).square().sum().backward()"
    )
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", steps], cwd=root, check=False).returncode == 0


def test_a_head_gives_embeddings_of_any_size() -> None:
    torch.manual_seed(0)
    encoder = new_encoder("test_resnet", size_px=64, model_args={"num_classes": 48})
    assert encoder.spec.embedding_size == 48
    with torch.inference_mode():
        found = encoder(torch.zeros(2, 64, 64, 3, dtype=torch.uint8))
    assert found.shape == (2, 48)


def test_a_checkpoint_can_be_read_by_whoever_copies_it_to_a_drone(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c", new_encoder("test_resnet", size_px=64), {})
    assert all(f.stat().st_mode & 0o044 == 0o044 for f in (tmp_path / "c").iterdir())
