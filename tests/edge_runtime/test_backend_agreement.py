"""Every backend that runs on this machine, in every precision, against the same probes and limits.

What this machine lacks is skipped with the backend's own reason. Where TensorRT works, engines of
the tiny encoder are built first.
"""

import resource
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edge_runtime.artefact import writing_artefact
from edge_runtime.backends.protocol import (
    BACKENDS,
    Backend,
    BackendName,
    check_probes,
    open_backend,
)
from edge_runtime.bundle import PROBES, Bundle
from edge_runtime.cuda_device import cuda_device_count
from edge_runtime.errors import BackendError, GateError, InputError
from edge_runtime.gates import GATE_LIMITS, gate_encoder
from edge_runtime.precision import PRECISIONS, Precision

pytest.importorskip("onnxruntime")

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]
Open = Callable[[], Backend]

NAMES: tuple[BackendName, ...] = ("ort-cpu", "openvino", "ort-cuda", "tensorrt", "ort-tensorrt")
SAME_IMAGE = {"fp32": 1e-5, "fp16": 2e-3, "int8": 2e-2}
"""How far an embedding may move with the batch it is in: another order of summation."""


# --- the tiny encoder of conftest in fp16 and in int8, serialised by hand ----------------------


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _field(number: int, value: int | str | bytes) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _node(operator: str, inputs: Sequence[str], output: str, **integers: int) -> bytes:
    attributes = b"".join(
        _field(5, _field(1, name) + _field(3, value) + _field(20, 2))
        for name, value in integers.items()
    )
    names = b"".join(_field(1, name) for name in inputs)
    return names + _field(2, output) + _field(4, operator) + attributes


def _tensor(name: str, array: npt.NDArray[Any]) -> bytes:
    kind = {"float32": 1, "uint8": 2, "int8": 3, "int64": 7, "float16": 10}[array.dtype.name]
    dims = b"".join(_field(1, n) for n in array.shape)
    return dims + _field(2, kind) + _field(8, name) + _field(9, array.tobytes())


def _value(name: str, kind: int, shape: Sequence[int | str]) -> bytes:
    dims = b"".join(_field(1, _field(1 if isinstance(n, int) else 2, n)) for n in shape)
    return _field(1, name) + _field(2, _field(1, _field(1, kind) + _field(2, dims)))


def encoder_in(precision: Precision, weights: F32) -> bytes:
    """ModelProto bytes (onnx.proto3, opset 18): mean of 8x8 blocks, one matrix, unit length."""
    constants: dict[str, npt.NDArray[Any]] = {
        "blocks": np.array([0, 4, 8, 4, 8, 3], np.int64),
        "inside": np.array([2, 4], np.int64),
        "flat": np.array([0, 48], np.int64),
        "grey": np.array([127.5], np.float32),
        "last": np.array([1], np.int64),
    }
    match precision:
        case "fp32":
            constants["weights"] = weights
            body = [_node("MatMul", ["signed", "weights"], "raw")]
        case "fp16":
            constants["weights"] = weights.astype(np.float16)
            body = [
                _node("Cast", ["signed"], "half", to=10),
                _node("MatMul", ["half", "weights"], "product"),
                _node("Cast", ["product"], "raw", to=1),
            ]
        case "int8":
            scale = np.abs(weights).max() / 127
            constants |= {
                "weights": np.round(weights / scale).astype(np.int8),
                "weights_scale": np.array(scale, np.float32),
                "weights_zero": np.array(0, np.int8),
                "scale": np.array(1.0, np.float32),
                "zero": np.array(128, np.uint8),
            }
            body = [
                _node("QuantizeLinear", ["signed", "scale", "zero"], "signed_q"),
                _node("DequantizeLinear", ["signed_q", "scale", "zero"], "signed_d"),
                _node("DequantizeLinear", ["weights", "weights_scale", "weights_zero"], "w"),
                _node("MatMul", ["signed_d", "w"], "raw"),
            ]
    nodes = [
        _node("Cast", ["images"], "real", to=1),
        _node("Reshape", ["real", "blocks"], "split"),
        _node("ReduceMean", ["split", "inside"], "mean", keepdims=0),
        _node("Reshape", ["mean", "flat"], "row"),
        _node("Sub", ["row", "grey"], "signed"),
        *body,
        _node("ReduceL2", ["raw", "last"], "length", keepdims=1),
        _node("Div", ["raw", "length"], "embeddings"),
    ]
    graph = b"".join(_field(1, node) for node in nodes) + _field(2, "encoder")
    graph += b"".join(_field(5, _tensor(name, array)) for name, array in constants.items())
    graph += _field(11, _value("images", 2, ("batch", 32, 32, 3)))
    graph += _field(12, _value("embeddings", 1, ("batch", weights.shape[1])))
    opset = _field(1, "") + _field(2, 18)
    return _field(1, 8) + _field(2, "skyfix tests") + _field(7, graph) + _field(8, opset)


