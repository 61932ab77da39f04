"""Types first, then what is kept in FP32 and why, then an encoder whose plain FP16 is broken."""

from collections import Counter
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
import torch
from onnx import NodeProto, TensorProto

from benchmarks.loading import textured
from benchmarks.parity import live_in
from edge_runtime.errors import GateError, InputError
from export.activation_ranges import ActivationRanges, ValueRange, activation_ranges
from export.half_arithmetic import embed_in_half_arithmetic
from export.mixed_precision import (
    HALF_MAX,
    SAFE_MAX,
    SMALLEST_NORMAL,
    MixedPrecision,
    to_mixed_precision,
)
from export.onnx_encoder import check_model, encoder_to_onnx
from train.encoder import Encoder, new_encoder

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]

ARCHITECTURES = ["test_convnext", "test_vit", "test_resnet", "convnextv2_atto"]
"""Layer norms, attention, plain convolutions, and response norms."""
FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16}
_PICTURES: U8 = np.stack([textured(64, 64, seed) for seed in range(8)])


class Case:
    """An encoder and what its export goes through."""

    def __init__(self, architecture: str, change: Callable[[Encoder], None] | None = None) -> None:
        torch.manual_seed(3)
        self.encoder = new_encoder(architecture, size_px=64).eval()
        live_in(self.encoder, _PICTURES)
        if change is not None:
            with torch.no_grad():
                change(self.encoder)
        self.full = encoder_to_onnx(self.encoder)
        self.ranges = activation_ranges(self.full, _PICTURES[:4], threads=1)
        self.mixed = to_mixed_precision(self.full, self.ranges)
        with torch.inference_mode():
            self.expected: F32 = self.encoder(torch.from_numpy(_PICTURES)).numpy()

    def half_cosines(self, mixed: MixedPrecision) -> F32:
        found = embed_in_half_arithmetic(mixed.model, _PICTURES, threads=1)
        return np.asarray((found * self.expected).sum(axis=1))


@pytest.fixture(scope="module")
def cases() -> Callable[[str], Case]:
    made: dict[str, Case] = {}
    return lambda name: made.setdefault(name, made.get(name) or Case(name))


def types_of(model: onnx.ModelProto) -> dict[str, int]:
    graph = model.graph
    kinds = {t.name: t.data_type for t in graph.initializer}
    values = (*graph.value_info, *graph.input, *graph.output)
    return kinds | {v.name: v.type.tensor_type.elem_type for v in values}


def node_of(model: onnx.ModelProto, name: str) -> NodeProto:
    found: list[NodeProto] = [node for node in model.graph.node if node.name == name]
    return found[0]


# --- types ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_no_node_mixes_floating_point_types(
    architecture: str, cases: Callable[[str], Case]
) -> None:
    """What a strongly typed network asks for."""
    model = cases(architecture).mixed.model
    kinds = types_of(model)
    for node in model.graph.node:
        read = {kinds[name] for name in node.input if name} & FLOATS
        made = {kinds[name] for name in node.output} & FLOATS
        if node.op_type == "Cast":
            assert read != made
        elif made:
            assert len(read) == 1, node.name
            assert made == read, node.name


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_types_are_those_that_onnx_infers(architecture: str, cases: Callable[[str], Case]) -> None:
    model = cases(architecture).mixed.model
    check_model(model, architecture)
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.graph.value_info[:]
    inferred = onnx.shape_inference.infer_shapes(bare, strict_mode=True, data_prop=True)
    found = types_of(inferred)
    assert {name: found[name] for name in types_of(model)} == types_of(model)
    onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_casts_are_made_once_and_never_undo_each_other(
    architecture: str, cases: Callable[[str], Case]
) -> None:
    model = cases(architecture).mixed.model
    casts = [node for node in model.graph.node if node.op_type == "Cast"]
    made = {node.output[0] for node in casts} - {"encoder/Cast"}
    keys = [(node.input[0], node.attribute[0].i) for node in casts]
    assert len(set(keys)) == len(keys)
    assert not made & {node.input[0] for node in casts}, "a cast of a cast"
    read = {name for node in model.graph.node for name in node.input}
    assert made <= read


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_manifest_and_file_say_the_same(architecture: str, cases: Callable[[str], Case]) -> None:
    mixed = cases(architecture).mixed
    kinds = types_of(mixed.model)
    listed = {node.name: node for node in mixed.kept}
    half = 0
    for node in cases(architecture).full.graph.node:
        kind = kinds[node_of(mixed.model, node.name).output[0]]
        assert (node.name in listed) == (kind == TensorProto.FLOAT), node.name
        half += kind == TensorProto.FLOAT16
    assert half == mixed.half_nodes
    assert all(node.reason and node.op for node in mixed.kept)
    example = mixed.kept[0].to_json()
    assert example == {
        "name": "encoder/Cast",
        "op": "Cast",
        "why": "pixel normalisation",
        "measured": None,
    }


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_weights_are_stored_once(architecture: str, cases: Callable[[str], Case]) -> None:
    case = cases(architecture)
    sizes = Counter[int]()
    for tensor in case.mixed.model.graph.initializer:
        if tensor.data_type in FLOATS:
            sizes[tensor.data_type] += int(np.prod(tensor.dims))
    full = sum(int(np.prod(t.dims)) for t in case.full.graph.initializer if t.data_type == 1)
    assert full <= sizes.total() <= full * 1.001
    assert sizes[TensorProto.FLOAT16] > 0.95 * full
    names = [t.name for t in case.mixed.model.graph.initializer]
    assert len(set(names)) == len(names)
    assert {t.name for t in case.full.graph.initializer} <= set(names)


