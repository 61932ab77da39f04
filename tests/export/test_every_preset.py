"""Every preset goes from a data set in its owners' layout to a bundle: fit, eval, export."""

import csv
import json
from pathlib import Path

import pytest

from export.cli import main as export
from tests.train.datasets.tiny_datasets import make_tiny
from train.cli import main as train
from train.encoder import load_checkpoint
from train.presets import PRESETS

pytestmark = pytest.mark.slow

PUBLIC = sorted(
    name for name in set(PRESETS) - {"world", "imagery"} if not name.startswith("sues200-")
)


def tiny(*items: str) -> list[str]:
    """Settings that let a preset's recipe run in seconds, all else as it is."""
    small = ["architecture=test_convnext", "size_px=64", "epochs=2", "batch_size=4"]
    few = ["neighbours=4", "select=2", "refresh_epochs=1", "threads=1", "workers=0"]
    return [word for item in (*small, *few, *items) for word in ("--set", item)]


@pytest.mark.parametrize("preset", PUBLIC)
def test_a_preset_goes_from_images_to_a_bundle(
    preset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = make_tiny(preset, tmp_path / "data")
    config = PRESETS[preset]
    photo = []
    if config.photo_width_px:  # A panorama keeps its shape.
        photo = [f"photo_width_px={config.photo_width_px // 4}"]
        photo += [f"photo_height_px={(config.photo_height_px or 0) // 4}"]
    checkpoint = tmp_path / "checkpoint"
    where = ["--preset", preset, "--data", str(data)]
    fit = ["fit", *where, "--weights", "none", "--evaluate", "--out", str(checkpoint)]
    assert train([*fit, *tiny(*photo)]) == 0
    history = load_checkpoint(checkpoint).config["history"]
    assert [epoch["epoch"] for epoch in history] == [1, 2]
    assert all(epoch["steps"] for epoch in history)
    assert history[-1]["retrieval"]
    if config.sampling == "both":
        assert history[0]["sampler"] == "distance on the ground"
        assert history[1]["sampler"] == "similarity after epoch 1"

    capsys.readouterr()
    queries = tmp_path / "queries.csv"
    task = next(iter(history[-1]["retrieval"]))
    evaluation = ["eval", str(checkpoint), *where, "--json", "--set", "workers=0"]
    assert train(evaluation) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["task"] for row in rows} == set(history[-1]["retrieval"])
    assert rows[0]["r_at_1"] == history[-1]["retrieval"][rows[0]["task"]]["r_at_1"]
    assert train([*evaluation, "--task", task, "--per-query", str(queries)]) == 0
    with queries.open(newline="") as stream:
        assert (
            len(list(csv.DictReader(stream))) == json.loads(capsys.readouterr().out)[0]["queries"]
        )

    bundle = tmp_path / "bundle"
    assert export(["bundle", "--checkpoint", str(checkpoint), "--out", str(bundle)]) == 0
    assert (bundle / "encoder.fp32.onnx").is_file()


@pytest.mark.parametrize("preset", ["world", "imagery"])
def test_a_made_up_world_and_bare_imagery_go_the_same_way(preset: str, tmp_path: Path) -> None:
    world, checkpoint, bundle = (tmp_path / name for name in ("world", "checkpoint", "bundle"))
    size = ["--train-m", "300", "--train-photos", "24", "--held-out-m", "560", "--flights", "1"]
    assert train(["world", str(world), "--seed", "3", "--frames", "6", *size]) == 0
    where = ["--preset", preset, "--world", str(world)]
    if preset == "imagery":
        imagery = str(world / "train" / "imagery.tif")
        where = ["--preset", preset, "--imagery", imagery, "--places", "24"]
    settings = tiny("ground_size_m=48")
    fit = ["fit", *where, "--evaluate", "--out", str(checkpoint)]
    assert train([*fit, *settings]) == 0
    assert load_checkpoint(checkpoint).encoder.spec.ground_size_m == 48
    assert train(["eval", str(checkpoint), *where, "--set", "workers=0"]) == 0
    assert export(["bundle", "--checkpoint", str(checkpoint), "--out", str(bundle)]) == 0


def test_an_encoder_of_one_data_set_is_measured_on_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cvusa, cvact = (make_tiny(name, tmp_path / name) for name in ("cvusa", "cvact"))
    checkpoint = tmp_path / "checkpoint"
    fit = ["fit", "--preset", "cvusa", "--data", str(cvusa), "--weights", "none"]
    sizes = ("photo_width_px=128", "photo_height_px=32", "epochs=1", "sampling=random")
    assert train([*fit, "--out", str(checkpoint), *tiny(*sizes)]) == 0
    capsys.readouterr()
    where = ["--preset", "cvact", "--data", str(cvact), "--set", "workers=0"]
    assert train(["eval", str(checkpoint), *where, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["task"].startswith("cvact/")


def test_a_data_set_that_is_not_there_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for preset in PUBLIC:
        (tmp_path / "empty").mkdir(exist_ok=True)
        arguments = ["fit", "--preset", preset, "--data", str(tmp_path / "empty")]
        assert train([*arguments, "--weights", "none", "--out", str(tmp_path / "c"), *tiny()]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("train: ")
        assert "expected" in line
