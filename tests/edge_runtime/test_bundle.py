import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_runtime.artefact import writing_artefact
from edge_runtime.bundle import Bundle
from edge_runtime.errors import BundleError, SkyfixError

MakeBundle = Callable[..., Path]


def test_a_bundle_says_what_its_folder_says(bundle_dir: Path) -> None:
    bundle = Bundle.open(bundle_dir)
    meta = json.loads((bundle_dir / "manifest.json").read_text())["meta"]
    assert json.loads(json.dumps(asdict(bundle.spec))) == meta["encoder"]
    assert bundle.weights_sha256 == meta["weights_sha256"]
    assert bundle.spec.preprocessing_hash() == meta["preprocessing_sha256"]
    assert set(bundle.precisions) == {"fp32"}
    assert len(bundle.id) == 12
    assert bundle.onnx_path("fp32").is_file()


def test_probes_have_the_encoders_shape_and_unit_length(bundle: Bundle) -> None:
    images, embeddings = bundle.probes()
    assert images.shape[1:] == (32, 32, 3)
    assert images.dtype == np.uint8
    assert np.linalg.norm(embeddings, axis=1) == pytest.approx(1.0, abs=1e-6)


def test_another_encoder_file_is_another_bundle(tmp_path: Path, make_bundle: MakeBundle) -> None:
    one = Bundle.open(make_bundle(tmp_path / "one"))
    same = Bundle.open(make_bundle(tmp_path / "same"))
    other = Bundle.open(make_bundle(tmp_path / "other", weights_sha256="cd" * 32))
    assert one.id == same.id != other.id


@pytest.mark.parametrize("name", ["encoder.fp32.onnx", "probes.npz"])
def test_an_altered_file_is_refused_by_name(
    tmp_path: Path, make_bundle: MakeBundle, name: str
) -> None:
    path = make_bundle(tmp_path / "bundle") / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(BundleError, match=rf"{name} has digest .*python -m export bundle"):
        Bundle.open(tmp_path / "bundle")


def test_a_precision_that_was_not_shipped_is_refused(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match=r"no fp16 encoder, it has \['fp32'\]; .*not shipped"):
        bundle.onnx_path("fp16")


def test_what_is_not_a_bundle_is_refused_with_how_to_make_one(
    tmp_path: Path, index_dir: Path
) -> None:
    with pytest.raises(BundleError, match="python -m export bundle"):
        Bundle.open(tmp_path)
    with pytest.raises(BundleError, match="is an index folder; expected a bundle"):
        Bundle.open(index_dir)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("encoder", {"architecture": "x"}, id="half an encoder"),
        pytest.param("encoder", None, id="no encoder"),
        pytest.param(
            "encoder",
            "resnet",
            id="text",
        ),
    ],
)
def test_a_bundle_without_an_encoder_description_is_refused(
    tmp_path: Path, make_bundle: MakeBundle, name: str, value: Any
) -> None:
    root = make_bundle(tmp_path / "bundle", **{name: value})
    with pytest.raises(BundleError, match=r"lacks what a bundle needs .* export it again"):
        Bundle.open(root)


@pytest.mark.parametrize("missing", ["weights_sha256", "precisions", "encoder"])
def test_a_bundle_that_lacks_a_name_is_refused(
    tmp_path: Path, bundle_dir: Path, missing: str
) -> None:
    meta = json.loads((bundle_dir / "manifest.json").read_text())["meta"]
    del meta[missing]
    with writing_artefact(tmp_path / "bundle", "bundle", meta) as folder:
        (folder / "probes.npz").write_bytes(b"")
    with pytest.raises(BundleError, match=f"{missing}.* export it again"):
        Bundle.open(tmp_path / "bundle")


@pytest.mark.parametrize(
    ("images", "embeddings"),
    [
        ((6, 16, 16, 3), (6, 12)),
        ((6, 32, 32, 3), (5, 12)),
        ((6, 32, 32, 3), (6, 13)),
    ],
    ids=["another size", "another count", "another length"],
)
def test_probes_of_another_shape_are_refused(
    tmp_path: Path,
    make_bundle: MakeBundle,
    images: tuple[int, ...],
    embeddings: tuple[int, ...],
) -> None:
    root = make_bundle(
        tmp_path / "bundle",
        images=np.zeros(images, np.uint8),
        embeddings=np.zeros(embeddings, np.float32),
    )
    with pytest.raises(BundleError, match=r"expected \(P, 32, 32, 3\) and \(P, 12\)\. Export"):
        Bundle.open(root).probes()


def test_an_encoder_the_manifest_does_not_list_is_refused(tmp_path: Path, bundle_dir: Path) -> None:
    """Copied in from another bundle: nothing says that it belongs to this one."""
    meta = json.loads((bundle_dir / "manifest.json").read_text())["meta"]
    root = tmp_path / "bundle"
    with writing_artefact(root, "bundle", meta):
        pass
    shutil.copy(bundle_dir / "encoder.fp32.onnx", root)
    with pytest.raises(BundleError, match=r"does not list encoder\.fp32\.onnx"):
        Bundle.open(root).onnx_path("fp32")


@pytest.mark.parametrize("there", ["no file", "other names", "not a zip"])
def test_a_bundle_without_usable_probes_is_refused(
    tmp_path: Path, bundle_dir: Path, there: str
) -> None:
    meta = json.loads((bundle_dir / "manifest.json").read_text())["meta"]
    with writing_artefact(tmp_path / "bundle", "bundle", meta) as folder:
        if there == "other names":
            np.savez(folder / "probes.npz", photos=np.zeros(3))
        elif there == "not a zip":
            (folder / "probes.npz").write_bytes(b"torn")
    with pytest.raises(SkyfixError):
        Bundle.open(tmp_path / "bundle").probes()


def test_an_int8_encoder_is_for_one_kind_of_kernels(
    tmp_path: Path, make_bundle: Callable[..., Path]
) -> None:
    precisions = {"fp32": {"precision": "fp32"}, "int8": {"precision": "int8", "target": "cpu"}}
    root = make_bundle(tmp_path / "bundle", precisions=precisions)
    bundle = Bundle.open(root)
    assert bundle.onnx_path("fp32", kernels="tensorrt").name == "encoder.fp32.onnx"
    with pytest.raises(BundleError, match=r"an int8 encoder for cpu; .* --int8-target tensorrt"):
        bundle.onnx_path("int8", kernels="tensorrt")


def test_int8_is_asked_about_real_images_only(bundle: Bundle) -> None:
    images, embeddings = bundle.probes()
    real, answers = bundle.probes("int8")
    assert np.array_equal(real, images[1:])
    assert np.array_equal(answers, embeddings[1:])
