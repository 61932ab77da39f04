"""What is particular to OpenVINO; what every backend must do is in test_backend_agreement."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.backends.openvino_cpu import OpenVinoBackend
from edge_runtime.backends.protocol import open_backend, usable_cores
from edge_runtime.bundle import Bundle
from edge_runtime.errors import BackendError

MakeBundle = Callable[..., Path]
MakeOnnx = Callable[..., bytes]


@pytest.fixture
def openvino() -> None:
    pytest.importorskip("openvino")


@pytest.mark.usefixtures("openvino")
def test_it_says_what_really_runs(bundle: Bundle) -> None:
    backend = open_backend(bundle, "openvino", threads=1)
    info = backend.info
    assert (info.name, info.provider, info.precision) == ("openvino", "OpenVINO CPU", "fp32")
    assert info.threads == 1
    assert info.library.startswith("openvino 20")
    backend.close()


@pytest.mark.usefixtures("openvino")
def test_it_takes_the_cores_it_may_use_unless_told(bundle: Bundle) -> None:
    backend = OpenVinoBackend(bundle, precision="fp32")
    assert backend.info.threads == usable_cores()
    backend.close()


@pytest.mark.usefixtures("openvino")
def test_fp32_is_computed_in_fp32_also_where_the_cpu_has_bfloat16(bundle: Bundle) -> None:
    """bfloat16 keeps 8 bits of a number: errors of 4e-3, where float32 gives 1e-6."""
    backend = OpenVinoBackend(bundle, precision="fp32", threads=1)
    images, reference = bundle.probes()
    assert np.abs(backend.embed(images) - reference).max() < 1e-5
    backend.close()


@pytest.mark.usefixtures("openvino")
def test_it_sends_no_usage_report_and_hides_nothing_for_good(bundle: Bundle) -> None:
    code = (
        "import socket, sys\n"
        "from pathlib import Path\n"
        "def refuse(*_): print('CONNECTS'); raise OSError\n"
        "socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse\n"
        "from edge_runtime.backends.protocol import open_backend\n"
        "from edge_runtime.bundle import Bundle\n"
        f"bundle = Bundle.open(Path({str(bundle.root)!r}))\n"
        "open_backend(bundle, 'openvino', threads=1).close()\n"
        "print(*[m for m in sys.modules if m.startswith('openvino_telemetry')])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.usefixtures("openvino")
def test_a_cache_folder_is_written_only_where_one_is_given(bundle: Bundle, tmp_path: Path) -> None:
    OpenVinoBackend(bundle, precision="fp32", threads=1).close()
    assert list(tmp_path.iterdir()) == []
    for _ in range(2):
        backend = OpenVinoBackend(bundle, precision="fp32", threads=1, cache=tmp_path)
        images, reference = bundle.probes()
        assert np.abs(backend.embed(images) - reference).max() < 1e-5
        backend.close()
    assert list(tmp_path.rglob("*")) != []


@pytest.mark.usefixtures("openvino")
def test_a_file_that_is_not_onnx_is_refused_in_one_line(
    tmp_path: Path, make_bundle: MakeBundle
) -> None:
    bad = Bundle.open(make_bundle(tmp_path / "bundle", onnx=b"not a model"))
    with pytest.raises(BackendError, match=r"cannot run .*encoder\.fp32\.onnx.*ort-cpu") as caught:
        open_backend(bad, "openvino")
    assert "\n" not in str(caught.value)
    assert "Exception from" not in str(caught.value)


@pytest.mark.usefixtures("openvino")
@pytest.mark.parametrize("fault", ["another input", "longer embeddings"])
def test_an_encoder_of_another_contract_is_refused(
    tmp_path: Path, make_bundle: MakeBundle, make_encoder_onnx: MakeOnnx, fault: str
) -> None:
    foreign = (
        make_encoder_onnx(input_name="photos")
        if fault == "another input"
        else make_encoder_onnx(np.ones((48, 16), np.float32))
    )
    bad = Bundle.open(make_bundle(tmp_path / "bundle", onnx=foreign))
    with pytest.raises(BackendError, match=r"cannot run|\(1, 16\), the bundle says \(1, 12\)"):
        open_backend(bad, "openvino")


def test_where_it_is_not_installed_the_command_that_installs_it_is_said(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(BackendError, match=r"pip install 'skyfix\[openvino\]'"):
        open_backend(bundle, "openvino")
