"""A TensorRT plan on the GPU: pinned host buffers, one stream, memory allocated once.

The device's primary context is retained once a process and made current only inside calls, so other
users of CUDA in the process (ONNX Runtime, torch) keep working. Every optimisation profile has an
execution context of its own; the one for a single image never changes its shapes, so it also runs
as a CUDA graph. Not run on a GPU yet.
"""

import atexit
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import numpy as np
import numpy.typing as npt
import pycuda.driver as cuda
import tensorrt as trt

from edge_runtime.backends.trt_cuda_graph import CudaGraph
from edge_runtime.backends.trt_logger import TensorRtLog
from edge_runtime.engine_store import EngineRecord
from edge_runtime.errors import BackendError, EngineError, InputError

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]

_INPUT, _OUTPUT = "images", "embeddings"


@cache
def _primary_context() -> cuda.Context:
    """The device's primary context, retained until the process ends."""
    cuda.init()
    # Released while the interpreter is whole; memory that is still held keeps it alive for longer.
    atexit.register(_primary_context.cache_clear)
    return cuda.Device(0).retain_primary_context()


@contextmanager
def current_context() -> Iterator[None]:
    """Make the primary context current in this thread for a block.

    Raises:
        BackendError: CUDA refuses something in the block.
    """
    try:
        context = _primary_context()
        context.push()
        try:
            yield
        finally:
            cuda.Context.pop()
    except cuda.MemoryError as error:
        msg = f"the GPU is out of memory ({error}); close other programs, or build the engine with"
        raise BackendError(f"{msg} a smaller --max-batch") from error
    except cuda.Error as error:
        msg = f"CUDA failed ({' '.join(str(error).split())}); see skyfix doctor"
        raise BackendError(msg) from error


def deserialized(
    plan: bytes, record: EngineRecord, log: TensorRtLog
) -> tuple[trt.Runtime, trt.ICudaEngine]:
    """Load a plan whose sha256 was compared with its sidecar's. The context must be current.

    Raises:
        EngineError: TensorRT does not start here, or does not take the plan.
    """
    try:
        runtime = trt.Runtime(log)
    except TypeError as error:
        msg = f"TensorRT {trt.__version__} does not start here: {log.why()}. See skyfix doctor"
        raise EngineError(msg) from error
    if record.options.get("version_compatible", False):
        # Such a plan carries the runtime of its own version, which is code: the code that was
        # built, because the digest says so.
        runtime.engine_host_code_allowed = True
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        msg = (
            f"TensorRT {trt.__version__} cannot load {record.name}: {log.why()}. Build it again "
            "here with: skyfix engine build"
        )
        raise EngineError(msg)
    return runtime, engine


