"""The ablation measures what it says, once a seed, and goes on where it stopped."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import benchmarks.ablation as ablation
from benchmarks.ablation import ablate, print_ablation
from benchmarks.ablation_ground import (
    STRIDE_M,
    Ground,
    in_runs,
    nearest_tile_task,
    read_ground,
    seed_of_world,
)
from benchmarks.ablation_variants import GOING_ON, START, STUDENT, VARIANTS, Group
from benchmarks.rows import read_rows
from edge_runtime.errors import InputError
from edge_runtime.geodesy import distance_m
from train.encoder import new_encoder, save_checkpoint
from train.pair_table import ImageArray, ImageSet, PairTable
from train.world import WorldConfig, make_world

PAIRS = 32


def noise_ground() -> Ground:
    """Pairs that look alike on a line of places, 30 m apart."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (PAIRS, 40, 40, 3), np.uint8)
    where: dict[str, Any] = {
        "lat_deg": 47 + np.arange(PAIRS) * 30 / 111_200,
        "lon_deg": np.full(PAIRS, 8.0),
        "size_m": np.full(PAIRS, 24.0),
    }
    table = PairTable(
        name="line",
        photos=ImageSet(images=ImageArray(images), view="photo", **where),
        tiles=ImageSet(images=ImageArray(images), view="tile", **where),
        tile_of_photo=np.arange(PAIRS),
        geometry="aligned",
        margin=1.25,
    )
    task = nearest_tile_task(table.photos, table.tiles)
    return Ground(training=table, task=task, start=Path())


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    small: dict[str, Any] = {
        "architecture": "mobilenetv3_small_050",
        "size_px": 32,
        "ground_size_m": 24.0,
        "epochs": 1,
        "batch_size": 8,
        "neighbours": 4,
        "select": 2,
        "threads": 1,
    }
    monkeypatch.setattr(ablation, "START", replace(START, **small))
    monkeypatch.setattr(ablation, "GOING_ON", replace(GOING_ON, **small))
    monkeypatch.setattr(ablation, "STUDENT", replace(STUDENT, **small))


@pytest.mark.usefixtures("tiny")
def test_every_variant_is_measured_once_a_seed_and_not_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, start = tmp_path / "rows.jsonl", tmp_path / "pretrained"
    save_checkpoint(start, new_encoder("mobilenetv3_small_050", size_px=64), {})
    monkeypatch.setattr(
        ablation, "read_ground", lambda *_, **__: replace(noise_ground(), start=start)
    )
    said: list[str] = []
    groups: tuple[Group, ...] = ("samplers", "beyond", "distillation")

    def run(seeds: int) -> int:
        return len(
            ablate(
                tmp_path,
                tmp_path / "work",
                out,
                start=start,
                groups=groups,
                seeds=seeds,
                world_seed=5,
                settings=["freeze_norms=true"],
                say=said.append,
            )
        )

    assert run(1) == len(VARIANTS)
    assert run(1) == 0
    rows = read_rows(out, kind="ablation")
    assert [row["variant"] for row in rows] == [variant.name for variant in VARIANTS]
    by_name = {row["variant"]: row for row in rows}
    # Equal views of different places: anything but a broken measurement finds them.
    assert by_name["shuffled"]["success_at_20_m"] > 0.9
    assert by_name["three frames fused"]["queries"] < by_name["shuffled"]["queries"] == PAIRS
    assert by_name["heading right, trained so"]["settings"]["heading_error_deg"] == 30
    assert by_name["all numbers, trained so"]["seconds"] > 0
    print_ablation(rows)
    assert "shuffled" in capsys.readouterr().out


def test_the_nearest_tile_is_the_true_one() -> None:
    task = noise_ground().task
    assert task.query_labels.tolist() == list(range(PAIRS))


def test_frames_of_a_run_share_the_place_of_the_middle_one() -> None:
    task = in_runs(noise_ground().task, 3)
    assert task.query_labels[:6].tolist() == [1, 1, 1, 4, 4, 4]
    assert task.query_labels[-2:].tolist() == [31, 31]


def test_the_ground_of_a_world_is_a_grid_around_every_photograph(tmp_path: Path) -> None:
    make_world(
        tmp_path / "world",
        WorldConfig(
            seed=6,
            train_size_m=300,
            train_photos=6,
            held_out_size_m=300,
            flights=1,
            frames_per_flight=4,
            min_height_m=50,
            max_height_m=70,
        ),
    )
    config = replace(START, size_px=32, ground_size_m=48.0)
    ground = read_ground(tmp_path / "world", config, start=Path(), say=lambda _: None)
    assert seed_of_world(tmp_path / "world") == 6
    assert len(ground.training.photos) == 6
    task = ground.task
    assert len(task.queries) == 4
    assert len(task.gallery) > 100
    queries, gallery = task.queries, task.gallery
    assert queries.lat_deg is not None
    assert queries.lon_deg is not None
    assert gallery.lat_deg is not None
    assert gallery.lon_deg is not None
    own = task.query_labels
    apart_m = distance_m(
        queries.lat_deg, queries.lon_deg, gallery.lat_deg[own], gallery.lon_deg[own]
    )
    # Nothing is further from a grid of STRIDE_M than half its diagonal.
    assert apart_m.max() <= STRIDE_M / np.sqrt(2) + 0.1
    assert gallery.images.read(0, np.random.default_rng(0)).shape == (40, 40, 3)


def test_what_is_no_world_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a world folder"):
        seed_of_world(tmp_path)
