"""Engines built, gated and written on a machine with a stand-in for TensorRT and a GPU."""

import json
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest

from edge_runtime.backends.trt_engines import build_engine, default_workspace_bytes, refit_engine
from edge_runtime.bundle import Bundle
from edge_runtime.engine_check import check_engines
from edge_runtime.engine_files import read_plan
from edge_runtime.engine_store import EngineOptions, engines_of, list_records
from edge_runtime.errors import BundleError, EngineError, GateError, IndexFolderError

if TYPE_CHECKING:
    from tests.edge_runtime.engines.stand_in_cuda import Gpu

F32 = npt.NDArray[np.float32]
MakeBundle = Callable[..., Path]
MakeOnnx = Callable[..., bytes]
NAME = "thumbnail-12-32x32-b4-fp32-trt10.3.0-sm87.engine"
FOUR = EngineOptions(max_batch=4)


def other_weights(seed: int = 8) -> F32:
    return np.random.default_rng(seed).normal(size=(48, 12)).astype(np.float32)


@pytest.fixture
def bundle(own_bundle: Path) -> Bundle:
    return Bundle.open(own_bundle)


@pytest.fixture
def retrained(make_bundle: MakeBundle, make_encoder_onnx: MakeOnnx, tmp_path: Path) -> Bundle:
    """The same network with other weights, and probes to match."""
    import onnxruntime

    onnx = make_encoder_onnx(other_weights())
    images = np.random.default_rng(4).integers(0, 256, (6, 32, 32, 3), np.uint8)
    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    (embeddings,) = session.run(None, {"images": images})
    return Bundle.open(
        make_bundle(
            tmp_path / "retrained",
            onnx=onnx,
            images=images,
            embeddings=embeddings,
            weights_sha256="cd" * 32,
        )
    )


def files(bundle: Bundle) -> list[str]:
    folder = engines_of(bundle)
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


# --- building ------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["10.3.0", "10.13.3.9", "10.16.1.11", "11.4.0.106"])
def test_an_engine_is_built_gated_and_written_with_its_sidecar(
    gpu: "Gpu", upgrade: Callable[[str], None], bundle: Bundle, version: str
) -> None:
    upgrade(version)
    record = build_engine(bundle, FOUR)
    name = f"thumbnail-12-32x32-b4-fp32-trt{version}-sm87"
    assert files(bundle) == [f"{name}.engine", f"{name}.json"]
    assert (record.platform.tensorrt, record.platform.gpu) == (version, "Orin")
    assert (record.platform.driver, record.platform.cuda_driver) == ("540.4.0", "12.6")
    assert record.onnx_sha256 == bundle.manifest.files["encoder.fp32.onnx"]
    assert record.profiles == [[1, 1, 1], [1, 4, 4]]
    assert record.gates.keys() == {"batch 1", "batch 4"}
    assert min(gate["min_cosine"] for gate in record.gates.values()) > 0.99999
    assert [r for _, r in list_records(engines_of(bundle))] == [record]
    assert read_plan(engines_of(bundle), record).startswith(b"stand-in plan")
    assert gpu.memory == {}, "memory of the GPU was not freed"


def test_the_network_is_strongly_typed_refittable_and_without_tf32(
    gpu: "Gpu", bundle: Bundle
) -> None:
    record = build_engine(bundle, FOUR)
    plan = read_plan(engines_of(bundle), record)
    assert b'"strongly_typed": true' in plan
    assert b'"refittable": true' in plan
    (config,) = gpu.configs
    assert {flag.name for flag in config._flags} == {"REFIT"}
    assert config._workspace == 1 << 30, "a quarter of the 4 GiB that are free"


