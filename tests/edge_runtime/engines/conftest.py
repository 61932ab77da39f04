"""A machine with a GPU, made up of the stand-ins beside this file."""

import importlib.util
import sys
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.edge_runtime.engines.stand_in_cuda import Gpu

pytest.importorskip("onnxruntime")

_RUNTIME = "edge_runtime.backends."
_BOUND_TO_TENSORRT = ("trt_builder", "trt_logger", "trt_refit", "trt_runner")


def beside(name: str) -> Any:
    """A module beside this file, wherever the tests were copied to."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CUDA, TENSORRT = beside("stand_in_cuda"), beside("stand_in_tensorrt")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> "Iterator[Gpu]":
    """A Jetson Orin with TensorRT 10.3, pycuda and a cache folder of its own."""
    machine: Gpu = CUDA.Gpu()
    driver = CUDA.Driver(machine)
    known = {"libcuda.so.1", "libcudart.so.12"}
    monkeypatch.setattr(
        "edge_runtime.cuda_device._library", lambda name: driver if name in known else None
    )
    module_version = tmp_path / "nvidia-version"
    module_version.write_text("NVRM version: NVIDIA UNIX Kernel Module  540.4.0  Release Build\n")
    monkeypatch.setattr("edge_runtime.cuda_device._KERNEL_MODULE", module_version)
    memory = tmp_path / "meminfo"
    memory.write_text("MemTotal: 8388608 kB\nMemFree: 99 kB\nMemAvailable: 4194304 kB\n")
    monkeypatch.setattr("edge_runtime.cuda_device._MEMORY_INFO", memory)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    install(machine, monkeypatch)
    yield machine
    assert machine.pushed == 0, "a context was left current"


def install(machine: "Gpu", monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the stand-in's modules where `import` finds them, in the version the machine says."""
    cuda = CUDA.make_pycuda(machine)
    pycuda = ModuleType("pycuda")
    pycuda.__dict__["driver"] = cuda
    for name, module in {
        "tensorrt": TENSORRT.make_tensorrt(machine),
        "pycuda": pycuda,
        "pycuda.driver": cuda,
    }.items():
        module.__spec__ = ModuleSpec(name, None)
        monkeypatch.setitem(sys.modules, name, module)
    for name in _BOUND_TO_TENSORRT:
        monkeypatch.delitem(sys.modules, _RUNTIME + name, raising=False)


@pytest.fixture
def upgrade(gpu: "Gpu", monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Install another TensorRT on the machine."""

    def to(version: str) -> None:
        gpu.tensorrt_version = version
        install(gpu, monkeypatch)

    return to


@pytest.fixture
def own_bundle(make_bundle: Callable[..., Path], tmp_path: Path) -> Path:
    """A bundle folder that a test may write engines into."""
    return make_bundle(tmp_path / "bundle")
