"""A stand-in for TensorRT: a plan is an ONNX file with a head, and ONNX Runtime runs it.

Only what TensorRT itself has is here, under the names of its arguments. That the runtime uses
nothing that the published bindings lack is checked in tests/tensorrt_interface.
"""

import enum
import json
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
from onnxruntime import InferenceSession, SessionOptions

if TYPE_CHECKING:
    from tests.edge_runtime.engines.stand_in_cuda import Gpu

_MAGIC = b"stand-in plan\0"


class _Named(enum.Enum):
    def __int__(self) -> int:
        return int(self.value)


def _enumeration(name: str, members: str) -> Any:
    functional: Any = _Named
    return functional(name, members, start=0)


class HostMemory:
    """What TensorRT gives: a buffer."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __bytes__(self) -> bytes:
        return self._data


def _session(onnx: bytes) -> Any:
    options = SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return InferenceSession(onnx, options, providers=["CPUExecutionProvider"])


def _plan(head: dict[str, Any], onnx: bytes) -> bytes:
    text = json.dumps(head).encode()
    return _MAGIC + len(text).to_bytes(4, "big") + text + onnx


def _opened(plan: bytes) -> tuple[dict[str, Any], bytes]:
    if not plan.startswith(_MAGIC):
        raise ValueError("not a plan")
    start = len(_MAGIC) + 4
    length = int.from_bytes(plan[len(_MAGIC) : start], "big")
    head: dict[str, Any] = json.loads(plan[start : start + length])
    return head, plan[start + length :]


def make_tensorrt(gpu: "Gpu") -> ModuleType:
    """`tensorrt`, of the version that `gpu` says."""
    version = tuple(int(part) for part in gpu.tensorrt_version.split("."))
    trt = ModuleType("tensorrt")
    trt.__dict__["__version__"] = gpu.tensorrt_version
    strongly = "STRONGLY_TYPED" if version >= (11,) else "EXPLICIT_BATCH STRONGLY_TYPED"
    flags = "REFIT TF32 VERSION_COMPATIBLE" + ("" if version >= (11,) else " FP16 INT8")
    serialization = "EXCLUDE_WEIGHTS" + (" INCLUDE_REFIT" if version >= (10, 14) else "")
    for name, members in {
        "NetworkDefinitionCreationFlag": strongly,
        "BuilderFlag": flags,
        "SerializationFlag": serialization,
        "MemoryPoolType": "WORKSPACE TACTIC_DRAM",
        "HardwareCompatibilityLevel": "NONE AMPERE_PLUS",
        "DataType": "FLOAT HALF UINT8",
        "TensorIOMode": "NONE INPUT OUTPUT",
        "ExecutionContextAllocationStrategy": "STATIC ON_PROFILE_CHANGE USER_MANAGED",
        "ErrorCode": "SUCCESS UNSUPPORTED_NODE",
    }.items():
        trt.__dict__[name] = _enumeration(name, members)
    kinds = {"tensor(uint8)": trt.DataType.UINT8, "tensor(float)": trt.DataType.FLOAT}

    class ILogger:
        Severity = _enumeration("Severity", "INTERNAL_ERROR ERROR WARNING INFO VERBOSE")

        def __init__(self) -> None:
            self.started = True

        def log(self, severity: Any, msg: str) -> None:
            raise NotImplementedError

    class IProgressMonitor:
        def __init__(self) -> None:
            self.started = True

    def started(logger: Any) -> Any:
        assert gpu.count > 0, "TensorRT without a GPU crashes the process"
        assert logger.started, "the logger's base was not initialised"
        return logger

    class Network:
        def __init__(self, flags: int) -> None:
            typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
            self._strongly_typed = flags == typed
            self._onnx = b""
            self._tensors: list[list[Any]] = [[], []]

        num_inputs = property(lambda self: len(self._tensors[0]))
        num_outputs = property(lambda self: len(self._tensors[1]))

        def get_input(self, index: int) -> Any:
            return self._tensors[0][index]

        def get_output(self, index: int) -> Any:
            return self._tensors[1][index]

    class ParserError:
        def __init__(self, text: str) -> None:
            self._text = text

        def desc(self) -> str:
            return self._text

        def code(self) -> Any:
            return trt.ErrorCode.UNSUPPORTED_NODE

        def node(self) -> int:
            return 3

        def node_name(self) -> str:
            return "/body/Weird"

        def node_operator(self) -> str:
            return "Weird"

    class OnnxParser:
        def __init__(self, network: Network, logger: ILogger) -> None:
            self._network, self._errors = network, [ParserError(t) for t in gpu.parser_errors]

        num_errors = property(lambda self: len(self._errors))

        def get_error(self, index: int) -> ParserError:
            return self._errors[index]

        def parse_from_file(self, model: str) -> bool:
            assert isinstance(model, str)
            onnx = Path(model).read_bytes()
            if self._errors:
                return False
            try:
                session = _session(onnx)
            except Exception as error:  # noqa: BLE001 - the parser says what it does not take.
                self._errors.append(ParserError(str(error)))
                return False
            self._network._onnx = onnx
            for ends, tensors in zip(
                (session.get_inputs(), session.get_outputs()), self._network._tensors, strict=True
            ):
                for end in ends:
                    shape = tuple(n if isinstance(n, int) else -1 for n in end.shape)
                    tensors.append(
                        SimpleNamespace(name=end.name, dtype=kinds[end.type], shape=shape)
                    )
            return True

    class Profile:
        def __init__(self) -> None:
            self._batches: list[int] = []

        def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:
            assert input == "images"
            self._batches = [min[0], opt[0], max[0]]

    class TimingCache:
        def __init__(self, data: bytes) -> None:
            self._data = data

        def serialize(self) -> HostMemory:
            return HostMemory(self._data)

    class Config:
        __slots__ = (
            "_cache",
            "_flags",
            "_profiles",
            "_workspace",
            "builder_optimization_level",
            "hardware_compatibility_level",
            "progress_monitor",
        )

        def __init__(self) -> None:
            self._flags = {trt.BuilderFlag.TF32}
            self._profiles: list[list[int]] = []
            self._workspace, self._cache = 0, TimingCache(b"")
            self.hardware_compatibility_level = trt.HardwareCompatibilityLevel.NONE
            self.builder_optimization_level = 3
            self.progress_monitor: Any = None

        def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
            assert pool == trt.MemoryPoolType.WORKSPACE
            self._workspace = pool_size

        def set_flag(self, flag: Any) -> None:
            self._flags.add(flag)

        def clear_flag(self, flag: Any) -> None:
            self._flags.discard(flag)

        def add_optimization_profile(self, profile: Profile) -> int:
            self._profiles.append(profile._batches)
            return len(self._profiles) - 1

        def create_timing_cache(self, serialized_timing_cache: bytes) -> TimingCache:
            return TimingCache(serialized_timing_cache)

        def set_timing_cache(self, cache: TimingCache, ignore_mismatch: bool) -> bool:
            if cache._data and not cache._data.startswith(gpu.name.encode()):
                return False
            self._cache = cache
            return True

        def get_timing_cache(self) -> Any:
            return self._cache

    class Builder:
        def __init__(self, logger: ILogger) -> None:
            self._logger = started(logger)

        def create_network(self, flags: int = 0) -> Network:
            return Network(flags)

        def create_builder_config(self) -> Config:
            return Config()

        def create_optimization_profile(self) -> Profile:
            return Profile()

        def build_serialized_network(self, network: Network, config: Config) -> Any:
            gpu.builds += 1
            gpu.configs.append(config)
            monitor = config.progress_monitor
            monitor.phase_start("Building Engine", None, 4)
            go_on = monitor.step_complete("Building Engine", 0)
            gpu.building.set()
            given_up_s = time.monotonic() + 10
            while gpu.build == "until cancelled" and go_on and time.monotonic() < given_up_s:
                go_on = monitor.step_complete("Building Engine", 1)
            monitor.phase_finish("Building Engine")
            for line in gpu.build_log:
                self._logger.log(ILogger.Severity.WARNING, line)
            if gpu.build == "raises":
                raise RuntimeError("a kernel did not compile")
            if gpu.build == "out of memory":
                self._logger.log(
                    ILogger.Severity.ERROR, "[defaultAllocator.cpp] Cuda Runtime (out of memory)"
                )
            if gpu.build != "ok" or not go_on:
                return None
            onnx = network._onnx
            head = {
                "tensorrt": gpu.tensorrt_version,
                "gpu": gpu.name,
                "refittable": trt.BuilderFlag.REFIT in config._flags,
                "compatible": trt.BuilderFlag.VERSION_COMPATIBLE in config._flags,
                "profiles": config._profiles,
                "strongly_typed": network._strongly_typed,
            }
            config._cache._data = f"{gpu.name} {gpu.builds}".encode()
            return HostMemory(_plan(head, gpu.other_weights(onnx) if gpu.other_weights else onnx))

    class ExecutionContext:
        _shape: Any = None

        def __init__(self, engine: "Engine") -> None:
            self._engine, self._profile = engine, -1
            self._addresses: dict[str, int] = {}

        def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
            self._profile = profile_index
            self._shape = None
            return True

        def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
            low, _, high = self._engine._head["profiles"][self._profile]
            if name != "images" or not low <= shape[0] <= high:
                return False
            self._shape = shape
            return True

        def set_tensor_address(self, name: str, memory: int) -> bool:
            self._addresses[name] = memory
            return memory in gpu.memory

        def execute_async_v3(self, stream_handle: int) -> bool:
            gpu.require_context()
            if self._shape is None:
                return False
            shape, addresses = self._shape, dict(self._addresses)
            gpu.plain_runs += stream_handle not in gpu.capturing

            def work() -> None:
                size = int(np.prod(shape))
                data = bytes(gpu.memory[addresses["images"]][:size])
                images = np.frombuffer(data, np.uint8).reshape(shape)
                (found,) = self._engine._session.run(["embeddings"], {"images": images})
                if gpu.wrong_from is not None and shape[0] >= gpu.wrong_from:
                    found = found[:, ::-1]
                gpu.memory[addresses["embeddings"]][: found.nbytes] = found.tobytes()
                gpu.now_ms += gpu.compute_ms

            gpu.given(stream_handle, work)
            return True

    class SerializationConfig:
        def __init__(self) -> None:
            self._flags: set[Any] = set()

        def set_flag(self, flag: Any) -> bool:
            self._flags.add(flag)
            return True

    class Engine:
        def __init__(self, head: dict[str, Any], onnx: bytes) -> None:
            self._head, self._onnx, self._session = head, onnx, _session(onnx)
            self._refitted = False

        num_io_tensors = property(lambda self: 2)
        num_optimization_profiles = property(lambda self: len(self._head["profiles"]))
        refittable = property(lambda self: self._head["refittable"])

        def get_tensor_name(self, index: int) -> str:
            ends = (*self._session.get_inputs(), *self._session.get_outputs())
            return str(ends[index].name)

        def _end(self, name: str) -> Any:
            ends = (*self._session.get_inputs(), *self._session.get_outputs())
            return next(end for end in ends if end.name == name)

        def get_tensor_mode(self, name: str) -> Any:
            is_input = name == self._session.get_inputs()[0].name
            return trt.TensorIOMode.INPUT if is_input else trt.TensorIOMode.OUTPUT

        def get_tensor_dtype(self, name: str) -> Any:
            return kinds[self._end(name).type]

        def get_tensor_shape(self, name: str) -> list[int]:
            return [n if isinstance(n, int) else -1 for n in self._end(name).shape]

        def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[list[int]]:
            rest = self.get_tensor_shape(name)[1:]
            return [[batch, *rest] for batch in self._head["profiles"][profile_index]]

        def create_execution_context(self, strategy: Any) -> ExecutionContext:
            return ExecutionContext(self)

        def create_serialization_config(self) -> SerializationConfig:
            return SerializationConfig()

        def serialize_with_config(self, arg0: SerializationConfig) -> HostMemory:
            keeps = any(flag.name == "INCLUDE_REFIT" for flag in arg0._flags)
            kept = self._head["refittable"] and (keeps or not self._refitted)
            return HostMemory(_plan(self._head | {"refittable": kept}, self._onnx))

    class Runtime:
        def __init__(self, logger: ILogger) -> None:
            gpu.require_context()
            self._logger, self.engine_host_code_allowed = started(logger), False

        def deserialize_cuda_engine(self, serialized_engine: bytes) -> Engine | None:
            try:
                head, onnx = _opened(serialized_engine)
                engine = Engine(head, onnx)
            except Exception as error:  # noqa: BLE001 - TensorRT says it in its log.
                self._logger.log(ILogger.Severity.ERROR, f"Serialization ({error})")
                return None
            if head["tensorrt"] != gpu.tensorrt_version and not self.engine_host_code_allowed:
                self._logger.log(ILogger.Severity.ERROR, "Serialization (Version tag mismatch)")
                return None
            return engine

    class Refitter:
        def __init__(self, engine: Engine, logger: ILogger) -> None:
            assert engine.refittable
            self._engine, self._new = engine, b""

        def get_missing_weights(self) -> list[str]:
            return gpu.missing_weights

        def refit_cuda_engine(self) -> bool:
            self._engine._onnx, self._engine._session = self._new, _session(self._new)
            self._engine._refitted = True
            return True

    class OnnxParserRefitter:
        def __init__(self, refitter: Refitter, logger: ILogger) -> None:
            self._refitter, self._errors = refitter, [ParserError(t) for t in gpu.parser_errors]

        num_errors = property(lambda self: len(self._errors))

        def get_error(self, index: int) -> ParserError:
            return self._errors[index]

        def refit_from_file(self, model: str) -> bool:
            self._refitter._new = Path(model).read_bytes()
            return not self._errors

    for cls in (ILogger, IProgressMonitor, OnnxParser, Builder, Runtime, Refitter):
        trt.__dict__[cls.__name__] = cls
    trt.__dict__.update(
        OnnxParserRefitter=OnnxParserRefitter,
        INetworkDefinition=Network,
        IBuilderConfig=Config,
        ICudaEngine=Engine,
        IExecutionContext=ExecutionContext,
        ParserError=ParserError,
    )
    return trt
