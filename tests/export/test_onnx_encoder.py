import json
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
import torch

from edge_runtime.bundle import Bundle, Precision
from edge_runtime.errors import GateError
from export.onnx_encoder import at_precision, check_structure, export_onnx
from train.encoder import Encoder, new_encoder

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]
Export = Callable[[str], Any]

ARCHITECTURES = ["test_resnet", "test_convnext"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16")


def pictures(count: int, seed: int = 1) -> U8:
    return np.random.default_rng(seed).integers(0, 256, (count, 64, 64, 3), np.uint8)


def by_onnx_runtime(path: Path, images: U8) -> F32:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        str(path), sess_options=options, providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(["embeddings"], {"images": images})[0])


@torch.inference_mode()
def by_torch(encoder: Encoder, images: U8) -> F32:
    return np.asarray(encoder(torch.from_numpy(images)).numpy())


def cosines(a: F32, b: F32) -> F32:
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.asarray((a * b).sum(axis=1) / lengths)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("count", [1, 3, 8])
def test_onnx_runtime_equals_pytorch_at_any_batch_size(
    architecture: str, count: int, exported: Export
) -> None:
    made = exported(architecture)
    images = pictures(count)
    expected = by_torch(made.encoder, images)
    for precision, least in (("fp32", 0.99999), ("fp16", 0.9995)):
        found = by_onnx_runtime(made.bundle / f"encoder.{precision}.onnx", images)
        assert found.dtype == np.float32
        assert found.shape == expected.shape
        assert cosines(found, expected).min() >= least
        assert np.linalg.norm(found, axis=1) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.slow
def test_a_mobile_network_is_exported_without_a_warning_and_equals_pytorch(tmp_path: Path) -> None:
    torch.manual_seed(12)
    encoder = new_encoder("mobilenetv3_small_050", size_px=64).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # What torch's exporter warns of is not the user's business.
        export_onnx(encoder, tmp_path / "e.onnx", "fp32")
    for count in (1, 3):
        images = pictures(count)
        found = by_onnx_runtime(tmp_path / "e.onnx", images)
        assert cosines(found, by_torch(encoder, images)).min() >= 0.99999


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_file_keeps_the_contract(
    architecture: str, precision: Precision, exported: Export
) -> None:
    made = exported(architecture)
    model = onnx.load(made.bundle / f"encoder.{precision}.onnx")
    (image,), (embedding,) = model.graph.input, model.graph.output
    assert (image.name, embedding.name) == ("images", "embeddings")
    assert image.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert embedding.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    batch, *rest = image.type.tensor_type.shape.dim
    assert batch.dim_param, "the batch is not dynamic"
    assert [d.dim_value for d in rest] == [64, 64, 3]
    size = embedding.type.tensor_type.shape.dim[1].dim_value
    assert size == made.encoder.spec.embedding_size
    assert {n.domain for n in model.graph.node} <= {"", "ai.onnx"}
    assert {o.domain: o.version for o in model.opset_import}.get("", 0) >= 18
    assert not model.functions


@pytest.mark.parametrize("precision", PRECISIONS)
def test_metadata_says_what_the_encoder_is_and_nothing_of_the_machine_it_was_made_on(
    precision: Precision, exported: Export
) -> None:
    made = exported("test_resnet")
    path = made.bundle / f"encoder.{precision}.onnx"
    model = onnx.load(path)
    said = {p.key: p.value for p in model.metadata_props}
    assert said["skyfix.precision"] == precision
    expected = json.loads(json.dumps(asdict(made.encoder.spec)))
    assert json.loads(said["skyfix.encoder"]) == expected
    assert model.producer_name == "skyfix"
    data = path.read_bytes()
    for trace in (b"site-packages", b"/work/", b"Traceback", str(Path.home()).encode() + b"/"):
        assert trace not in data


