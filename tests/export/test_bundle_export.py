import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch

import export.bundle_export
from edge_runtime.artefact import sha256_of
from edge_runtime.backends.protocol import open_backend
from edge_runtime.bundle import Bundle
from edge_runtime.errors import ArtefactError, BundleError, GateError, InputError
from edge_runtime.preprocess import resize_to_encoder
from export.bundle_export import export_bundle
from export.judge import onnx_embed
from train.encoder import load_checkpoint

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]
Export = Callable[[str], Any]


@pytest.fixture
def sound(exported: Export) -> Any:
    return exported("test_resnet")


def spoil(monkeypatch: pytest.MonkeyPatch, *precisions: str) -> None:
    """Let the files of some precisions answer wrongly."""
    sound = onnx_embed

    def wrong(path: Path) -> Callable[[U8], F32]:
        embed = sound(path)
        spoilt = any(precision in path.name for precision in precisions)
        return lambda images: np.ascontiguousarray(embed(images)[:, :: -1 if spoilt else 1])

    monkeypatch.setattr(export.bundle_export, "onnx_embed", wrong)


def digests(folder: Path) -> dict[str, str]:
    return {
        p.name: hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def test_a_shortened_embedding_is_the_first_numbers_at_unit_length(
    sound: Any, tmp_path: Path
) -> None:
    export_bundle(sound.checkpoint, tmp_path / "short", embedding_size=16)
    bundle = Bundle.open(tmp_path / "short")
    assert bundle.spec.embedding_size == 16
    images = np.random.default_rng(1).integers(0, 256, (3, 64, 64, 3), np.uint8)
    with torch.inference_mode():
        whole = load_checkpoint(sound.checkpoint).encoder(torch.from_numpy(images)).numpy()
    expected = whole[:, :16] / np.linalg.norm(whole[:, :16], axis=1, keepdims=True)
    backend = open_backend(bundle, "ort-cpu", precision="fp32", threads=1)
    assert backend.embed(images) == pytest.approx(expected, abs=1e-5)
    backend.close()
    with pytest.raises(InputError, match="not within this encoder's 1 to"):
        export_bundle(sound.checkpoint, tmp_path / "long", embedding_size=100_000)


def test_a_bundle_opens_and_its_backend_passes_the_probes(sound: Any) -> None:
    bundle = Bundle.open(sound.bundle)
    assert bundle.spec == sound.encoder.spec
    assert bundle.weights_sha256 == load_checkpoint(sound.checkpoint).weights_sha256
    images = np.random.default_rng(1).integers(0, 256, (3, 64, 64, 3), np.uint8)
    with torch.inference_mode():
        expected = sound.encoder(torch.from_numpy(images)).numpy()
    for precision, least in (("fp32", 0.99999), ("fp16", 0.9995)):
        backend = open_backend(bundle, "ort-cpu", precision=precision, threads=1)  # type: ignore[arg-type]
        found = backend.embed(images)
        backend.close()
        assert (found * expected).sum(axis=1).min() > least


def test_the_probes_in_the_bundle_are_the_trained_encoders_answers(sound: Any) -> None:
    images, embeddings = Bundle.open(sound.bundle).probes()
    with torch.inference_mode():
        expected = sound.encoder(torch.from_numpy(images)).numpy()
    assert embeddings == pytest.approx(expected, abs=1e-5)
    assert len(images) >= 16


def test_what_the_gates_measured_is_in_the_manifest_and_was_said(sound: Any) -> None:
    bundle = Bundle.open(sound.bundle)
    assert set(sound.shipped) == set(bundle.precisions) == {"fp32", "fp16"}
    assert sound.refused == bundle.manifest.meta["refused"] == {}
    for precision, report in sound.shipped.items():
        assert bundle.precisions[precision] == report
        assert report["onnx_sha256"] == sha256_of(bundle.onnx_path(precision))
        assert report["size_bytes"] == bundle.onnx_path(precision).stat().st_size
        assert any(line.startswith(f"{precision}: ") for line in sound.said)
    assert set(digests(sound.bundle)) == {
        "manifest.json",
        "probes.npz",
        "encoder.fp32.onnx",
        "encoder.fp16.onnx",
    }


@pytest.mark.usefixtures("quick_export")
def test_the_same_checkpoint_gives_the_same_bundle(sound: Any, tmp_path: Path) -> None:
    export_bundle(sound.checkpoint, tmp_path / "again")
    assert Bundle.open(tmp_path / "again").id == Bundle.open(sound.bundle).id


@pytest.mark.usefixtures("quick_export")
def test_half_precision_that_fails_its_gates_is_left_out_and_named(
    sound: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, "fp16")
    said: list[str] = []
    result = export_bundle(sound.checkpoint, tmp_path / "bundle", say=said.append)
    assert set(result.shipped) == {"fp32"}
    assert "lowest cosine to the trained encoder" in result.refused["fp16"]
    assert any(line.startswith("fp16: refused: ") for line in said)
    bundle = Bundle.open(tmp_path / "bundle")
    assert set(bundle.precisions) == {"fp32"}
    assert not (tmp_path / "bundle" / "encoder.fp16.onnx").exists()
    with pytest.raises(BundleError, match="a precision that failed its gates is not shipped"):
        bundle.onnx_path("fp16")
    open_backend(bundle, "ort-cpu", threads=1).close()


@pytest.mark.usefixtures("quick_export")
@pytest.mark.parametrize("old", [False, True], ids=["nothing before", "an older bundle"])
def test_full_precision_that_fails_its_gates_leaves_what_was_there(
    old: bool, sound: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "bundle"
    if old:
        shutil.copytree(sound.bundle, out)
    spoil(monkeypatch, "fp32")
    with pytest.raises(GateError, match="fp32: lowest cosine"):
        export_bundle(sound.checkpoint, out)
    assert [p.name for p in tmp_path.iterdir()] == (["bundle"] if old else [])
    if old:
        assert digests(out) == digests(sound.bundle)
        Bundle.open(out)


@pytest.mark.usefixtures("quick_export")
def test_an_interrupted_export_leaves_the_older_bundle_whole(
    sound: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "bundle"
    shutil.copytree(sound.bundle, out)

    def stop(*_: Any, **_options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("export.judge.gate_encoder", stop)
    with pytest.raises(KeyboardInterrupt):
        export_bundle(sound.checkpoint, out)
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]
    assert digests(out) == digests(sound.bundle)


@pytest.mark.usefixtures("quick_export")
def test_a_new_bundle_replaces_the_older_one_whole(sound: Any, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    shutil.copytree(sound.bundle, out)
    (out / "stray.onnx").write_bytes(b"left by someone")
    export_bundle(sound.checkpoint, out, precisions=["fp32"])
    assert set(Bundle.open(out).precisions) == {"fp32"}
    assert set(digests(out)) == {"manifest.json", "probes.npz", "encoder.fp32.onnx"}


@pytest.mark.usefixtures("quick_export")
def test_ones_own_photographs_become_probes(sound: Any, tmp_path: Path) -> None:
    paths = []
    for n in range(3):
        image = np.random.default_rng(n).integers(0, 256, (70, 90, 3), np.uint8)
        paths.append(tmp_path / f"{n}.png")
        cv2.imwrite(str(paths[-1]), image)
    export_bundle(sound.checkpoint, tmp_path / "bundle", calibration=paths)
    images, _ = Bundle.open(tmp_path / "bundle").probes()
    assert 16 < len(images) <= 32
    last = np.asarray(cv2.imread(str(paths[2])), np.uint8)[..., ::-1]  # Every third judges.
    assert np.array_equal(images[16], resize_to_encoder(last.copy(), sound.encoder.spec))


def test_a_probe_that_cannot_be_read_is_refused_before_anything_is_written(
    sound: Any, tmp_path: Path
) -> None:
    (tmp_path / "x.jpg").write_bytes(b"no")
    with pytest.raises(InputError, match=r"x\.jpg cannot be read"):
        export_bundle(sound.checkpoint, tmp_path / "bundle", calibration=[tmp_path / "x.jpg"])
    assert not (tmp_path / "bundle").exists()


@pytest.mark.usefixtures("quick_export")
def test_a_folder_that_is_no_bundle_is_not_overwritten(sound: Any, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("keep me")
    with pytest.raises(ArtefactError, match="remove it or choose another name"):
        export_bundle(sound.checkpoint, tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "keep me"


@pytest.mark.usefixtures("quick_export")
@pytest.mark.parametrize("precisions", [["fp16"], []])
def test_a_bundle_without_full_precision_is_refused(
    precisions: Any, sound: Any, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="fp32"):
        export_bundle(sound.checkpoint, tmp_path / "bundle", precisions=precisions)


@pytest.mark.usefixtures("quick_export")
def test_int8_from_made_up_images_is_refused_and_the_rest_shipped(
    sound: Any, tmp_path: Path
) -> None:
    precisions: list[Any] = ["fp32", "fp16", "int8"]
    result = export_bundle(sound.checkpoint, tmp_path / "bundle", precisions=precisions)
    assert set(result.shipped) == {"fp32", "fp16"}
    assert "give photographs or maps of your area: --calibration" in result.refused["int8"]
    bundle = Bundle.open(tmp_path / "bundle")
    assert bundle.manifest.meta["refused"] == result.refused
    assert set(bundle.precisions) == {"fp32", "fp16"}