# --- one bundle with every precision, and what can open it --------------------------------------


def _write(root: Path, sound: Bundle, weights: F32) -> Bundle:
    """The sound bundle's manifest and probes with encoders of these weights."""
    meta = sound.manifest.meta | {
        "precisions": {
            precision: {"precision": precision, "target": "cpu"} for precision in PRECISIONS
        }
    }
    with writing_artefact(root, "bundle", meta) as folder:
        (folder / PROBES).write_bytes((sound.root / PROBES).read_bytes())
        for precision in PRECISIONS:
            onnx = encoder_in(precision, weights)
            (folder / f"encoder.{precision}.onnx").write_bytes(onnx)
    return Bundle.open(root)


@pytest.fixture(scope="module")
def weights() -> F32:
    """Those of conftest's encoder, from which the probes' reference comes."""
    return np.random.default_rng(7).normal(size=(48, 12)).astype(np.float32)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, bundle: Bundle, weights: F32) -> Bundle:
    return _write(tmp_path_factory.mktemp("whole") / "bundle", bundle, weights)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory, bundle: Bundle, weights: F32) -> Bundle:
    """Encoders that swap two colour channels: finite, unit length, and wrong."""
    swapped = weights.reshape(16, 3, 12)[:, ::-1].reshape(48, 12)
    return _write(tmp_path_factory.mktemp("planted") / "bundle", bundle, np.array(swapped))


def _require(name: BackendName, bundle: Bundle, precision: Precision) -> None:
    """Skip what this machine lacks; build the engines that a backend runs."""
    if name == "openvino":
        pytest.importorskip("openvino", reason="openvino is not installed", exc_type=ImportError)
    if name in ("ort-cpu", "openvino"):
        return
    if cuda_device_count() == 0:
        pytest.skip("no CUDA device")
    if name != "ort-cuda" and precision == "int8":
        pytest.skip("this int8 file is for a CPU")
    try:
        if name == "tensorrt":
            from edge_runtime.backends.trt_engines import build_engine
            from edge_runtime.engine_store import EngineOptions

            build_engine(bundle, EngineOptions(precision=precision))
        elif name == "ort-tensorrt":
            from edge_runtime.backends.trt_ort_cache import prepare_ort_tensorrt

            prepare_ort_tensorrt(bundle, precision=precision)
        else:
            from edge_runtime.backends.ort import is_usable

            if not is_usable("cuda"):
                pytest.skip("this ONNX Runtime has no CUDA")
    except BackendError as error:
        pytest.skip(str(error))


@pytest.fixture(params=PRECISIONS)
def precision(request: pytest.FixtureRequest) -> Precision:
    value: Precision = request.param
    return value


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> BackendName:
    value: BackendName = request.param
    return value


@pytest.fixture
def opened(name: BackendName, precision: Precision, whole: Bundle) -> Open:
    _require(name, whole, precision)
    return lambda: open_backend(whole, name, precision=precision, threads=1)


def test_every_backend_is_in_this_test() -> None:
    assert set(NAMES) == set(BACKENDS) - {"auto"}


def test_a_backend_passes_the_probes_in_batches_of_1_4_and_odd_sizes(
    opened: Open, whole: Bundle, name: BackendName, precision: Precision
) -> None:
    backend = opened()
    images, reference = whole.probes(precision)
    report = gate_encoder(backend.embed, images, reference, precision, batches=(1, 3, 4, 5))
    assert report.min_cosine >= GATE_LIMITS[precision].min_cosine
    assert (backend.info.name, backend.info.precision) == (name, precision)
    backend.close()


