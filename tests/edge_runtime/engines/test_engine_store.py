"""Plans and sidecars on disk: whole or not at all, verified before they are believed."""

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge_runtime import engine_files
from edge_runtime.artefact import write_atomically
from edge_runtime.bundle import Bundle
from edge_runtime.engine_check import check_engines, differences
from edge_runtime.engine_files import read_plan, settle, write_engine
from edge_runtime.engine_store import (
    EngineOptions,
    EngineRecord,
    Platform,
    engine_name,
    list_records,
    read_record,
)
from edge_runtime.errors import EngineError

HERE = Platform(
    tensorrt="10.3.0",
    gpu="Orin",
    compute_capability="8.7",
    driver="540.4.0",
    cuda_driver="12.6",
    cuda_runtime="12.6",
)
OLD, NEW = b"old plan" * 99, b"new plan" * 101


def record_of(bundle: Bundle, **changes: Any) -> EngineRecord:
    spec = bundle.spec
    record = EngineRecord(
        name=engine_name(spec, "fp32", 4, HERE),
        plan_sha256="",
        plan_bytes=0,
        bundle_id=bundle.id,
        onnx="encoder.fp32.onnx",
        onnx_sha256=bundle.manifest.files["encoder.fp32.onnx"],
        weights_sha256=bundle.weights_sha256,
        architecture=spec.architecture,
        embedding_size=spec.embedding_size,
        height_px=spec.height_px,
        width_px=spec.width_px,
        precision="fp32",
        profiles=[[1, 1, 1], [1, 4, 4]],
        platform=HERE,
        refittable=True,
        options=EngineOptions(precision="fp32", max_batch=4).to_json(),
        build_seconds=1.5,
        build_log=[],
        gates={"batch 1": {"min_cosine": 1.0}},
    )
    return replace(record, **changes)


@pytest.fixture
def written(bundle: Bundle, tmp_path: Path) -> EngineRecord:
    return write_engine(tmp_path, OLD, record_of(bundle))


def test_the_name_says_what_the_engine_is(bundle: Bundle) -> None:
    assert engine_name(bundle.spec, "fp16", 32, HERE) == (
        "thumbnail-12-32x32-b32-fp16-trt10.3.0-sm87.engine"
    )


@pytest.mark.parametrize("architecture", ["hf-hub:timm/convnext", "a b", "convnext.fb_in22k"])
def test_a_name_is_one_file_name_whatever_the_encoder(bundle: Bundle, architecture: str) -> None:
    name = engine_name(replace(bundle.spec, architecture=architecture), "fp16", 1, HERE)
    assert Path(name).name == name
    assert not set(name) & set(" :/\\")


def test_what_was_written_is_read_back(written: EngineRecord, tmp_path: Path) -> None:
    assert read_record(tmp_path / written.sidecar) == written
    assert read_plan(tmp_path, written) == OLD
    assert (written.plan_bytes, written.max_batch) == (len(OLD), 4)
    assert [r for _, r in list_records(tmp_path)] == [written]


def test_a_plan_is_raw_so_that_other_tools_open_it(written: EngineRecord, tmp_path: Path) -> None:
    assert (tmp_path / written.name).read_bytes() == OLD


def interrupt_after(monkeypatch: pytest.MonkeyPatch, function: str, calls: int) -> None:
    """A crash right after so many calls of a function that changes a file's name."""
    real: Callable[..., Any] = getattr(Path, function)
    count = 0

    def crashing(self: Path, target: Any) -> Any:
        nonlocal count
        count += 1
        if count > calls:
            raise KeyboardInterrupt
        return real(self, target)

    monkeypatch.setattr(Path, function, crashing)


@pytest.mark.parametrize("renames", [0, 1, 2])
def test_a_crash_at_any_moment_leaves_the_old_engine_or_the_new_one(
    written: EngineRecord,
    bundle: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    renames: int,
) -> None:
    """Three renames: the plan beside its place, the sidecar, the plan into its place."""
    with monkeypatch.context() as crash:
        # A killed process tidies nothing up.
        crash.setattr(Path, "unlink", lambda *_, **__: None)
        interrupt_after(crash, "replace", renames)
        with pytest.raises(KeyboardInterrupt):
            write_engine(tmp_path, NEW, record_of(bundle))
    record = read_record(tmp_path / written.sidecar)
    assert read_plan(tmp_path, record) == (NEW if renames == 2 else OLD)
    assert len(list(list_records(tmp_path))) == 1


