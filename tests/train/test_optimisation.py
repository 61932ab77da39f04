"""Every way to save memory or time gives the step that the plain way gives."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from edge_runtime.errors import InputError
from train.config import TrainConfig
from train.distributed import Ranks
from train.encoder import Encoder
from train.optimisation import Optimisation, StepReport
from train.schedule import learning_rate_factor

MakeEncoder = Callable[..., Encoder]
PAIRS = 8


def images(seed: int, side: int = 64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (PAIRS, side, side, 3), generator=generator, dtype=torch.uint8)


@pytest.fixture
def step(make_encoder: MakeEncoder, tiny_config: TrainConfig) -> Callable[..., Any]:
    """One step from the same weights on the same pairs, with other settings."""

    def run(
        architecture: str = "test_convnext", teacher: Encoder | None = None, **settings: Any
    ) -> tuple[StepReport, dict[str, Tensor], Encoder]:
        encoder = make_encoder(architecture=architecture)
        config = dataclasses.replace(
            tiny_config, architecture=architecture, batch_size=PAIRS, **settings
        )
        optimisation = Optimisation(encoder, config, Ranks(), steps_per_epoch=4, teacher=teacher)
        optimisation.train()
        done = optimisation.step(images(1), images(2))
        gradients = {
            name: value.grad.clone()
            for name, value in encoder.named_parameters()
            if value.grad is not None
        }
        return done, gradients, optimisation.trained

    return run


@pytest.mark.parametrize("chunk_size", [1, 3, 7])
def test_cached_embeddings_give_the_loss_and_gradients_of_the_whole_batch(
    step: Callable[..., Any], chunk_size: int
) -> None:
    whole, expected, _ = step()
    chunked, found, _ = step(chunk_size=chunk_size)
    assert chunked.loss == pytest.approx(whole.loss, rel=1e-6)
    assert expected.keys() == found.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=2e-5, msg=name)


def test_cached_embeddings_count_each_image_once_in_batch_norms(
    step: Callable[..., Any], make_encoder: MakeEncoder
) -> None:
    before = make_encoder(architecture="test_resnet").state_dict()
    _, _, encoder = step("test_resnet", chunk_size=4)
    counted = {k: v for k, v in encoder.state_dict().items() if "num_batches" in k}
    assert counted
    assert all(int(v) - int(before[k]) == PAIRS // 4 for k, v in counted.items())


@pytest.mark.parametrize(
    "settings",
    [{"checkpointing": True}, {"channels_last": True}],
    ids=["activations recomputed", "channels last"],
)
def test_savings_change_no_gradient(step: Callable[..., Any], settings: dict[str, Any]) -> None:
    whole, expected, _ = step()
    saved, found, _ = step(**settings)
    assert saved.loss == pytest.approx(whole.loss, rel=1e-5)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=2e-5, msg=name)


def test_a_compiled_body_takes_the_same_step_and_keeps_its_names(
    step: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, expected, _ = step()
    compile_module = torch.nn.Module.compile

    def traced(module: torch.nn.Module) -> None:
        # All of torch.compile but the machine code, which takes a minute to make.
        compile_module(module, backend="eager")

    monkeypatch.setattr(torch.nn.Module, "compile", traced)
    compiled, found, _ = step(compile=True)
    assert compiled.loss == pytest.approx(whole.loss, rel=1e-6)
    assert found.keys() == expected.keys()


def test_bf16_stays_near_the_full_precision(step: Callable[..., Any]) -> None:
    whole, _, _ = step()
    half, _, encoder = step(precision="bf16")
    assert half.loss != whole.loss
    assert half.loss == pytest.approx(whole.loss, abs=0.05)
    assert all(p.dtype == torch.float32 for p in encoder.parameters())


def test_the_average_lags_behind_the_weights(
    make_encoder: MakeEncoder, tiny_config: TrainConfig
) -> None:
    encoder = make_encoder()
    config = dataclasses.replace(tiny_config, ema_decay=0.75, learning_rate=1e-2)
    optimisation = Optimisation(encoder, config, Ranks(), steps_per_epoch=4)
    optimisation.train()
    expected: Tensor | None = None
    for k in range(3):
        optimisation.step(images(k), images(k + 10))
        now = encoder.logit_scale.detach().clone()
        # The average starts as the first weights it sees.
        expected = now if expected is None else 0.75 * expected + 0.25 * now
    assert expected is not None
    averaged = optimisation.trained.logit_scale.detach()
    torch.testing.assert_close(averaged, expected)
    assert averaged != encoder.logit_scale


def test_frozen_batch_norms_keep_their_statistics(
    step: Callable[..., Any], make_encoder: MakeEncoder
) -> None:
    before = make_encoder(architecture="test_resnet").state_dict()
    _, _, frozen = step("test_resnet", freeze_norms=True)
    _, _, free = step("test_resnet")
    name = next(k for k in before if k.endswith("running_mean"))
    assert torch.equal(frozen.state_dict()[name], before[name])
    assert not torch.equal(free.state_dict()[name], before[name])


def test_the_temperature_starts_where_it_is_set(step: Callable[..., Any]) -> None:
    done, _, _ = step(temperature=0.05)
    assert done.temperature == pytest.approx(0.05, rel=0.01)
    kept, _, _ = step()
    assert kept.temperature == pytest.approx(0.07, rel=0.01)


def test_a_loss_that_is_no_number_changes_nothing(
    make_encoder: MakeEncoder, tiny_config: TrainConfig
) -> None:
    encoder = make_encoder()
    optimisation = Optimisation(encoder, tiny_config, Ranks(), steps_per_epoch=4)
    optimisation.train()
    with torch.no_grad():
        encoder.logit_scale.fill_(math.nan)
    weights = {k: v.clone() for k, v in encoder.named_parameters() if k != "logit_scale"}
    with pytest.raises(InputError, match="loss is nan; try a smaller learning rate"):
        optimisation.step(images(1), images(2))
    assert all(torch.equal(v, dict(encoder.named_parameters())[k]) for k, v in weights.items())


@pytest.mark.parametrize("chunk_size", [None, 3])
def test_a_student_of_another_size_learns_relations(
    step: Callable[..., Any], make_encoder: MakeEncoder, chunk_size: int | None
) -> None:
    teacher = make_encoder(seed=5, size_px=96)
    alone, _, _ = step(chunk_size=chunk_size)
    taught, _, _ = step(teacher=teacher, distillation="relations", chunk_size=chunk_size)
    assert taught.loss > alone.loss


def test_a_teacher_and_its_use_come_together(
    step: Callable[..., Any], make_encoder: MakeEncoder
) -> None:
    with pytest.raises(InputError, match="give both or neither"):
        step(teacher=make_encoder())
    with pytest.raises(InputError, match="there is no teacher"):
        step(distillation="relations")


def test_learning_the_teachers_vectors_needs_its_size(
    step: Callable[..., Any], make_encoder: MakeEncoder
) -> None:
    teacher = make_encoder(architecture="test_resnet")
    student = make_encoder(architecture="test_convnext")
    assert teacher.spec.embedding_size != student.spec.embedding_size
    with pytest.raises(InputError, match=f"num_classes={teacher.spec.embedding_size}"):
        step(teacher=teacher, distillation="embeddings")


@pytest.mark.parametrize(
    ("step_number", "expected"),
    [(0, 1 / 11), (9, 10 / 11), (10, 1.0), (25, 0.5), (40, 0.0), (99, 0.0)],
)
def test_warm_up_then_cosine(tiny_config: TrainConfig, step_number: int, expected: float) -> None:
    config = dataclasses.replace(tiny_config, epochs=4, warmup_epochs=1.0)
    assert learning_rate_factor(step_number, config, per_epoch=10) == pytest.approx(expected)


def test_a_constant_schedule_stays(tiny_config: TrainConfig) -> None:
    config = dataclasses.replace(tiny_config, epochs=4, warmup_epochs=0, schedule="constant")
    assert [learning_rate_factor(s, config, per_epoch=3) for s in (0, 5, 11)] == [1, 1, 1]
