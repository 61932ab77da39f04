"""INT8: written where it is the encoder still and faster, refused with the figures where not."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge_runtime.errors import InputError
from edge_runtime.gates import GATE_LIMITS
from export import quantisation
from export.int8_search import Int8Limits, embed
from export.onnx_encoder import check_structure
from export.paired_latency import PairedLatency
from export.qdq_graph import Int8Target, QdqGraph, RangeMethod
from export.quantisation import QuantisedEncoder, has_vnni, quantise

U8 = npt.NDArray[np.uint8]
SIDE = 32
CHANNELS = 16


def _images(count: int, seed: int) -> U8:
    """Blocks of colour under noise: different enough that neighbours mean something."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 4, 4, 3)).repeat(8, axis=1).repeat(8, axis=2)
    return np.asarray(np.clip(coarse + rng.normal(0, 20, coarse.shape), 0, 255), np.uint8)


def _write(path: Path, *, outliers: bool = False) -> Path:
    """An encoder like ours: frame in FP32, a stem, three residual blocks, pooling, unit length.

    With outliers the second block's first convolution feeds one channel in a hundred times the
    others' scale into the next, as networks without care for quantisation do.
    """
    rng = np.random.default_rng(7)
    weights: dict[str, npt.NDArray[Any]] = {
        "mean": np.array([0.5, 0.5, 0.5], np.float32) * 255,
        "std": np.array([0.25, 0.25, 0.25], np.float32) * 255,
        "zero": np.array(0, np.float32),
        "six": np.array(6, np.float32),
        "axes": np.array([2, 3]),
        "last": np.array([1]),
    }

    def convolution(name: str, source: str, shape: tuple[int, ...], **attributes: Any) -> Any:
        scale = np.sqrt(2 / np.prod(shape[1:]))
        weights[f"body.{name}.weight"] = np.asarray(rng.normal(0, scale, shape), np.float32)
        weights[f"body.{name}.bias"] = np.asarray(rng.normal(0, 0.1, shape[0]), np.float32)
        inputs = [source, f"body.{name}.weight", f"body.{name}.bias"]
        return helper.make_node("Conv", inputs, [name], f"{name}/Conv", **attributes)

    node = helper.make_node
    nodes = [
        node("Cast", ["images"], ["cast"], to=TensorProto.FLOAT),
        node("Sub", ["cast", "mean"], ["sub"]),
        node("Div", ["sub", "std"], ["div"]),
        node("Transpose", ["div"], ["stem.in"], perm=[0, 3, 1, 2]),
        convolution("stem", "stem.in", (CHANNELS, 3, 3, 3), strides=[2, 2], pads=[1, 1, 1, 1]),
    ]
    x = "stem"
    for k in range(3):
        block = f"blocks.{k}"
        nodes += [
            convolution(f"{block}.expand", x, (4 * CHANNELS, CHANNELS, 1, 1)),
            node("Relu", [f"{block}.expand"], [f"{block}.act1"], f"{block}.act1/Relu"),
            convolution(
                f"{block}.dw",
                f"{block}.act1",
                (4 * CHANNELS, 1, 3, 3),
                group=4 * CHANNELS,
                pads=[1, 1, 1, 1],
            ),
            node("Clip", [f"{block}.dw", "zero", "six"], [f"{block}.act2"], f"{block}.act2/Clip"),
            convolution(f"{block}.project", f"{block}.act2", (CHANNELS, 4 * CHANNELS, 1, 1)),
            node("Add", [f"{block}.project", x], [f"{block}.out"], f"{block}/Add"),
        ]
        x = f"{block}.out"
    if outliers:
        # Undone by the next layer's weights, so FP32 does not notice.
        weights["body.blocks.1.expand.weight"][0] *= 1000
        weights["body.blocks.1.expand.bias"][0] *= 1000
        weights["body.blocks.1.dw.weight"][0] /= 1000
    nodes += [
        node("ReduceMean", [x, "axes"], ["pooled"], keepdims=0),
        node("Mul", ["pooled", "pooled"], ["squared"]),
        node("ReduceSum", ["squared", "last"], ["sum"], keepdims=1),
        node("Sqrt", ["sum"], ["length"]),
        node("Div", ["pooled", "length"], ["embeddings"]),
    ]
    graph = helper.make_graph(
        nodes,
        "encoder",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", SIDE, SIDE, 3])],
        [helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, ["batch", CHANNELS])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, {"skyfix.precision": "fp32", "skyfix.encoder": "{}"})
    onnx.checker.check_model(model, full_check=True)
    onnx.save(onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True), path)
    return path


