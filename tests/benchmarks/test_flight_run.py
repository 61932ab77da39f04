"""A small made-up world, flown and calibrated from end to end with an untrained encoder."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import calibration_fit
from benchmarks.calibrate_cli import add_calibrate
from benchmarks.calibration_fit import RadiusFit, coverage
from benchmarks.calibration_flights import flight_errors
from benchmarks.flight_cli import add_flights
from benchmarks.flight_run import FlightsPlan, fly, left_out_coverages, logs_folder, rows_from
from benchmarks.random_checkpoint import random_checkpoint
from edge_runtime.backends.protocol import open_backend
from edge_runtime.bundle import Bundle
from edge_runtime.calibration import CALIBRATION, Calibration
from edge_runtime.errors import InputError
from edge_runtime.index_check import check_index
from edge_runtime.localizer_config import LocalizerConfig
from edge_runtime.satellite_index import SatelliteIndex
from export.bundle_export import export_bundle
from export.index_build import build_index
from export.index_plan import PlanOptions, TileSize
from train.world import WorldConfig, make_world

pytestmark = pytest.mark.slow

WORLD = WorldConfig(
    seed=3,
    train_size_m=300,
    train_photos=0,
    held_out_size_m=600,
    flights=2,
    frames_per_flight=80,
    min_height_m=50,
    max_height_m=70,
    photo_width_px=320,
    photo_height_px=240,
    threads=1,
)


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> FlightsPlan:
    root = tmp_path_factory.mktemp("flights")
    make_world(root / "world", WORLD)
    random_checkpoint("test_resnet", 64, root / "checkpoint")
    export_bundle(root / "checkpoint", root / "bundle", precisions=("fp32",))
    bundle = Bundle.open(root / "bundle")
    backend = open_backend(bundle, "ort-cpu", threads=1)
    build_index(
        [root / "world" / "held_out" / "imagery.tif"],
        root / "index",
        bundle,
        backend,
        PlanOptions(sizes=(TileSize(48.0, 24.0),)),
    )
    backend.close()
    made = FlightsPlan(
        world=root / "world",
        bundle=root / "bundle",
        index=root / "index",
        out=root / "rows.jsonl",
        parts=("start", "whole", "off_map"),
        starts=2,
        config=LocalizerConfig(attitude_sigma_deg=0.7),
    )
    fly(made)
    return made


def calibrated(*arguments: str | Path) -> None:
    parser = argparse.ArgumentParser()
    add_calibrate(parser.add_subparsers())
    args = parser.parse_args(["calibrate", *map(str, arguments)])
    args.run(args)


def flight_arguments(plan: FlightsPlan, names: Sequence[str]) -> list[str | Path]:
    logs = logs_folder(plan.out)
    return [
        word
        for name in names
        for word in ("--flight", logs / f"{name}.jsonl", logs / f"{name}.truth.csv")
    ]


def test_every_part_has_a_row_and_a_log(plan: FlightsPlan) -> None:
    rows = rows_from(plan.out)
    assert [r.name for r in rows][:4] == ["start_01", "start_02", "whole_01", "whole_02"]
    assert [r.part for r in rows][4:] == ["off_map"]
    for row in rows:
        log = logs_folder(plan.out) / f"{row.name}.jsonl"
        assert len(log.read_text().splitlines()) == row.frames
    whole = rows[2]
    # Tiles mean nothing to an untrained encoder, so a place is confirmed late; then it is followed.
    assert whole.success > 0.25 * whole.frames, "even an untrained encoder finds so small a map"
    assert whole.false == 0
    assert whole.median_error_m is not None
    assert whole.median_error_m < 5
    off = rows[4]
    assert off.off_frames
    assert off.index_id != whole.index_id


def test_flying_again_flies_nothing_twice(plan: FlightsPlan) -> None:
    before = plan.out.read_bytes()
    rows = fly(plan, say=lambda line: pytest.fail(line))
    assert plan.out.read_bytes() == before
    assert rows == rows_from(plan.out)


def test_a_run_goes_on_where_it_stopped(plan: FlightsPlan, tmp_path: Path) -> None:
    lines = plan.out.read_text().splitlines(keepends=True)
    out = tmp_path / "rows.jsonl"
    out.write_text("".join(lines[:-2]))
    said: list[str] = []
    rows = fly(replace(plan, out=out), say=said.append)
    assert len(said) == 2
    assert out.read_text().splitlines(keepends=True)[:-2] == lines[:-2]
    whole, again = rows_from(plan.out)[-2], rows[-2]
    assert again.ok == whole.ok
    assert again.median_error_m == pytest.approx(whole.median_error_m, abs=1e-6)


def test_rows_of_other_settings_are_not_mixed(plan: FlightsPlan) -> None:
    with pytest.raises(InputError, match=r"rows of another settings.*give another --out"):
        fly(replace(plan, config=LocalizerConfig()))


def test_the_command_prints_every_law(
    plan: FlightsPlan, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = argparse.ArgumentParser()
    add_flights(parser.add_subparsers())
    words = ["flights", "--world", plan.world, "--bundle", plan.bundle, "--index", plan.index]
    words += ["--out", plan.out, "--part", *plan.parts, "--starts", 2]
    args = parser.parse_args([*map(str, words), "--set", "attitude_sigma_deg=0.7"])
    args.run(args)
    printed = capsys.readouterr().out
    for law in ("first fix", "median error", "off the map", "errors within the 68 % radius"):
        assert law in printed
    assert "2 starts; the claim needs 60" in printed


def test_a_calibration_from_flights_is_kept_with_the_index(
    plan: FlightsPlan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = flight_arguments(plan, ["whole_01", "whole_02"])
    where: list[str | Path] = ["--bundle", plan.bundle, "--index", plan.index]
    calibrated(*where, *given, "--plot", tmp_path / "plot.html", "--false-fix-rate", "0.3")
    assert "threshold" in capsys.readouterr().out
    bundle = Bundle.open(plan.bundle)
    index = SatelliteIndex.open(plan.index, bundle)
    made = Calibration.open(plan.index, index_id=index.id, bundle_id=bundle.id)
    index.close()
    assert made is not None
    assert made.truth == "flights"
    assert made.fitted.flights == 2
    flown = [
        flight_errors(Path(log), Path(truth), index_id=made.index_id, bundle_id=made.bundle_id)
        for log, truth in zip(given[1::3], given[2::3], strict=True)
    ]
    fit = RadiusFit(factor=made.factor, floor_m=made.floor_m)
    assert made.fitted == coverage(flown, [fit, fit])
    page = (tmp_path / "plot.html").read_text()
    assert page.count("<svg") == 3
    assert "http" not in page.replace("http://www.w3.org", "")
    assert check_index(plan.index, bundle) is not None, "the index is whole with it"
    rows = rows_from(plan.out)
    assert left_out_coverages(plan, rows) is None, "what was flown followed it"
    (plan.index / CALIBRATION).unlink()


def test_without_a_calibration_the_other_flights_give_one(
    plan: FlightsPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = rows_from(plan.out)
    assert left_out_coverages(plan, rows) is None, "so few answers give none"
    monkeypatch.setattr(calibration_fit, "_FEWEST_ANSWERS", 10)
    without = left_out_coverages(plan, rows)
    assert without is not None
    whole = [row for row in rows if row.part == "whole"]
    assert [c.answers <= row.ok for c, row in zip(without, whole, strict=True)] == [True, True]
    assert [c.flights for c in without] == [1, 1]
    assert left_out_coverages(replace(plan, out=tmp_path / "elsewhere.jsonl"), rows) is None


def test_flights_on_another_index_are_refused(plan: FlightsPlan) -> None:
    given = flight_arguments(plan, [rows_from(plan.out)[-1].name])
    with pytest.raises(InputError, match=r"has index_id .*holds for one index"):
        calibrated("--bundle", plan.bundle, "--index", plan.index, *given)


def test_without_flights_views_of_the_imagery_calibrate(
    plan: FlightsPlan, capsys: pytest.CaptureFixture[str]
) -> None:
    camera = plan.world / "held_out" / "camera.json"
    words: list[str | Path] = ["--bundle", plan.bundle, "--index", plan.index, "--json"]
    words += [
        "--camera",
        camera,
        "--views-flights",
        "9",
        "--seconds",
        "10",
        "--height-m",
        "50",
        "70",
    ]
    calibrated(*words, "--map-sigma-m", "1.5", "--dry-run")
    made = json.loads(capsys.readouterr().out)
    assert made["truth"] == "simulated views"
    assert made["floor_m"] >= 1.5, "the map's own error comes on top"
    assert 0.2 < made["factor"] < 5
    assert made["fitted"]["answers"] > 60
    assert min(step["ok_probability"] for step in made["belief"]) == 0.5
    assert not (plan.index / CALIBRATION).exists(), "a dry run writes nothing"


def test_neither_flights_nor_a_camera_is_one_line(plan: FlightsPlan) -> None:
    with pytest.raises(InputError, match="neither --flight nor --camera"):
        calibrated("--bundle", plan.bundle, "--index", plan.index)


def test_an_oblique_camera_is_told_to_use_flights(plan: FlightsPlan, tmp_path: Path) -> None:
    camera = tmp_path / "camera.json"
    camera.write_text(json.dumps({"width_px": 320, "height_px": 240, "hfov_deg": 70,
                                  "mount_pitch_deg": -45}))  # fmt: skip
    with pytest.raises(InputError, match=r"off the vertical.*--flight LOG TRUTH"):
        calibrated("--bundle", plan.bundle, "--index", plan.index, "--camera", camera)
