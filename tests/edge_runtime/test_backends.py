import ast
import importlib.util
import itertools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import edge_runtime
from edge_runtime.backends.protocol import (
    BACKENDS,
    Backend,
    BackendInfo,
    check_probes,
    open_backend,
)
from edge_runtime.backends.speed import by_preference, frame_times_ms
from edge_runtime.bundle import Bundle
from edge_runtime.errors import BackendError, BundleError, SkyfixError

pytest.importorskip("onnxruntime")

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]
MakeBundle = Callable[..., Path]
MakeOnnx = Callable[..., bytes]


class Answers:
    """A backend that gives fixed answers, one probe after the other."""

    def __init__(self, answers: F32) -> None:
        self.info = BackendInfo(
            name="fake", provider="Fixed", precision="fp32", library="none", threads=None
        )
        self._answers = itertools.cycle(answers)

    def embed(self, images: U8) -> F32:
        return np.stack([next(self._answers) for _ in images])

    def close(self) -> None:
        pass


ON_A_CPU = ("auto", "ort-cpu", "openvino")
"""The others have tests of their own, against a stand-in for a GPU."""


def opened(bundle: Bundle, name: Any) -> Backend:
    return open_backend(bundle, name, threads=1)


def test_images_that_are_not_contiguous_are_embedded_alike(bundle: Bundle) -> None:
    backend = open_backend(bundle, "ort-cpu", threads=1)
    images, _ = bundle.probes()
    mirrored = images[:, :, ::-1]
    assert np.array_equal(backend.embed(mirrored), backend.embed(mirrored.copy()))
    backend.close()


def test_the_backend_says_what_really_runs(bundle: Bundle) -> None:
    backend = open_backend(bundle, "ort-cpu", threads=2)
    info = backend.info
    assert (info.name, info.provider) == ("ort-cpu", "CPUExecutionProvider")
    assert (info.precision, info.threads) == ("fp32", 2)
    assert info.library.startswith("onnxruntime ")
    backend.close()


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_runtime.backends.protocol.cuda_device_count", lambda: 0)
    monkeypatch.setattr("edge_runtime.backends.ort.cuda_device_count", lambda: 0)


