import hashlib
import json
import platform
import sys
from pathlib import Path

import pytest

from tests.tensorrt_interface.recording import (
    PYTHONS,
    VERSIONS,
    NotRecordableError,
    fetch_wheel,
    record,
    record_path,
)

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"),
    reason="the recorded wheels are those for Linux on x86-64",
)
@pytest.mark.skipif(HERE not in PYTHONS, reason=f"no recorded wheel is for Python {HERE}")
@pytest.mark.parametrize("version", VERSIONS)
def test_the_record_is_what_the_published_wheel_says(version: str) -> None:
    recorded = json.loads(record_path(version).read_text())
    try:
        wheel = fetch_wheel(version, HERE)
        found = record(wheel, Path(sys.executable))
    except NotRecordableError as error:
        pytest.skip(str(error))
    assert hashlib.sha256(wheel.read_bytes()).hexdigest() == recorded["wheels"][wheel.name]
    assert found == {name: value for name, value in recorded.items() if name != "wheels"}


def test_tensorrt_11_dropped_what_its_migration_guide_says_and_10_has_it() -> None:
    old, new = (json.loads(record_path(v).read_text()) for v in ("10.3.0", "11.4.0.106"))
    assert {"FP16", "INT8"} <= set(old["enums"]["BuilderFlag"])
    assert not {"FP16", "INT8"} & set(new["enums"]["BuilderFlag"])
    assert "platform_has_fast_fp16" in old["classes"]["Builder"]["properties"]
    assert "platform_has_fast_fp16" not in new["classes"]["Builder"]["properties"]
    assert "IInt8EntropyCalibrator2" in old["classes"]
    assert "IInt8EntropyCalibrator2" not in new["classes"]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_record_holds_the_signatures_that_an_engine_needs(version: str) -> None:
    """Known from NVIDIA's Python API reference, TensorRT 10 and 11."""
    classes = json.loads(record_path(version).read_text())["classes"]
    assert classes["OnnxParser"]["methods"]["parse_from_file"] == [
        "(self: OnnxParser, model: str) -> bool"
    ]
    assert classes["IBuilderConfig"]["properties"]["builder_optimization_level"] == "int"
    assert classes["ICudaEngine"]["properties"]["num_io_tensors"] == "int (read-only)"
    (execute,) = classes["IExecutionContext"]["methods"]["execute_async_v3"]
    assert execute.startswith("(self: IExecutionContext, stream_handle: ")


def test_a_wheel_that_cannot_be_had_is_named_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.tensorrt_interface.recording.WHEELS", tmp_path)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(NotRecordableError, match=r"10\.3\.0 for Python 3\.11 cannot be downloaded"):
        fetch_wheel("10.3.0", "3.11")
