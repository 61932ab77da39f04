import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from train.loss import symmetric_info_nce

F64 = npt.NDArray[np.float64]


def unit_rows(rows: int, size: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(rows, size, generator=torch.Generator().manual_seed(seed)))


def loss_slowly(query: F64, reference: F64, scale: float, smoothing: float) -> float:
    """Both directions, row by row, in float64."""
    total = 0.0
    for a, b in ((query, reference), (reference, query)):
        for row in range(len(a)):
            logits = [scale * float(a[row] @ other) for other in b]
            log_sum = math.log(sum(math.exp(v - max(logits)) for v in logits)) + max(logits)
            log_p = [v - log_sum for v in logits]
            own = (1 - smoothing) * log_p[row]
            total -= own + smoothing * sum(log_p) / len(log_p)
    return total / (2 * len(query))


@pytest.mark.parametrize("rows", [2, 7, 32])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_the_loss_equals_the_definition_row_by_row(rows: int, smoothing: float) -> None:
    query, reference = unit_rows(rows, 12, 1), unit_rows(rows, 12, 2)
    found = symmetric_info_nce(query, reference, torch.tensor(14.3), label_smoothing=smoothing)
    expected = loss_slowly(query.double().numpy(), reference.double().numpy(), 14.3, smoothing)
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_swapping_the_views_changes_nothing() -> None:
    query, reference = unit_rows(16, 12, 1), unit_rows(16, 12, 2)
    scale = torch.tensor(10.0)
    one = symmetric_info_nce(query, reference, scale)
    assert float(one) == pytest.approx(float(symmetric_info_nce(reference, query, scale)), rel=1e-6)


def test_the_order_of_the_pairs_changes_nothing() -> None:
    query, reference = unit_rows(16, 12, 1), unit_rows(16, 12, 2)
    order = torch.from_numpy(np.random.default_rng(3).permutation(16))
    one = symmetric_info_nce(query, reference, torch.tensor(10.0))
    other = symmetric_info_nce(query[order], reference[order], torch.tensor(10.0))
    assert float(one) == pytest.approx(float(other), rel=1e-6)


@pytest.mark.parametrize(("batch", "floor"), [(128, 0.804), (8, 0.467)])
def test_smoothing_gives_the_loss_a_floor_that_grows_with_the_batch(
    batch: int, floor: float
) -> None:
    # The floor is the entropy of the smoothed target: no scale and no embedding goes below it.
    # Orthogonal pairs reach it at scale ln(1 + B (1 - s) / s).
    same = torch.eye(batch)
    best = math.log(1 + batch * 0.9 / 0.1)
    assert float(symmetric_info_nce(same, same, torch.tensor(best))) == pytest.approx(
        floor, abs=5e-4
    )
    for scale in (best / 4, best * 0.9, best * 1.1, best * 4):
        assert float(symmetric_info_nce(same, same, torch.tensor(scale))) > floor


@pytest.mark.parametrize("batch", [2, 8, 128])
def test_a_uniform_guess_costs_the_logarithm_of_the_batch(batch: int) -> None:
    constant = F.normalize(torch.ones(batch, 4))
    found = symmetric_info_nce(constant, constant, torch.tensor(20.0))
    assert float(found) == pytest.approx(math.log(batch), abs=1e-5)


def test_the_gradient_reaches_both_views_and_the_temperature() -> None:
    query, reference = (unit_rows(8, 12, seed).requires_grad_() for seed in (1, 2))
    logit_scale = torch.tensor(2.66, requires_grad=True)
    loss = symmetric_info_nce(query, reference, logit_scale.exp())
    loss.backward()  # type: ignore[no-untyped-call]
    for leaf in (query, reference, logit_scale):
        assert leaf.grad is not None
        assert torch.isfinite(leaf.grad).all()
        assert leaf.grad.abs().max() > 0


def test_the_loss_stays_in_float32_inside_autocast() -> None:
    query, reference = unit_rows(64, 32, 1), unit_rows(64, 32, 2)
    scale = torch.tensor(100.0)
    expected = symmetric_info_nce(query, reference, scale)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = symmetric_info_nce(query, reference, scale)
    assert found.dtype == torch.float32
    assert float(found) == float(expected)


def test_half_precision_embeddings_are_widened_before_the_product() -> None:
    query, reference = unit_rows(16, 32, 1).half(), unit_rows(16, 32, 2).half()
    scale = torch.tensor(100.0)
    found = symmetric_info_nce(query, reference, scale)
    assert found.dtype == torch.float32
    assert float(found) == float(symmetric_info_nce(query.float(), reference.float(), scale))


def test_batches_of_different_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"query \(8, 12\) and reference \(7, 12\) must match"):
        symmetric_info_nce(unit_rows(8, 12, 1), unit_rows(7, 12, 2), torch.tensor(1.0))