def test_options_reach_the_builder(gpu: "Gpu", bundle: Bundle, tmp_path: Path) -> None:
    gpu.integrated = False
    options = EngineOptions(
        max_batch=1,
        optimisation_level=5,
        workspace_bytes=123 << 20,
        version_compatible=True,
        hardware_compatible=True,
        out=tmp_path / "elsewhere",
    )
    record = build_engine(bundle, options)
    (config,) = gpu.configs
    assert {flag.name for flag in config._flags} == {"VERSION_COMPATIBLE"}
    assert config.builder_optimization_level == 5
    assert config.hardware_compatibility_level.name == "AMPERE_PLUS"
    assert config._workspace == 123 << 20
    assert config._profiles == record.profiles == [[1, 1, 1]]
    assert not record.refittable, "the runtime in a version-compatible plan cannot refit"
    assert (tmp_path / "elsewhere" / record.name).exists()
    assert files(bundle) == []


def test_a_hardware_compatible_engine_is_refused_on_a_jetson(gpu: "Gpu", bundle: Bundle) -> None:
    """NVIDIA: hardware compatibility is not supported on JetPack."""
    with pytest.raises(EngineError, match="leave --hardware-compatible out"):
        build_engine(bundle, EngineOptions(hardware_compatible=True))
    assert gpu.builds == 0


def test_fp16_is_built_where_the_bundle_ships_it(
    gpu: "Gpu", make_bundle: MakeBundle, tmp_path: Path
) -> None:
    both = {p: {"precision": p, "probes": 6} for p in ("fp32", "fp16")}
    root = make_bundle(tmp_path / "both", precisions=both)
    assert EngineOptions().for_bundle(Bundle.open(root)).precision == "fp16"


def test_a_precision_that_is_not_shipped_is_refused_before_the_gpu_is_asked(
    gpu: "Gpu", bundle: Bundle
) -> None:
    gpu.count = 0
    with pytest.raises(BundleError, match="no fp16 encoder"):
        build_engine(bundle, EngineOptions(precision="fp16"))


def test_kernel_times_are_kept_for_the_next_build_of_this_gpu_only(
    gpu: "Gpu", bundle: Bundle, tmp_path: Path
) -> None:
    build_engine(bundle, FOUR)
    (cache,) = (tmp_path / "cache" / "skyfix").iterdir()
    assert cache.name == "timing-trt10.3.0-sm87-Orin.cache"
    assert cache.read_bytes() == b"Orin 1"
    build_engine(bundle, FOUR)
    assert cache.read_bytes() == b"Orin 2"
    cache.write_bytes(b"of another GPU")
    build_engine(bundle, FOUR)
    assert cache.read_bytes() == b"Orin 3"


def test_without_a_timing_cache_nothing_is_kept(gpu: "Gpu", bundle: Bundle, tmp_path: Path) -> None:
    build_engine(bundle, EngineOptions(max_batch=1, timing_cache=False))
    assert not (tmp_path / "cache").exists()


def test_a_build_does_not_fail_for_a_cache_that_cannot_be_kept(
    gpu: "Gpu", bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert build_engine(bundle, FOUR).plan_bytes > 0


@pytest.mark.parametrize(
    ("integrated", "total_gib", "expected_gib"),
    [
        pytest.param(True, 8, 1, id="a quarter of what is free of a shared memory"),
        pytest.param(False, 8, 4, id="half of a board's memory"),
        pytest.param(False, 140, 8, id="no more than 8 GiB"),
        pytest.param(False, 0.25, 0.25, id="no less than 256 MiB"),
    ],
)
def test_the_workspace_is_a_share_of_the_memory(
    gpu: "Gpu", integrated: bool, total_gib: float, expected_gib: float
) -> None:
    gpu.integrated, gpu.total_bytes = integrated, int(total_gib * 2**30)
    assert default_workspace_bytes() == expected_gib * 2**30


def test_progress_is_told_in_the_callers_thread(gpu: "Gpu", bundle: Bundle) -> None:
    heard: list[tuple[str, int, int, bool]] = []
    main = threading.main_thread()
    gpu.build = "until cancelled"

    def watch(phase: str, done: int, steps: int) -> None:
        heard.append((phase, done, steps, threading.current_thread() is main))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_engine(bundle, FOUR, progress=watch)
    ((phase, done, steps, in_main),) = heard
    assert (phase, steps, in_main) == ("Building Engine", 4, True)
    assert 0 < done <= 4


# --- what goes wrong while building --------------------------------------------------------------


def old_engine(bundle: Bundle) -> dict[str, bytes]:
    build_engine(bundle, FOUR)
    return contents(bundle)


def contents(bundle: Bundle) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(engines_of(bundle).iterdir())}


