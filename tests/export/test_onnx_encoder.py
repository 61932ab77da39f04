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

from edge_runtime.bundle import Bundle
from edge_runtime.errors import GateError, InputError
from edge_runtime.precision import Precision
from export.onnx_encoder import (
    check_model,
    check_structure,
    deployed,
    encoder_to_onnx,
    export_onnx,
)
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


def test_half_precision_takes_half_the_bytes(exported: Export) -> None:
    made = exported("test_resnet")
    full, half = ((made.bundle / f"encoder.{p}.onnx").stat().st_size for p in PRECISIONS)
    graph = len(made.encoder.spec.architecture) + 30_000  # Its text is as long in both.
    assert half - graph < 0.51 * full


@pytest.mark.parametrize("architecture", ["test_convnext", "repvit_m0_9", "fastvit_t8"])
def test_what_flies_shares_the_weights_and_leaves_the_encoder_alone(architecture: str) -> None:
    torch.manual_seed(0)
    encoder = new_encoder(architecture, size_px=64).train()
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    flying = deployed(encoder)
    assert not flying.training
    assert encoder.training
    assert all(parameter.requires_grad for parameter in encoder.parameters())
    after = encoder.state_dict()
    assert list(after) == list(before)
    for name, value in after.items():
        assert torch.equal(value, before[name])
    memory = {p.data_ptr() for p in encoder.parameters()}
    fused = sum(p.data_ptr() not in memory for p in flying.parameters())
    assert (fused > 0) == (architecture != "test_convnext")  # Fused branches are new.


# --- what is in the graph -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def graphs() -> Callable[[str], onnx.ModelProto]:
    made: dict[str, onnx.ModelProto] = {}

    def graph(architecture: str) -> onnx.ModelProto:
        if architecture not in made:
            torch.manual_seed(7)
            made[architecture] = encoder_to_onnx(new_encoder(architecture, size_px=64))
        return made[architecture]

    return graph


GRAPHS = ["test_convnext", "test_vit", "test_resnet"]


@pytest.mark.parametrize("architecture", GRAPHS)
def test_nothing_is_computed_that_could_be_known(
    architecture: str, graphs: Callable[[str], onnx.ModelProto]
) -> None:
    model = graphs(architecture)
    constants = {t.name for t in model.graph.initializer}
    read = {name for node in model.graph.node for name in node.input}
    assert constants <= read, "weights nobody reads"
    for node in model.graph.node:
        assert not set(node.input) <= constants, f"{node.name} is a constant"
        assert read.union(["embeddings"]).intersection(node.output), f"{node.name} is dead"
    operators = Counter(node.op_type for node in model.graph.node)
    assert not {"Identity", "Constant", "Range", "BatchNormalization", "Pow"} & set(operators)
    # Only a class token must be repeated for every picture, and only that reads the batch.
    assert operators["Shape"] == (architecture == "test_vit")


@pytest.mark.parametrize("architecture", GRAPHS)
def test_every_value_has_a_shape_that_is_fixed_but_for_the_batch(
    architecture: str, graphs: Callable[[str], onnx.ModelProto]
) -> None:
    model = graphs(architecture)
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.graph.value_info[:]
    inferred = onnx.shape_inference.infer_shapes(bare, strict_mode=True, data_prop=True)
    known = {v.name: v.type.tensor_type for v in inferred.graph.value_info}
    assert len(known) == sum(len(n.output) for n in model.graph.node) - 1
    for name, kind in known.items():
        dims = list(kind.shape.dim)
        assert kind.elem_type, name
        assert sum(not dim.HasField("dim_value") for dim in dims) <= 1, name
    check_model(model, architecture)


def test_gelu_and_layer_normalisation_are_one_node_each(
    graphs: Callable[[str], onnx.ModelProto],
) -> None:
    encoder = new_encoder("test_convnext", size_px=64)
    counted = Counter(n.op_type for n in graphs("test_convnext").graph.node)
    for op, kinds in (("LayerNormalization", (torch.nn.LayerNorm,)), ("Erf", ()), ("Tanh", ())):
        assert counted[op] == sum(isinstance(m, kinds) for m in encoder.modules())
    assert counted["Gelu"] == sum("gelu" in type(m).__name__.lower() for m in encoder.modules())


def test_attention_is_plain_products_and_one_softmax(
    graphs: Callable[[str], onnx.ModelProto],
) -> None:
    blocks = len(new_encoder("test_vit", size_px=64).body.get_submodule("blocks")._modules)
    counted = Counter(n.op_type for n in graphs("test_vit").graph.node)
    assert counted["Softmax"] == blocks
    assert counted["MatMul"] == 6 * blocks  # qkv, scores, values, projection, two of the MLP.
    assert "Attention" not in counted


