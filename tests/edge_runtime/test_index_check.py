import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_runtime.artefact import read_manifest, writing_artefact
from edge_runtime.bundle import Bundle
from edge_runtime.errors import IndexFolderError
from edge_runtime.index_check import IndexCheck, IndexFinding, check_index
from edge_runtime.index_format import IMAGERY, MARK_FEATURELESS, MARK_PARTIAL, TILES, SearchPlan

Remake = Callable[..., Path]


@pytest.fixture
def remake(index_dir: Path, tmp_path: Path) -> Remake:
    """A sound copy of the index with another manifest or table of tiles."""

    def make(meta: dict[str, Any], tiles: np.ndarray | None = None) -> Path:
        manifest = read_manifest(index_dir, "index")
        with writing_artefact(tmp_path / "index", "index", manifest.meta | meta) as folder:
            for name in manifest.files:
                shutil.copy(index_dir / name, folder / name)
            if tiles is not None:
                np.save(folder / TILES, tiles)
        return tmp_path / "index"

    return make


def of(check: IndexCheck, what: str) -> list[IndexFinding]:
    return [finding for finding in check.findings if finding.what == what]


def test_a_sound_index_with_its_encoder_is_fit_to_fly(index_dir: Path, bundle: Bundle) -> None:
    check = check_index(index_dir, bundle)
    assert check.fit_to_fly
    assert of(check, "encoder")[0].verdict == "good"
    assert bundle.id in of(check, "encoder")[0].detail
    assert of(check, "files")[0].verdict == "good"


def test_numbers_are_those_of_the_folder(index_dir: Path) -> None:
    values = check_index(index_dir).values
    on_disk = sum(p.stat().st_size for p in index_dir.iterdir() if p.name != "manifest.json")
    assert values["total_mb"] == pytest.approx(on_disk / 1e6, abs=1e-3)
    tiles = np.load(index_dir / TILES)
    assert values["tiles"] == len(tiles)
    # A grid of 80 m tiles every 25 m: as large as the box of its centres, and 80 m more each way.
    north = np.ptp(tiles["lat_deg"]) * 111_200 + 80
    east = np.ptp(tiles["lon_deg"]) * 111_200 * np.cos(np.radians(47.5)) + 80
    assert values["covered_m2"] == pytest.approx(north * east, rel=0.05)
    assert values["mb_per_km2"] == pytest.approx(
        values["total_mb"] / values["covered_m2"] * 1e6, rel=1e-3
    )
    assert json.loads(json.dumps(values, allow_nan=False)) == values


def test_an_index_of_another_encoder_is_not_to_be_flown(remake: Remake, bundle: Bundle) -> None:
    check = check_index(remake({"weights_sha256": "cd" * 32}), bundle)
    assert not check.fit_to_fly
    (finding,) = of(check, "encoder")
    assert finding.verdict == "bad"
    assert "was made by encoder cdcdcdcdcdcd" in finding.detail
    assert "python -m export index --bundle" in finding.remedy