def test_the_cast_comes_before_any_transpose(exported: Export) -> None:
    # TensorRT rejects a transpose of uint8 (FACTS section 6).
    model = onnx.load(exported("test_resnet").bundle / "encoder.fp32.onnx")
    readers = [n.op_type for n in model.graph.node if "images" in n.input]
    assert "Cast" in readers
    assert set(readers) <= {"Cast", "Shape"}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_layer_normalisation_stays_one_node_and_in_float32(
    precision: Precision, exported: Export
) -> None:
    made = exported("test_convnext")
    model = onnx.load(made.bundle / f"encoder.{precision}.onnx")
    layers = sum(isinstance(m, torch.nn.LayerNorm) for m in made.encoder.modules())
    counted = Counter(n.op_type for n in model.graph.node)
    assert counted["LayerNormalization"] == layers > 0
    kinds = {t.name: t.data_type for t in model.graph.initializer}
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    kinds |= {v.name: v.type.tensor_type.elem_type for v in inferred.graph.value_info}
    for node in model.graph.node:
        if node.op_type == "LayerNormalization":
            assert {kinds[name] for name in node.input} == {onnx.TensorProto.FLOAT}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_half_precision_takes_little_more_than_half_the_bytes(
    architecture: str, exported: Export
) -> None:
    made = exported(architecture)
    full, half = ((made.bundle / f"encoder.{p}.onnx").stat().st_size for p in PRECISIONS)
    assert half < 0.6 * full
    kinds = Counter(
        t.data_type for t in onnx.load(made.bundle / "encoder.fp16.onnx").graph.initializer
    )
    assert kinds[onnx.TensorProto.FLOAT16] > 0


def test_a_precision_is_a_copy_and_leaves_the_encoder_alone(exported: Export) -> None:
    encoder = exported("test_convnext").encoder
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    half = at_precision(encoder, "fp16")
    assert half.body_dtype == torch.float16
    assert encoder.body_dtype == torch.float32
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, before[name])
    assert not half.training


# --- structure ---------------------------------------------------------------------------------


@pytest.fixture
def model(exported: Export) -> onnx.ModelProto:
    return onnx.load(exported("test_resnet").bundle / "encoder.fp32.onnx")


def renamed(model: onnx.ModelProto, old: str, new: str) -> None:
    for value in (*model.graph.input, *model.graph.output):
        value.name = new if value.name == old else value.name
    for node in model.graph.node:
        node.input[:] = [new if n == old else n for n in node.input]
        node.output[:] = [new if n == old else n for n in node.output]


def test_a_sound_file_passes(bundle: Bundle) -> None:
    for precision in PRECISIONS:
        check_structure(bundle.onnx_path(precision))


@pytest.mark.parametrize("name", ["images", "embeddings"])
def test_other_names_of_input_or_output_are_refused(
    name: str, model: onnx.ModelProto, tmp_path: Path
) -> None:
    renamed(model, name, "other")
    onnx.save(model, tmp_path / "bad.onnx")
    with pytest.raises(GateError, match="expected images and embeddings"):
        check_structure(tmp_path / "bad.onnx")


def test_an_input_of_floats_is_refused(model: onnx.ModelProto, tmp_path: Path) -> None:
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    onnx.save(model, tmp_path / "bad.onnx")
    with pytest.raises(GateError, match=r"images are FLOAT .* expected UINT8 and FLOAT"):
        check_structure(tmp_path / "bad.onnx")


def test_operators_of_another_domain_are_refused(model: onnx.ModelProto, tmp_path: Path) -> None:
    node = next(n for n in model.graph.node if n.op_type == "Relu")
    node.domain = "com.example"
    model.opset_import.append(onnx.helper.make_opsetid("com.example", 1))
    onnx.save(model, tmp_path / "bad.onnx")
    with pytest.raises(GateError, match=r"com\.example"):
        check_structure(tmp_path / "bad.onnx")


def test_a_broken_graph_is_refused_in_one_line(model: onnx.ModelProto, tmp_path: Path) -> None:
    del model.graph.node[len(model.graph.node) // 2]
    onnx.save(model, tmp_path / "bad.onnx")
    with pytest.raises(GateError, match=r"bad\.onnx: ONNX refuses the file") as caught:
        check_structure(tmp_path / "bad.onnx")
    assert "\n" not in str(caught.value)


def test_parallel_branches_are_fused_and_the_embeddings_stay(tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = new_encoder("repvit_m0_9", size_px=64).eval()
    images = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    with torch.inference_mode():
        expected = encoder(images)
        fused = at_precision(encoder, "fp32")
        found = fused(images)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    count = [sum(isinstance(m, torch.nn.Conv2d) for m in e.modules()) for e in (encoder, fused)]
    assert count[1] < count[0]
