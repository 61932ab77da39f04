import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

from edge_runtime.errors import InputError
from train.config import Sampling, TrainConfig
from train.embedding import embed_set
from train.encoder import Encoder, load_checkpoint
from train.evaluation import evaluate_task, task_of
from train.fit import EpochReport, fit
from train.loss import training_loss
from train.pair_table import ImageArray, ImageFiles, ImageSet, PairTable, UnreadableImageError
from train.run_state import run_folder

MakeEncoder = Callable[..., Encoder]


def losses(
    encoder: Encoder, pairs: PairTable, config: TrainConfig, out: Path
) -> tuple[list[float], list[str]]:
    reports: list[EpochReport] = []
    fit(encoder, pairs, config, out, report=reports.append)
    return [r.loss for r in reports], [r.sampler for r in reports]


def test_a_tiny_fit_learns_and_leaves_a_checkpoint_every_epoch(
    tiny_pairs: PairTable, tiny_config: TrainConfig, make_encoder: MakeEncoder, tmp_path: Path
) -> None:
    config = replace(
        tiny_config, epochs=8, recolour=0.0, flip=0.0, rotate=0.0, shift_m=0.0, learning_rate=3e-3
    )
    encoder, out = make_encoder(), tmp_path / "ckpt"
    kept: list[str] = []
    values: list[float] = []

    def report(epoch: EpochReport) -> None:
        opened = load_checkpoint(out)
        assert len(opened.config["history"]) == epoch.epoch
        assert epoch.steps == len(tiny_pairs) // config.batch_size
        assert epoch.pairs_per_s > 0
        kept.append(opened.weights_sha256)
        values.append(epoch.loss)

    done = fit(encoder, tiny_pairs, config, out, report=report, extra={"note": "tiny"})
    assert done is encoder
    assert not done.training
    assert len(set(kept)) == config.epochs
    assert min(values[-2:]) < values[0] - 0.25, values
    opened = load_checkpoint(out)
    assert opened.config["note"] == "tiny"
    assert opened.config["data"]["pairs"] == len(tiny_pairs)
    assert opened.config["training"]["size_px"] == config.size_px
    before, after = (
        embed_set(e, tiny_pairs.photos, config, margin=1.25).embeddings
        for e in (encoder, opened.encoder)
    )
    assert np.array_equal(before, after)
    history = opened.config["history"]
    log = (run_folder(out) / "epochs.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in log]
    assert [{k: v for k, v in row.items() if k != "last_step"} for row in rows] == history
    assert "checkpoint" in (run_folder(out) / "summary.html").read_text()
    assert list((run_folder(out) / "tensorboard").iterdir())


def test_the_same_seed_gives_the_same_losses_and_another_seed_others(
    tiny_pairs: PairTable, tiny_config: TrainConfig, make_encoder: MakeEncoder, tmp_path: Path
) -> None:
    first, again, other = (
        losses(make_encoder(), tiny_pairs, replace(tiny_config, seed=seed), tmp_path / name)[0]
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert first == again
    assert first != other


@pytest.mark.parametrize("sampling", get_args(Sampling))
def test_every_way_of_sampling_runs_and_says_what_filled_its_batches(
    sampling: Sampling,
    tiny_pairs: PairTable,
    tiny_config: TrainConfig,
    make_encoder: MakeEncoder,
    tmp_path: Path,
) -> None:
    config = replace(tiny_config, sampling=sampling, epochs=3, refresh_epochs=2)
    found, samplers = losses(make_encoder(), tiny_pairs, config, tmp_path / "ckpt")
    assert all(math.isfinite(loss) for loss in found)
    gps, learned = "distance on the ground", "similarity after epoch 2"
    assert (
        samplers
        == {
            "random": ["chance"] * 3,
            "gps": [gps] * 3,
            "similarity": ["chance", "chance", learned],
            "both": [gps, gps, learned],
        }[sampling]
    )


def test_a_loss_that_is_not_finite_stops_and_the_last_checkpoint_is_kept(
    tiny_pairs: PairTable,
    tiny_config: TrainConfig,
    make_encoder: MakeEncoder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps = len(tiny_pairs) // tiny_config.batch_size
    true_loss, calls = training_loss, [0]

    def spoilt(*views: Any, **settings: Any) -> torch.Tensor:
        calls[0] += 1
        loss = true_loss(*views, **settings)
        return loss * float("nan") if calls[0] > steps else loss

    monkeypatch.setattr("train.optimisation.training_loss", spoilt)
    out = tmp_path / "ckpt"
    seen: list[str] = []
    with pytest.raises(
        InputError, match=r"loss is nan; try a smaller learning rate.* of epoch 1 is kept at .*ckpt"
    ):
        fit(
            make_encoder(),
            tiny_pairs,
            replace(tiny_config, epochs=3),
            out,
            report=lambda _: seen.append(load_checkpoint(out).weights_sha256),
        )
    opened = load_checkpoint(out)
    assert [opened.weights_sha256] == seen
    assert all(torch.isfinite(p).all() for p in opened.encoder.parameters())


def test_fewer_pairs_than_a_batch_are_refused(
    tiny_pairs: PairTable, tiny_config: TrainConfig, make_encoder: MakeEncoder, tmp_path: Path
) -> None:
    for sampling in ("random", "gps"):
        config = replace(tiny_config, batch_size=1000, sampling=sampling)
        with pytest.raises(InputError, match="smaller batch"):
            fit(make_encoder(), tiny_pairs, config, tmp_path / "ckpt")
    assert not (tmp_path / "ckpt").exists()


def test_progress_ends_every_epoch_at_one(
    tiny_pairs: PairTable, tiny_config: TrainConfig, make_encoder: MakeEncoder, tmp_path: Path
) -> None:
    seen: dict[str, list[float]] = {}
    fit(
        make_encoder(),
        tiny_pairs,
        tiny_config,
        tmp_path / "ckpt",
        progress=lambda stage, done: seen.setdefault(stage, []).append(done),
    )
    assert list(seen) == ["epoch 1/2", "epoch 2/2"]
    for shares in seen.values():
        assert shares == sorted(shares)
        assert shares[-1] == 1.0


# --- interruption ------------------------------------------------------------------------------


class PowerCutError(Exception):
    """Stands for a power cut."""


@pytest.mark.parametrize("stop_after", [2, 4, 7], ids=["an epoch", "mid-epoch", "a refresh"])
def test_a_resumed_run_ends_as_one_that_was_never_interrupted(
    tiny_pairs: PairTable,
    tiny_config: TrainConfig,
    make_encoder: MakeEncoder,
    tmp_path: Path,
    stop_after: int,
) -> None:
    config = replace(
        tiny_config,
        epochs=4,
        batch_size=8,
        sampling="both",
        refresh_epochs=2,
        save_steps=1,
        ema_decay=0.9,
        recolour=1.0,
    )

    def run(out: Path, **options: Any) -> Encoder:
        return fit(make_encoder(architecture="test_resnet"), tiny_pairs, config, out, **options)

    whole = run(tmp_path / "whole")
    done = [0]

    def cut_power(stage: str, _fraction: float) -> None:
        if stage.startswith("epoch"):
            done[0] += 1
            if done[0] > stop_after:
                raise PowerCutError

    with pytest.raises(PowerCutError):
        run(tmp_path / "cut", progress=cut_power)
    said: list[str] = []
    resumed = run(tmp_path / "cut", resume=True, say=said.append)
    assert said[0].startswith("resumed after epoch")
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name
    histories = [
        [(e["epoch"], e["loss"], e["sampler"]) for e in load_checkpoint(path).config["history"]]
        for path in (tmp_path / "whole", tmp_path / "cut")
    ]
    assert histories[0] == histories[1]
    for name in ("steps.jsonl", "epochs.jsonl"):
        logs = [
            [json.loads(line) for line in (run_folder(path) / name).read_text().splitlines()]
            for path in (tmp_path / "whole", tmp_path / "cut")
        ]
        assert [row["loss"] for row in logs[0]] == [row["loss"] for row in logs[1]]


def test_a_run_is_only_resumed_as_itself(
    tiny_pairs: PairTable, tiny_config: TrainConfig, make_encoder: MakeEncoder, tmp_path: Path
) -> None:
    config, out = replace(tiny_config, epochs=1), tmp_path / "ckpt"
    fit(make_encoder(), tiny_pairs, config, out)
    other = replace(config, learning_rate=1e-4, threads=1)
    with pytest.raises(InputError, match=r"another run \(learning_rate 0.002 then, 0.0001 now\)"):
        fit(make_encoder(), tiny_pairs, other, out, resume=True)
    renamed = replace(tiny_pairs, name="elsewhere")
    with pytest.raises(InputError, match="trained on other data"):
        fit(make_encoder(), renamed, config, out, resume=True)
    free = replace(config, threads=2, evaluate_epochs=5)
    before = load_checkpoint(out).weights_sha256
    fit(make_encoder(seed=9), tiny_pairs, free, out, resume=True)  # Finished: nothing to do.
    assert load_checkpoint(out).weights_sha256 == before


def test_pairs_that_fit_into_no_batch_are_told(
    tiny_pairs: PairTable, tiny_config: TrainConfig, make_encoder: MakeEncoder, tmp_path: Path
) -> None:
    said: dict[float, list[str]] = {}
    for share in (0.0, 0.99):
        said[share] = []
        # Tiles of 48 m over 300 m: most overlap some other, hardly any all but coincide.
        config = replace(tiny_config, exclude="overlap", exclude_overlap=share, batch_size=7)
        out = tmp_path / f"{share}"
        fit(make_encoder(), tiny_pairs, config, out, say=said[share].append)
    assert any("pairs left out: the last batch got no further than" in s for s in said[0.0])
    assert len(said[0.99]) < len(said[0.0]) or said[0.99] != said[0.0]


# --- images that cannot be read ----------------------------------------------------------------


class Broken(ImageArray):
    """Some of its images cannot be read."""

    rows: frozenset[int] = frozenset()

    def read(self, row: int, rng: np.random.Generator) -> Any:
        if row in self.rows:
            msg = f"image {row} cannot be decoded"
            raise UnreadableImageError(msg)
        return super().read(row, rng)


def with_broken(table: PairTable, rows: set[int], copies: int) -> PairTable:
    """The table several times over, with photos that cannot be read."""

    class Some(Broken):
        pass

    Some.rows = frozenset(rows)
    assert isinstance(table.photos.images, ImageArray)
    assert isinstance(table.tiles.images, ImageArray)
    photos = np.concatenate([table.photos.images.images] * copies)
    tiles = np.concatenate([table.tiles.images.images] * copies)
    return replace(
        table,
        photos=ImageSet(images=Some(photos), view="photo"),
        tiles=ImageSet(images=ImageArray(tiles), view="tile"),
        tile_of_photo=np.arange(len(photos)),
    )


def test_a_broken_image_is_left_out_told_and_counted(
    tiny_pairs: PairTable, tiny_config: TrainConfig, make_encoder: MakeEncoder, tmp_path: Path
) -> None:
    table = with_broken(tiny_pairs, {50}, copies=6)
    config = replace(tiny_config, epochs=2, sampling="similarity", refresh_epochs=1, workers=0)
    said: list[str] = []
    reports: list[EpochReport] = []
    fit(make_encoder(), table, config, tmp_path / "ckpt", say=said.append, report=reports.append)
    assert [r.unreadable for r in reports] == [1, 1]
    assert said.count("left out: image 50 cannot be decoded") == 2
    assert any("1 images cannot be read" in line for line in said)


def test_more_than_one_percent_of_broken_images_stop_the_run(
    tiny_pairs: PairTable, tiny_config: TrainConfig, make_encoder: MakeEncoder, tmp_path: Path
) -> None:
    table = with_broken(tiny_pairs, {5, 50, 60}, copies=6)
    config = replace(tiny_config, epochs=2, workers=0)
    with pytest.raises(InputError, match=r"2 of \d+ pairs cannot be read, more than 1%"):
        fit(make_encoder(), table, config, tmp_path / "ckpt")


# --- evaluation --------------------------------------------------------------------------------


def test_embeddings_do_not_depend_on_the_batch_size(
    tiny_pairs: PairTable, tiny_config: TrainConfig, make_encoder: MakeEncoder
) -> None:
    encoder = make_encoder().train()
    one, other = (
        embed_set(encoder, tiny_pairs.photos, replace(tiny_config, batch_size=size), margin=1.25)
        for size in (2, 100)
    )
    assert one.embeddings == pytest.approx(other.embeddings, abs=1e-5)
    assert not encoder.training
    assert one.embeddings.dtype == np.float32


def test_evaluation_of_equal_views_is_perfect(
    tiny_pairs: PairTable, tiny_config: TrainConfig, make_encoder: MakeEncoder
) -> None:
    same = replace(tiny_pairs, tiles=replace(tiny_pairs.photos, view="tile"))
    found = evaluate_task(make_encoder(), task_of(same), tiny_config, margin=1.25).metrics
    assert (found.queries, found.gallery) == (len(same), len(same))
    assert found.r_at_1 == 1.0


def test_evaluation_refuses_an_image_it_cannot_read(
    tiny_config: TrainConfig, make_encoder: MakeEncoder, tmp_path: Path
) -> None:
    files = ImageSet(images=ImageFiles([tmp_path / "gone.jpg"] * 2), view="tile")
    table = PairTable(
        name="gone",
        photos=replace(files, view="photo"),
        tiles=files,
        tile_of_photo=np.arange(2),
        geometry="drone",
    )
    config = replace(tiny_config, workers=0)
    with pytest.raises(InputError, match=r"2 images cannot be read, the first: .*gone\.jpg"):
        evaluate_task(make_encoder(), task_of(table), config)


def test_embeddings_that_are_no_numbers_are_refused(
    tiny_pairs: PairTable, tiny_config: TrainConfig, make_encoder: MakeEncoder
) -> None:
    encoder = make_encoder()
    with torch.no_grad():
        next(encoder.body.parameters()).fill_(math.nan)
    with pytest.raises(InputError, match="not finite"):
        embed_set(encoder, tiny_pairs.photos, tiny_config, margin=1.25)


def test_several_frames_of_a_place_are_one_query(
    tiny_pairs: PairTable, tiny_config: TrainConfig, make_encoder: MakeEncoder
) -> None:
    assert isinstance(tiny_pairs.photos.images, ImageArray)
    noisy = np.concatenate(
        [
            np.clip(
                tiny_pairs.photos.images.images.astype(int)
                + np.random.default_rng(k).normal(0, 90, (1, 80, 80, 3)),
                0,
                255,
            ).astype(np.uint8)
            for k in range(5)
        ]
    )
    count = len(tiny_pairs)
    task = task_of(replace(tiny_pairs, tiles=replace(tiny_pairs.photos, view="tile")))
    frames = replace(
        task,
        queries=ImageSet(images=ImageArray(noisy), view="photo"),
        query_labels=np.tile(np.arange(count), 5),
    )
    alone = evaluate_task(make_encoder(), frames, tiny_config, margin=1.25).metrics
    fused = evaluate_task(make_encoder(), frames, tiny_config, margin=1.25, fuse=5).metrics
    assert (alone.queries, fused.queries) == (5 * count, count)
    assert fused.r_at_1 >= alone.r_at_1
