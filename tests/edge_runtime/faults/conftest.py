"""A short flight over the made-up map, as photographs and as a video, to be spoilt."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("onnxruntime")

from edge_runtime.fix import Fix
from edge_runtime.flight_log import RunSettings
from edge_runtime.geodesy import distance_m

U8 = npt.NDArray[np.uint8]

FRAMES = 14
STEP_S = 0.5
WRONG_M = 20.0
HEIGHT_M = 100.0


@dataclass(frozen=True)
class Flown:
    """What is true of the flight, and its pictures."""

    images: list[U8]
    """(180, 240, 3) uint8 RGB."""
    places: list[tuple[float, float]]

    def off_m(self, k: int, fix: Fix) -> float:
        assert fix.lat_deg is not None
        assert fix.lon_deg is not None
        return float(distance_m(*self.places[k], fix.lat_deg, fix.lon_deg))

    def assert_never_wrong(self, fixes: Sequence[Fix], frames: Sequence[int] | None = None) -> None:
        """No OK fix far from the truth.

        Args:
            fixes: of the flight.
            frames: which frame of the flight each was of; in order by default.
        """
        for k, fix in zip(range(FRAMES) if frames is None else frames, fixes, strict=False):
            if fix.status == "OK":
                assert self.off_m(k, fix) < WRONG_M, (k, fix)


def events_of(fixes: Sequence[Fix]) -> str:
    return "\n".join(event for fix in fixes for event in fix.events)


@pytest.fixture(scope="session")
def flown(scene: Any) -> Flown:
    offsets = [(-36.0 + 5 * k, 5.0 + 2 * k) for k in range(FRAMES)]
    return Flown(
        images=[scene.photo(*offset, height_m=HEIGHT_M) for offset in offsets],
        places=[scene.position(*offset) for offset in offsets],
    )


@pytest.fixture
def telemetry(tmp_path: Path) -> Callable[..., Path]:
    """Writes rows at 5 Hz: (t_s, height_m, yaw_deg), each changed or left out by a function."""

    def make(
        change: Callable[[float], str | None] = lambda t: f"{t},{HEIGHT_M},0,0,0",
        header: str = "t_s,height_m,yaw_deg,pitch_deg,roll_deg",
    ) -> Path:
        rows = [change(round(0.2 * k, 1)) for k in range(int(FRAMES * STEP_S / 0.2) + 2)]
        path = tmp_path / "rows.csv"
        path.write_text("\n".join([header, *(row for row in rows if row is not None)]) + "\n")
        return path

    return make


@pytest.fixture
def photographs(tmp_path: Path, flown: Flown, settings: RunSettings) -> RunSettings:
    """The flight as a folder of photographs that may be altered."""
    folder = tmp_path / "photos"
    folder.mkdir()
    lines = ["filename,t_s,height_m,yaw_deg,pitch_deg,roll_deg"]
    for k, image in enumerate(flown.images):
        assert cv2.imwrite(str(folder / f"{k:03d}.png"), image[..., ::-1])
        lines.append(f"{k:03d}.png,{STEP_S * k},{HEIGHT_M},0,0,0")
    (tmp_path / "telemetry.csv").write_text("\n".join(lines) + "\n")
    return RunSettings(
        **{
            **vars(settings),
            "source": str(folder),
            "telemetry": str(tmp_path / "telemetry.csv"),
        }
    )


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory, flown: Flown) -> Path:
    """The flight as a video of two frames a second. Read only: it is shared."""
    path = tmp_path_factory.mktemp("video") / "flight.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 1 / STEP_S, (240, 180))
    assert writer.isOpened()
    for image in flown.images:
        writer.write(np.ascontiguousarray(image[..., ::-1]))
    writer.release()
    return path


@pytest.fixture
def settings(flight_dir: Path, bundle_dir: Path, index_dir: Path, video: Path) -> RunSettings:
    """Without telemetry yet."""
    return RunSettings(
        source=str(video),
        telemetry="",
        camera=str(flight_dir / "camera.json"),
        bundle=str(bundle_dir),
        index=str(index_dir),
        backend="ort-cpu",
        options={"threads": 1},
    )


@pytest.fixture
def events() -> Callable[[Sequence[Fix]], str]:
    return events_of