@pytest.mark.parametrize("architecture", GRAPHS)
def test_weights_keep_the_names_that_timm_gives_them(
    architecture: str, graphs: Callable[[str], onnx.ModelProto]
) -> None:
    model = graphs(architecture)
    state = new_encoder(architecture, size_px=64).state_dict()
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    named = {name for name in state if name.endswith("weight") and state[name].ndim > 1}
    found = {name.removesuffix(".transposed") for name in weights}
    assert named <= found
    for name, value in weights.items():
        source = name.removesuffix(".transposed")
        if source in state and architecture != "test_resnet":  # There they take in batch norms.
            expected = state[source].numpy()
            assert value.shape == (expected.T if source != name else expected).shape
    for node in model.graph.node:
        assert len(node.name) < 80
        assert node.output[0] in (node.name, f"{node.name}:0", "embeddings")


def test_equal_weights_are_not_merged(graphs: Callable[[str], onnx.ModelProto]) -> None:
    """Else the next checkpoint, whose weights differ, has other names: no engine could be refit."""
    names = {t.name for t in graphs("test_convnext").graph.initializer}
    state = new_encoder("test_convnext", size_px=64).state_dict()
    norms = {n for n in state if "norm" in n and n.startswith("body.stages")}
    assert norms
    assert norms <= names


def test_two_checkpoints_of_an_architecture_have_the_same_graph(
    graphs: Callable[[str], onnx.ModelProto],
) -> None:
    torch.manual_seed(99)
    other = new_encoder("test_vit", size_px=64)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.01)
    one, two = graphs("test_vit"), encoder_to_onnx(other)
    assert list(one.graph.node) == list(two.graph.node)
    assert [(t.name, t.dims) for t in one.graph.initializer] == [
        (t.name, t.dims) for t in two.graph.initializer
    ]


def test_a_network_too_large_for_a_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("export.onnx_encoder.MAX_BYTES", 100_000)
    with pytest.raises(InputError, match=r"holds at most .* Choose a smaller network"):
        encoder_to_onnx(new_encoder("test_resnet", size_px=64))


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


def test_a_transpose_of_bytes_is_refused(model: onnx.ModelProto, tmp_path: Path) -> None:
    cast, transpose = (
        next(n for n in model.graph.node if n.op_type == op) for op in ("Cast", "Transpose")
    )
    turned = onnx.helper.make_node("Transpose", ["images"], ["turned"], "t", perm=[0, 1, 2, 3])
    cast.input[0] = "turned"
    assert transpose.input[0] != "images"
    model.graph.node.insert(0, turned)
    onnx.save(model, tmp_path / "bad.onnx")
    with pytest.raises(GateError, match="transposes uint8, which TensorRT refuses"):
        check_structure(tmp_path / "bad.onnx")


def test_a_value_of_unknown_shape_is_refused(model: onnx.ModelProto, tmp_path: Path) -> None:
    del model.graph.value_info[3]
    onnx.save(model, tmp_path / "bad.onnx")
    with pytest.raises(GateError, match="without a type and shape"):
        check_structure(tmp_path / "bad.onnx")


def test_a_second_free_dimension_is_refused(model: onnx.ModelProto, tmp_path: Path) -> None:
    value = next(v for v in model.graph.value_info if len(v.type.tensor_type.shape.dim) == 4)
    value.type.tensor_type.shape.dim[1].dim_param = "channels"
    onnx.save(model, tmp_path / "bad.onnx")
    with pytest.raises(GateError, match="expected only the batch to be free"):
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
        fused = deployed(encoder)
        found = fused(images)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    count = [sum(isinstance(m, torch.nn.Conv2d) for m in e.modules()) for e in (encoder, fused)]
    assert count[1] < count[0]


def test_attention_biases_that_were_looked_up_before_training_are_not_exported() -> None:
    """Networks as EfficientViT-M keep what they looked up, whatever becomes of their weights."""
    torch.manual_seed(5)
    encoder = new_encoder("efficientvit_m0", size_px=64).eval()
    images = torch.randint(0, 256, (1, 64, 64, 3), dtype=torch.uint8)
    with torch.no_grad():
        encoder(images)
        for name, parameter in encoder.named_parameters():
            if name.endswith("attention_biases"):
                parameter.normal_(0, 3.0)
        found = dict(deployed(encoder).named_modules())
    looked_up = 0
    for name, module in encoder.named_modules():
        if hasattr(module, "attention_biases"):
            flying = found[name]
            biases = flying.get_attention_biases(torch.device("cpu"))
            torch.testing.assert_close(
                biases, module.attention_biases[:, module.attention_bias_idxs]
            )
            looked_up += 1
    assert looked_up > 0
