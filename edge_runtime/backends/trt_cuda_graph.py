"""Record what a stream is given once, and launch it again as one CUDA graph.

A ConvNeXt is some hundred kernels; launching them one by one takes a large GPU longer than running
them. pycuda (2026.1) has no graphs, so the four calls of the driver are made here (CUDA Driver API,
"Graph Management" and "Stream Management"). Not run on a GPU yet.
"""

import ctypes
from collections.abc import Callable

from edge_runtime.cuda_device import CudaLibrary, cuda_driver_library
from edge_runtime.errors import BackendError

# CUstreamCaptureMode: other threads may allocate meanwhile.
_THREAD_LOCAL = 1


class CudaGraph:
    """A recorded piece of work. Its context must be current in every call, `close` included."""

    def __init__(self, stream_handle: int, work: Callable[[], bool]) -> None:
        """Record what `work` gives to the stream; nothing of it runs.

        Args:
            stream_handle: a stream other than the default one.
            work: returns False if it could not give all of it.

        Raises:
            BackendError: the driver cannot record it; the stream can be used as before.
        """
        driver = cuda_driver_library()
        if driver is None:
            msg = "no CUDA driver was found; see skyfix doctor"
            raise BackendError(msg)
        self._driver: CudaLibrary = driver
        self._stream = ctypes.c_void_p(stream_handle)
        self._executable = ctypes.c_void_p(None)
        graph = ctypes.c_void_p(None)
        self._call("cuStreamBeginCapture_v2", self._stream, _THREAD_LOCAL)
        given = False
        try:
            given = work()
        finally:
            status = driver.cuStreamEndCapture(self._stream, ctypes.byref(graph))
        try:
            if status != 0 or not given:
                msg = f"work on the GPU cannot be recorded as a CUDA graph (error {status})"
                raise BackendError(f"{msg}; it runs without one")
            self._call(
                "cuGraphInstantiateWithFlags",
                ctypes.byref(self._executable),
                graph,
                ctypes.c_ulonglong(0),
            )
        finally:
            if graph.value:
                driver.cuGraphDestroy(graph)

    def launch(self) -> None:
        """Give the recorded work to the stream.

        Raises:
            BackendError: the driver refuses.
        """
        self._call("cuGraphLaunch", self._executable, self._stream)

    def close(self) -> None:
        """Free it. Calling it twice is harmless."""
        if self._executable.value:
            self._driver.cuGraphExecDestroy(self._executable)
            self._executable = ctypes.c_void_p(None)

    def _call(self, function: str, *arguments: object) -> None:
        status = getattr(self._driver, function)(*arguments)
        if status != 0:
            msg = f"the CUDA driver answers {function} with error {status}; restart skyfix"
            raise BackendError(msg)