def test_the_fp32_model_stays_as_it_is(cases: Callable[[str], Case]) -> None:
    case = cases("test_resnet")
    before = case.full.SerializeToString()
    to_mixed_precision(case.full, case.ranges)
    assert case.full.SerializeToString() == before


# --- what is kept --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("architecture", "op", "reason"),
    [
        ("test_convnext", "LayerNormalization", "norm"),
        ("test_vit", "Softmax", "norm"),
        ("convnextv2_atto", "ReduceL2", "norm"),
        ("convnextv2_atto", "Div", "divides by a computed value"),
        ("test_resnet", "Div", "L2 normalisation"),
        ("test_resnet", "Sub", "pixel normalisation"),
    ],
)
def test_norms_divisions_and_both_ends_are_fp32(
    architecture: str, op: str, reason: str, cases: Callable[[str], Case]
) -> None:
    assert (op, reason) in {(node.op, node.reason) for node in cases(architecture).mixed.kept}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_where_all_is_in_range_every_convolution_and_product_is_fp16(
    architecture: str, cases: Callable[[str], Case]
) -> None:
    heavy = {"Conv", "MatMul", "Gemm"}
    assert not [node for node in cases(architecture).mixed.kept if node.op in heavy]


def test_response_norms_stay_in_fp32_from_end_to_end(cases: Callable[[str], Case]) -> None:
    """Norm, mean, epsilon and division: no number of it is rounded on the way."""
    kept = {node.name for node in cases("convnextv2_atto").mixed.kept}
    model = cases("convnextv2_atto").mixed.model
    norms = [node for node in model.graph.node if node.op_type == "ReduceL2"]
    readers = {name: node for node in model.graph.node for name in node.input}
    assert norms
    for norm in norms:
        node = norm
        while node.op_type != "Div":
            assert node.name in kept
            node = readers[node.output[0]]
            assert node.op_type in ("ReduceMean", "Add", "Div")
        assert node.name in kept


def with_range(ranges: ActivationRanges, name: str, **change: float) -> ActivationRanges:
    old = ranges.values[name]
    new = ValueRange(max_abs=change.get("max_abs", old.max_abs), rms=change.get("rms", old.rms))
    sums = dict(ranges.sums)
    if "added" in change:
        sums[name] = change["added"]
    return ActivationRanges(pictures=1, values={**ranges.values, name: new}, sums=sums)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"max_abs": SAFE_MAX * 1.01}, "output beyond the safe range of FP16"),
        ({"rms": SMALLEST_NORMAL / 2}, "output below the normal numbers of FP16"),
        ({"added": HALF_MAX * 1.01}, "adds up beyond FP16 on the way"),
    ],
)
def test_a_product_out_of_range_is_kept_with_the_number(
    change: dict[str, float], reason: str, cases: Callable[[str], Case]
) -> None:
    case = cases("test_convnext")
    name = "stages.1.blocks.0.mlp.fc1/MatMul"
    mixed = to_mixed_precision(case.full, with_range(case.ranges, name, **change))
    (node,) = (node for node in mixed.kept if node.name == name)
    assert node.reason == reason
    assert node.measured in change.values()
    assert types_of(mixed.model)[name] == TensorProto.FLOAT
    again = {"max_abs": SAFE_MAX * 0.99, "rms": SMALLEST_NORMAL * 2, "added": HALF_MAX * 0.99}
    allowed = with_range(case.ranges, name, **{key: again[key] for key in change})
    assert name not in {node.name for node in to_mixed_precision(case.full, allowed).kept}


