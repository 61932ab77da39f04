from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from benchmarks.loading import textured
from benchmarks.parity import live_in, parity_rows
from benchmarks.rows import append_rows, read_rows
from edge_runtime.errors import InputError
from train.encoder import new_encoder


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("photographs")
    paths = [folder / f"{k}.png" for k in range(9)]
    for seed, path in enumerate(paths):
        cv2.imwrite(str(path), textured(72, 96, seed))
    return paths


def test_a_row_says_what_was_compared_and_how_alike_it_is(
    photographs: list[Path], tmp_path: Path
) -> None:
    rows = parity_rows(["test_resnet"], [64], photographs, pictures=4, batch=3, threads=1)
    (row,) = rows
    assert row.folder == photographs[0].parent.name
    assert (row.architecture, row.size_px, row.photographs, row.batch) == ("test_resnet", 64, 4, 3)
    assert 0.99999 <= row.fp32_min_cosine <= row.fp32_median_cosine <= 1.00001
    assert 0.9995 <= row.fp16_min_cosine <= row.fp16_median_cosine < 1
    # What all have in common hides differences: without it they show more.
    assert row.fp16_min_centred < row.fp16_min_cosine
    assert row.spread > 0.01
    assert row.half_nodes + row.kept_nodes == row.nodes
    assert row.kept_early + row.kept_by_measurement <= row.kept_nodes
    assert row.fp16_mb < row.fp32_mb
    append_rows(tmp_path / "rows.jsonl", rows)
    (read,) = read_rows(tmp_path / "rows.jsonl", kind="parity")
    assert set(read) == set(asdict(row))


def test_too_few_photographs_are_refused(photographs: list[Path]) -> None:
    with pytest.raises(InputError, match="9 photographs; expected at least 10: 5 to calibrate on"):
        parity_rows(["test_resnet"], [64], photographs, pictures=5)


def test_a_photograph_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"not a picture")
    with pytest.raises(InputError, match=r"a\.jpg cannot be read"):
        parity_rows(["test_resnet"], [64], [tmp_path / "a.jpg"] * 2, pictures=1)


@pytest.mark.parametrize("architecture", ["test_convnext", "test_resnet", "test_vit"])
def test_a_network_that_was_lived_in_tells_pictures_apart(architecture: str) -> None:
    images = np.stack([textured(64, 64, seed) for seed in range(6)])
    torch.manual_seed(2)
    encoder = new_encoder(architecture, size_px=64)
    live_in(encoder, images)
    assert not encoder.training
    assert not any(module.training for module in encoder.modules())
    with torch.inference_mode():
        embeddings = encoder(torch.from_numpy(images))
    assert (embeddings - embeddings.mean(dim=0)).norm(dim=1).min() > 0.05
    torch.manual_seed(2)
    again = new_encoder(architecture, size_px=64)
    live_in(again, images)
    for name, value in again.state_dict().items():
        assert torch.equal(value, encoder.state_dict()[name]), name
