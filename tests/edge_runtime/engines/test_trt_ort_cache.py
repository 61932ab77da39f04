"""ONNX Runtime's TensorRT provider: prepared, checked, and never silently something else."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest

from edge_runtime.backends.protocol import open_backend
from edge_runtime.backends.trt_ort_cache import prepare_ort_tensorrt
from edge_runtime.bundle import Bundle
from edge_runtime.cli import main
from edge_runtime.engine_store import engines_of
from edge_runtime.errors import BackendError, EngineError, GateError

if TYPE_CHECKING:
    from tests.edge_runtime.engines.stand_in_cuda import Gpu

TRT, CUDA, CPU = "TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"


class Provider:
    """ONNX Runtime with a TensorRT provider: the CPU computes, the cache folder fills."""

    def __init__(self) -> None:
        self.sessions: list[dict[str, str]] = []
        self.falls_back = False
        self.writes = True
        self.mirrored = False
        self.real = onnxruntime.InferenceSession

    def __call__(self, path: str, *, sess_options: Any, providers: list[Any]) -> Any:
        first, *others = providers
        name, options = first
        if name != TRT:
            return self.real(path, sess_options=sess_options, providers=providers)
        assert others == [CUDA]
        assert sess_options.get_session_config_entry("session.disable_cpu_ep_fallback") == "1"
        self.sessions.append(options)
        cache = Path(options["trt_engine_cache_path"])
        built = cache / "TensorrtExecutionProvider_TRTKernel_graph_0_0_sm87.engine"
        if self.writes and not built.exists():
            built.write_bytes(b"engine")
            built.with_suffix(".profile").write_bytes(b"profile")
        plain = onnxruntime.SessionOptions()
        plain.log_severity_level = 3
        session = self.real(path, sess_options=plain, providers=[CPU])
        return Session(session, self, CPU if self.falls_back else TRT)


class Session:
    def __init__(self, session: Any, provider: Provider, name: str) -> None:
        self._session, self._provider, self._name = session, provider, name

    def get_providers(self) -> list[str]:
        return [self._name]

    def run(self, outputs: list[str], inputs: dict[str, Any]) -> Any:
        images = inputs["images"]
        limit = self._provider.sessions[-1]["trt_profile_max_shapes"]
        assert len(images) <= int(limit.partition(":")[2].partition("x")[0])
        if self._provider.mirrored:
            images = np.ascontiguousarray(images[:, :, ::-1])
        return self._session.run(outputs, {"images": images})


@pytest.fixture
def provider(gpu: "Gpu", monkeypatch: pytest.MonkeyPatch) -> Provider:
    made = Provider()
    monkeypatch.setattr(onnxruntime, "InferenceSession", made)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [TRT, CUDA, CPU])
    return made


@pytest.fixture
def bundle(own_bundle: Path) -> Bundle:
    return Bundle.open(own_bundle)


def folders(bundle: Bundle) -> list[str]:
    return sorted(path.name for path in engines_of(bundle).iterdir())


def test_what_was_prepared_is_flown(provider: Provider, bundle: Bundle) -> None:
    place = prepare_ort_tensorrt(bundle, max_batch=4)
    backend = open_backend(bundle, "ort-tensorrt", threads=1)
    assert (backend.info.name, backend.info.provider) == ("ort-tensorrt", TRT)
    assert backend.info.engine.startswith(place.name)
    images, reference = bundle.probes()
    assert np.abs(backend.embed(images) - reference).max() < 1e-5
    assert backend.embed(np.concatenate([images, images])).shape == (12, 12)
    backend.close()


def test_precision_is_left_to_the_onnx_file_and_caches_to_the_folder(
    provider: Provider, bundle: Bundle
) -> None:
    place = prepare_ort_tensorrt(bundle, max_batch=4)
    open_backend(bundle, "ort-tensorrt").close()
    options = provider.sessions[-1]
    assert options["trt_fp16_enable"] == options["trt_int8_enable"] == "0"
    assert options["trt_engine_cache_enable"] == options["trt_timing_cache_enable"] == "1"
    assert options["trt_engine_cache_path"] == str(place)
    assert options["trt_profile_min_shapes"] == "images:1x32x32x3"
    assert options["trt_profile_max_shapes"] == "images:4x32x32x3"


def test_a_new_preparation_replaces_the_old_one(
    gpu: "Gpu", provider: Provider, bundle: Bundle
) -> None:
    prepare_ort_tensorrt(bundle, max_batch=4)
    gpu.name = "Orin NX"
    place = prepare_ort_tensorrt(bundle, max_batch=4)
    assert folders(bundle) == [place.name]


def test_preparing_again_alike_is_harmless(provider: Provider, bundle: Bundle) -> None:
    place = prepare_ort_tensorrt(bundle, max_batch=4)
    assert prepare_ort_tensorrt(bundle, max_batch=4) == place
    assert folders(bundle) == [place.name]


def test_unprepared_it_is_refused_before_it_would_build(provider: Provider, bundle: Bundle) -> None:
    with pytest.raises(
        EngineError, match=r"Run: skyfix engine build .* --precision fp32 --for ort-tensorrt"
    ):
        open_backend(bundle, "ort-tensorrt")
    assert provider.sessions == []


def alter(place: Path) -> None:
    (engine,) = place.glob("*.engine")
    engine.write_bytes(b"another")


def add(place: Path) -> None:
    (place / "more.engine").write_bytes(b"")


def remove(place: Path) -> None:
    (engine,) = place.glob("*.engine")
    engine.unlink()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (alter, r"sm87\.engine was altered"),
        (add, r"more\.engine was altered"),
        (remove, r"sm87\.engine was altered"),
        (lambda place: (place / "prepared.json").unlink(), "no readable prepared.json"),
        (lambda place: (place / "prepared.json").write_text("[]"), "no readable prepared.json"),
        (lambda place: (place / "prepared.json").write_text("{"), "no readable prepared.json"),
        (
            lambda place: (place / "prepared.json").write_text(
                '{"origin": [], "files": [], "max_batch": 1}'
            ),
            "no readable prepared.json",
        ),
    ],
)
def test_an_altered_folder_is_refused(
    provider: Provider, bundle: Bundle, spoil: Callable[[Path], Any], says: str
) -> None:
    spoil(prepare_ort_tensorrt(bundle, max_batch=4))
    before = len(provider.sessions)
    with pytest.raises(EngineError, match=rf"{says}.*Run: skyfix engine build"):
        open_backend(bundle, "ort-tensorrt")
    assert len(provider.sessions) == before


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("name", "Orin NX", "gpu is Orin, here it is Orin NX"),
        ("compute", (9, 0), "compute_capability is 8.7, here it is 9.0"),
        ("cuda_driver", 13000, "cuda_driver is 12.6, here it is 13.0"),
    ],
)
def test_a_folder_of_another_machine_is_refused(
    gpu: "Gpu", provider: Provider, bundle: Bundle, field: str, value: Any, says: str
) -> None:
    prepare_ort_tensorrt(bundle, max_batch=4)
    setattr(gpu, field, value)
    with pytest.raises(EngineError, match=says):
        open_backend(bundle, "ort-tensorrt")


def test_a_silent_fallback_is_an_error(provider: Provider, bundle: Bundle) -> None:
    provider.falls_back = True
    with pytest.raises(BackendError, match=r"fell back to CPUExecutionProvider"):
        prepare_ort_tensorrt(bundle, max_batch=4)
    assert folders(bundle) == []


def test_a_provider_that_built_nothing_is_an_error(provider: Provider, bundle: Bundle) -> None:
    provider.writes = False
    with pytest.raises(EngineError, match=r"wrote no engine .*Use --for tensorrt"):
        prepare_ort_tensorrt(bundle, max_batch=4)
    assert folders(bundle) == []


def test_a_wrong_engine_is_not_kept(provider: Provider, bundle: Bundle) -> None:
    provider.mirrored = True
    with pytest.raises(GateError, match=r"mirrored images agrees.*Nothing was kept"):
        prepare_ort_tensorrt(bundle, max_batch=4)
    assert folders(bundle) == []


def test_a_full_disk_is_one_line(
    provider: Provider, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("edge_runtime.backends.trt_ort_cache.write_atomically", full)
    with pytest.raises(EngineError, match=r"No space left on device\); free some space"):
        prepare_ort_tensorrt(bundle, max_batch=4)
    assert folders(bundle) == []


def test_without_a_gpu_it_is_refused(gpu: "Gpu", provider: Provider, bundle: Bundle) -> None:
    gpu.count = 0
    with pytest.raises(BackendError, match="no CUDA device was found"):
        prepare_ort_tensorrt(bundle, max_batch=4)


# --- as typed ------------------------------------------------------------------------------------


def test_what_was_prepared_is_built_checked_and_listed_as_typed(
    gpu: "Gpu", provider: Provider, own_bundle: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root = str(own_bundle)
    assert main(["engine", "build", root, "--for", "ort-tensorrt", "--max-batch", "4"]) == 0
    assert "ONNX Runtime's TensorRT provider is prepared in" in capfd.readouterr().out
    assert gpu.builds == 0
    for command in ("check", "list"):
        assert main(["engine", command, root]) == 0
        assert capfd.readouterr().out.endswith(": fresh\n")
    gpu.name = "Orin NX"
    assert main(["engine", "check", root]) == 2
    out = capfd.readouterr().out
    assert "gpu is Orin, here it is Orin NX. Run: skyfix engine build" in out
    assert out.endswith("--precision fp32 --for ort-tensorrt\n")
    assert main(["engine", "check", root, "--rebuild"]) == 0
    assert capfd.readouterr().out.endswith(": fresh\n")
    assert provider.sessions[-1]["trt_profile_max_shapes"] == "images:4x32x32x3"
    assert gpu.builds == 0


def test_both_are_made_where_both_work(
    gpu: "Gpu", provider: Provider, own_bundle: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["engine", "build", str(own_bundle), "--max-batch", "4", "--json"]) == 0
    assert json.loads(capfd.readouterr().out).keys() == {"tensorrt", "ort-tensorrt"}
    assert main(["engine", "check", str(own_bundle)]) == 0
    assert capfd.readouterr().out.count(": fresh\n") == 2


def test_a_provider_that_does_not_work_and_was_not_asked_for_is_a_remark(
    gpu: "Gpu", provider: Provider, own_bundle: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    provider.falls_back = True
    assert main(["engine", "build", str(own_bundle), "--max-batch", "4"]) == 0
    assert "skyfix: ort-tensorrt was not prepared: " in capfd.readouterr().err
    assert main(["engine", "check", str(own_bundle)]) == 0
