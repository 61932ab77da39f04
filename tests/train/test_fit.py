import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

import train.fit
from edge_runtime.errors import InputError
from train.config import Sampling, TrainConfig
from train.encoder import Encoder, load_checkpoint
from train.fit import EpochReport, embed, embed_pairs, evaluate, fit, warmup_then_cosine
from train.loss import symmetric_info_nce
from train.pairs import Pairs

MakeEncoder = Callable[..., Encoder]


def losses(
    encoder: Encoder, pairs: Pairs, config: TrainConfig, out: Path
) -> tuple[list[float], list[str]]:
    reports: list[EpochReport] = []
    fit(encoder, pairs, config, out, report=reports.append)
    return [r.loss for r in reports], [r.sampler for r in reports]


def test_a_tiny_fit_learns_and_leaves_a_checkpoint_every_epoch(
    tiny_pairs: Pairs, tiny_config: TrainConfig, make_encoder: MakeEncoder, tmp_path: Path
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
    assert opened.config["pairs"] == len(tiny_pairs)
    assert opened.config["training"]["size_px"] == config.size_px
    assert train.fit.training_history(out) == opened.config["history"]
    before, after = (embed_pairs(e, tiny_pairs)[0] for e in (encoder, opened.encoder))
    assert np.array_equal(before, after)


def test_the_same_seed_gives_the_same_losses_and_another_seed_others(
    tiny_pairs: Pairs, tiny_config: TrainConfig, make_encoder: MakeEncoder, tmp_path: Path
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
    tiny_pairs: Pairs,
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
    tiny_pairs: Pairs,
    tiny_config: TrainConfig,
    make_encoder: MakeEncoder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps = len(tiny_pairs) // tiny_config.batch_size
    true_loss, calls = symmetric_info_nce, [0]

    def spoilt(*views: torch.Tensor, label_smoothing: float) -> torch.Tensor:
        calls[0] += 1
        loss = true_loss(*views, label_smoothing=label_smoothing)
        return loss * float("nan") if calls[0] > steps else loss

    monkeypatch.setattr(train.fit, "symmetric_info_nce", spoilt)
    out = tmp_path / "ckpt"
    seen: list[str] = []
    with pytest.raises(InputError, match=r"loss is nan in epoch 2; .* Try a smaller learning rate"):
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
    assert [p.name for p in tmp_path.iterdir()] == ["ckpt"]


def test_fewer_pairs_than_a_batch_are_refused(
    tiny_pairs: Pairs, tiny_config: TrainConfig, make_encoder: MakeEncoder, tmp_path: Path
) -> None:
    for sampling in ("random", "gps"):
        config = replace(tiny_config, batch_size=1000, sampling=sampling)
        with pytest.raises(InputError, match="use a smaller batch size"):
            fit(make_encoder(), tiny_pairs, config, tmp_path / "ckpt")
    assert list(tmp_path.iterdir()) == []


def test_progress_ends_every_epoch_at_one(
    tiny_pairs: Pairs, tiny_config: TrainConfig, make_encoder: MakeEncoder, tmp_path: Path
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


# --- learning rate -----------------------------------------------------------------------------


def test_the_learning_rate_rises_then_falls_to_nothing() -> None:
    found = [warmup_then_cosine(step, warmup=10, total=100) for step in range(101)]
    assert np.all(np.diff(found[:11]) > 0)
    assert np.all(np.diff(found[10:]) < 0)
    assert max(found) == found[10] == 1.0
    assert found[100] == pytest.approx(0.0, abs=1e-12)
    assert min(found[:100]) > 0, "a step that learns nothing"


@pytest.mark.parametrize(
    ("step", "warmup", "total", "factor"),
    [
        (0, 0, 100, 1.0),
        (50, 0, 100, 0.5),
        (25, 0, 100, 0.5 + math.sqrt(2) / 4),
        (0, 4, 100, 0.2),
        (3, 4, 100, 0.8),
        (55, 10, 100, 0.5),
        (100, 10, 100, 0.0),
        (130, 10, 100, 0.0),
        (5, 5, 5, 1.0),
    ],
)
def test_known_points_of_the_schedule(step: int, warmup: int, total: int, factor: float) -> None:
    found = warmup_then_cosine(step, warmup=warmup, total=total)
    assert found == pytest.approx(factor, abs=1e-12)


# --- evaluation --------------------------------------------------------------------------------


def test_embeddings_do_not_depend_on_the_batch_size(
    tiny_pairs: Pairs, make_encoder: MakeEncoder
) -> None:
    encoder = make_encoder().train()
    images = np.ascontiguousarray(tiny_pairs.photos[:, 8:72, 8:72])
    one, all_at_once = (embed(encoder, images, batch_size=size) for size in (5, 100))
    assert one == pytest.approx(all_at_once, abs=1e-5)
    assert not encoder.training
    assert one.dtype == np.float32


def test_evaluation_of_equal_views_is_perfect_and_distractors_enlarge_the_gallery(
    tiny_pairs: Pairs, make_encoder: MakeEncoder
) -> None:
    same = replace(tiny_pairs, tiles=tiny_pairs.photos)
    encoder = make_encoder()
    found = evaluate(encoder, same)
    assert (found.queries, found.gallery) == (len(same), len(same))
    assert found.r_at_1 == 1.0
    copies = np.ascontiguousarray(same.tiles[:3, 8:72, 8:72])
    with_copies = evaluate(encoder, same, copies)
    assert with_copies.gallery == len(same) + 3
    assert with_copies.r_at_1 == pytest.approx(1 - 3 / len(same)), "a tie is a miss"
