# ruff: noqa: N802 - functions have the names that the driver gives them.
"""A stand-in for an NVIDIA GPU, its driver and pycuda.

Only what the driver and pycuda themselves have is here, under the names of their arguments, so a
wrong name or keyword fails as it would there. Where the real thing would crash the process, this
one fails the test: CUDA without a context, memory after it was freed. Work given to a stream runs
when the stream is synchronised and not before.
"""

import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt


class Gpu:
    """The machine, and what is to go wrong on it."""

    def __init__(self) -> None:
        self.count = 1
        self.name = "Orin"
        self.compute = (8, 7)
        self.total_bytes = 8 << 30
        self.integrated = True
        self.cuda_driver = 12060
        self.tensorrt_version = "10.3.0"
        self.build: str = "ok"
        """Or: "none", "out of memory", "until cancelled", "raises"."""
        self.build_log: list[str] = []
        self.parser_errors: list[str] = []
        self.missing_weights: list[str] = []
        self.other_weights: Callable[[bytes], bytes] | None = None
        """Applied to the ONNX file while building: a builder that makes a wrong engine."""
        self.wrong_from: int | None = None
        """Kernels for so many images or more answer wrongly."""
        self.graphs = True
        self.graph_is_wrong = False
        self.out_of_memory = False
        # What happened.
        self.building = threading.Event()
        self.builds = 0
        self.configs: list[Any] = []
        self.memory: dict[int, bytearray] = {}
        self.streams: dict[int, list[Callable[[], None]]] = {}
        self.capturing: dict[int, list[Callable[[], None]]] = {}
        self.recorded: dict[int, list[Callable[[], None]]] = {}
        self.now_ms = 0.0
        """The GPU's own clock; work moves it on when it runs."""
        self.copy_in_ms, self.compute_ms, self.copy_out_ms = 0.25, 2.0, 0.125
        self.launches = 0
        self.plain_runs = 0
        self.pushed = 0

    def require_context(self) -> None:
        assert self.pushed > 0, "CUDA without a current context"

    def given(self, stream: int, work: Callable[[], None]) -> None:
        self.capturing.get(stream, self.streams[stream]).append(work)


# --- the driver ----------------------------------------------------------------------------------


def _put(reference: Any, value: Any) -> None:
    reference._obj.value = value


class Driver:
    """libcuda.so.1, libcudart and NVML as far as the runtime calls them: 0 is success."""

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu

    def cuInit(self, flags: int) -> int:
        return 0 if self._gpu.count else 100

    def cuDeviceGetCount(self, count: Any) -> int:
        _put(count, self._gpu.count)
        return 0

    def cuDeviceGet(self, device: Any, ordinal: int) -> int:
        _put(device, ordinal)
        return 0

    def cuDeviceGetName(self, name: Any, length: int, device: Any) -> int:
        name.value = self._gpu.name.encode()
        return 0

    def cuDeviceTotalMem_v2(self, total: Any, device: Any) -> int:
        _put(total, self._gpu.total_bytes)
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: Any) -> int:
        gpu = self._gpu
        _put(value, {75: gpu.compute[0], 76: gpu.compute[1], 18: int(gpu.integrated)}[attribute])
        return 0

    def cuDeviceGetPCIBusId(self, text: Any, length: int, device: Any) -> int:
        text.value = b"0000:01:00.0"
        return 0

    def cuDriverGetVersion(self, version: Any) -> int:
        _put(version, self._gpu.cuda_driver)
        return 0

    def cudaRuntimeGetVersion(self, version: Any) -> int:
        _put(version, self._gpu.cuda_driver)
        return 0

    def cuStreamBeginCapture_v2(self, stream: Any, mode: int) -> int:
        if not self._gpu.graphs:
            return 801  # CUDA_ERROR_NOT_SUPPORTED
        assert not self._gpu.streams[stream.value], "work of before is lost in a capture"
        self._gpu.capturing[stream.value] = []
        return 0

    def cuStreamEndCapture(self, stream: Any, graph: Any) -> int:
        number = 1000 + len(self._gpu.recorded)
        self._gpu.recorded[number] = self._gpu.capturing.pop(stream.value)
        _put(graph, number)
        return 0

    def cuGraphInstantiateWithFlags(self, executable: Any, graph: Any, flags: Any) -> int:
        number = 2000 + len(self._gpu.recorded)
        self._gpu.recorded[number] = list(self._gpu.recorded[graph.value])
        _put(executable, number)
        return 0

    def cuGraphDestroy(self, graph: Any) -> int:
        del self._gpu.recorded[graph.value]
        return 0

    def cuGraphExecDestroy(self, executable: Any) -> int:
        self._gpu.require_context()
        del self._gpu.recorded[executable.value]
        return 0

    def cuGraphLaunch(self, executable: Any, stream: Any) -> int:
        self._gpu.require_context()
        self._gpu.launches += 1
        if not self._gpu.graph_is_wrong:
            for work in self._gpu.recorded[executable.value]:
                self._gpu.given(stream.value, work)
        return 0