def test_whoever_reads_a_value_out_of_range_is_kept_too(cases: Callable[[str], Case]) -> None:
    case = cases("test_convnext")
    name = "stages.1.blocks.0.mlp.fc1/MatMul"
    readers = [node.name for node in case.full.graph.node if name in node.input]
    mixed = to_mixed_precision(case.full, with_range(case.ranges, name, max_abs=1e6))
    why = {node.name: node.reason for node in mixed.kept}
    assert readers
    for reader in readers:
        assert why[reader] == "input beyond the safe range of FP16"


def test_a_layer_scale_below_fp16_is_kept() -> None:
    def untrained(encoder: Encoder) -> None:
        for name, parameter in encoder.body.named_parameters():
            if "gamma" in name:
                parameter.fill_(1e-6)  # As a new ConvNeXt has it: 17 steps of 2**-24.

    case = Case("test_convnext", untrained)
    scales = [node for node in case.mixed.kept if "gamma" in node.reason]
    assert len(scales) == sum("gamma" in n for n, _ in case.encoder.body.named_parameters())
    for node in scales:
        assert "loses precision in FP16" in node.reason
        assert node.measured is not None
        assert node.measured > 2.0**-10
    assert case.half_cosines(case.mixed).min() >= 0.9995


def test_nodes_are_kept_on_request_and_unknown_ones_refused(cases: Callable[[str], Case]) -> None:
    case = cases("test_resnet")
    name = next(node.name for node in case.full.graph.node if node.op_type == "Conv")
    mixed = to_mixed_precision(case.full, case.ranges, keep=[name])
    assert (name, "asked for") in {(node.name, node.reason) for node in mixed.kept}
    with pytest.raises(InputError, match="there is no node 'stem/Convolution' to keep"):
        to_mixed_precision(case.full, case.ranges, keep=["stem/Convolution"])


def test_ranges_of_another_model_are_refused(cases: Callable[[str], Case]) -> None:
    with pytest.raises(GateError, match="was not measured; measure the ranges of this very model"):
        to_mixed_precision(cases("test_convnext").full, cases("test_resnet").ranges)


# --- an encoder that overflows -------------------------------------------------------------------

_OVERFLOWING = "body.stages.1.blocks.0.mlp"


def overflow(encoder: Encoder) -> None:
    """Scale a layer up and what follows it down: the same network, but for FP16."""
    mlp = encoder.get_submodule(_OVERFLOWING)
    first, second = mlp.get_submodule("fc1"), mlp.get_submodule("fc2")
    assert isinstance(first, torch.nn.Linear)
    assert isinstance(second, torch.nn.Linear)
    mlp.act = torch.nn.ReLU()  # Scaling passes it unchanged, as it does not pass Gelu.
    for parameter in first.parameters():
        parameter.mul_(2.0**16)
    second.weight.mul_(2.0**-16)


@pytest.fixture(scope="module")
def overflowing() -> Case:
    return Case("test_convnext", overflow)


def test_plain_fp16_of_an_encoder_that_overflows_fails(overflowing: Case) -> None:
    peak = max(value.max_abs for value in overflowing.ranges.values.values())
    assert peak > HALF_MAX
    unmeasured = to_mixed_precision(overflowing.full, None)
    # NaN, as infinity minus infinity is: no comparison with a limit lets it through.
    assert not overflowing.half_cosines(unmeasured).min() >= 0.9995
    assert np.isnan(overflowing.half_cosines(unmeasured)).any()


def test_measured_mixed_precision_of_it_passes_and_names_the_layer(overflowing: Case) -> None:
    assert overflowing.half_cosines(overflowing.mixed).min() >= 0.9995
    where = _OVERFLOWING.removeprefix("body.")
    named = [
        node
        for node in overflowing.mixed.kept
        if node.name.startswith(where) and "beyond" in node.reason
    ]
    assert f"{where}.fc1/MatMul" in {node.name for node in named}
    assert all(node.measured is not None and node.measured > SAFE_MAX for node in named)
    others = [
        n for n in overflowing.mixed.kept if n.op == "MatMul" and not n.name.startswith(where)
    ]
    assert not others
