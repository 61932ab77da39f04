"""`skyfix index info | check | ambiguity | route`, as from a shell."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge_runtime.cli import main
from edge_runtime.satellite_index import SatelliteIndex

pytest.importorskip("onnxruntime")

COMMANDS = ("info", "check", "ambiguity", "route")


@pytest.fixture
def route(index_dir: Path, tmp_path: Path) -> Path:
    """From the middle of the map eastward until beyond it."""
    tiles = SatelliteIndex.open(index_dir).tiles
    lat, lon = float(np.median(tiles["lat_deg"])), float(np.median(tiles["lon_deg"]))
    east = float(tiles["lon_deg"].max()) + 0.002
    path = tmp_path / "route.csv"
    path.write_text(f"lat_deg,lon_deg,height_m\n{lat},{lon},90\n{lat},{east},110\n")
    return path


def said(capfd: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capfd.readouterr().out)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_gives_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["index", command, "--help"])
    assert f"Example: skyfix index {command} index" in capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_an_absent_index_is_one_line(
    command: str, route: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    more = [str(route)] if command == "route" else []
    assert main(["index", command, "absent", *more]) == 2
    error = capfd.readouterr().err
    assert error.startswith("skyfix: absent is not an index folder")
    assert error.count("\n") == 1


def test_a_sound_index_is_fit_to_fly(
    index_dir: Path, bundle_dir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["index", "check", str(index_dir), "--bundle", str(bundle_dir)]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[-1].startswith("Fit to fly. Next: skyfix index ambiguity")
    assert {line.split()[0] for line in lines[:-1]} <= {"good", "note"}
    assert main(["index", "check", str(index_dir), "--json"]) == 0
    found = said(capfd)
    assert found["fit_to_fly"] is True
    assert {f["what"] for f in found["findings"]} >= {"files", "coverage", "resolution", "search"}


def test_an_index_of_another_encoder_ends_with_status_2(
    index_dir: Path, bundle_dir: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from edge_runtime.artefact import read_manifest, writing_artefact

    manifest = read_manifest(index_dir, "index")
    root = tmp_path / "other"
    with writing_artefact(root, "index", manifest.meta | {"weights_sha256": "ef" * 32}) as folder:
        for name in manifest.files:
            shutil.copy(index_dir / name, folder / name)
    assert main(["index", "check", str(root), "--bundle", str(bundle_dir)]) == 2
    assert "Not to be flown as it is." in capfd.readouterr().out


def test_ambiguity_writes_a_table_a_map_and_a_picture(
    index_dir: Path,
    bundle_dir: Path,
    route: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    outputs = tmp_path / "new" / "map.geojson", tmp_path / "new" / "map.png"
    arguments = ["index", "ambiguity", str(index_dir), "--far-m", "100"]
    arguments += ["--geojson", str(outputs[0]), "--png", str(outputs[1])]
    assert main([*arguments, "--route", str(route), "--bundle", str(bundle_dir)]) == 0
    text = capfd.readouterr().out
    for words in ("of the ground", "Worst places", "Trial: 100 views", "Route of", "Written to"):
        assert words in text
    count = len(SatelliteIndex.open(index_dir))
    assert len(json.loads(outputs[0].read_text())["features"]) == count
    picture = cv2.imread(str(outputs[1]))
    assert picture is not None
    assert min(picture.shape[:2]) > 700


def test_ambiguity_for_programs_says_the_same_as_the_geojson(
    index_dir: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "map.geojson"
    arguments = ["--far-m", "100", "--likeness", "0.7", "--geojson", str(out), "--json"]
    assert main(["index", "ambiguity", str(index_dir), *arguments]) == 0
    found = said(capfd)
    properties = [f["properties"] for f in json.loads(out.read_text())["features"]]
    assert found["tiles"] == len(properties)
    assert found["likeness"] == 0.7
    assert found["chance_mean"] == pytest.approx(
        float(np.mean([p["chance"] for p in properties])), abs=1e-4
    )
    for name, share in found["shares"].items():
        assert share == pytest.approx(sum(p["class"] == name for p in properties) / len(properties))
    assert found["worst"][0]["chance"] == pytest.approx(
        max(p["chance"] for p in properties), abs=1e-4
    )


def test_a_prior_makes_a_map_less_ambiguous(
    index_dir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    chances = []
    for prior in ([], ["--within-m", "130"]):
        arguments = ["index", "ambiguity", str(index_dir), "--far-m", "100", "--json", *prior]
        assert main(arguments) == 0
        chances.append(said(capfd)["chance_mean"])
    assert chances[1] < 0.8 * chances[0]


def test_a_route_off_the_map_is_told_and_refused_where_a_limit_says_so(
    index_dir: Path, route: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["index", "route", str(index_dir), str(route), "--far-m", "100"]
    outputs = tmp_path / "r.png", tmp_path / "r.geojson"
    more = ["--likeness", "1", "--png", str(outputs[0]), "--geojson", str(outputs[1])]
    assert main([*arguments, *more]) == 0
    text = capfd.readouterr().out
    assert "heights 90 to 110 m in the file" in text
    assert "m off the map," in text
    assert cv2.imread(str(outputs[0])) is not None
    assert json.loads(outputs[1].read_text())["features"][-1]["properties"]["lost"] is True
    assert main([*arguments, "--likeness", "1", "--max-lost-m", "50", "--json"]) == 2
    found = said(capfd)
    assert found["within_limit"] is False
    # East of the last tile's square: 0.002 degrees less half a tile.
    assert found["longest_lost_m"] == pytest.approx(0.002 * 75_300 - 40, abs=6)
    assert main([*arguments, "--likeness", "1", "--max-lost-m", "500"]) == 0


def test_a_route_elsewhere_is_lost_all_along_and_still_drawn(
    index_dir: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "elsewhere.csv"
    path.write_text("lat,lon\n-33,18\n-33.001,18\n")
    assert main(["index", "route", str(index_dir), str(path), "--json"]) == 0
    assert said(capfd)["lost_share"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--level", "3"], "level is 3; .* has 1, counted from 0"),
        (["--likeness", "2"], r"expected a likeness in \(0, 1\]"),
        (["--far-m", "0"], "expected a likeness"),
        (["--step-m", "0"], "step is 0.0 m; expected more than 0"),
    ],
)
def test_options_that_make_no_sense_are_one_line(
    more: list[str], says: str, index_dir: Path, route: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["index", "route", str(index_dir), str(route), *more]) == 2
    error = capfd.readouterr().err
    assert error.startswith("skyfix: ")
    assert error.count("\n") == 1
    assert re.search(says, error)
