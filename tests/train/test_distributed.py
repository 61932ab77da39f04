"""Two processes train as one does: same loss, same gradients, same batches."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from train.distributed import Ranks, gathered, joined_ranks

Arrays = dict[str, npt.NDArray[np.float64]]
WORKER = Path(__file__).with_name("distributed_worker.py")
ROOT = WORKER.parents[2]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Arrays]:
    """What every rank of one and of two processes saw, by `{world size}_{rank}`."""
    out = tmp_path_factory.mktemp("ranks")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    for ranks in (1, 2):
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        done = subprocess.run(
            [*command, f"--nproc-per-node={ranks}", str(WORKER), str(out)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
    return {path.stem: dict(np.load(path)) for path in out.glob("*.npz")}


@pytest.mark.slow
@pytest.mark.parametrize("chunk_size", [None, 3], ids=["at once", "cached embeddings"])
def test_two_ranks_give_the_loss_and_gradients_of_one(
    runs: dict[str, Arrays], chunk_size: int | None
) -> None:
    one = runs["1_0"]
    for rank in ("2_0", "2_1"):
        two = runs[rank]
        assert two[f"{chunk_size} loss"] == pytest.approx(one[f"{chunk_size} loss"], rel=1e-6)
        names = [name for name in one if name.startswith(f"{chunk_size} grad")]
        assert any("logit_scale" in name for name in names)
        for name in names:
            assert two[name] == pytest.approx(one[name], rel=1e-3, abs=2e-5), name


@pytest.mark.slow
def test_two_ranks_share_the_batches_of_one(runs: dict[str, Arrays]) -> None:
    one, two = runs["1_0"]["batches"], runs["2_0"]["batches"]
    assert one.shape == two.shape == (5, 8)
    assert np.array_equal(np.sort(one, axis=1), np.sort(two, axis=1))
    assert np.array_equal(two, runs["2_1"]["batches"])


@pytest.mark.slow
def test_two_ranks_find_the_neighbours_of_one(runs: dict[str, Arrays]) -> None:
    one, two = runs["1_0"]["neighbours"], runs["2_0"]["neighbours"]
    # Their weights differ in the last bits after a step, and so may the order of near ties.
    assert np.mean(one == two) > 0.95
    assert np.array_equal(two, runs["2_1"]["neighbours"])


@pytest.mark.slow
def test_two_ranks_train_as_one(runs: dict[str, Arrays]) -> None:
    one, two = runs["1_0"]["losses"], runs["2_0"]["losses"]
    assert len(one) == 3
    assert two == pytest.approx(one, rel=1e-3)
    assert np.array_equal(two, runs["2_1"]["losses"])


@pytest.mark.slow
def test_counts_are_added_over_the_ranks(runs: dict[str, Arrays]) -> None:
    assert runs["2_0"]["total"].tolist() == runs["2_1"]["total"].tolist() == [3, 5]


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
@pytest.mark.parametrize("count", [0, 1, 6, 20])
def test_shares_and_spans_give_every_row_to_one_rank(world_size: int, count: int) -> None:
    ranks = [Ranks(rank=k, world_size=world_size) for k in range(world_size)]
    rows = np.arange(count)
    assert sorted(np.concatenate([r.share(rows) for r in ranks])) == rows.tolist()
    assert np.concatenate([rows[r.span(count)] for r in ranks]).tolist() == rows.tolist()


def test_a_process_alone_is_its_own_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined_ranks() as ranks:
        assert (ranks.rank, ranks.world_size, ranks.first) == (0, 1, True)
        embeddings = torch.ones(2, 3)
        assert gathered(embeddings, ranks) is embeddings
        assert ranks.total(4) == ranks.smallest(4) == 4
