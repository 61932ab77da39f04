"""Real photographs, where they are at hand: set SKYFIX_DATA to the folder that holds the sets."""

import os
from pathlib import Path

import pytest

from benchmarks.accuracy import accuracy_row
from benchmarks.photographs import prepare, track_headings_deg
from benchmarks.scored_flight import score_flight
from edge_runtime.cli import main as skyfix
from edge_runtime.errors import InputError
from export.cli import main as export
from train.cli import main as train

DATA = Path(os.environ.get("SKYFIX_DATA", "not-set"))
needs_photographs = pytest.mark.skipif(
    not (DATA / "fengyuan").is_dir(), reason="SKYFIX_DATA does not name the photograph sets"
)


def test_a_track_due_east_gives_90_degrees_and_a_hover_keeps_it() -> None:
    lon_deg = [10.0, 10.0001, 10.0002, 10.0003, 10.0003, 10.0003, 10.0003, 10.0003, 10.0003]
    headings = track_headings_deg(list(range(9)), [48.0] * 9, lon_deg)
    assert headings == pytest.approx([90.0] * 9, abs=0.01)


def test_a_drone_that_never_moved_has_no_heading() -> None:
    assert track_headings_deg([0, 1, 2], [48.0] * 3, [10.0] * 3) == [None] * 3


def test_an_unknown_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="known: fengyuan, ariel"):
        prepare("mars", tmp_path, tmp_path / "out")


def test_a_folder_that_is_not_the_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"not the fengyuan photograph set .*photographs\.md"):
        prepare("fengyuan", tmp_path, tmp_path / "out")


@pytest.fixture(scope="module")
def imagenet_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The MobileNetV2 of the photograph sets, imported and exported as docs/photographs.md says."""
    root = tmp_path_factory.mktemp("imagenet")
    weights = DATA / "weights" / "mobilenetv2_100_coral_qat_fp16.safetensors"
    arguments = ["import-weights", str(weights), "--architecture", "mobilenetv2_100"]
    arguments += ["--mean", "0.5", "0.5", "0.5", "--std", "0.5", "0.5", "0.5"]
    arguments += ["--model-arg", "pad_type=same", "--out", str(root / "checkpoint")]
    assert train(arguments) == 0
    bundle = root / "bundle"
    assert export(["bundle", "--checkpoint", str(root / "checkpoint"), "--out", str(bundle)]) == 0
    return bundle


def _fly(name: str, bundle: Path, out: Path, *, tile_m: float, options: list[str]) -> Path:
    photos = prepare(name, DATA / name, out)
    sizes = ["--tile-m", str(tile_m), "--stride-m", str(tile_m / 4)]
    places = ["--bundle", str(bundle), "--out", str(out / "index")]
    assert export(["index", "--imagery", str(out / "map.tif"), *places, *sizes]) == 0
    inputs = ["--bundle", str(bundle), "--index", str(out / "index"), "--source", str(photos)]
    inputs += ["--telemetry", str(out / "telemetry.csv"), "--camera", str(out / "camera.json")]
    assert skyfix(["run", *inputs, "--out", str(out / "fixes.jsonl"), *options]) == 0
    return out / "fixes.jsonl"


@needs_photographs
@pytest.mark.slow
def test_three_of_four_fengyuan_photographs_are_found_and_none_wrongly(
    imagenet_bundle: Path, tmp_path: Path
) -> None:
    log = _fly("fengyuan", imagenet_bundle, tmp_path, tile_m=88.0, options=[])
    row = accuracy_row([score_flight(log, tmp_path / "truth.csv", score="look")], score="look")
    assert row.frames == 29
    assert (row.success["50"].share or 0.0) >= 0.75
    assert row.false_fixes.count == 0
    assert row.median_error_m is not None
    assert row.median_error_m < 5.0


@needs_photographs
@pytest.mark.slow
def test_ariel_is_found_from_oblique_frames_and_never_wrongly(
    imagenet_bundle: Path, tmp_path: Path
) -> None:
    options = ["--attitude-sigma-deg", "4"]
    log = _fly("ariel", imagenet_bundle, tmp_path, tile_m=130.0, options=options)
    row = accuracy_row([score_flight(log, tmp_path / "truth.csv", score="drone")], score="drone")
    assert row.frames == 126
    assert (row.success["50"].share or 0.0) >= 0.5
    assert row.false_fixes.count == 0
