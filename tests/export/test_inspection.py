"""What the inspection says of a real bundle, as data and as text."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.bundle import Bundle
from edge_runtime.errors import InputError
from export.inspection import DEVICE_NAMES, as_text, inspect_encoder

ONE = ("Orin NX 16GB",)


def test_parts_add_up_to_the_whole(exported: Callable[[str], Any]) -> None:
    (found, *_) = inspect_encoder(exported("test_resnet").bundle, devices=ONE)
    for what in ("kernels", "macs", "flops", "weight_bytes", "read_bytes", "written_bytes"):
        assert sum(getattr(part, what) for part in found.parts) == getattr(found.whole, what)
    assert found.parts[0].name == "input"
    assert found.parts[-1].name == "output"
    assert len(found.parts) > 3
    parameters = sum(p.numel() for p in exported("test_resnet").encoder.parameters())
    # Batch norms are folded into convolutions: two numbers a channel become one.
    assert 0.9 * parameters < found.whole.parameters <= parameters + 6


def test_every_precision_of_a_bundle_is_beside_the_others(bundle: Bundle) -> None:
    found = inspect_encoder(bundle.root, devices=ONE)
    assert [Path(one.file).name for one in found] == [
        f"encoder.{precision}.onnx"
        for precision in ("fp32", "fp16")
        if precision in bundle.precisions
    ]
    fp32, fp16 = found
    assert fp32.whole.macs == fp16.whole.macs
    assert fp32.whole.precisions == {"fp32": 1.0}
    assert fp16.whole.precisions["fp16"] > 0.9
    assert fp16.whole.weight_bytes < 0.6 * fp32.whole.weight_bytes
    (slow,), (fast,) = fp32.estimates, fp16.estimates
    assert slow.fused_ms is not None
    assert fast.fused_ms is not None
    assert fast.fused_ms < slow.fused_ms
    text = as_text(found)
    assert text.index("encoder.fp32.onnx") < text.index("encoder.fp16.onnx") < text.index("Orin NX")
    header = next(line for line in text.splitlines() if line.startswith("device"))
    assert header.split()[2:] == ["fp32", "fp32,", "unfused", "fp16", "fp16,", "unfused"]


def test_one_file_is_shown_beside_what_it_could_be(bundle: Bundle) -> None:
    path = bundle.onnx_path("fp32")
    (found,) = inspect_encoder(path, batch=4, devices=ONE)
    (one,) = inspect_encoder(path, devices=ONE)
    assert found.whole.macs == 4 * one.whole.macs
    assert found.whole.weight_bytes == one.whole.weight_bytes
    estimate = found.estimates[0]
    assert estimate.fused_all_ms["fp32"] == estimate.fused_ms
    times = [estimate.fused_all_ms[kind] or 0.0 for kind in ("fp32", "fp16", "int8")]
    assert times == sorted(times, reverse=True)
    assert "all fp16" in as_text([found])
    assert "batch of 4" in as_text([found])


def test_nodes_are_listed_by_the_names_they_have_in_the_file(bundle: Bundle) -> None:
    (found, *_) = inspect_encoder(bundle.root, devices=ONE)
    convolutions = [cost.name for cost in found.costs if cost.ops[0] == "Conv"]
    assert len(convolutions) == found.nodes["Conv"]
    text = as_text([found], nodes=True)
    assert all(name in text for name in convolutions)
    assert convolutions[0] not in as_text([found])


def test_columns_line_up(bundle: Bundle) -> None:
    (found, *_) = inspect_encoder(bundle.root, devices=ONE)
    lines = as_text([found]).splitlines()
    start = next(k for k, line in enumerate(lines) if line.startswith("part"))
    table = lines[start : start + 2 + len(found.parts)]
    assert len({len(line) for line in table}) == 1
    assert table[-1].startswith("all")


def test_json_says_all_that_text_says(bundle: Bundle) -> None:
    (found, *_) = inspect_encoder(bundle.root, devices=ONE)
    value = json.loads(json.dumps(found.to_json()))
    assert value["whole"]["macs"] == found.whole.macs
    assert value["estimates"][0]["device"] == "Orin NX 16GB"
    assert {part["name"] for part in value["parts"]} == {part.name for part in found.parts}


def test_inspecting_needs_no_torch(bundle: Bundle) -> None:
    code = (
        "import sys; from pathlib import Path; from export.inspection import inspect_encoder; "
        f"inspect_encoder(Path({str(bundle.onnx_path('fp32'))!r}), devices=['H200']); "
        "assert not {'torch', 'timm', 'onnxruntime'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a bundle folder or an ONNX file"):
        inspect_encoder(tmp_path / "nothing", devices=ONE)
    with pytest.raises(InputError, match="no device 'GTX'"):
        inspect_encoder(tmp_path, devices=["GTX"])
    assert DEVICE_NAMES[-1] == "this machine"
