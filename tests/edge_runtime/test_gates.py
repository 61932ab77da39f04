import itertools
import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edge_runtime.errors import GateError
from edge_runtime.gates import GATE_LIMITS, gate_encoder, run_gates
from edge_runtime.precision import PRECISIONS

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]


def unit(rows: npt.NDArray[Any]) -> F32:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def spread_rows(count: int = 40, size: int = 24, seed: int = 1) -> F32:
    return unit(np.random.default_rng(seed).normal(size=(count, size)))


def refused(found: F32, reference: F32, precision: Any = "fp32") -> str:
    """Run gates that must fail; returns their one line, which begins with the precision."""
    with pytest.raises(GateError) as caught:
        run_gates(found, reference, precision)
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith(f"{precision}: ")
    return line


def number_after(text: str, line: str) -> float:
    found = re.search(re.escape(text) + r"\s*(-?[\d.]+(?:e[+-]?\d+)?)", line)
    assert found, line
    return float(found[1])


# --- a sound export ----------------------------------------------------------------------------


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_same_embeddings_pass(precision: Any) -> None:
    report = run_gates(spread_rows(), spread_rows(), precision)
    assert report.precision == precision
    assert report.probes == 40
    assert report.min_cosine == pytest.approx(1.0, abs=1e-6)
    assert report.min_cosine <= report.p1_cosine <= 1.0 + 1e-6
    assert report.top1_agreement == 1.0
    assert json.loads(json.dumps(report.to_json())) == report.to_json()


def test_rounding_of_half_precision_passes_as_fp16() -> None:
    reference = spread_rows()
    found = unit(reference.astype(np.float16).astype(np.float32))
    assert run_gates(found, reference, "fp16").min_cosine > 0.9999


def test_half_precision_may_differ_more_than_full_precision() -> None:
    reference = spread_rows()
    noise = 0.02 * spread_rows(seed=2)
    found = unit(reference + noise)
    assert run_gates(found, reference, "fp16").min_cosine < 0.9999
    assert "expected >= 0.9999" in refused(found, reference, "fp32")


# --- planted faults in the embeddings ----------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_value_that_is_not_finite_is_caught(value: float) -> None:
    found = spread_rows()
    found[7, 3] = value
    assert "1 of 40 probes gave a non-finite embedding" in refused(found, spread_rows())


def test_only_nan_is_caught() -> None:
    found = np.full((40, 24), np.nan, np.float32)
    assert "40 of 40 probes" in refused(found, spread_rows())


def test_a_constant_embedding_is_caught_even_where_the_trained_encoder_gives_it_too() -> None:
    constant = unit(np.ones((40, 24)))
    assert "constant" in refused(constant, spread_rows())
    assert "constant" in refused(constant, constant)


def test_a_trained_encoder_that_gives_nan_passes_nothing() -> None:
    refused(spread_rows(), np.full((40, 24), np.nan, np.float32))


@pytest.mark.parametrize("scale", [0.1, 0.99, 1.01, 30.0])
def test_embeddings_that_are_not_of_unit_length_are_caught_with_how_far_off_they_are(
    scale: float,
) -> None:
    line = refused(scale * spread_rows(), spread_rows())
    assert number_after("off by", line) == pytest.approx(abs(scale - 1), rel=0.06)


def test_one_embedding_of_another_length_is_caught() -> None:
    found = spread_rows()
    found[9] *= 1.5
    assert number_after("off by", refused(found, spread_rows())) == pytest.approx(0.5, rel=0.05)


def test_one_wrong_probe_of_many_is_caught_with_its_cosine() -> None:
    found = spread_rows()
    found[11] = found[12]
    expected = float(found[12] @ spread_rows()[11])
    line = refused(found, spread_rows())
    assert number_after("trained encoder", line) == pytest.approx(expected, abs=1e-5)


def test_neighbours_that_changed_are_caught_though_every_cosine_is_high() -> None:
    # All rows lie so close together that noise below the cosine's limit reorders them.
    rng = np.random.default_rng(3)
    reference = unit(10.0 + 0.01 * rng.normal(size=(60, 24)))
    found = unit(reference + 0.0005 * rng.normal(size=(60, 24)))
    line = refused(found, reference)
    assert f"expected >= {GATE_LIMITS['fp32'].top1_agreement}" in line
    assert number_after("keep their nearest neighbour", line) < 0.97


def test_neighbours_that_tie_where_the_trained_encoders_do_not_count_as_changed() -> None:
    # Three of the export's probes fall together: their neighbours are a matter of luck.
    angles = np.linspace(0, 1, 12) ** 2
    reference = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    reference[[0, 1, 2]] = unit(
        np.array([[1, 0, 0], [1, 1e-3, 0], [1, 0, 3e-3]])[:, :2].astype(np.float32)
    )
    found = reference.copy()
    found[[0, 1, 2]] = found[0]
    assert "keep their nearest neighbour" in refused(found, reference)