def test_without_a_gpu_no_object_of_tensorrt_is_made(gpu: "Gpu", bundle: Bundle) -> None:
    gpu.count = 0
    with pytest.raises(EngineError, match=r"no CUDA device was found .* See skyfix doctor"):
        build_engine(bundle, FOUR)


@pytest.mark.parametrize(
    ("module", "says"),
    [
        ("tensorrt", r"tensorrt cannot be loaded .*sudo apt install tensorrt"),
        ("pycuda.driver", r"pycuda cannot be loaded .*pip install 'skyfix\[tensorrt\]'"),
    ],
)
def test_a_missing_library_is_named_with_how_to_install_it(
    gpu: "Gpu", bundle: Bundle, monkeypatch: pytest.MonkeyPatch, module: str, says: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(EngineError, match=says) as caught:
        build_engine(bundle, FOUR)
    assert "\n" not in str(caught.value)
    assert gpu.builds == 0


def test_an_old_tensorrt_is_refused(
    gpu: "Gpu", upgrade: Callable[[str], None], bundle: Bundle
) -> None:
    upgrade("8.6.1")
    with pytest.raises(EngineError, match=r"TensorRT here is 8\.6\.1; expected 10\.3"):
        build_engine(bundle, FOUR)


def test_every_message_of_the_parser_is_shown(gpu: "Gpu", bundle: Bundle) -> None:
    gpu.parser_errors = ["no importer for Weird", "and then\nanother"]
    with pytest.raises(EngineError) as caught:
        build_engine(bundle, FOUR)
    text = str(caught.value)
    assert "no importer for Weird (node 3 Weird /body/Weird" in text
    assert "and then another" in text
    assert "encoder.fp32.onnx" in text
    assert "\n" not in text


def test_a_network_with_other_ends_is_refused(
    gpu: "Gpu", make_bundle: MakeBundle, make_encoder_onnx: MakeOnnx, tmp_path: Path
) -> None:
    onnx = make_encoder_onnx(input_name="photos")
    foreign = Bundle.open(make_bundle(tmp_path / "foreign", onnx=onnx))
    with pytest.raises(EngineError, match=r"photos.*expected .*images.*Export it again"):
        build_engine(foreign, FOUR)


FAILURES: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "no plan": ({"build": "none"}, EngineError, r"gives no engine .* gave no reason.*--no-refit"),
    "out of memory": (
        {"build": "out of memory"},
        EngineError,
        r"GPU ran out of memory while building .*batches up to 4.*smaller --max-batch",
    ),
    "an exception": ({"build": "raises"}, EngineError, r"failed while building \(a kernel did"),
    "no memory to run it": ({"out_of_memory": True}, Exception, r"out of memory.*--max-batch"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_build_that_fails_leaves_the_old_engine(gpu: "Gpu", bundle: Bundle, failure: str) -> None:
    before = old_engine(bundle)
    changes, error, says = FAILURES[failure]
    for name, value in changes.items():
        setattr(gpu, name, value)
    with pytest.raises(error, match=says) as caught:
        build_engine(bundle, FOUR)
    assert "\n" not in str(caught.value)
    assert contents(bundle) == before


def test_a_warning_about_memory_is_not_an_error(gpu: "Gpu", bundle: Bundle) -> None:
    gpu.build_log = ["Skipping tactic 3 due to insufficient memory on requested size"]
    assert build_engine(bundle, FOUR).build_log == [
        "warning: Skipping tactic 3 due to insufficient memory on requested size"
    ]
    gpu.build = "none"
    with pytest.raises(EngineError, match="gives no engine"):
        build_engine(bundle, FOUR)


def test_a_wrong_engine_fails_the_gates_and_is_not_left_in_place(
    gpu: "Gpu", bundle: Bundle, make_encoder_onnx: MakeOnnx
) -> None:
    gpu.other_weights = lambda _: make_encoder_onnx(other_weights())
    with pytest.raises(GateError, match=r"1 image at a time: .*cosine.*Nothing was written"):
        build_engine(bundle, FOUR)
    assert files(bundle) == []
    assert gpu.memory == {}


@pytest.mark.parametrize("largest", [4, 16])
def test_full_batches_go_through_the_gates_too(gpu: "Gpu", bundle: Bundle, largest: int) -> None:
    """Even where there are fewer probes, six, than images in a batch."""
    gpu.wrong_from = largest
    with pytest.raises(GateError, match=f"{largest} images at a time"):
        build_engine(bundle, EngineOptions(max_batch=largest))
    assert files(bundle) == []


def test_an_interrupted_build_stops_the_builder_and_leaves_the_old_engine(
    gpu: "Gpu", bundle: Bundle
) -> None:
    before = old_engine(bundle)
    gpu.build = "until cancelled"

    def stop(phase: str, done: int, steps: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_engine(bundle, FOUR, progress=stop)
    assert not [t for t in threading.enumerate() if t.name == "engine builder"]
    assert contents(bundle) == before


def test_too_little_room_is_said_before_anything_is_built(
    gpu: "Gpu", bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil._ntuple_diskusage(10**9, 10**9 - 10, 10)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(EngineError, match=r"0 MB free, .*free some space"):
        build_engine(bundle, FOUR)
    assert gpu.builds == 0


# --- refitting -----------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["bundle", "engines", "file"])
def test_new_weights_go_into_an_engine_without_a_build(
    gpu: "Gpu", bundle: Bundle, retrained: Bundle, source: str
) -> None:
    old = build_engine(bundle, FOUR)
    paths = {
        "bundle": bundle.root,
        "engines": engines_of(bundle),
        "file": engines_of(bundle) / old.name,
    }
    record = refit_engine(retrained, paths[source])
    assert gpu.builds == 1
    assert record.refitted_from == old.plan_sha256
    assert record.onnx_sha256 == retrained.manifest.files["encoder.fp32.onnx"]
    assert record.weights_sha256 == "cd" * 32
    assert record.bundle_id == retrained.id
    assert record.gates["batch 1"]["min_cosine"] > 0.99999
    (checked,) = check_engines(retrained, record.platform)
    assert checked.fresh
    (still,) = check_engines(bundle, old.platform)
    assert still.fresh, "the engine it came from was touched"


@pytest.mark.parametrize(("version", "again"), [("10.3.0", False), ("11.4.0.106", True)])
def test_the_sidecar_says_whether_it_can_be_refitted_again(
    gpu: "Gpu",
    upgrade: Callable[[str], None],
    bundle: Bundle,
    retrained: Bundle,
    version: str,
    again: bool,
) -> None:
    """TensorRT 10.14 brought the flag that keeps a refitted plan refittable."""
    upgrade(version)
    build_engine(bundle, FOUR)
    assert refit_engine(retrained, bundle.root).refittable is again


def test_an_index_of_the_old_weights_is_refused_after_a_refit(
    gpu: "Gpu", bundle: Bundle, retrained: Bundle, index_dir: Path
) -> None:
    from edge_runtime.satellite_index import SatelliteIndex

    build_engine(bundle, FOUR)
    refit_engine(retrained, bundle.root)
    SatelliteIndex.open(index_dir, bundle).close()
    with pytest.raises(IndexFolderError, match="was made by encoder"):
        SatelliteIndex.open(index_dir, retrained)


def test_missing_and_unnamed_weights_are_listed(
    gpu: "Gpu", bundle: Bundle, retrained: Bundle
) -> None:
    build_engine(bundle, FOUR)
    gpu.missing_weights = ["stages.0.weight", ""]
    with pytest.raises(EngineError, match=r"missing: stages\.0\.weight, \(unnamed\).*same network"):
        refit_engine(retrained, bundle.root)
    assert files(retrained) == []


def test_messages_of_the_refitting_parser_are_shown(
    gpu: "Gpu", bundle: Bundle, retrained: Bundle
) -> None:
    build_engine(bundle, FOUR)
    gpu.parser_errors = ["weight has another count"]
    with pytest.raises(EngineError, match="weight has another count"):
        refit_engine(retrained, bundle.root)


def test_an_engine_that_was_not_built_for_it_is_not_refitted(
    gpu: "Gpu", bundle: Bundle, retrained: Bundle
) -> None:
    build_engine(bundle, EngineOptions(max_batch=4, refit=False))
    with pytest.raises(EngineError, match=r"without room for other weights.*skyfix engine build"):
        refit_engine(retrained, bundle.root)


def test_another_architecture_is_refused_before_anything_is_tried(
    gpu: "Gpu", bundle: Bundle, make_bundle: MakeBundle, tmp_path: Path
) -> None:
    build_engine(bundle, FOUR)
    encoder = dict(bundle.manifest.meta["encoder"], architecture="another")
    other = Bundle.open(make_bundle(tmp_path / "another", encoder=encoder))
    gpu.count = 0
    with pytest.raises(EngineError, match=r"encoder is thumbnail, here it is another"):
        refit_engine(other, bundle.root)


def test_weights_that_fail_the_gates_are_not_written(
    gpu: "Gpu", bundle: Bundle, retrained: Bundle, make_bundle: MakeBundle, tmp_path: Path
) -> None:
    """The ONNX file is sound, and its answers are not those of the probes."""
    build_engine(bundle, FOUR)
    onnx = (retrained.root / "encoder.fp32.onnx").read_bytes()
    wrong = Bundle.open(make_bundle(tmp_path / "wrong", onnx=onnx))
    with pytest.raises(GateError, match="Nothing was written"):
        refit_engine(wrong, bundle.root)
    assert files(wrong) == []


def test_an_engine_of_another_machine_is_not_refitted(
    gpu: "Gpu", bundle: Bundle, retrained: Bundle
) -> None:
    build_engine(bundle, FOUR)
    gpu.name = "Orin NX"
    with pytest.raises(EngineError, match=r"built elsewhere: GPU is Orin, here it is Orin NX"):
        refit_engine(retrained, bundle.root)


def test_nothing_to_refit_is_said(gpu: "Gpu", bundle: Bundle, retrained: Bundle) -> None:
    with pytest.raises(EngineError, match=r"no engine to refit\. Run: skyfix engine build"):
        refit_engine(retrained, bundle.root)
    build_engine(bundle, FOUR)
    sidecar = engines_of(bundle) / NAME.replace(".engine", ".json")
    value = json.loads(sidecar.read_text())
    sidecar.write_text(json.dumps(value | {"refittable": True, "precision": "fp16"}))
    with pytest.raises(EngineError, match=r"no engine to refit .*was altered"):
        refit_engine(retrained, bundle.root)


def test_an_engine_looks_places_up_on_an_index_as_the_last_gate(
    gpu: "Gpu", bundle: Bundle, index_dir: Path
) -> None:
    record = build_engine(bundle, EngineOptions(max_batch=4, index=index_dir))
    measured = record.gates["on index"]
    assert measured["found"] == measured["reference"]
    assert measured["queries"] == 200
    assert "index" not in record.options


def test_an_engine_that_finds_fewer_places_is_not_written(
    gpu: "Gpu", bundle: Bundle, index_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edge_runtime import index_gate

    quality, calls = index_gate.place_quality, []

    def losing(*args: Any) -> index_gate.PlaceQuality:
        calls.append(args)
        found = quality(*args)
        if len(calls) == 1:  # The trained encoder's comes first.
            return found
        return index_gate.PlaceQuality(
            recall_at_1=found.recall_at_1 / 2,
            recall_at_10=found.recall_at_10,
            success_20m=found.success_20m,
        )

    monkeypatch.setattr(index_gate, "place_quality", losing)
    with pytest.raises(GateError, match=r"engine thumbnail.* recall@1 on the index"):
        build_engine(bundle, EngineOptions(max_batch=4, index=index_dir))
    assert not list(list_records(engines_of(bundle)))
