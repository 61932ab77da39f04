"""How fast this machine's CPU can multiply and read, by the fastest libraries at hand.

Runs as a program of its own (`python -m export.cpu_probe`), because the number of
threads of a BLAS is settled when it is loaded, and because its arrays would count as the memory of
whoever asked.
"""

import argparse
import importlib.util
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Call = Callable[[], object]
Rates = dict[str, dict[str, float]]
"""1e9 a second, by what was measured (fp32, fp16, bf16, int8, memory, cache) and by contender."""

_SIDES, _SIDES_OF_MANY, _MANY = (512, 1024), (1024, 2048), 8
"""Of the matrices, and those from so many threads on. Small ones fit the caches, large ones hide
what starting threads costs."""
_TIMES_LAST_CACHE = 4
"""An array of the triad is so many times the last cache (STREAM's run rules, McCalpin 1995)."""
_LEAST_ARRAY = 64 << 20
_BLOCK = 1 << 15
"""Elements of the triad worked on at once: the product is added to while it is still in cache."""
_CACHE_PASSES = 16
_OPSET, _IR = 18, 9


def probe(threads: int, *, seconds: float = 0.3, root: Path = Path("/")) -> Rates:
    """Measure every contender; the best of several calls each.

    Args:
        threads: of the libraries. NumPy's BLAS takes its own from the environment.
        seconds: for each contender and matrix size.
        root: of the file system, where the cache's size is read.
    """
    rates: Rates = {"fp32": {}, "fp16": {}, "bf16": {}, "int8": {}, "memory": {}, "cache": {}}
    sides = _SIDES if threads < _MANY else _SIDES_OF_MANY
    for kind, name, calls in _products(threads, sides):
        for side, call in calls:
            rate = 2 * side**3 / _best_s(call, seconds) / 1e9
            rates[kind][name] = max(rate, rates[kind].get(name, 0.0))
    cache = last_cache_bytes(root)
    with ThreadPoolExecutor(threads) as pool:
        rates["memory"] = _memory(pool, threads, cache, seconds)
        small = np.ones(max(cache // 8, 1 << 16), np.float32)  # Half the cache.
        best = _best_s(lambda: _read(pool, threads, small, _CACHE_PASSES), seconds)
        rates["cache"]["read"] = _CACHE_PASSES * small.nbytes / best / 1e9
    return rates


def last_cache_bytes(root: Path = Path("/")) -> int:
    """Size of the CPU's largest cache; 32 MiB where the system does not say."""
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    sizes = [
        int(text[:-1]) * units[text[-1]]
        for path in root.glob("sys/devices/system/cpu/cpu0/cache/index*/size")
        if (text := path.read_text().strip()) and text[-1] in units
    ]
    return max(sizes, default=32 << 20)


def _products(
    threads: int, sides: tuple[int, ...]
) -> Iterator[tuple[str, str, list[tuple[int, Call]]]]:
    """(precision, library, calls by side) of every library that is installed."""
    rng = np.random.default_rng(0)
    factors = {side: rng.random((2, side, side), np.float32) for side in sides}
    yield "fp32", "numpy", [(side, _numpy(*pair)) for side, pair in factors.items()]
    if not all(map(importlib.util.find_spec, ("onnx", "onnxruntime"))):
        return
    for kind in ("fp32", "fp16", "int8"):
        yield kind, "onnxruntime", [(side, _ort(kind, side, threads)) for side in sides]
    openvino = _openvino()
    if openvino is not None:
        can = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        for kind in ("fp32", "int8", *(("bf16",) if "BF16" in can else ())):
            calls = [(side, _ov(openvino, kind, side, threads)) for side in sides]
            yield kind, "openvino", calls


def _numpy(one: F32, other: F32) -> Call:
    product = np.empty_like(one)
    return lambda: np.matmul(one, other, out=product)


def _graph(kind: str, side: int) -> bytes:
    """A product with a constant, as a layer has it; INT8 between quantisations, as encoders do."""
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    node = helper.make_node
    element = {"fp32": TensorProto.FLOAT, "fp16": TensorProto.FLOAT16, "int8": TensorProto.UINT8}
    if kind == "int8":
        constants: dict[str, npt.NDArray[Any]] = {
            "w": rng.integers(-64, 64, (side, side)).astype(np.int8),
            "s": np.array(0.01, np.float32),
            "z": np.array(128, np.uint8),
            "zw": np.array(0, np.int8),
        }
        nodes = [
            node("DequantizeLinear", ["x", "s", "z"], ["xf"]),
            node("DequantizeLinear", ["w", "s", "zw"], ["wf"]),
            node("MatMul", ["xf", "wf"], ["yf"]),
            node("QuantizeLinear", ["yf", "s", "z"], ["y"]),
        ]
    else:
        dtype = np.float16 if kind == "fp16" else np.float32
        constants = {"w": (rng.random((side, side), np.float32) / side).astype(dtype)}
        nodes = [node("MatMul", ["x", "w"], ["y"])]
    graph = helper.make_graph(
        nodes,
        "product",
        [helper.make_tensor_value_info("x", element[kind], [side, side])],
        [helper.make_tensor_value_info("y", element[kind], [side, side])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opset = [helper.make_opsetid("", _OPSET)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=_IR)
    data: bytes = model.SerializeToString()
    return data


def _factor(kind: str, side: int) -> npt.NDArray[Any]:
    dtype = {"fp32": np.float32, "fp16": np.float16, "int8": np.uint8}[kind]
    return np.random.default_rng(1).integers(0, 2, (side, side)).astype(dtype)


def _ort(kind: str, side: int, threads: int) -> Call:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        _graph(kind, side), options, providers=["CPUExecutionProvider"]
    )
    feed = {"x": _factor(kind, side)}
    return lambda: session.run(None, feed)


def _openvino() -> Any:
    """The library without its usage reports; None where it is not installed."""
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # Kept from loading.
    try:
        import openvino
    except (ImportError, OSError):
        return None
    return openvino


def _ov(openvino: Any, kind: str, side: int, threads: int) -> Call:
    core = openvino.Core()
    stored = "fp32" if kind == "bf16" else kind
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": "bf16" if kind == "bf16" else "f32",
        "INFERENCE_NUM_THREADS": threads,
    }
    compiled = core.compile_model(core.read_model(_graph(stored, side)), "CPU", settings)
    request = compiled.create_infer_request()
    feed = [_factor(stored, side)]
    return lambda: request.infer(feed, share_inputs=True, share_outputs=True)


def _memory(pool: ThreadPoolExecutor, threads: int, cache: int, seconds: float) -> dict[str, float]:
    """The triad a = b + s c, counted as STREAM does (24 bytes an element), and reading alone."""
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    size = min(max(_TIMES_LAST_CACHE * cache, _LEAST_ARRAY), available // 8)
    a, b, c = (np.ones(size // 8, np.float64) for _ in range(3))
    triad_s = _best_s(
        lambda: _each(pool, threads, len(a), lambda i, j: _triad(a, b, c, i, j)), seconds
    )
    flat = b.view(np.float32)
    read_s = _best_s(lambda: _read(pool, threads, flat, 1), seconds)
    return {"triad": 3 * a.nbytes / triad_s / 1e9, "read": flat.nbytes / read_s / 1e9}


def _triad(a: F64, b: F64, c: F64, start: int, stop: int) -> None:
    for i in range(start, stop, _BLOCK):
        block = slice(i, min(i + _BLOCK, stop))
        np.multiply(c[block], 3.0, out=a[block])
        np.add(a[block], b[block], out=a[block])


def _read(pool: ThreadPoolExecutor, threads: int, values: F32, passes: int) -> None:
    def work(start: int, stop: int) -> None:
        for _ in range(passes):
            values[start:stop].max()

    _each(pool, threads, len(values), work)


def _each(
    pool: ThreadPoolExecutor, threads: int, length: int, work: Callable[[int, int], None]
) -> None:
    ends = [length * k // threads for k in range(threads + 1)]
    for _ in pool.map(work, ends[:-1], ends[1:]):
        pass


def _best_s(call: Call, seconds: float) -> float:
    """Shortest of the calls that fit into so many seconds, three at least, after one that warms."""
    call()
    best, calls, end = math.inf, 0, time.perf_counter() + seconds
    while calls < 3 or time.perf_counter() < end:
        began = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - began)
        calls += 1
    return best


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m export.cpu_probe")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=0.3, help="for each contender and size")
    args = parser.parse_args()
    sys.stdout.write(json.dumps(probe(args.threads, seconds=args.seconds)) + "\n")
