import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from edge_runtime.errors import InputError
from train.config import TrainConfig
from train.loss import relation_loss, symmetric_info_nce, training_loss

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


def test_gradients_equal_the_slope_of_the_definition() -> None:
    query, reference = (unit_rows(5, 4, seed).requires_grad_() for seed in (1, 2))
    scale = torch.tensor(9.0, requires_grad=True)
    symmetric_info_nce(query, reference, scale).backward()  # type: ignore[no-untyped-call]
    views = [query.detach().double().numpy(), reference.detach().double().numpy()]
    step = 1e-6

    def slope(change: F64, which: int) -> float:
        moved = [[view.copy() for view in views] for _ in range(2)]
        moved[0][which] += step * change
        moved[1][which] -= step * change
        above, below = (loss_slowly(a, b, 9.0, 0.1) for a, b in moved)
        return (above - below) / (2 * step)

    for which, leaf in enumerate((query, reference)):
        assert leaf.grad is not None
        for row, column in np.ndindex(5, 4):
            change = np.zeros((5, 4))
            change[row, column] = 1
            assert float(leaf.grad[row, column]) == pytest.approx(slope(change, which), abs=2e-5)
    assert scale.grad is not None
    above, below = (loss_slowly(views[0], views[1], 9.0 + s, 0.1) for s in (step, -step))
    assert float(scale.grad) == pytest.approx((above - below) / (2 * step), abs=1e-5)


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


def test_photo_negatives_stand_in_the_photos_denominator_alone() -> None:
    query, reference = unit_rows(6, 12, 1), unit_rows(6, 12, 2)
    scale, total = 9.0, 0.0
    for row in range(6):
        tiles = [scale * float(query[row] @ tile) for tile in reference]
        photos = [scale * float(query[row] @ query[k]) for k in range(6) if k != row]
        total -= tiles[row] - math.log(sum(map(math.exp, tiles + photos)))
        back = [scale * float(reference[row] @ photo) for photo in query]
        total -= back[row] - math.log(sum(map(math.exp, back)))
    found = symmetric_info_nce(
        query, reference, torch.tensor(scale), label_smoothing=0.0, photo_negatives=True
    )
    assert float(found) == pytest.approx(total / 12, rel=1e-5)


def test_embedding_sizes_cost_the_mean_of_their_prefixes() -> None:
    query, reference, scale = unit_rows(8, 16, 1), unit_rows(8, 16, 2), torch.tensor(10.0)
    config = TrainConfig(embedding_sizes=(4, 8))
    parts = [
        float(symmetric_info_nce(F.normalize(query[:, :d]), F.normalize(reference[:, :d]), scale))
        for d in (16, 4, 8)
    ]
    found = training_loss(query, reference, scale, config)
    assert float(found) == pytest.approx(sum(parts) / 3, rel=1e-6)


def test_a_prefix_longer_than_the_embedding_is_refused() -> None:
    query = unit_rows(4, 8, 1)
    with pytest.raises(InputError, match="exceed the encoder's 8"):
        training_loss(query, query, torch.tensor(1.0), TrainConfig(embedding_sizes=(16,)))


def test_a_student_that_agrees_with_its_teacher_pays_nothing_more() -> None:
    query, reference, scale = unit_rows(8, 16, 1), unit_rows(8, 16, 2), torch.tensor(10.0)
    plain = training_loss(query, reference, scale, TrainConfig())
    config = TrainConfig(distillation="relations")
    # Another basis, longer vectors: relations do not see it.
    turn = torch.linalg.qr(torch.randn(24, 16, generator=torch.Generator().manual_seed(3)))[0]
    same = training_loss(
        query, reference, scale, config, teacher=(query @ turn.T, reference @ turn.T)
    )
    assert float(same) == pytest.approx(float(plain), abs=1e-5)
    other = training_loss(
        query, reference, scale, config, teacher=(unit_rows(8, 16, 4), unit_rows(8, 16, 5))
    )
    assert float(other) > float(plain) + 0.1


def test_relations_are_the_divergence_of_both_directions_by_definition() -> None:
    student, teacher = unit_rows(5, 5, 1), unit_rows(5, 5, 2)
    total = 0.0
    for a, b in ((student, teacher), (student.T, teacher.T)):
        for own, other in zip((7 * a).softmax(1), (7 * b).softmax(1), strict=True):
            total += float((other * (other / own).log()).sum())
    found = relation_loss(student, teacher, torch.tensor(7.0))
    assert float(found) == pytest.approx(total / 10, rel=1e-5)


def test_no_gradient_flows_into_the_teacher() -> None:
    query, reference = unit_rows(4, 8, 1).requires_grad_(), unit_rows(4, 8, 2)
    teacher = (unit_rows(4, 8, 3).requires_grad_(), unit_rows(4, 8, 4).requires_grad_())
    for kind in ("relations", "embeddings"):
        config = TrainConfig(distillation=kind)
        training_loss(query, reference, torch.tensor(5.0), config, teacher=teacher).backward()  # type: ignore[no-untyped-call]
    assert query.grad is not None
    assert teacher[0].grad is None
    assert teacher[1].grad is None