@pytest.fixture(scope="module")
def fp32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _write(tmp_path_factory.mktemp("int8") / "encoder.fp32.onnx")


@pytest.fixture(scope="module")
def fp16(fp32: Path) -> Path:
    """The body in FP16 between an FP32 frame, names kept."""
    model = onnx.load(fp32)
    graph = model.graph
    for tensor in graph.initializer:
        if tensor.name.startswith("body.") or tensor.name in ("zero", "six"):
            value = numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    nodes = list(graph.node)
    for node in nodes:
        if node.name == "stem/Conv":
            node.input[0] = "stem.in.fp16"
        if node.op_type == "ReduceMean":
            node.input[0] += ".fp32"
    into, out_of = TensorProto.FLOAT16, TensorProto.FLOAT
    nodes.insert(4, helper.make_node("Cast", ["stem.in"], ["stem.in.fp16"], "in", to=into))
    last = next(k for k, node in enumerate(nodes) if node.op_type == "ReduceMean")
    name = nodes[last].input[0].removesuffix(".fp32")
    nodes.insert(last, helper.make_node("Cast", [name], [f"{name}.fp32"], "out", to=out_of))
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.value_info[:]
    path = fp32.with_name("encoder.fp16.onnx")
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module")
def outlying(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _write(tmp_path_factory.mktemp("int8") / "encoder.fp32.onnx", outliers=True)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Let INT8 take so much of FP32's time; that it is really timed is tested apart."""

    def set_to(ratio: float) -> None:
        def timed(*_: Any, **__: Any) -> PairedLatency:
            return PairedLatency(
                base_ms=1.0,
                other_ms=ratio,
                ratio=ratio,
                ratio_low=ratio - 0.02,
                ratio_high=ratio + 0.02,
                rounds=60,
                threads=1,
            )

        monkeypatch.setattr(quantisation, "paired_latency", timed)

    return set_to


def _quantise(
    fp32: Path,
    out: Path,
    target: Int8Target = "cpu",
    *,
    methods: tuple[RangeMethod, ...] = ("min-max",),
    limits: Int8Limits | None = None,
    fp16: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> QuantisedEncoder:
    return quantise(
        fp32,
        out,
        _images(24, 1),
        _images(32, 2),
        target,
        methods=methods,
        limits=limits,
        threads=1,
        fp16=fp16,
        say=say,
    )


def test_what_is_written_is_the_encoder_still(
    fp32: Path, tmp_path: Path, clock: Callable[[float], None]
) -> None:
    clock(0.6)
    out = tmp_path / "encoder.int8.onnx"
    found = _quantise(fp32, out)
    assert found.passed, found.reason
    assert found.int8_bytes == out.stat().st_size < found.fp32_bytes
    images = _images(40, 3)  # Neither calibrated on nor held out.
    cosine = np.sum(embed(str(out), images) * embed(str(fp32), images), axis=1)
    assert cosine.min() >= GATE_LIMITS["int8"].min_cosine
    model = onnx.load(out)
    onnx.checker.check_model(model, full_check=True)
    check_structure(out)
    described = {v.name for v in (*model.graph.value_info, *model.graph.output)}
    assert described == {name for node in model.graph.node for name in node.output}
    properties = {entry.key: entry.value for entry in model.metadata_props}
    assert properties["skyfix.precision"] == "int8"
    assert properties["skyfix.int8_target"] == "cpu"
    assert properties["skyfix.encoder"] == "{}"
    assert model.graph.input[0].type.tensor_type.elem_type == TensorProto.UINT8


def test_the_frame_around_the_body_stays_in_fp32(fp32: Path) -> None:
    graph = QdqGraph(fp32, "cpu")
    model = graph.with_int8([x.name for x in graph.layers], graph.ranges(_images(8, 1), "min-max"))
    ops = Counter(node.op_type for node in model.graph.node)
    assert (ops["Conv"], ops["Relu"], ops["Clip"]) == (10, 0, 0)  # Clamps became ranges.
    producers = {name: node.op_type for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        if node.op_type in ("Sub", "Transpose", "Mul", "ReduceSum", "Sqrt"):
            kinds = {producers.get(name) for name in node.input}
            assert "DequantizeLinear" not in kinds


def test_tensorrt_gets_symmetric_pairs_on_inputs_of_weighted_layers_alone(fp32: Path) -> None:
    graph = QdqGraph(fp32, "tensorrt")
    model = graph.with_int8([x.name for x in graph.layers], graph.ranges(_images(8, 1), "min-max"))
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    producers = {name: node for node in model.graph.node for name in node.output}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            assert constants[node.input[2]].dtype == np.int8
            assert not constants[node.input[2]].any()
        if node.op_type == "DequantizeLinear":
            assert {reader.op_type for reader in readers[node.output[0]]} <= {"Conv", "Add"}
        if node.op_type == "Conv":
            data, weight = (producers[name] for name in node.input[:2])
            assert data.op_type == weight.op_type == "DequantizeLinear"
            assert len(constants[weight.input[1]]) == len(constants[weight.input[0]])  # A channel.
            assert next(a.i for a in weight.attribute if a.name == "axis") == 0
            assert constants[node.input[2]].dtype == np.float32  # Biases have no pair.
        if node.op_type == "Add":  # The convolution adds the skipped tensor in INT8.
            kinds = [producers[name].op_type for name in node.input]
            assert kinds == ["Conv", "DequantizeLinear"]


def test_what_is_not_int8_for_tensorrt_is_fp16_where_fp16_is_given(
    fp32: Path, fp16: Path, tmp_path: Path
) -> None:
    out = tmp_path / "int8.onnx"
    found = _quantise(fp32, out, "tensorrt", fp16=fp16)
    assert found.passed, found.reason
    model = onnx.load(out)
    onnx.checker.check_model(model, full_check=True)
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            assert types[node.input[1]] == TensorProto.FLOAT16
        if node.op_type == "Conv":
            assert types[node.input[2]] == TensorProto.FLOAT16  # Biases and sums.
    images = _images(40, 3)
    written = embed(str(out), images, fuse_pairs=False)
    cosine = np.sum(written * embed(str(fp32), images), axis=1)
    assert cosine.min() >= GATE_LIMITS["int8"].min_cosine


def test_an_fp16_file_of_another_encoder_is_refused(fp32: Path, tmp_path: Path) -> None:
    other = onnx.load(fp32)
    for node in other.graph.node:
        for names in (node.input, node.output):
            for k, name in enumerate(names):
                names[k] = name.replace("blocks.2.", "blocks.9.")
    for tensor in other.graph.initializer:
        tensor.name = tensor.name.replace("blocks.2.", "blocks.9.")
    del other.graph.value_info[:]
    onnx.save(other, tmp_path / "other.onnx")
    with pytest.raises(InputError, match=r"which .* does not; expected the same encoder"):
        QdqGraph(fp32, "tensorrt", float_part=tmp_path / "other.onnx")


def test_the_layer_that_int8_spoils_is_found_and_left_in_float(
    outlying: Path, tmp_path: Path, clock: Callable[[float], None]
) -> None:
    clock(0.6)
    said: list[str] = []
    found = _quantise(outlying, tmp_path / "int8.onnx", say=said.append)
    assert found.passed, found.reason
    losses = {layer.name: layer.loss or 0.0 for layer in found.layers}
    assert max(losses, key=lambda name: losses[name]) in ("blocks.1.expand", "blocks.1.dw")
    in_float = {layer.name for layer in found.layers if not layer.int8}
    assert in_float & {"blocks.1.expand", "blocks.1.dw"}
    assert len(in_float) <= 2
    assert any("10 of 10 layers measured alone" in line for line in said)
    # With all of it in INT8 the gates would have refused it.
    graph = QdqGraph(outlying, "cpu")
    whole = graph.with_int8(list(losses), graph.ranges(_images(24, 1), "min-max"))
    images = _images(32, 2)
    cosine = np.sum(embed(whole.SerializeToString(), images) * embed(str(outlying), images), axis=1)
    assert cosine.min() < GATE_LIMITS["int8"].min_cosine


def test_nothing_is_written_when_it_is_not_faster(
    fp32: Path, tmp_path: Path, clock: Callable[[float], None]
) -> None:
    clock(0.94)  # Its interval reaches 0.96.
    out = tmp_path / "int8.onnx"
    found = _quantise(fp32, out)
    assert not found.passed
    assert not out.exists()
    assert found.int8_bytes is None
    assert "x0.94 of FP32's time" in found.reason
    assert "0.92 to 0.96); expected at most 0.95" in found.reason


def test_nothing_is_written_when_too_little_would_be_in_int8(
    outlying: Path, tmp_path: Path, clock: Callable[[float], None]
) -> None:
    clock(0.5)
    out = tmp_path / "int8.onnx"
    limits = Int8Limits(min_macs_fraction=0.999)
    found = _quantise(outlying, out, limits=limits)
    assert not found.passed
    assert not out.exists()
    assert "no choice of layers with 100% of the arithmetic passes the gates" in found.reason
    assert "expected >=" in found.reason  # The measured value of the last try.
    assert not any(layer.int8 for layer in found.layers)


def test_for_tensorrt_it_says_that_speed_was_not_measured(fp32: Path, tmp_path: Path) -> None:
    found = _quantise(fp32, tmp_path / "int8.onnx", "tensorrt")
    assert found.passed
    assert found.latency is None
    assert "speed on tensorrt was not measured here" in found.reason


def test_the_method_with_the_lowest_loss_takes_the_ranges(
    fp32: Path, tmp_path: Path, clock: Callable[[float], None]
) -> None:
    clock(0.6)
    found = _quantise(fp32, tmp_path / "int8.onnx", methods=("min-max", "percentile", "entropy"))
    assert set(found.method_losses) == {"min-max", "percentile", "entropy"}
    assert len(set(found.method_losses.values())) == 3
    assert found.method_losses[found.method] == min(found.method_losses.values())


def test_a_sweep_cut_short_says_what_it_did_not_measure(
    outlying: Path, tmp_path: Path, clock: Callable[[float], None]
) -> None:
    clock(0.6)
    found = _quantise(outlying, tmp_path / "int8.onnx", limits=Int8Limits(sweep_s=0.0))
    assert sum(layer.loss is not None for layer in found.layers) == 1


def test_seven_bit_weights_stay_within_seven_bits(fp32: Path) -> None:
    for reduce_range, limit in ((True, 64), (False, 127)):
        graph = QdqGraph(fp32, "cpu", reduce_range=reduce_range)
        ranges = graph.ranges(_images(8, 1), "min-max")
        model = graph.with_int8(["blocks.0.expand"], ranges)
        (weight,) = (
            numpy_helper.to_array(t)
            for t in model.graph.initializer
            if len(t.dims) == 4 and t.data_type == TensorProto.INT8
        )
        assert limit - 1 <= np.abs(weight.astype(int)).max() <= limit


def test_vnni_is_read_off_the_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    info = tmp_path / "cpuinfo"
    info.write_text("flags : sse avx2 avx512f avx512_vnni\n")
    assert has_vnni(info)
    info.write_text("flags : sse avx2\n")
    assert not has_vnni(info)
    assert not has_vnni(tmp_path / "nothing")
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert has_vnni(tmp_path / "nothing")


def test_too_few_images_and_nothing_to_quantise_are_refused(fp32: Path, tmp_path: Path) -> None:
    out = tmp_path / "int8.onnx"
    with pytest.raises(InputError, match="4 held out, 3 methods; expected at least 1, 8 and 1"):
        quantise(fp32, out, _images(8, 1), _images(4, 2), "cpu")
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["images"], ["x"], to=TensorProto.FLOAT),
            helper.make_node("Relu", ["x"], ["embeddings"]),
        ],
        "empty",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", 8, 8, 3])],
        [helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, None)],
    )
    opset = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), tmp_path / "no.onnx")
    with pytest.raises(InputError, match="no convolution or matrix product with constant weights"):
        quantise(tmp_path / "no.onnx", out, _images(8, 1), _images(8, 2), "cpu")
