"""A flight of twelve photographs, its log and recording, and its page taken apart."""

import base64
import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from edge_runtime.fix import Fix, Status
from edge_runtime.flight_log import RunSettings, settings_path
from edge_runtime.flight_page import PageOptions, PageSummary, make_page

U8 = npt.NDArray[np.uint8]

FRAMES = 12
ARRAYS = {"f64": "d", "f32": "f", "i32": "i", "u8": "B"}


def a_record(seq: int, **changes: Any) -> Fix:
    """Frame `seq` of a flight to the north-east."""
    values: dict[str, Any] = {
        "seq": seq,
        "frame": f"{seq:06d}",
        "t_exposure_s": seq / 2,
        "t_fix_s": seq / 2 + 0.1,
        "status": "OK",
        "mode": "TRACK",
        "reason": "",
        "lat_deg": 47.5 + 6e-6 * seq,
        "lon_deg": 8.3 + 9e-6 * seq,
        "eph_m": 4.0,
        "yaw_deg": 45.0,
        "probability": 0.999,
        "latency_ms": {"encode": 20.0, "refine": 60.0, "total": 82.0},
    }
    return Fix(**values | changes)


def an_unplaced(seq: int, status: Status, **changes: Any) -> Fix:
    nothing = {"lat_deg": None, "lon_deg": None, "eph_m": None}
    return a_record(seq, status=status, reason="several places fit", **nothing | changes)


def a_log(path: Path, fixes: Sequence[Fix]) -> Path:
    path.write_text("".join(fix.to_json() + "\n" for fix in fixes))
    return path


class Page(HTMLParser):
    """A page as a browser takes it apart."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.raw = path.read_bytes()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.blocks: dict[str, str] = {}
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self.title = ""
        self._inside = ""
        self._attributes: dict[str, str | None] = {}
        self.feed(self.raw.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside, self._attributes = tag, dict(attrs)

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "title":
            self.title += data
        elif self._inside == "style":
            self.styles.append(data)
        elif self._inside == "script" and (name := self._attributes.get("id")) is not None:
            self.blocks[name] = self.blocks.get(name, "") + data
        elif self._inside == "script":
            self.scripts.append(data)

    @property
    def data(self) -> Any:
        return json.loads(self.blocks["data"])

    def column(self, name: str) -> list[Any]:
        kind, text = self.data["flight"]["columns"][name]
        raw = base64.b64decode(text)
        code = ARRAYS[kind]
        return list(struct.unpack(f"<{len(raw) // struct.calcsize(code)}{code}", raw))

    def picture(self, name: str) -> U8:
        data = np.frombuffer(base64.b64decode(self.blocks[name]), np.uint8)
        image = cv2.imdecode(data, cv2.IMREAD_COLOR)
        assert image is not None
        return np.asarray(image[..., ::-1], np.uint8)

    @property
    def pictured(self) -> list[int]:
        return [int(row) for row in self.data["pictures"]]


@dataclass(kw_only=True)
class Flown:
    """A flight of twelve photographs, with its log and recording."""

    root: Path
    settings: RunSettings

    @property
    def log(self) -> Path:
        return self.root / "fixes.jsonl"

    def page(self, log: Path | None = None, **changes: Any) -> tuple[Page, PageSummary]:
        out = changes.pop("out", self.root / "page.html")
        summary = make_page(PageOptions(log=log or self.log, out=out, **changes))
        return Page(out), summary


@pytest.fixture(scope="module")
def flown(
    tmp_path_factory: pytest.TempPathFactory,
    scene: Any,
    flight_dir: Path,
    bundle_dir: Path,
    index_dir: Path,
) -> Flown:
    """Read only: it is shared."""
    pytest.importorskip("onnxruntime")
    from edge_runtime.run import RunOutputs, run

    root = tmp_path_factory.mktemp("flown")
    (root / "photos").mkdir()
    lines = ["filename,t_s,height_m,yaw_deg,pitch_deg,roll_deg"]
    for k in range(FRAMES):
        rgb = scene.photo(-30.0 + 5 * k, 10.0 + 2 * k)
        assert cv2.imwrite(str(root / "photos" / f"{k:03d}.png"), rgb[..., ::-1])
        lines.append(f"{k:03d}.png,{0.5 * k},100,0,0,0")
    (root / "telemetry.csv").write_text("\n".join(lines) + "\n")
    settings = RunSettings(
        source=str(root / "photos"),
        telemetry=str(root / "telemetry.csv"),
        camera=str(flight_dir / "camera.json"),
        bundle=str(bundle_dir),
        index=str(index_dir),
        backend="ort-cpu",
        options={"threads": 1},
    )
    outputs = RunOutputs(record=root / "recording")
    assert run(settings, root / "fixes.jsonl", outputs=outputs).frames == FRAMES
    return Flown(root=root, settings=settings)


@pytest.fixture
def own(flown: Flown, tmp_path: Path) -> Flown:
    """The same log, to be spoilt; its frames are the shared ones."""
    for path in (flown.log, settings_path(flown.log)):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return Flown(root=tmp_path, settings=flown.settings)


@pytest.fixture(scope="session")
def record() -> Callable[..., Fix]:
    """`a_record`."""
    return a_record


@pytest.fixture(scope="session")
def unplaced() -> Callable[..., Fix]:
    """`an_unplaced`."""
    return an_unplaced


@pytest.fixture(scope="session")
def write_log() -> Callable[[Path, Sequence[Fix]], Path]:
    """`a_log`."""
    return a_log


@pytest.fixture(scope="session")
def read_page() -> Callable[[Path], Page]:
    """`Page`."""
    return Page