# --- pycuda --------------------------------------------------------------------------------------


def make_pycuda(gpu: Gpu) -> ModuleType:
    """`pycuda.driver`."""
    cuda = ModuleType("pycuda.driver")

    class Error(Exception):
        pass

    class CudaMemoryError(Error):
        pass

    class Context:
        def push(self) -> None:
            gpu.pushed += 1

        @staticmethod
        def pop() -> None:
            gpu.require_context()
            gpu.pushed -= 1

    class Device:
        def __init__(self, ordinal: int) -> None:
            assert gpu.count > ordinal

        def retain_primary_context(self) -> Context:
            return Context()

    class Stream:
        def __init__(self, flags: int = 0) -> None:
            gpu.require_context()
            self.handle = 7000 + len(gpu.streams)
            gpu.streams[self.handle] = []

        def synchronize(self) -> None:
            gpu.require_context()
            waiting, gpu.streams[self.handle] = gpu.streams[self.handle], []
            for work in waiting:
                work()

    class Event:
        def __init__(self, flags: int = 0) -> None:
            gpu.require_context()
            self._at_ms: float | None = None

        def record(self, stream: Stream | None = None) -> "Event":
            assert stream is not None, "an event of the default stream waits for all others"

            def mark() -> None:
                self._at_ms = gpu.now_ms

            gpu.given(stream.handle, mark)
            return self

        def time_since(self, event: "Event") -> float:
            gpu.require_context()
            assert self._at_ms is not None, "the event has not happened yet"
            assert event._at_ms is not None, "the event has not happened yet"
            return self._at_ms - event._at_ms

    class DeviceAllocation:
        def __init__(self, size: int) -> None:
            self._address = 1 << 20 | len(gpu.memory) << 8
            gpu.memory[self._address] = bytearray(size)

        def __int__(self) -> int:
            return self._address

        def __del__(self) -> None:
            gpu.memory.pop(self._address, None)

    def mem_alloc(bytes: int) -> DeviceAllocation:
        gpu.require_context()
        if gpu.out_of_memory:
            raise CudaMemoryError("cuMemAlloc failed: out of memory")
        return DeviceAllocation(bytes)

    def pagelocked_empty(
        shape: Any, dtype: Any, order: str = "C", mem_flags: int = 0
    ) -> npt.NDArray[Any]:
        gpu.require_context()
        return np.full(shape, 77, dtype, order)  # type: ignore[call-overload, no-any-return]

    def memcpy_htod_async(dest: Any, src: Any, stream: Any = None) -> None:
        assert src.flags.c_contiguous, "only contiguous memory can be copied"

        def copy() -> None:
            data = src.tobytes()
            gpu.memory[int(dest)][: len(data)] = data
            gpu.now_ms += gpu.copy_in_ms

        gpu.given(stream.handle, copy)

    def memcpy_dtoh_async(dest: Any, src: Any, stream: Any = None) -> None:
        assert dest.flags.c_contiguous, "only contiguous memory can be copied"

        def copy() -> None:
            data = bytes(gpu.memory[int(src)][: dest.nbytes])
            dest[...] = np.frombuffer(data, dest.dtype).reshape(dest.shape)
            gpu.now_ms += gpu.copy_out_ms

        gpu.given(stream.handle, copy)

    cuda.__dict__.update(
        init=lambda: None,
        Device=Device,
        Context=Context,
        Stream=Stream,
        Event=Event,
        Error=Error,
        MemoryError=CudaMemoryError,
        mem_alloc=mem_alloc,
        pagelocked_empty=pagelocked_empty,
        memcpy_htod_async=memcpy_htod_async,
        memcpy_dtoh_async=memcpy_dtoh_async,
    )
    return cuda
