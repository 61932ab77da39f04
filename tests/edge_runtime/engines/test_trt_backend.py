"""The native backend and what `auto` takes, on a machine with stand-ins for TensorRT and a GPU."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edge_runtime.backends.protocol import Backend, check_probes, open_backend
from edge_runtime.backends.trt import DEVICE_STAGES, TensorRtBackend
from edge_runtime.backends.trt_engines import build_engine
from edge_runtime.bundle import Bundle
from edge_runtime.engine_files import write_engine
from edge_runtime.engine_store import EngineOptions, engines_of
from edge_runtime.errors import BackendError, EngineError, InputError

if TYPE_CHECKING:
    from tests.edge_runtime.engines.stand_in_cuda import Gpu

MakeBundle = Callable[..., Path]
FOUR = EngineOptions(max_batch=4)


@pytest.fixture
def bundle(gpu: "Gpu", own_bundle: Path) -> Bundle:
    """A bundle with an engine for up to four images."""
    opened = Bundle.open(own_bundle)
    build_engine(opened, FOUR)
    return opened


@pytest.fixture
def backend(bundle: Bundle) -> Iterator[Backend]:
    opened = open_backend(bundle, "tensorrt")
    yield opened
    opened.close()


def images(count: int, seed: int = 2) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), np.uint8)


def engine_path(bundle: Bundle) -> Path:
    (path,) = engines_of(bundle).glob("*.engine")
    return path


# --- running -------------------------------------------------------------------------------------


def test_it_answers_as_onnx_runtime_does(bundle: Bundle, backend: Backend) -> None:
    other = open_backend(bundle, "ort-cpu", threads=1)
    for count in (1, 2, 3, 4, 5, 11):
        some = images(count, seed=count)
        found = backend.embed(some)
        assert found.dtype == np.float32
        assert np.abs(found - other.embed(some)).max() < 1e-6
    other.close()


def test_it_passes_the_probes(bundle: Bundle, backend: Backend) -> None:
    assert check_probes(bundle, backend).min_cosine > 0.99999


def test_it_says_what_runs(bundle: Bundle, backend: Backend) -> None:
    info = backend.info
    assert (info.name, info.provider, info.precision) == ("tensorrt", "TensorRT", "fp32")
    assert (info.library, info.threads, info.notes) == ("tensorrt 10.3.0", None, ())
    assert info.engine.startswith(engine_path(bundle).name)


def test_no_images_give_no_embeddings(backend: Backend) -> None:
    assert backend.embed(images(0)).shape == (0, 12)


def test_embeddings_are_fresh(backend: Backend) -> None:
    first = backend.embed(images(2))
    kept = first.copy()
    backend.embed(images(2, seed=5))
    assert np.array_equal(first, kept)


def test_images_that_are_not_contiguous_are_embedded_alike(backend: Backend) -> None:
    mirrored = images(2)[:, :, ::-1]
    assert np.array_equal(backend.embed(mirrored), backend.embed(mirrored.copy()))


def test_memory_is_allocated_once_and_freed_at_the_end(gpu: "Gpu", backend: Backend) -> None:
    before = set(gpu.memory)
    backend.embed(images(9))
    backend.embed(images(1))
    assert set(gpu.memory) == before != set()
    assert gpu.pushed == 0
    backend.close()
    assert gpu.memory == {}


def test_closing_twice_is_harmless(backend: Backend) -> None:
    backend.close()
    backend.close()


def test_one_image_runs_as_a_cuda_graph_and_batches_do_not(gpu: "Gpu", backend: Backend) -> None:
    gpu.launches = gpu.plain_runs = 0
    backend.embed(images(1))
    assert (gpu.launches, gpu.plain_runs) == (1, 0)
    backend.embed(images(3))
    assert (gpu.launches, gpu.plain_runs) == (1, 1)
    backend.close()
    assert gpu.recorded == {}


def test_a_batch_between_single_images_leaves_the_graph_right(backend: Backend) -> None:
    one = images(1)
    alone = backend.embed(one)
    backend.embed(images(4, seed=6))
    assert np.array_equal(backend.embed(one), alone)


@pytest.mark.parametrize(
    ("change", "note"),
    [("graphs", "cuStreamBeginCapture_v2 with error 801"), ("graph_is_wrong", "answers otherwise")],
)
def test_where_graphs_do_not_work_it_runs_without_and_says_so(
    gpu: "Gpu", bundle: Bundle, change: str, note: str
) -> None:
    setattr(gpu, change, not getattr(gpu, change))
    backend = open_backend(bundle, "tensorrt")
    gpu.launches = 0
    assert check_probes(bundle, backend).min_cosine > 0.99999
    assert gpu.launches == 0
    (said,) = backend.info.notes
    assert note in said
    backend.close()


@pytest.mark.parametrize("cuda_graph", [True, False])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("slow", ["copy_in_ms", "compute_ms", "copy_out_ms"])
def test_5_ms_on_the_gpu_appear_in_their_stage_alone(
    gpu: "Gpu", bundle: Bundle, slow: str, batch: int, cuda_graph: bool
) -> None:
    backend = TensorRtBackend(bundle, cuda_graph=cuda_graph)
    setattr(gpu, slow, getattr(gpu, slow) + 5.0)
    stage = dict(zip(("copy_in_ms", "compute_ms", "copy_out_ms"), DEVICE_STAGES, strict=True))[slow]
    expected = {"host-to-device": 0.25, "GPU": 2.0, "device-to-host": 0.125}
    expected[stage] += 5.0
    gpu.launches = 0
    assert backend.stages_ms(images(batch)) == pytest.approx(expected)
    assert gpu.launches == (cuda_graph and batch == 1)
    backend.close()
    assert gpu.memory == {}


def test_stages_are_those_of_one_batch(bundle: Bundle) -> None:
    backend = TensorRtBackend(bundle)
    for count in (0, 5):
        with pytest.raises(InputError, match=f"{count} images; expected 1 to 4"):
            backend.stages_ms(images(count))
    backend.close()


def test_without_a_cuda_graph_every_image_is_launched_and_answers_alike(
    gpu: "Gpu", bundle: Bundle, backend: Backend
) -> None:
    launched = TensorRtBackend(bundle, cuda_graph=False)
    gpu.launches = gpu.plain_runs = 0
    assert np.array_equal(launched.embed(images(1)), backend.embed(images(1)))
    assert (gpu.launches, gpu.plain_runs) == (1, 1)
    assert launched.info.notes == ("without a CUDA graph, as asked",)
    launched.close()


def test_an_engine_for_single_images_takes_more_one_by_one(gpu: "Gpu", own_bundle: Path) -> None:
    bundle = Bundle.open(own_bundle)
    build_engine(bundle, EngineOptions(max_batch=1))
    backend = open_backend(bundle, "tensorrt")
    assert backend.embed(images(3)).shape == (3, 12)
    backend.close()


@pytest.mark.parametrize(
    "wrong", [np.zeros((1, 16, 16, 3), np.uint8), np.zeros((1, 32, 32, 3), np.float32)]
)
def test_wrong_images_are_refused(backend: Backend, wrong: Any) -> None:
    with pytest.raises(InputError, match=r"expected uint8 of \(N, 32, 32, 3\)"):
        backend.embed(wrong)


def test_a_version_compatible_plan_may_run_its_own_runtime_and_no_other_may(
    gpu: "Gpu", upgrade: Callable[[str], None], own_bundle: Path
) -> None:
    bundle = Bundle.open(own_bundle)
    build_engine(bundle, EngineOptions(max_batch=1, version_compatible=True))
    upgrade("10.16.1.11")
    backend = open_backend(bundle, "tensorrt")
    assert backend.info.library == "tensorrt 10.16.1.11"
    backend.close()


# --- refusals ------------------------------------------------------------------------------------


def test_without_a_gpu_it_is_refused(gpu: "Gpu", bundle: Bundle) -> None:
    gpu.count = 0
    with pytest.raises(EngineError, match="no CUDA device was found"):
        open_backend(bundle, "tensorrt")


def test_without_an_engine_the_command_that_makes_one_is_named(
    gpu: "Gpu", own_bundle: Path
) -> None:
    with pytest.raises(
        EngineError, match=rf"no TensorRT engine\. Run: skyfix engine build {own_bundle}"
    ):
        open_backend(Bundle.open(own_bundle), "tensorrt")


def spoil_gpu(gpu: "Gpu", bundle: Bundle) -> None:
    gpu.name = "Orin NX"


def spoil_plan(gpu: "Gpu", bundle: Bundle) -> None:
    path = engine_path(bundle)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate_plan(gpu: "Gpu", bundle: Bundle) -> None:
    path = engine_path(bundle)
    path.write_bytes(path.read_bytes()[:100])


def drop_sidecar(gpu: "Gpu", bundle: Bundle) -> None:
    engine_path(bundle).with_suffix(".json").unlink()


SPOILT: dict[str, tuple[Callable[["Gpu", Bundle], None], str]] = {
    "another GPU": (spoil_gpu, r"no fresh TensorRT engine: .*GPU is Orin, here it is Orin NX"),
    "a bit flipped": (spoil_plan, r"digest [0-9a-f]{12}, its sidecar says"),
    "truncated": (truncate_plan, r"holds 100 bytes"),
    "no sidecar": (drop_sidecar, r"has no sidecar"),
}


@pytest.mark.parametrize("case", SPOILT)
def test_an_engine_that_does_not_fit_is_refused_with_the_command(
    gpu: "Gpu", bundle: Bundle, case: str
) -> None:
    spoil, says = SPOILT[case]
    spoil(gpu, bundle)
    with pytest.raises(EngineError, match=says) as caught:
        open_backend(bundle, "tensorrt")
    assert str(caught.value).endswith(f"Run: skyfix engine build {bundle.root}")
    assert "\n" not in str(caught.value)


def test_another_version_of_tensorrt_is_refused(
    gpu: "Gpu", upgrade: Callable[[str], None], bundle: Bundle
) -> None:
    upgrade("10.13.3.9")
    with pytest.raises(EngineError, match=r"TensorRT is 10\.3\.0, here it is 10\.13\.3\.9"):
        open_backend(bundle, "tensorrt")


def forged(bundle: Bundle, plan: bytes, **changes: Any) -> None:
    """An engine whose sidecar is whole but says something else than the plan."""
    from dataclasses import replace

    from edge_runtime.engine_store import read_record

    path = engine_path(bundle)
    record = read_record(path.with_suffix(".json"))
    write_engine(engines_of(bundle), plan, replace(record, **changes))


def test_a_file_that_is_no_plan_is_refused_with_what_tensorrt_says(
    gpu: "Gpu", bundle: Bundle
) -> None:
    forged(bundle, b"no plan at all")
    with pytest.raises(EngineError, match=r"cannot load .*not a plan.*Build it again"):
        open_backend(bundle, "tensorrt")
    assert gpu.memory == {}


def test_a_plan_that_is_not_what_its_sidecar_says_is_refused(gpu: "Gpu", bundle: Bundle) -> None:
    forged(bundle, engine_path(bundle).read_bytes(), profiles=[[1, 1, 1], [1, 8, 8]])
    with pytest.raises(EngineError, match=r"\[1, 4, 4\]\]; expected .*\[1, 8, 8\]\]"):
        open_backend(bundle, "tensorrt")


def test_a_full_gpu_is_said_and_nothing_is_kept(gpu: "Gpu", bundle: Bundle) -> None:
    gpu.out_of_memory = True
    with pytest.raises(BackendError, match=r"GPU is out of memory .*close other programs"):
        open_backend(bundle, "tensorrt")
    assert (gpu.memory, gpu.pushed) == ({}, 0)


def test_an_engine_that_answers_wrongly_fails_the_probes(
    gpu: "Gpu",
    bundle: Bundle,
    make_encoder_onnx: Callable[..., bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    closed: list[Backend] = []
    close = TensorRtBackend.close

    def noted(backend: TensorRtBackend) -> None:
        closed.append(backend)
        close(backend)

    monkeypatch.setattr(TensorRtBackend, "close", noted)
    other = np.random.default_rng(8).normal(size=(48, 12)).astype(np.float32)
    plan = engine_path(bundle).read_bytes()
    onnx = (bundle.root / "encoder.fp32.onnx").read_bytes()
    forged(bundle, plan.replace(onnx, make_encoder_onnx(other)))
    with pytest.raises(BackendError, match="lowest cosine"):
        open_backend(bundle, "tensorrt")
    assert len(closed) == 1
    assert gpu.memory == {}


def test_the_next_engine_is_taken_where_the_newest_is_damaged(gpu: "Gpu", bundle: Bundle) -> None:
    record = build_engine(bundle, EngineOptions(max_batch=2))
    (engines_of(bundle) / record.name).write_bytes(b"damaged")
    backend = open_backend(bundle, "tensorrt")
    assert "-b4-" in backend.info.engine
    backend.close()


def test_engines_may_lie_elsewhere(gpu: "Gpu", own_bundle: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(own_bundle)
    build_engine(bundle, EngineOptions(max_batch=1, out=tmp_path / "elsewhere"))
    backend = open_backend(bundle, "tensorrt", engines=tmp_path / "elsewhere")
    assert backend.info.name == "tensorrt"
    backend.close()


# --- auto ----------------------------------------------------------------------------------------


def test_auto_takes_a_fresh_engine(gpu: "Gpu", bundle: Bundle) -> None:
    backend = open_backend(bundle)
    assert (backend.info.name, backend.info.notes) == ("tensorrt", ())
    backend.close()


def test_auto_falls_back_and_names_the_stale_engine(gpu: "Gpu", bundle: Bundle) -> None:
    gpu.name = "Orin NX"
    backend = open_backend(bundle, threads=1)
    assert backend.info.name in ("ort-cpu", "openvino")
    tensorrt, cuda = backend.info.notes[:2]
    assert tensorrt.startswith("tensorrt was not taken: ")
    assert "GPU is Orin, here it is Orin NX" in tensorrt
    assert f"Run: skyfix engine build {bundle.root}" in tensorrt
    assert cuda.startswith("ort-cuda was not taken: ")
    backend.close()


def test_auto_falls_back_where_the_engine_fails_its_probes(
    gpu: "Gpu", bundle: Bundle, make_bundle: MakeBundle, tmp_path: Path
) -> None:
    plan = bytearray(engine_path(bundle).read_bytes())
    at = plan.index((bundle.root / "encoder.fp32.onnx").read_bytes()) + 300
    plan[at : at + 40] = np.ones(10, np.float32).tobytes()
    forged(bundle, bytes(plan))
    backend = open_backend(bundle, threads=1)
    assert backend.info.name in ("ort-cpu", "openvino")
    assert backend.info.notes[0].startswith("tensorrt was not taken: ")
    backend.close()


def test_fp16_flies_before_fp32(
    gpu: "Gpu", make_bundle: MakeBundle, tmp_path: Path, make_encoder_onnx: Callable[..., bytes]
) -> None:
    from edge_runtime.artefact import MANIFEST, sha256_of, sha256_of_json

    root = make_bundle(
        tmp_path / "both", precisions={p: {"precision": p} for p in ("fp32", "fp16")}
    )
    (root / "encoder.fp16.onnx").write_bytes((root / "encoder.fp32.onnx").read_bytes())
    manifest = json.loads((root / MANIFEST).read_text())
    manifest["files"]["encoder.fp16.onnx"] = sha256_of(root / "encoder.fp16.onnx")
    content = {name: manifest[name] for name in ("kind", "files", "meta")}
    manifest["id"] = sha256_of_json(content)[:12]
    (root / MANIFEST).write_text(json.dumps(manifest))
    bundle = Bundle.open(root)
    for precision in ("fp16", "fp32"):
        build_engine(bundle, EngineOptions(precision=precision, max_batch=1))
    for asked, flown in ((None, "fp16"), ("fp32", "fp32")):
        backend = open_backend(bundle, "tensorrt", precision=asked)  # type: ignore[arg-type]
        assert backend.info.precision == flown
        backend.close()