def test_what_a_crash_left_is_swept_up_by_the_next_engine(
    written: EngineRecord, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as crash:
        crash.setattr(Path, "unlink", lambda *_, **__: None)
        interrupt_after(crash, "replace", 1)
        with pytest.raises(KeyboardInterrupt):
            write_engine(tmp_path, NEW, record_of(bundle))
    write_engine(tmp_path, OLD + NEW, record_of(bundle))
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".engine", ".json"]


def test_temporary_files_of_killed_processes_are_swept_up_and_of_living_ones_are_not(
    bundle: Bundle, tmp_path: Path
) -> None:
    killed = subprocess.Popen([sys.executable, "-c", ""])
    killed.wait()
    dead, alive = (tmp_path / f".x.engine.{pid}.tmp" for pid in (killed.pid, os.getppid()))
    dead.touch()
    alive.touch()
    write_engine(tmp_path, NEW, record_of(bundle))
    assert (dead.exists(), alive.exists()) == (False, True)


def test_two_writers_at_once_leave_one_whole_engine(bundle: Bundle, tmp_path: Path) -> None:
    plans = [bytes([k]) * 50_000 for k in range(6)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda plan: write_engine(tmp_path, plan, record_of(bundle)), plans))
    ((_, record),) = list_records(tmp_path)
    assert isinstance(record, EngineRecord)
    assert read_plan(tmp_path, record) in plans
    assert len(list(tmp_path.iterdir())) == 2


def test_a_folder_that_cannot_be_written_is_read_where_the_crash_left_it(
    written: EngineRecord, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as crash:
        interrupt_after(crash, "replace", 2)
        with pytest.raises(KeyboardInterrupt):
            write_engine(tmp_path, NEW, record_of(bundle))

    def read_only(self: Path, target: Any) -> Any:
        raise PermissionError(13, "Read-only file system")

    monkeypatch.setattr(Path, "replace", read_only)
    record = read_record(tmp_path / written.sidecar)
    assert settle(tmp_path, record).name.endswith(".new")
    assert read_plan(tmp_path, record) == NEW


@pytest.mark.parametrize("at", ["plan", "sidecar"])
def test_a_full_disk_is_one_line_and_leaves_the_old_engine(
    written: EngineRecord, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    real = write_atomically

    def full(path: Path, data: bytes) -> None:
        if (path.suffix == ".json") == (at == "sidecar"):
            path.with_name(f".{path.name}.{os.getpid()}.tmp").write_bytes(data[:9])
            raise OSError(28, "No space left on device")
        real(path, data)

    monkeypatch.setattr(engine_files, "write_atomically", full)
    with pytest.raises(EngineError, match=r"No space left.*free some space.*--out") as caught:
        write_engine(tmp_path, NEW, record_of(bundle))
    assert "\n" not in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == [written.name, written.sidecar]
    assert read_plan(tmp_path, read_record(tmp_path / written.sidecar)) == OLD


def flip(path: Path, where: int) -> None:
    data = bytearray(path.read_bytes())
    data[where] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda p: flip(p, 100), id="a bit flipped"),
        pytest.param(lambda p: p.write_bytes(p.read_bytes()[:-1]), id="truncated"),
        pytest.param(lambda p: p.write_bytes(b""), id="empty"),
        pytest.param(lambda p: p.write_bytes(NEW), id="another plan"),
        pytest.param(lambda p: p.unlink(), id="missing"),
    ],
)
def test_an_altered_plan_is_refused(
    written: EngineRecord, tmp_path: Path, bundle: Bundle, spoil: Callable[[Path], Any]
) -> None:
    spoil(tmp_path / written.name)
    with pytest.raises(EngineError, match=r"copy both files|build it again"):
        read_plan(tmp_path, written)
    (checked,) = check_engines(bundle, HERE, tmp_path)
    assert not checked.fresh
    assert checked.command == f"skyfix engine build {bundle.root} --precision fp32"


@pytest.mark.parametrize("where", range(0, 1000, 97))
def test_a_flipped_bit_of_a_sidecar_is_noticed(
    written: EngineRecord, tmp_path: Path, where: int
) -> None:
    flip(tmp_path / written.sidecar, where)
    with pytest.raises(EngineError, match=r"build the engine again|Build the engine again"):
        read_record(tmp_path / written.sidecar)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not a readable sidecar"),
        ("[]", "not a readable sidecar"),
        ("{}", "not a readable sidecar"),
        ('{"schema": 2, "sha256": ""}', "schema 2; this skyfix reads 1"),
        ('{"schema": 1, "sha256": ""}', "was altered after it was written"),
    ],
)
def test_what_is_no_sidecar_is_refused(tmp_path: Path, text: str, says: str) -> None:
    sidecar = tmp_path / "x-trt10-sm87.json"
    sidecar.write_text(text)
    with pytest.raises(EngineError, match=says):
        read_record(sidecar)
    ((_, found),) = list_records(tmp_path)
    assert isinstance(found, EngineError)


