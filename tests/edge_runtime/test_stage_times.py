"""Time that a stage takes is booked on that stage and on no other."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edge_runtime import stage_clock
from edge_runtime.bundle import Bundle
from edge_runtime.fix import STAGES, Fix
from edge_runtime.localizer import Localizer
from edge_runtime.localizer_config import LocalizerConfig
from edge_runtime.satellite_index import SatelliteIndex
from edge_runtime.state import VehicleState


@pytest.fixture
def localizer(
    bundle: Bundle, index_dir: Path, fake_backend: Any, scene: Any
) -> Iterator[Localizer]:
    index = SatelliteIndex.open(index_dir, bundle)
    yield Localizer(bundle, index, fake_backend, scene.camera, LocalizerConfig())
    index.close()


def step(localizer: Localizer, scene: Any) -> Fix:
    known = VehicleState(t_s=0.0, height_m=100.0, yaw_deg=0.0, pitch_deg=0.0, roll_deg=0.0)
    return localizer.step(scene.photo(20, -30), known, capture_ms=3.0)


def part_of(localizer: Localizer, stage: str) -> tuple[object, str]:
    """(object, method) that does a stage's work once a frame."""
    owners: dict[str, tuple[object, str]] = {
        "ground_view": (localizer._views, "make"),
        "encode": (localizer.backend, "embed"),
        "search": (localizer.index, "search"),
        "refine": (localizer._search._refiner, "refine"),
        "track": (localizer._tracker, "update"),
    }
    return owners[stage]


def delayed(call: Callable[..., Any], wait: Callable[[], None]) -> Callable[..., Any]:
    """The same call, with a wait in it the first time."""
    waits = iter([wait])

    def late(*arguments: Any, **options: Any) -> Any:
        for once in waits:
            once()
        return call(*arguments, **options)

    return late


@pytest.mark.parametrize("stage", ["ground_view", "encode", "search", "refine", "track"])
def test_five_milliseconds_are_in_their_stage_and_only_there(
    stage: str, localizer: Localizer, scene: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = [100.0]

    def wait() -> None:
        now_s[0] += 0.005

    clock = SimpleNamespace(perf_counter=lambda: now_s[0])
    monkeypatch.setattr(stage_clock, "time", clock)
    owner, method = part_of(localizer, stage)
    monkeypatch.setattr(owner, method, delayed(getattr(owner, method), wait))
    fix = step(localizer, scene)
    assert fix.status == "OK"
    expected = dict.fromkeys(STAGES, 0.0) | {"capture": 3.0, stage: 5.0, "total": 8.0}
    assert fix.latency_ms == pytest.approx(expected, abs=1e-6)


def test_a_real_sleep_of_the_encoder_is_in_its_stage(
    localizer: Localizer, scene: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed = localizer.backend.embed
    monkeypatch.setattr(localizer.backend, "embed", delayed(embed, lambda: time.sleep(0.05)))
    slow = step(localizer, scene).latency_ms
    assert slow["encode"] >= 50.0
    assert slow["total"] >= slow["encode"] + slow["capture"]
