from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.random_checkpoint import main, nudged_checkpoint, random_checkpoint
from export.probes import probe_images
from train.encoder import load_checkpoint

torch.set_num_threads(1)


def lowest_distance(root: Path) -> float:
    """Of any two made-up images, as cosine distance."""
    encoder = load_checkpoint(root).encoder.eval()
    with torch.no_grad():
        embeddings = encoder(torch.from_numpy(probe_images(encoder.spec)))
    similar = embeddings @ embeddings.T - 2 * torch.eye(len(embeddings))
    return float(1 - similar.max())


def test_a_network_with_batch_norms_tells_images_apart_without_training(tmp_path: Path) -> None:
    random_checkpoint("test_resnet", 64, tmp_path / "made")
    encoder = load_checkpoint(tmp_path / "made").encoder
    norms = [m for m in encoder.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    assert all(bool(norm.state_dict()["running_mean"].any()) for norm in norms)
    assert lowest_distance(tmp_path / "made") > 1e-3


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tmp_path: Path) -> None:
    hashes = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        random_checkpoint("test_convnext", 64, tmp_path / name, seed=seed)
        hashes.append(load_checkpoint(tmp_path / name).weights_sha256)
    assert hashes[0] == hashes[1] != hashes[2]


def test_nudged_weights_are_of_the_same_network_and_near(tmp_path: Path) -> None:
    random_checkpoint("test_convnext", 64, tmp_path / "old")
    nudged_checkpoint(tmp_path / "old", tmp_path / "new")
    old, new = (load_checkpoint(tmp_path / name).encoder for name in ("old", "new"))
    assert old.spec == new.spec
    with torch.no_grad():
        moved = [
            float((a - b).abs().max() / a.abs().max())
            for a, b in zip(old.parameters(), new.parameters(), strict=True)
            if a.numel() > 1
        ]
    assert all(0 < share < 0.2 for share in moved)


def test_no_bias_or_layer_scale_is_so_small_that_losing_it_would_not_show(tmp_path: Path) -> None:
    random_checkpoint("test_convnext", 64, tmp_path / "made")
    body = load_checkpoint(tmp_path / "made").encoder.body
    for name, parameter in body.named_parameters():
        if name.endswith((".bias", ".gamma")):
            assert float(parameter.detach().abs().mean()) > 0.01, name
    with torch.no_grad():
        images = torch.rand(2, 3, 64, 64)
        whole = body(images)
        for name, parameter in body.named_parameters():
            if name.endswith(".gamma"):
                parameter.zero_()
        assert float((body(images) - whole).abs().max() / whole.abs().max()) > 0.1


def test_a_name_and_a_checkpoint_at_once_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["test_convnext", "--like", "x", "--out", str(tmp_path / "out")]) == 2
    assert "either a timm name or --like" in capsys.readouterr().err
