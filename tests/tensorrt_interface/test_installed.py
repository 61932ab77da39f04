"""On a machine with a GPU: the TensorRT that is there, whatever its version, against our code."""

import sys
from pathlib import Path

import pytest

from edge_runtime.cuda_device import cuda_device_count
from tests.tensorrt_interface.fit import findings
from tests.tensorrt_interface.recording import run_introspection, write_json

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(cuda_device_count() == 0, reason="no CUDA device"),
]
RUNTIME = Path(__file__).parents[2] / "edge_runtime"


def test_all_that_the_runtime_touches_exists_in_the_installed_tensorrt(tmp_path: Path) -> None:
    record = tmp_path / "installed.json"
    write_json(record, run_introspection(Path(sys.executable), "tensorrt", {}))
    assert findings(RUNTIME, record, tmp_path / "work") == []