@pytest.fixture
def gpu_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that counts a device on a machine whose libraries cannot use it."""
    monkeypatch.setattr("edge_runtime.backends.protocol.cuda_device_count", lambda: 1)
    monkeypatch.setattr("edge_runtime.backends.ort.cuda_device_count", lambda: 1)
    providers = ["CPUExecutionProvider"]
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: providers)


class Slow:
    """A backend of the CPU that needs as long as it is told on a clock of its own."""

    def __init__(self, name: str, answers: F32, closed: list[str]) -> None:
        self.info = BackendInfo(
            name=name, provider="Fixed", precision="fp32", library="none", threads=1
        )
        self._answers, self._closed = answers, closed

    def embed(self, images: U8) -> F32:
        return self._answers if len(images) > 1 else self._answers[:1]

    def close(self) -> None:
        self._closed.append(self.info.name)


@pytest.fixture
def cpu_race(
    monkeypatch: pytest.MonkeyPatch, bundle: Bundle, no_gpu: None
) -> Callable[..., tuple[BackendInfo, list[str]]]:
    """Opens `auto` where both CPU backends are there, with given times and probe failures."""
    from edge_runtime.backends import protocol, speed

    def race(
        wrong: tuple[str, ...] = (), missing: tuple[str, ...] = (), **times_ms: float
    ) -> tuple[BackendInfo, list[str]]:
        named = {name.replace("_", "-"): value for name, value in times_ms.items()}
        closed: list[str] = []

        def opened(_: Bundle, name: str, *__: object) -> Slow:
            if name in missing:
                msg = f"{name} does not load"
                raise BackendError(msg)
            return Slow(name, bundle.probes()[1], closed)

        def check(_: Bundle, backend: Backend) -> None:
            if backend.info.name in wrong:
                msg = f"{backend.info.name} answers wrongly"
                raise BackendError(msg)

        monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())
        monkeypatch.setattr(protocol, "_opened", opened)
        monkeypatch.setattr(protocol, "check_probes", check)
        monkeypatch.setattr(speed, "frame_times_ms", lambda *_: named)
        backend = open_backend(bundle)
        return backend.info, closed

    return race


CpuRace = Callable[..., tuple[BackendInfo, list[str]]]
NO_GPU = "tensorrt and ort-cuda were not taken: no CUDA device was found"


def test_auto_takes_the_faster_one_says_what_it_measured_and_closes_the_other(
    cpu_race: CpuRace,
) -> None:
    info, closed = cpu_race(ort_cpu=4.0, openvino=3.1)
    assert (info.name, info.fallback) == ("openvino", "")
    assert info.notes == (NO_GPU, "openvino 3.10 ms, ort-cpu 4.00 ms: took openvino")
    assert closed == ["ort-cpu"]


@pytest.mark.parametrize("openvino_ms", [3.7, 4.0, 9.0])
def test_auto_stays_with_onnx_runtime_unless_another_is_clearly_faster(
    cpu_race: CpuRace, openvino_ms: float
) -> None:
    info, closed = cpu_race(ort_cpu=4.0, openvino=openvino_ms)
    assert (info.name, info.fallback, closed) == ("ort-cpu", "", ["openvino"])


def test_a_faster_backend_that_fails_the_probes_is_not_taken_and_that_is_loud(
    cpu_race: CpuRace,
) -> None:
    info, closed = cpu_race(ort_cpu=4.0, openvino=1.0, wrong=("openvino",))
    assert info.name == "ort-cpu"
    assert info.fallback == "openvino was not taken: openvino answers wrongly"
    assert info.fallback in info.notes
    assert closed == ["openvino"]


def test_a_library_that_is_installed_and_does_not_load_is_loud(cpu_race: CpuRace) -> None:
    info, _ = cpu_race(missing=("ort-cpu",))
    assert info.name == "openvino"
    assert info.fallback == "ort-cpu was not taken: ort-cpu does not load"


@pytest.mark.parametrize("reason", ["wrong", "missing"])
def test_auto_gives_up_where_nothing_answers_rightly(cpu_race: CpuRace, reason: str) -> None:
    with pytest.raises(BackendError, match=r"answers wrongly|does not load"):
        cpu_race(ort_cpu=4.0, openvino=1.0, **{reason: ("ort-cpu", "openvino")})


@pytest.mark.usefixtures("no_gpu")
def test_auto_on_a_cpu_takes_what_it_measured_as_faster(bundle: Bundle) -> None:
    backend = open_backend(bundle, threads=1)
    assert backend.info.name in ("ort-cpu", "openvino")
    assert backend.info.fallback == ""
    if importlib.util.find_spec("openvino") is not None:
        no_gpu, measured = backend.info.notes
        assert measured.endswith(f": took {backend.info.name}")
    else:
        (no_gpu,) = backend.info.notes
    assert no_gpu == NO_GPU
    backend.close()


@pytest.mark.usefixtures("no_gpu")
def test_auto_needs_no_library_but_one(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    backend = open_backend(bundle, threads=1)
    assert (backend.info.name, backend.info.notes) == ("ort-cpu", (NO_GPU,))
    backend.close()


@pytest.mark.usefixtures("gpu_for_nothing")
def test_a_gpu_that_could_not_be_used_is_loud(bundle: Bundle) -> None:
    backend = open_backend(bundle, threads=1)
    assert backend.info.name in ("ort-cpu", "openvino")
    tensorrt, cuda = backend.info.notes[:2]
    assert tensorrt.startswith("tensorrt was not taken: ")
    assert cuda.startswith("ort-cuda was not taken: this ONNX Runtime")
    assert backend.info.fallback.startswith("tensorrt was not taken: ")
    assert "; ort-cuda was not taken: " in backend.info.fallback
    assert "\n" not in backend.info.fallback
    backend.close()


def test_a_backend_that_was_asked_for_has_nothing_to_say(bundle: Bundle) -> None:
    backend = open_backend(bundle, "ort-cpu", threads=1)
    info = backend.info
    assert (info.notes, info.fallback, info.engine) == ((), "", "")
    backend.close()


@pytest.mark.parametrize("name", ON_A_CPU)
def test_a_backend_loads_no_library_but_its_own(bundle: Bundle, name: str) -> None:
    if name == "openvino":
        pytest.importorskip("openvino")
    others = {"tensorrt", "pycuda", "torch", "onnx", "openvino_telemetry", "rasterio"}
    others |= {"openvino": {"onnxruntime"}, "ort-cpu": {"openvino"}}.get(name, set())
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from edge_runtime.backends import protocol\n"
        "from edge_runtime.bundle import Bundle\n"
        "protocol.cuda_device_count = lambda: 0\n"
        f"bundle = Bundle.open(Path({str(bundle.root)!r}))\n"
        f"protocol.open_backend(bundle, {name!r}, threads=1).close()\n"
        f"print(*{others!r} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_tensorrt_and_pycuda_are_imported_where_they_are_used_and_nowhere_else() -> None:
    package = Path(edge_runtime.__file__).parent
    importing = {
        path.name
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import)
        and {alias.name.split(".")[0] for alias in node.names} & {"tensorrt", "pycuda"}
    }
    assert importing == {"trt_builder.py", "trt_logger.py", "trt_refit.py", "trt_runner.py"}


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("name", sorted(set(BACKENDS) - set(ON_A_CPU)))
def test_a_backend_of_a_gpu_is_refused_without_one(bundle: Bundle, name: Any) -> None:
    with pytest.raises(BackendError, match=r"no CUDA device was found|has no CUDAExecution"):
        open_backend(bundle, name)


def test_a_right_fake_passes_the_probes(bundle: Bundle) -> None:
    _, reference = bundle.probes()
    assert check_probes(bundle, Answers(reference)).min_cosine == pytest.approx(1.0, abs=1e-6)


def test_cuda_without_a_gpu_is_refused_with_what_to_use(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_runtime.backends.ort.cuda_device_count", lambda: 0)
    with pytest.raises(BackendError, match=r"pip install 'skyfix\[gpu\]'|use --backend ort-cpu"):
        open_backend(bundle, "ort-cuda")


def test_a_cuda_build_without_a_device_is_refused_with_what_to_use(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    providers = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: providers)
    monkeypatch.setattr("edge_runtime.backends.ort.cuda_device_count", lambda: 0)
    with pytest.raises(BackendError, match=r"no CUDA device was found .* use --backend ort-cpu"):
        open_backend(bundle, "ort-cuda")


def test_a_missing_library_is_named_with_how_to_install_it(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.delitem(sys.modules, "edge_runtime.backends.ort", raising=False)
    monkeypatch.delattr("edge_runtime.backends.ort", raising=False)
    with pytest.raises(BackendError, match=r"onnxruntime.*pip install 'skyfix\[cpu\]'"):
        open_backend(bundle, "ort-cpu")


def test_a_precision_that_was_not_shipped_is_refused(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="no fp16 encoder"):
        open_backend(bundle, "ort-cpu", precision="fp16")


def test_a_file_that_is_not_onnx_is_refused_in_one_line(
    tmp_path: Path, make_bundle: MakeBundle
) -> None:
    bad = Bundle.open(make_bundle(tmp_path / "bundle", onnx=b"not a model"))
    with pytest.raises(BackendError, match=r"cannot run .*encoder\.fp32\.onnx") as caught:
        open_backend(bad, "ort-cpu")
    assert "\n" not in str(caught.value)


def test_an_encoder_with_other_weights_fails_the_probes(
    tmp_path: Path, make_bundle: MakeBundle, make_encoder_onnx: MakeOnnx
) -> None:
    other = np.random.default_rng(8).normal(size=(48, 12)).astype(np.float32)
    bad = Bundle.open(make_bundle(tmp_path / "bundle", onnx=make_encoder_onnx(other)))
    with pytest.raises(
        BackendError, match=r"lowest cosine to the trained .* expected >= 0\.9999.* Use"
    ):
        open_backend(bad, "ort-cpu")


def test_a_nan_fails_the_probes(bundle: Bundle) -> None:
    _, reference = bundle.probes()
    answers = reference.copy()
    answers[-1, 3] = np.nan
    with pytest.raises(BackendError, match=r"non-finite embedding.* Use another backend"):
        check_probes(bundle, Answers(answers))


def test_a_nan_in_the_reference_fails_the_probes(tmp_path: Path, make_bundle: MakeBundle) -> None:
    answers = np.eye(6, 12, dtype=np.float32)
    reference = answers.copy()
    reference[1, 5] = np.nan
    bad = Bundle.open(make_bundle(tmp_path / "bundle", embeddings=reference))
    with pytest.raises(BackendError, match="lowest cosine to the trained encoder"):
        check_probes(bad, Answers(answers))


def test_one_wrong_probe_is_enough_to_fail(bundle: Bundle) -> None:
    _, reference = bundle.probes()
    answers = reference.copy()
    answers[2] = reference[3]
    with pytest.raises(BackendError, match="lowest cosine to the trained encoder"):
        check_probes(bundle, Answers(answers))


def test_a_constant_answer_fails_even_where_the_reference_is_constant_too(
    tmp_path: Path, make_bundle: MakeBundle
) -> None:
    answers = np.tile(np.eye(12, dtype=np.float32)[0], (6, 1))
    images = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), np.uint8)
    bad = Bundle.open(make_bundle(tmp_path / "bundle", images=images, embeddings=answers))
    with pytest.raises(BackendError, match=r"differ by at most .* constant.* export the bundle"):
        check_probes(bad, Answers(answers))


def test_embeddings_without_unit_length_fail_the_probes(bundle: Bundle) -> None:
    """Ten times too long and 30 degrees off still has a scalar product above one."""
    _, reference = bundle.probes()
    aside = np.roll(reference, 1, axis=1)
    aside -= np.sum(aside * reference, axis=1, keepdims=True) * reference
    aside /= np.linalg.norm(aside, axis=1, keepdims=True)
    wrong = 10 * (reference * np.cos(np.pi / 6) + aside * np.sin(np.pi / 6))
    with pytest.raises(BackendError, match=r"off by 9\.0e\+00, expected unit length"):
        check_probes(bundle, Answers(wrong.astype(np.float32)))


def test_an_encoder_that_forgot_to_normalise_fails_the_probes(
    tmp_path: Path, make_bundle: MakeBundle, make_encoder_onnx: MakeOnnx
) -> None:
    raw = make_encoder_onnx(normalise=False)
    with pytest.raises(BackendError):
        open_backend(Bundle.open(make_bundle(tmp_path / "bundle", onnx=raw)), "ort-cpu")


def test_an_encoder_with_another_input_name_is_refused(
    tmp_path: Path, make_bundle: MakeBundle, make_encoder_onnx: MakeOnnx
) -> None:
    foreign = make_encoder_onnx(input_name="photos")
    with pytest.raises(BackendError):
        open_backend(Bundle.open(make_bundle(tmp_path / "bundle", onnx=foreign)), "ort-cpu")


def test_an_encoder_with_longer_embeddings_is_refused(
    tmp_path: Path, make_bundle: MakeBundle, make_encoder_onnx: MakeOnnx
) -> None:
    longer = make_encoder_onnx(np.ones((48, 16), np.float32))
    with pytest.raises(BackendError):
        open_backend(Bundle.open(make_bundle(tmp_path / "bundle", onnx=longer)), "ort-cpu")


def test_a_bundle_without_probes_proves_nothing_and_is_refused(
    tmp_path: Path, make_bundle: MakeBundle
) -> None:
    root = make_bundle(
        tmp_path / "bundle",
        images=np.zeros((0, 32, 32, 3), np.uint8),
        embeddings=np.zeros((0, 12), np.float32),
    )
    with pytest.raises(SkyfixError):
        open_backend(Bundle.open(root), "ort-cpu")


def test_an_unknown_backend_is_refused(bundle: Bundle) -> None:
    unknown: Any = "ort-gpu"
    with pytest.raises(SkyfixError):
        open_backend(bundle, unknown).close()


# --- speed ------------------------------------------------------------------------------------


class Ticking:
    """A contender that takes a fixed time on an injected clock; its first call is slow."""

    def __init__(self, clock: list[float], seconds: float) -> None:
        self.calls = 0
        self._clock, self._seconds = clock, seconds

    def embed(self, images: U8) -> F32:
        assert images.shape == (1, 8, 8, 3)
        assert images.dtype == np.uint8
        self._clock[0] += self._seconds if self.calls else 5.0
        self.calls += 1
        return np.zeros((1, 4), np.float32)


def test_contenders_are_timed_by_turns_within_the_budget_without_their_first_call() -> None:
    clock = [0.0]
    contenders = {"ort-cpu": Ticking(clock, 0.004), "openvino": Ticking(clock, 0.003)}
    times_ms = frame_times_ms(contenders, (8, 8, 3), budget_s=0.1, clock=lambda: clock[0])
    assert times_ms == pytest.approx({"ort-cpu": 4.0, "openvino": 3.0})
    assert contenders["ort-cpu"].calls == contenders["openvino"].calls
    assert 0.1 <= clock[0] - 10.0 <= 0.1 + 0.007


def test_an_encoder_slower_than_the_budget_is_timed_once() -> None:
    clock = [0.0]
    contenders = {"ort-cpu": Ticking(clock, 2.0), "openvino": Ticking(clock, 1.0)}
    frame_times_ms(contenders, (8, 8, 3), budget_s=0.1, clock=lambda: clock[0])
    assert [c.calls for c in contenders.values()] == [2, 2]


@pytest.mark.parametrize(
    ("times_ms", "order"),
    [
        ({"a": 10.0, "b": 9.1}, ["a", "b"]),
        ({"a": 10.0, "b": 9.0}, ["b", "a"]),
        ({"a": 10.0, "b": 5.0, "c": 4.0}, ["c", "b", "a"]),
        ({"a": 10.0, "b": 12.0, "c": 11.0}, ["a", "c", "b"]),
    ],
)
def test_a_near_tie_goes_to_the_usual_choice(times_ms: dict[str, float], order: list[str]) -> None:
    assert by_preference(times_ms) == order
