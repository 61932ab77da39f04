import argparse
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.loading import LoadingRow
from benchmarks.rows import provenance, read_rows
from benchmarks.training_cli import add_training_speed
from benchmarks.training_speed import TrainingSpeedPlan, in_words, steps_row
from edge_runtime.errors import InputError

TINY = TrainingSpeedPlan(
    recipe="world", architecture="test_resnet", size_px=32, pairs=8, seconds=0.0, steps=12
)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def test_a_step_really_learns() -> None:
    row = steps_row(replace(TINY, steps=60))
    # Knowing nothing costs log(8) nats; being sure of what is wrong costs more.
    assert row.first_loss > 0.9 * math.log(8)
    assert row.last_loss < row.first_loss - 0.1
    assert row.parameters > 1000


def test_throughput_counts_images_and_a_pair_is_two() -> None:
    now_ns = 0

    def clock_ns() -> int:
        nonlocal now_ns
        now_ns += 50_000_000
        return now_ns

    # The clock is read at the start and the end of a step, each 50 ms after the other: 12 steps
    # take 23 such times.
    row = steps_row(TINY, clock_ns=clock_ns)
    assert (row.time.n, row.time.warmup, row.time.p50_ms) == (12, 2, 50.0)
    assert row.time.throughput_per_s == pytest.approx(12 * 16 / (23 * 0.05))


def test_what_ran_is_in_the_row() -> None:
    row = steps_row(TINY)
    assert (row.architecture, row.size_px, row.photo_px, row.pairs) == (
        "test_resnet",
        32,
        "32x32",
        8,
    )
    assert (row.recipe, row.precision, row.threads) == ("world", "fp32", 1)
    assert row.memory.host_peak_mib >= row.memory.host_before_mib


def test_a_recipe_s_photos_keep_their_shape_unless_the_size_is_another() -> None:
    panorama = TrainingSpeedPlan(recipe="cvusa", seconds=1.0).config()
    assert panorama.photo_size_px == (140, 768)
    assert (panorama.batch_size, panorama.precision) == (128, "fp16")
    small = TrainingSpeedPlan(recipe="cvusa", seconds=1.0, size_px=64, pairs=4).config()
    assert (small.photo_size_px, small.tile_size_px, small.batch_size) == ((64, 64), (64, 64), 4)


def test_an_unknown_recipe_is_refused() -> None:
    with pytest.raises(InputError, match=r"no recipe 'cvs'; give one of cvusa"):
        TrainingSpeedPlan(recipe="cvs", seconds=1.0).config()


def test_the_words_say_how_many_cores_feed_the_steps() -> None:
    row = steps_row(TINY)
    speed = row.time.throughput_per_s
    loading = LoadingRow(
        **provenance(), recipe="cvusa", source_px="", source_kib=1.0, encoder_px="", cpu="", runs=1,
        images_per_s=speed / 3, images_per_s_low=1.0, images_per_s_high=1.0,
    )  # fmt: skip
    steps, fed = in_words(row, [loading])
    assert f"{speed:.1f} images/s" in steps
    assert "3.0 cores feed these steps" in fed


def test_the_command_measures_each_in_a_process_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = argparse.ArgumentParser()
    add_training_speed(parser.add_subparsers())
    args = parser.parse_args(
        ["training-speed", "--architecture", "test_resnet", "--size-px", "32", "--pairs", "4",
         "--seconds", "0", "--threads", "1", "--no-loading",
         "--out", str(tmp_path / "rows.jsonl")]
    )  # fmt: skip
    args.run(args)
    rows = read_rows(tmp_path / "rows.jsonl", kind="training-speed")
    assert [(row["run"], row["threads"], row["pairs"]) for row in rows] == [(0, 1, 4)]
    assert "test_resnet 32 px, 4 pairs a step" in capsys.readouterr().out


def test_the_help_of_all_commands_needs_neither_torch_nor_onnx_runtime() -> None:
    program = (
        "import sys; from benchmarks.cli import _parser; _parser().format_help()\n"
        "print(sorted({'torch', 'onnx', 'onnxruntime'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
