from pathlib import Path

import pytest

from tests.tensorrt_interface.fit import findings, users_of_gpu_libraries
from tests.tensorrt_interface.recording import VERSIONS, record_path

RUNTIME = Path(__file__).parents[2] / "edge_runtime"

FITTING = """
import numpy as np
import pycuda.driver as cuda
import tensorrt as trt


class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
    def __init__(self) -> None:
        trt.IProgressMonitor.__init__(self)

    def step_complete(self, phase_name: str, step: int) -> bool:
        return True


def build(logger: trt.ILogger, onnx: bytes) -> bytes:
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(onnx):
        return parser.get_error(0).desc().encode()
    config = builder.create_builder_config()
    config.progress_monitor = Monitor()
    config.set_memory_pool_limit(pool=trt.MemoryPoolType.WORKSPACE, pool_size=1 << 30)
    profile = builder.create_optimization_profile()
    profile.set_shape("images", (1, 8, 8, 3), (1, 8, 8, 3), (4, 8, 8, 3))
    config.add_optimization_profile(profile)
    return bytes(builder.build_serialized_network(network, config))


def run(context: trt.IExecutionContext, images: np.ndarray) -> int:
    stream = cuda.Stream()
    memory = cuda.mem_alloc(images.nbytes)
    cuda.memcpy_htod_async(memory, images, stream=stream)
    context.set_input_shape("images", images.shape)
    return sum(context.get_tensor_shape("embeddings"))
"""

HEAD = """
from typing import Any
import pycuda.driver as cuda
import tensorrt as trt


def planted(builder: trt.Builder, config: trt.IBuilderConfig, context: trt.IExecutionContext,
            engine: trt.ICudaEngine, logger: trt.ILogger, anything: Any) -> None:
    """

OF_TENSORRT_8_OR_10 = [
    ("config.set_flag(trt.BuilderFlag.FP16)", '"FP16"'),
    ("print(builder.platform_has_fast_fp16)", '"platform_has_fast_fp16"'),
    ("builder.create_network(int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH))", "EXPLICIT"),
    ("print(trt.IInt8EntropyCalibrator2)", '"IInt8EntropyCalibrator2"'),
    ("print(engine.device_memory_size)", '"device_memory_size"'),
]
IN_NO_VERSION = [
    ("builder.max_batch_size = 4", '"max_batch_size"'),
    ("config.max_workspace_size = 1 << 30", '"max_workspace_size"'),
    ("builder.build_cuda_engine(None)", '"build_cuda_engine"'),
    ("context.execute_async_v2([], 0)", '"execute_async_v2"'),
    ("print(engine.num_bindings)", '"num_bindings"'),
    (
        "config.set_memory_pool_limit(pool=trt.MemoryPoolType.WORKSPACE, size=1)",
        'Unexpected keyword argument "size"',
    ),
    ("config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE)", "Missing positional argument"),
    ('config.set_memory_pool_limit("WORKSPACE", 1)', "incompatible type"),
    ("engine.num_layers = 3", "read-only"),
    ("with trt.Builder(logger): pass", '"__enter__"'),
    ("cuda.memcpy_htod_async(1, source=b'')", 'Unexpected keyword argument "source"'),
    ("cuda.Context.set_current()", '"set_current"'),
    ("import pycuda.autoinit", "pycuda.autoinit"),
    ("builder.max_batch_size = 4  # type: ignore[attr-defined]", '"max_batch_size"'),
    ("anything.set_flag(3)", "the type of `anything` is not known, so .set_flag is unchecked"),
    (
        'import importlib; print(importlib.import_module("tensorrt").Builder(logger))',
        ".Builder is unchecked",
    ),
]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all, because mypy is quicker the second time."""
    return tmp_path_factory.mktemp("work")


def test_some_of_the_runtime_uses_tensorrt_and_pycuda() -> None:
    names = {path.name for path in users_of_gpu_libraries(RUNTIME)}
    assert {"trt_builder.py", "trt_runner.py"} <= names


@pytest.mark.parametrize("version", VERSIONS)
def test_all_that_the_runtime_touches_of_tensorrt_exists(version: str, work: Path) -> None:
    found = findings(RUNTIME, record_path(version), work)
    assert not found, "\n".join(map(str, found))


@pytest.mark.parametrize("version", VERSIONS)
def test_code_that_fits_is_left_alone(version: str, work: Path, tmp_path: Path) -> None:
    package = tmp_path / "fitting"
    package.mkdir()
    (package / "engine.py").write_text(FITTING)
    assert findings(package, record_path(version), work) == []


@pytest.mark.parametrize("version", VERSIONS)
def test_each_planted_mistake_is_found(version: str, work: Path, tmp_path: Path) -> None:
    planted = [*IN_NO_VERSION, *(OF_TENSORRT_8_OR_10 if version.startswith("11.") else [])]
    package = tmp_path / f"planted{len(planted)}"
    package.mkdir()
    for number, (line, _) in enumerate(planted):
        (package / f"plant{number}.py").write_text(HEAD + line + "\n")
    found = findings(package, record_path(version), work)
    for number, (line, expected) in enumerate(planted):
        of_this = [f.what for f in found if f.file.endswith(f"/plant{number}.py")]
        assert any(expected in what for what in of_this), f"{line}: {of_this}"


def test_what_only_11_lacks_is_no_finding_for_10(work: Path, tmp_path: Path) -> None:
    package = tmp_path / "older"
    package.mkdir()
    for number, (line, _) in enumerate(OF_TENSORRT_8_OR_10):
        (package / f"plant{number}.py").write_text(HEAD + line + "\n")
    assert findings(package, record_path("10.3.0"), work) == []