@pytest.mark.parametrize("name", ["embeddings.npy", "tiles.npy", "centre.npy", IMAGERY])
def test_one_altered_byte_anywhere_ends_the_check(
    name: str, index_dir: Path, tmp_path: Path
) -> None:
    root = shutil.copytree(index_dir, tmp_path / "index")
    check_index(root)
    data = bytearray((root / name).read_bytes())
    data[len(data) // 2] ^= 1
    (root / name).write_bytes(data)
    with pytest.raises(IndexFolderError, match=rf"{name} has digest .* the manifest says"):
        check_index(root)


def test_a_hole_is_told_with_its_place_and_what_to_do(remake: Remake, index_dir: Path) -> None:
    whole = check_index(index_dir)
    (finding,) = of(whole, "coverage")
    assert (finding.verdict, whole.values["holes"]) == ("good", [])
    tiles = np.load(index_dir / TILES)
    # All tiles around the middle lie on one spot at the edge: the ground there is bare.
    middle = [float(np.median(tiles[name])) for name in ("lat_deg", "lon_deg")]
    away = np.hypot(
        (tiles["lat_deg"] - middle[0]) * 111_200, (tiles["lon_deg"] - middle[1]) * 75_100
    )
    assert 9 < np.sum(away < 85) < len(tiles) / 2
    for name in ("lat_deg", "lon_deg"):
        tiles[name][away < 85] = tiles[name][away.argmax()]
    check = check_index(remake({}, tiles))
    (finding,) = of(check, "coverage")
    assert finding.verdict == "note"
    assert "skyfix index route" in finding.remedy
    (hole, *_) = check.values["holes"]
    assert hole["lat_deg"] == pytest.approx(middle[0], abs=20 / 111_200)
    assert hole["lon_deg"] == pytest.approx(middle[1], abs=20 / 75_100)
    assert check.values["covered_share"] == pytest.approx(1 - hole["share"], abs=0.02)


def imagery_of(remake: Remake, **source: Any) -> IndexFinding:
    check = check_index(remake({"sources": [{"name": "map.tif", "gsd_m": 0.5, **source}]}))
    (finding,) = of(check, "imagery")
    return finding


def test_what_is_not_known_of_the_imagery_is_said_to_be_unknown(remake: Remake) -> None:
    finding = imagery_of(remake, attribution="Survey Office")
    assert finding.verdict == "note"
    assert "captured unknown, by Survey Office, licence unknown" in finding.detail
    assert "find out captured, licence" in finding.remedy


@pytest.mark.parametrize("form", ["%Y-%m-%d", "%Y-%m-%dT10:00:00Z", "2019-01/%Y-%m-%d"])
def test_recent_imagery_of_known_origin_is_good(remake: Remake, form: str) -> None:
    yesterday = time.strftime(form, time.gmtime(time.time() - 86_400))
    finding = imagery_of(remake, captured=yesterday, attribution="us", licence="CC0")
    assert (finding.verdict, finding.remedy) == ("good", "")
    assert "(0.0 years ago)" in finding.detail


@pytest.mark.parametrize(
    ("captured", "years"), [("2019", 6.9), ("2019-12", 6.9), ("2019-12-31", 6.9)]
)
def test_old_imagery_is_noted_with_its_age(
    captured: str, years: float, remake: Remake, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.strptime("2026-11-24", "%Y-%m-%d")
    monkeypatch.setattr(time, "gmtime", lambda *_: now)
    finding = imagery_of(remake, captured=captured, attribution="us", licence="CC0")
    assert finding.verdict == "note"
    assert f"captured {captured} ({years} years ago)" in finding.detail
    assert "newer imagery" in finding.remedy


def test_imagery_too_coarse_for_the_tiles_is_noted(remake: Remake) -> None:
    sources = [{"name": "fine", "gsd_m": 0.3}, {"name": "coarse", "gsd_m": 10.0}]
    (finding,) = of(check_index(remake({"sources": sources})), "resolution")
    assert finding.verdict == "note"
    assert "coarse 10 m/px" in finding.detail


def test_recall_is_told_as_it_was_recorded(remake: Remake) -> None:
    plan = SearchPlan(recall_at_10=0.973, queries=256)
    (finding,) = of(check_index(remake({"search": vars(plan)})), "search")
    assert finding.verdict == "note"
    assert "recall@10 97.30% of 256 queries" in finding.detail
    plan = SearchPlan(recall_at_10=0.999, queries=256)
    (finding,) = of(check_index(remake({"search": vars(plan)})), "search")
    assert finding.verdict == "good"


def test_recall_that_was_never_measured_is_said_so(index_dir: Path, remake: Remake) -> None:
    (finding,) = of(check_index(remake({"search": None})), "search")
    assert (finding.verdict, finding.detail) == (
        "note",
        "exact over f16; its recall was never measured",
    )


def test_marks_are_counted(remake: Remake, index_dir: Path) -> None:
    tiles = np.load(index_dir / TILES)
    tiles["marks"][: len(tiles) // 4] = MARK_FEATURELESS | MARK_PARTIAL
    check = check_index(remake({}, tiles))
    share = (len(tiles) // 4) / len(tiles)
    assert check.values["mark_shares"] == pytest.approx(
        {"featureless": share, "partial": share}, abs=1e-5
    )
    assert of(check, "marks")[0].verdict == "note"


def test_resolution_is_told_by_area_where_sources_say_where_they_lie(
    remake: Remake, index_dir: Path
) -> None:
    tiles = np.load(index_dir / TILES)
    middle = float(np.median(tiles["lon_deg"]))
    sources = [
        {"name": "a", "gsd_m": 0.6, "bounds": [8.0, 47.0, 9.0, 48.0]},
        {"name": "b", "gsd_m": 0.2, "bounds": [middle, 47.0, 9.0, 48.0]},
    ]
    check = check_index(remake({"sources": sources}))
    east = float(np.mean(tiles["lon_deg"] >= middle))
    assert [r["gsd_m"] for r in check.values["resolution"]] == [0.2, 0.6]
    assert [r["share"] for r in check.values["resolution"]] == pytest.approx(
        [east, 1 - east], abs=1e-5
    )
    assert f"0.2 m/px on {east:.0%}" in of(check, "resolution")[0].detail