class TensorRtRunner:
    """Runs one plan. Not thread-safe; one per thread."""

    def __init__(self, plan: bytes, record: EngineRecord, *, cuda_graph: bool = True) -> None:
        """Deserialise a verified plan and allocate all that it needs.

        Args:
            plan: bytes whose sha256 was compared with the sidecar.
            record: the sidecar.
            cuda_graph: record one image's work as a graph; without, kernels are launched one by
                one.

        Raises:
            EngineError: TensorRT cannot deserialise it, or it is not what the sidecar says.
            BackendError: the GPU is out of memory or CUDA fails.
        """
        self.notes: list[str] = []
        self._log = TensorRtLog()
        self._name = record.name
        self._image = (record.height_px, record.width_px, 3)
        self._size = record.embedding_size
        self._max_batch = record.max_batch
        self._graph: CudaGraph | None = None
        with current_context():
            try:
                self._open(plan, record)
                if cuda_graph:
                    self._record_single_image()
                else:
                    self.notes.append("without a CUDA graph, as asked")
            except BaseException:
                self._free()
                raise

    def _open(self, plan: bytes, record: EngineRecord) -> None:
        self._runtime, self._engine = deserialized(plan, record, self._log)
        self._check(record)
        self.refittable = bool(self._engine.refittable)
        self._stream = cuda.Stream()
        batch = self._max_batch
        self._host_images: U8 = cuda.pagelocked_empty((batch, *self._image), np.uint8)
        self._host_embeddings: F32 = cuda.pagelocked_empty((batch, self._size), np.float32)
        self._device_images = cuda.mem_alloc(self._host_images.nbytes)
        self._device_embeddings = cuda.mem_alloc(self._host_embeddings.nbytes)
        self._contexts = [self._context(k) for k in range(len(record.profiles))]

    def _check(self, record: EngineRecord) -> None:
        """Refuse a plan that is not what its sidecar says."""
        engine = self._engine
        names = [engine.get_tensor_name(k) for k in range(engine.num_io_tensors)]
        found = [
            (
                name,
                str(engine.get_tensor_mode(name)).rpartition(".")[2],
                str(engine.get_tensor_dtype(name)).rpartition(".")[2],
                tuple(engine.get_tensor_shape(name)),
            )
            for name in sorted(names, reverse=True)
        ]
        expected = [
            (_INPUT, "INPUT", "UINT8", (-1, *self._image)),
            (_OUTPUT, "OUTPUT", "FLOAT", (-1, self._size)),
        ]
        if record.max_batch == 1:
            # With one batch size allowed TensorRT may have fixed it.
            found = [(*tensor[:3], (-1, *tensor[3][1:])) for tensor in found]
        profiles = [
            [next(iter(shape)) for shape in engine.get_tensor_profile_shape(_INPUT, k)]
            for k in range(engine.num_optimization_profiles)
            if _INPUT in names
        ]
        if found != expected or profiles != record.profiles:
            msg = (
                f"{record.name} has {found} and batches {profiles}; expected {expected} and "
                f"{record.profiles}. Build it again with: skyfix engine build"
            )
            raise EngineError(msg)

    def _context(self, profile: int) -> trt.IExecutionContext:
        """An execution context that stays on one profile, with memory for that profile alone."""
        context = self._engine.create_execution_context(
            trt.ExecutionContextAllocationStrategy.ON_PROFILE_CHANGE
        )
        if context is None or not context.set_optimization_profile_async(
            profile, self._stream.handle
        ):
            msg = (
                f"TensorRT cannot make room on the GPU for {self._name}: {self._log.why()}. Close "
                "other programs, or build it with a smaller --max-batch"
            )
            raise BackendError(msg)
        self._stream.synchronize()
        context.set_tensor_address(_INPUT, int(self._device_images))
        context.set_tensor_address(_OUTPUT, int(self._device_embeddings))
        return context

    def _record_single_image(self) -> None:
        """Record one image's work as a graph, and keep it only if it answers as without one."""
        ramp = (np.arange(self._host_images[0].size) % 251).astype(np.uint8).reshape(self._image)
        self._host_images[0] = ramp
        plain = self._run(1).copy()  # TensorRT wants one plain run before a capture.
        # The graph must not find its answer lying there already.
        self._host_images[0] = ramp[::-1]
        self._run(1)
        self._host_images[0] = ramp
        context, stream = self._contexts[0], self._stream
        try:
            self._graph = CudaGraph(
                stream.handle, lambda: bool(context.execute_async_v3(stream.handle))
            )
            again = self._run(1).copy()
        except BackendError as error:
            self._drop_graph(str(error))
            return
        if not np.allclose(plain, again, rtol=0, atol=1e-3):
            self._drop_graph("the CUDA graph answers otherwise than the engine; it is not used")

    def _drop_graph(self, why: str) -> None:
        if self._graph is not None:
            self._graph.close()
            self._graph = None
        self.notes.append(why)

    def embed(self, images: U8) -> F32:
        """Embed images in batches as large as the engine takes.

        Args:
            images: (N, H, W, 3) uint8, RGB.

        Returns:
            (N, D) float32. A fresh array: safe to keep.

        Raises:
            BackendError: TensorRT or CUDA fails.
        """
        embeddings = np.empty((len(images), self._size), np.float32)
        with current_context():
            for start in range(0, len(images), self._max_batch):
                part = images[start : start + self._max_batch]
                self._host_images[: len(part)] = part
                embeddings[start : start + len(part)] = self._run(len(part))
        return embeddings

    def _run(self, batch: int) -> F32:
        """Run what lies in the pinned input; the result is a view of the pinned output."""
        stream = self._stream
        host = self._host_embeddings[:batch]
        cuda.memcpy_htod_async(self._device_images, self._host_images[:batch], stream)
        self._launch(batch)
        cuda.memcpy_dtoh_async(host, self._device_embeddings, stream)
        stream.synchronize()
        return host

    def stages_ms(self, images: U8) -> tuple[float, float, float]:
        """Run one batch with the stream's own marks around its parts.

        Args:
            images: (N, H, W, 3) uint8, RGB; one batch. Filling the pinned input is in no part.

        Returns:
            Milliseconds by CUDA events: the copy in, the engine, the copy out.

        Raises:
            InputError: no images, or more than one batch.
            BackendError: TensorRT or CUDA fails.
        """
        batch = len(images)
        if not 1 <= batch <= self._max_batch:
            msg = f"{batch} images; expected 1 to {self._max_batch}, which {self._name} takes"
            raise InputError(msg)
        with current_context():
            stream = self._stream
            began, copied, computed, ended = (cuda.Event(0) for _ in range(4))
            self._host_images[:batch] = images
            began.record(stream)
            cuda.memcpy_htod_async(self._device_images, self._host_images[:batch], stream)
            copied.record(stream)
            self._launch(batch)
            computed.record(stream)
            host = self._host_embeddings[:batch]
            cuda.memcpy_dtoh_async(host, self._device_embeddings, stream)
            ended.record(stream)
            stream.synchronize()
            return (
                float(copied.time_since(began)),
                float(computed.time_since(copied)),
                float(ended.time_since(computed)),
            )

    def _launch(self, batch: int) -> None:
        """Give the engine's work on what lies on the GPU to the stream."""
        stream, context = self._stream, self._contexts[min(batch, len(self._contexts)) - 1]
        if batch == 1 and self._graph is not None:
            self._graph.launch()
        else:
            shaped = context.set_input_shape(_INPUT, (batch, *self._image))
            if not shaped or not context.execute_async_v3(stream.handle):
                stream.synchronize()
                msg = f"TensorRT cannot run {self._name} on {batch} images: {self._log.why()}"
                raise BackendError(f"{msg}. Build it again with: skyfix engine build")

    def close(self) -> None:
        """Free everything on the GPU. Calling it twice is harmless."""
        if "_runtime" in self.__dict__:
            with current_context():
                self._free()

    def _free(self) -> None:
        """Free in the order in which one thing needs the other. The context is current."""
        if self._graph is not None:
            self._graph.close()
            self._graph = None
        for name in (
            "_contexts",
            "_engine",
            "_runtime",
            "_device_images",
            "_device_embeddings",
            "_host_images",
            "_host_embeddings",
            "_stream",
        ):
            self.__dict__.pop(name, None)