def test_an_image_gives_the_same_in_any_batch(opened: Open, precision: Precision) -> None:
    backend = opened()
    images = np.random.default_rng(2).integers(0, 256, (13, 32, 32, 3), np.uint8)
    alone = np.concatenate([backend.embed(image[None]) for image in images])
    for size in (1, 2, 4, 7, 13):
        found = backend.embed(images[:size])
        assert found.shape == (size, 12)
        assert found.dtype == np.float32
        assert np.abs(found - alone[:size]).max() < SAME_IMAGE[precision]
    assert backend.embed(images[:0]).shape == (0, 12)
    backend.close()


def test_answers_are_copies_and_the_images_are_left_alone(opened: Open, whole: Bundle) -> None:
    backend = opened()
    images, _ = whole.probes()
    given = images.copy()
    first = backend.embed(given)
    kept = first.copy()
    first_again = backend.embed(given[::-1])[::-1]
    assert np.array_equal(first, kept)
    assert np.array_equal(given, images)
    first[:] = 0
    assert np.abs(backend.embed(given) - kept).max() < 1e-3
    backend.close()
    assert np.abs(first_again - kept).max() < 1e-3  # They outlive the backend.


def test_two_backends_side_by_side_do_not_mix(
    opened: Open, whole: Bundle, precision: Precision
) -> None:
    one, other = opened(), opened()
    images, reference = whole.probes(precision)
    limit = GATE_LIMITS[precision].min_cosine
    for k in range(3):
        mine, others = one.embed(images[k : k + 1]), other.embed(images[k + 1 : k + 2])
        assert float((mine @ reference[k])[0]) >= limit
        assert float((others @ reference[k + 1])[0]) >= limit
    one.close()
    assert other.embed(images).shape == reference.shape
    other.close()


def test_memory_stays_flat_over_frames_and_batch_sizes(opened: Open) -> None:
    statm = Path("/proc/self/statm")
    if not statm.exists():
        pytest.skip("no /proc: nothing tells this process's memory")
    backend = opened()
    rng = np.random.default_rng(4)
    images = rng.integers(0, 256, (12, 32, 32, 3), np.uint8)

    def resident_mib_after(frames: int) -> float:
        for size in rng.integers(1, 13, frames):
            backend.embed(images[:size])
        return int(statm.read_text().split()[1]) * resource.getpagesize() / 2**20

    before = resident_mib_after(200)
    assert resident_mib_after(2000) - before < 2
    backend.close()


@pytest.mark.parametrize(
    "images",
    [
        pytest.param(np.zeros((1, 16, 16, 3), np.uint8), id="another size"),
        pytest.param(np.zeros((32, 32, 3), np.uint8), id="one image without a batch"),
        pytest.param(np.zeros((1, 32, 32, 3), np.float32), id="float"),
        pytest.param(np.zeros((1, 3, 32, 32), np.uint8), id="channels first"),
    ],
)
def test_wrong_images_are_refused(opened: Open, images: Any) -> None:
    backend = opened()
    with pytest.raises(InputError, match=r"expected uint8 of \(N, 32, 32, 3\)"):
        backend.embed(images)
    backend.close()


def test_a_closed_backend_refuses_to_work_and_can_be_closed_again(
    opened: Open, whole: Bundle
) -> None:
    backend = opened()
    backend.close()
    backend.close()
    with pytest.raises(BackendError, match="was closed; open another"):
        backend.embed(whole.probes()[0])


def test_a_planted_wrong_encoder_is_refused(
    planted: Bundle, name: BackendName, precision: Precision
) -> None:
    try:
        _require(name, planted, precision)
    except GateError:
        return  # An engine of it is refused when it is built.
    with pytest.raises(BackendError, match=r"lowest cosine to the trained .* expected >= 0\.9"):
        open_backend(planted, name, precision=precision, threads=1)


def test_what_auto_takes_is_right_too(whole: Bundle, precision: Precision) -> None:
    backend = open_backend(whole, precision=precision, threads=1)
    assert backend.info.precision == precision
    assert check_probes(whole, backend).min_cosine >= GATE_LIMITS[precision].min_cosine
    backend.close()