def test_shapes_that_differ_and_too_few_probes_are_refused() -> None:
    assert "at least 4 probes" in refused(spread_rows(40, 24), spread_rows(40, 25))
    assert "at least 4 probes" in refused(spread_rows(39, 24), spread_rows(40, 24))
    assert "at least 4 probes" in refused(spread_rows(3), spread_rows(3))


def test_five_neighbours_that_changed_are_caught_though_the_nearest_stayed() -> None:
    # Pairs of twins: each is the other's nearest, the rest is far and comes in another order.
    rng = np.random.default_rng(5)
    base = unit(1.0 + 0.004 * rng.normal(size=(30, 24)))
    twins = np.repeat(base, 2, axis=0)
    reference = unit(twins + 1e-5 * rng.normal(size=twins.shape))
    other = unit(base + 0.002 * rng.normal(size=base.shape))
    found = unit(np.repeat(other, 2, axis=0) + 1e-5 * rng.normal(size=twins.shape))
    line = refused(found, reference)
    assert number_after("neighbours that probes keep", line) < GATE_LIMITS["fp32"].top5_agreement


def test_every_precision_has_limits_and_a_coarser_one_is_never_stricter() -> None:
    assert set(GATE_LIMITS) == set(PRECISIONS)
    for finer, coarser in itertools.pairwise(GATE_LIMITS[p] for p in PRECISIONS):
        assert coarser.min_cosine < finer.min_cosine
        assert coarser.p1_cosine < finer.p1_cosine
        assert coarser.p1_cosine >= coarser.min_cosine
        assert coarser.top1_agreement <= finer.top1_agreement
        assert coarser.recall_drop >= finer.recall_drop


# --- an encoder as it runs ---------------------------------------------------------------------

WEIGHTS = np.random.default_rng(9).normal(size=(8 * 8 * 3, 24)).astype(np.float32)


def encoder(images: U8) -> F32:
    pixels = images.reshape(len(images), -1).astype(np.float32) - 128
    return unit(pixels @ WEIGHTS)


def probes(count: int = 20) -> U8:
    return np.random.default_rng(4).integers(0, 256, (count, 8, 8, 3), np.uint8)


@pytest.mark.parametrize(
    ("named", "fault"),
    [
        ("BGR in place of RGB", lambda x: x[..., ::-1]),
        ("upside down", lambda x: x[:, ::-1]),
        ("mirrored images", lambda x: x[:, :, ::-1]),
        ("rows and columns exchanged", lambda x: x.transpose(0, 2, 1, 3)),
    ],
)
def test_a_fault_of_the_input_is_named(named: str, fault: Callable[[U8], U8]) -> None:
    with pytest.raises(GateError, match=rf"lowest cosine .* {named} agrees with it"):
        gate_encoder(lambda x: encoder(fault(x)), probes(), encoder(probes()), "fp32")


def test_a_fault_that_is_none_of_the_input_is_not_explained() -> None:
    with pytest.raises(GateError) as caught:
        gate_encoder(lambda x: encoder(255 - x // 2), probes(), encoder(probes()), "fp32")
    assert "agrees with it" not in str(caught.value)


def test_an_encoder_that_mixes_up_a_batch_is_caught_and_the_batch_named() -> None:
    def mixed(images: U8) -> F32:
        return encoder(images)[::-1] if len(images) > 1 else encoder(images)

    assert gate_encoder(mixed, probes(), encoder(probes()), "fp32").min_cosine > 0.9999
    with pytest.raises(GateError, match="fp32, batches of 8: lowest cosine"):
        gate_encoder(mixed, probes(), encoder(probes()), "fp32", batches=(1, 8))


def test_the_worst_batch_is_reported() -> None:
    noise = 1e-3 * unit(np.random.default_rng(1).normal(size=(20, 24)))

    def rough(images: U8) -> F32:
        found = encoder(images)
        return unit(found + noise[: len(found)]) if len(found) > 1 else found

    report = gate_encoder(rough, probes(), encoder(probes()), "fp32", batches=(1, 8))
    assert report.min_cosine < 0.9999999


def test_the_line_begins_with_where_the_encoder_ran() -> None:
    with pytest.raises(GateError, match=r"^TensorRT 10\.3 fp16: lowest cosine"):
        gate_encoder(
            lambda x: encoder(x // 3),
            probes(),
            encoder(probes()),
            "fp16",
            where="TensorRT 10.3 fp16",
        )
