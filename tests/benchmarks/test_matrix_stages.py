from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from benchmarks.matrix import child
from benchmarks.matrix.device_stages import device_stages, stages_note
from benchmarks.matrix.runtimes import FlownRuntime, RuntimeInfo
from benchmarks.matrix.torch_runtime import TorchRuntime
from benchmarks.random_checkpoint import random_checkpoint
from benchmarks.roofline import graph_cost

INFO = RuntimeInfo(provider="p", library="l", threads=None, load_s=0.0, model_sha256="")
COST = graph_cost.GraphCost(
    model="m", batch=1, height_px=64, width_px=64, macs=5 * 10**10, flops=10**11, mac_share={},
    weight_bytes=1, input_bytes=1, output_bytes=1, unfused_bytes=3, nodes=1, unknown={},
)  # fmt: skip
CALLS = [np.full((1, 2, 2, 3), k, np.uint8) for k in range(3)]


class OnDevice:
    """Tells its stages apart; the "GPU" takes as long as the call's pictures say."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def stages_ms(self, images: npt.NDArray[np.uint8]) -> dict[str, float]:
        self.seen.append(int(images[0, 0, 0, 0]))
        return {"host-to-device": 1.0, "GPU": 5.0 + self.seen[-1], "device-to-host": 0.5}


def _flown(backend: Any) -> FlownRuntime:
    return FlownRuntime(backend, INFO)


def test_stages_are_timed_after_a_warm_up_over_pictures_in_turn() -> None:
    backend = OnDevice()
    found = device_stages(_flown(backend), CALLS, seconds=0.0, least_calls=6)
    assert backend.seen == [0, 1, 2] * 3
    assert {name: (s.n, s.warmup, s.p50_ms) for name, s in found.items()} == {
        "host-to-device": (6, 3, 1.0),
        "GPU": (6, 3, 6.0),
        "device-to-host": (6, 3, 0.5),
    }
    assert "in 6 calls of their own" in stages_note(found)


def test_stages_go_on_until_their_seconds_are_over() -> None:
    now_ns = iter(range(0, 10**12, 10**9))
    found = device_stages(
        _flown(OnDevice()), CALLS, seconds=5.0, least_calls=2, clock_ns=lambda: next(now_ns)
    )
    assert found["GPU"].n == 6


def test_a_backend_without_a_clock_of_its_own_has_no_stages() -> None:
    assert device_stages(_flown(object()), CALLS, seconds=1.0, least_calls=2) == {}
    assert stages_note({}) == ""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("stages") / "checkpoint"
    random_checkpoint("mobilenetv4_conv_small_050", 64, root)
    return root


def test_on_a_cpu_torch_has_no_stages(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    runtime = TorchRuntime(checkpoint, "fp32", compiled=False, threads=1)
    assert device_stages(runtime, CALLS, seconds=1.0, least_calls=2) == {}


class Pixels:
    """A tensor of a GPU that is made up: each thing done with it takes its time there."""

    def __init__(self, spend: Any) -> None:
        self._spend = spend

    def to(self, _device: object) -> "Pixels":
        self._spend("host-to-device")
        return self

    def float(self) -> "Pixels":
        return self

    def cpu(self) -> "Pixels":
        self._spend("device-to-host")
        return self


@pytest.mark.parametrize("slow", ["host-to-device", "GPU", "device-to-host"])
def test_5_ms_in_torch_on_the_gpu_appear_in_their_stage_alone(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, slow: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    runtime = TorchRuntime(checkpoint, "fp32", compiled=False, threads=1)
    takes_ms = {"host-to-device": 0.25, "GPU": 2.0, "device-to-host": 0.125}
    takes_ms[slow] += 5.0
    now_ms = [0.0]
    finished: list[bool] = []

    def spend(stage: str) -> None:
        now_ms[0] += takes_ms[stage]

    class Event:
        def __init__(self, enable_timing: bool = False) -> None:
            assert enable_timing, "such an event has no time"

        def record(self) -> None:
            self.at_ms = now_ms[0]

        def elapsed_time(self, end: "Event") -> float:
            assert finished, "torch refuses to read an event that has not happened"
            return end.at_ms - self.at_ms

    def encoder(images: Pixels) -> Pixels:
        spend("GPU")
        return images

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: finished.append(True))
    monkeypatch.setattr(torch, "from_numpy", lambda _images: Pixels(spend))
    monkeypatch.setattr(runtime, "_device", SimpleNamespace(type="cuda"))
    monkeypatch.setattr(runtime, "_encoder", encoder)
    assert runtime.stages_ms(CALLS[0]) == pytest.approx(takes_ms)


@pytest.mark.parametrize(("precision", "peak"), [("fp32", 100.0), ("bf16", 400.0)])
def test_a_bf16_row_is_held_against_the_peak_of_bf16(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, precision: str, peak: float
) -> None:
    told = '{"device": "d", "peak_gflops": {"fp32": 100, "bf16": 400}, "bandwidth_gb_s": 1e9, '
    (tmp_path / "ceilings.json").write_text(told + '"source": "measured"}')
    opened: list[str] = []

    def cost(path: Path, _batch: int, _size: tuple[int, int]) -> graph_cost.GraphCost:
        opened.append(path.name)
        return COST

    bundle = SimpleNamespace(root=tmp_path, spec=SimpleNamespace(height_px=64, width_px=64))
    monkeypatch.setattr(child, "Bundle", SimpleNamespace(open=lambda _root: bundle))
    monkeypatch.setattr(graph_cost, "graph_cost", cost)
    task: Any = SimpleNamespace(
        ceilings=tmp_path / "ceilings.json", bundle=tmp_path, precision=precision, batch=1
    )
    runtime = _flown(OnDevice())
    runtime.info = RuntimeInfo(
        provider="torch cpu", library="l", threads=1, load_s=0.0, model_sha256=""
    )
    limit, _ = child._limit(task, runtime, 10.0)
    assert limit is not None
    assert limit.peak_gflops == peak
    assert limit.roof_ms == pytest.approx(1e5 / peak)
    assert opened == ["encoder.fp16.onnx" if precision == "bf16" else "encoder.fp32.onnx"]
