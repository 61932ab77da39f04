import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.camera import Camera
from edge_runtime.satellite_index import SatelliteIndex
from export.cli import main
from export.index_cli import TimedLines

Exported = Callable[[str], Any]
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def imagery(
    make_raster: Callable[..., Any], coloured_noise: Callable[..., Any], tmp_path: Path
) -> Path:
    path: Path = make_raster(tmp_path / "map.tif", coloured_noise(), crs="EPSG:3857", side=390).path
    return path


@pytest.fixture
def arguments(exported: Exported, imagery: Path, tmp_path: Path) -> list[str]:
    bundle = str(exported("test_resnet").bundle)
    given = ["index", "--imagery", str(imagery), "--bundle", bundle, "--out"]
    return [*given, str(tmp_path / "index"), "--backend", "ort-cpu", "--tile-m", "40"]


def said(capsys: Capture, arguments: list[str]) -> str:
    assert main(arguments) == 0
    return capsys.readouterr().out


def refused(capsys: Capture, arguments: list[str]) -> str:
    """Run a command that must fail; returns its one line on standard error."""
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def opened(root: Path) -> SatelliteIndex:
    index = SatelliteIndex.open(root)
    index.close()
    return index


def test_shards_and_a_merge_make_the_index_that_one_command_makes(
    arguments: list[str], tmp_path: Path, capsys: Capture
) -> None:
    for shard in ("2/2", "1/2"):
        assert "index merge" in said(capsys, [*arguments, "--shard", shard])
    merge = ["index", "merge", str(tmp_path / "index.build"), "--out", str(tmp_path / "index")]
    assert "Index of 289 tiles written" in said(capsys, merge)
    merged = opened(tmp_path / "index")
    arguments[arguments.index("--out") + 1] = str(tmp_path / "other")
    said(capsys, arguments)
    assert opened(tmp_path / "other").id == merged.id


def test_a_dry_run_prints_tiles_time_and_size_and_makes_no_index(
    arguments: list[str], tmp_path: Path, capsys: Capture
) -> None:
    text = said(capsys, [*arguments, "--dry-run"])
    assert "289 tiles, of 289 places looked at" in text
    assert re.search(r"\d+ s at \d+\.\d tiles a second in one process", text)
    assert re.search(r"\d+\.\d MB: imagery \d\.\d, vectors and tables 0\.\d", text)
    assert re.search(r"0\.03 km2, \d+\.\d MB/km2", text)
    assert not (tmp_path / "index").exists()
    # The imagery that was made for it is not made again.
    assert "imagery: done" in text
    assert "imagery: done" not in said(capsys, arguments)


def test_levels_come_from_a_camera_and_its_heights(
    arguments: list[str], tmp_path: Path, capsys: Capture
) -> None:
    camera = tmp_path / "camera.json"
    camera.write_text(Camera.from_hfov(400, 400, 53.130102).to_json())  # Sees as wide as high.
    levels = ["--levels-from", str(camera), "--heights-m", "90", "40", "50", "--overlap", "0.5"]
    said(capsys, [*arguments[:-2], *levels, "--headings", "2"])
    index = opened(tmp_path / "index")
    assert [(v.size_m, v.stride_m, len(v.headings_deg)) for v in index.levels] == [
        (40.0, 20.0, 2),
        (90.0, 45.0, 2),
    ]


def test_an_index_records_when_its_imagery_was_taken_and_whose_it_is(
    arguments: list[str], tmp_path: Path, capsys: Capture
) -> None:
    asked = said(capsys, arguments)
    assert "--captured, --attribution, --licence, to record it" in asked
    known = ["--captured", "2024-05-06", "--attribution", "us", "--licence", "CC0-1.0"]
    assert "--licence, to record" not in said(
        capsys, [*arguments, *known, "--update", arguments[6]]
    )
    (source,) = opened(tmp_path / "index").manifest.meta["sources"]
    assert (source["captured"], source["licence"]) == ("2024-05-06", "CC0-1.0")


def test_a_crop_leaves_out_what_lies_outside(
    arguments: list[str], tmp_path: Path, capsys: Capture
) -> None:
    west = [[8.29, 47.49], [8.3, 47.49], [8.3, 47.51], [8.29, 47.51], [8.29, 47.49]]
    crop = tmp_path / "west.geojson"
    crop.write_text(json.dumps({"type": "Polygon", "coordinates": [west]}))
    said(capsys, [*arguments, "--crop", str(crop)])
    index = opened(tmp_path / "index")
    assert 0 < len(index) < 289
    assert index.tiles["lon_deg"].max() < 8.3


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (["--shard", "3"], "expected K/N, as 3/16"),
        (["--shard", "4/3"], "expected 1/N to N/N"),
        (["--shard", "1/3", "--restart"], "would remove what others embed"),
        (["--stride-m", "10", "20"], "2 strides for 1 tile sizes"),
        (["--overlap", "1"], "expected 0 to below 1"),
        (["--heights-m", "80"], "give both or none"),
        (["--levels-from", "camera.json", "--heights-m", "80"], "expected one of them"),
        (["--tile-m", "40", "40"], "none twice"),
        (["--headings", "0"], "expected 1 to 360"),
        (["--update", "nowhere"], "nowhere.embeddings is missing"),
    ],
)
def test_options_that_make_no_sense_are_one_line_and_leave_nothing(
    more: list[str], line: str, arguments: list[str], tmp_path: Path, capsys: Capture
) -> None:
    assert line in refused(capsys, [*arguments, *more])
    assert [p.name for p in tmp_path.iterdir()] == ["map.tif"]


def test_what_is_missing_is_named(arguments: list[str], capsys: Capture) -> None:
    assert "--imagery is missing" in refused(capsys, ["index"])
    assert "--bundle is missing" in refused(capsys, arguments[:3])


def test_a_log_gets_a_line_with_the_time_left_every_half_minute() -> None:
    lines: list[str] = []
    now_s = 0.0
    timed = TimedLines(lines.append, clock=lambda: now_s)
    for k in range(101):
        now_s = 36.0 * k  # An hour in all.
        timed("embedding", k / 100)
    assert len(lines) == 99
    assert lines[0] == "embedding: 1.0%, 59 min left"
    assert lines[49] == "embedding: 50.0%, 30 min left"
    # What an earlier run had done took no time in this one.
    lines.clear()
    timed("embedding again", 0.8)
    now_s += 3600.0
    timed("embedding again", 0.85)
    assert lines == ["embedding again: 85.0%, 3 h 0 min left"]