def test_a_plan_without_a_sidecar_is_not_believed(written: EngineRecord, tmp_path: Path) -> None:
    (tmp_path / written.sidecar).unlink()
    ((path, found),) = list_records(tmp_path)
    assert path.name == written.name
    assert "has no sidecar" in str(found)


def test_other_files_of_a_folder_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.json").write_text("{}")
    assert list(list_records(tmp_path)) == []
    assert list(list_records(tmp_path / "absent")) == []


@pytest.mark.parametrize(
    "options",
    [
        {"max_batch": 0},
        {"optimisation_level": 6},
        {"optimisation_level": -1},
        {"workspace_bytes": 0},
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(EngineError, match="expected at least"):
        EngineOptions(**options)


# --- fresh or stale ------------------------------------------------------------------------------


def test_an_engine_of_this_bundle_and_machine_is_fresh(
    written: EngineRecord, bundle: Bundle, tmp_path: Path
) -> None:
    assert differences(written, bundle, HERE) == []
    (checked,) = check_engines(bundle, HERE, tmp_path)
    assert checked.fresh
    assert str(checked) == f"{written.name}: fresh"


@pytest.mark.parametrize(
    ("field", "value", "what"),
    [
        ("tensorrt", "10.4.0", "TensorRT"),
        ("gpu", "Orin NX", "GPU"),
        ("compute_capability", "9.0", "compute capability"),
        ("driver", "560.1", "driver"),
        ("cuda_driver", "13.0", "CUDA of the driver"),
    ],
)
def test_each_difference_of_the_machine_is_named_with_the_command(
    written: EngineRecord, bundle: Bundle, tmp_path: Path, field: str, value: str, what: str
) -> None:
    elsewhere = replace(HERE, **{field: value})
    (checked,) = check_engines(bundle, elsewhere, tmp_path)
    (difference,) = checked.differences
    assert (difference.what, difference.engine) == (what, getattr(HERE, field))
    assert str(checked) == (
        f"{written.name}: {what} is {getattr(HERE, field)}, here it is {value}. Run: "
        f"skyfix engine build {bundle.root} --precision fp32"
    )


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"onnx_sha256": "ef" * 32}, "ONNX sha256"),
        ({"onnx": "encoder.other.onnx"}, "ONNX sha256"),
        ({"weights_sha256": "ef" * 32}, "weights sha256"),
        ({"height_px": 64}, "input size"),
        ({"width_px": 64}, "input size"),
        ({"embedding_size": 13}, "embedding size"),
        ({"architecture": "another"}, "encoder"),
        ({"precision": "int8"}, "precision"),
    ],
)
def test_each_difference_of_the_encoder_is_named(
    bundle: Bundle, changes: dict[str, Any], what: str
) -> None:
    found = differences(record_of(bundle, **changes), bundle, HERE)
    assert [d.what for d in found] == [what]


@pytest.mark.parametrize(
    ("options", "here", "fresh"),
    [
        ({"version_compatible": True}, {"tensorrt": "10.16.1"}, True),
        ({"version_compatible": True}, {"tensorrt": "11.4.0"}, True),
        ({"version_compatible": True}, {"tensorrt": "10.1.0"}, False),
        ({"version_compatible": True}, {"tensorrt": "12.0.0"}, False),
        ({"hardware_compatible": True}, {"gpu": "RTX 4090", "compute_capability": "8.9"}, True),
        ({"hardware_compatible": True}, {"gpu": "T4", "compute_capability": "7.5"}, False),
        ({"hardware_compatible": True}, {"tensorrt": "10.16.1"}, False),
        ({"version_compatible": True}, {"gpu": "Orin NX"}, False),
    ],
)
def test_a_compatible_engine_is_held_to_what_it_promises(
    bundle: Bundle, options: dict[str, bool], here: dict[str, str], fresh: bool
) -> None:
    record = record_of(bundle, options=options)
    assert (differences(record, bundle, replace(HERE, **here)) == []) is fresh
