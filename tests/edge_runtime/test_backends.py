import ast
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
from edge_runtime.bundle import Bundle
from edge_runtime.errors import BackendError, BundleError, InputError, SkyfixError

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


ON_A_CPU = ("auto", "ort-cpu")
"""The others have tests of their own, against a stand-in for a GPU."""


def opened(bundle: Bundle, name: Any) -> Backend:
    return open_backend(bundle, name, threads=1)


@pytest.mark.parametrize("name", ON_A_CPU)
def test_every_backend_agrees_with_the_probes(bundle: Bundle, name: str) -> None:
    backend = opened(bundle, name)
    images, reference = bundle.probes()
    found = backend.embed(images)
    assert found.dtype == np.float32
    assert np.abs(found - reference).max() < 1e-5
    assert check_probes(bundle, backend).min_cosine >= 0.9999
    backend.close()


@pytest.mark.parametrize("name", ON_A_CPU)
def test_a_batch_gives_what_its_images_give_one_by_one(bundle: Bundle, name: str) -> None:
    backend = opened(bundle, name)
    images, _ = bundle.probes()
    one_by_one = np.concatenate([backend.embed(image[None]) for image in images])
    assert np.abs(backend.embed(images) - one_by_one).max() < 1e-6
    backend.close()


@pytest.mark.parametrize("name", ON_A_CPU)
def test_embeddings_have_unit_length_and_are_fresh(bundle: Bundle, name: str) -> None:
    backend = opened(bundle, name)
    images, _ = bundle.probes()
    first = backend.embed(images)
    kept = first.copy()
    backend.embed(images[::-1])
    assert np.array_equal(first, kept)
    assert np.linalg.norm(first, axis=1) == pytest.approx(1.0, abs=1e-5)
    backend.close()


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


@pytest.mark.usefixtures("no_gpu")
def test_auto_takes_the_cpu_where_there_is_no_gpu_and_says_so(bundle: Bundle) -> None:
    backend = open_backend(bundle, threads=1)
    assert backend.info.name == "ort-cpu"
    assert backend.info.notes == ("tensorrt and ort-cuda were not taken: no CUDA device was found",)
    backend.close()


@pytest.mark.usefixtures("gpu_for_nothing")
def test_auto_takes_the_cpu_where_the_gpu_does_not_work_and_says_why(bundle: Bundle) -> None:
    backend = open_backend(bundle, threads=1)
    assert backend.info.name == "ort-cpu"
    tensorrt, cuda = backend.info.notes
    assert tensorrt.startswith("tensorrt was not taken: ")
    assert cuda.startswith("ort-cuda was not taken: this ONNX Runtime")
    backend.close()


def test_a_backend_that_was_asked_for_has_nothing_to_say(bundle: Bundle) -> None:
    backend = open_backend(bundle, "ort-cpu", threads=1)
    assert (backend.info.notes, backend.info.engine) == ((), "")
    backend.close()


@pytest.mark.parametrize("name", ON_A_CPU)
def test_a_backend_loads_no_library_but_its_own(bundle: Bundle, name: str) -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from edge_runtime.backends import protocol\n"
        "from edge_runtime.bundle import Bundle\n"
        "protocol.cuda_device_count = lambda: 0\n"
        f"bundle = Bundle.open(Path({str(bundle.root)!r}))\n"
        f"protocol.open_backend(bundle, {name!r}, threads=1).close()\n"
        "print(*{'tensorrt', 'pycuda', 'torch', 'onnx'} & set(sys.modules))"
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


def test_closing_twice_is_harmless(bundle: Bundle) -> None:
    backend = open_backend(bundle, "ort-cpu", threads=1)
    backend.close()
    backend.close()


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


@pytest.mark.parametrize(
    "images",
    [
        pytest.param(np.zeros((1, 16, 16, 3), np.uint8), id="another size"),
        pytest.param(np.zeros((32, 32, 3), np.uint8), id="one image without a batch"),
        pytest.param(np.zeros((1, 32, 32, 3), np.float32), id="float"),
        pytest.param(np.zeros((1, 3, 32, 32), np.uint8), id="channels first"),
    ],
)
def test_wrong_images_are_refused(bundle: Bundle, images: Any) -> None:
    backend = open_backend(bundle, "ort-cpu", threads=1)
    with pytest.raises(InputError, match=r"expected uint8 of \(N, 32, 32, 3\)"):
        backend.embed(images)
    backend.close()


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
