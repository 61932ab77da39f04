from dataclasses import asdict, replace

import pytest

from benchmarks.matrix.encoders import CHOICES
from benchmarks.matrix.plan import (
    NUMBERS,
    PRECISIONS,
    RUNTIMES,
    Cell,
    Effort,
    Wanted,
    call_ms,
    cells,
    expected_s,
    key_of,
    pictures_for,
)
from edge_runtime.errors import InputError
from tests.benchmarks.measured_rows import MACHINE, gap, measured


def test_every_runtime_precision_and_batch_of_every_encoder_is_tried_once() -> None:
    planned = list(cells(["a", "b"], Wanted(batches=(1, 8))))
    by_hand = {
        Cell(encoder, runtime, precision, batch)
        for encoder in ("a", "b")
        for batch in (1, 8)
        for runtime in RUNTIMES
        for precision in PRECISIONS[runtime]
    }
    assert len(planned) == len(by_hand)
    assert set(planned) == by_hand


def test_a_choice_of_runtimes_and_precisions_leaves_the_rest_out() -> None:
    planned = list(cells(["a"], Wanted(["ort-cpu", "openvino"], ["int8"])))
    assert planned == [Cell("a", "ort-cpu", "int8", 1), Cell("a", "openvino", "int8", 1)]


def test_no_runtime_in_these_precisions_is_refused() -> None:
    with pytest.raises(InputError, match="none of torch-eager computes in int8"):
        list(cells(["a"], Wanted(["torch-eager"], ["int8"])))


def test_a_batch_of_no_picture_is_refused() -> None:
    with pytest.raises(InputError, match="at least 1 picture"):
        list(cells(["a"], Wanted(batches=(1, 0))))


@pytest.mark.parametrize("values", [{"seconds": 0.0}, {"least_calls": 0}, {"timeout_s": 5.0}])
def test_an_effort_that_measures_nothing_is_refused(values: dict[str, float]) -> None:
    with pytest.raises(InputError, match="at least"):
        Effort(**values)  # type: ignore[arg-type]


def test_the_encoders_and_runtimes_that_people_compare_are_in_the_plan() -> None:
    names = [choice.name for choice in CHOICES]
    assert len(names) == len(set(names)) >= 6
    assert names[0] == "convnext_base-384"
    assert "convnext_tiny-384" in names
    assert min(call_ms(choice.gmac) for choice in CHOICES) < 2
    assert {"torch-eager", "torch-compiled", "ort-cpu", "openvino", "ort-cuda"} < set(RUNTIMES)
    assert {"ort-tensorrt", "tensorrt", "tensorrt-no-graph"} < set(RUNTIMES)
    assert set(NUMBERS) == {p for precisions in PRECISIONS.values() for p in precisions}


def test_a_slower_encoder_is_judged_on_fewer_pictures_but_never_on_hardly_any() -> None:
    counts = [pictures_for(choice.gmac, 20.0) for choice in CHOICES]
    assert counts == sorted(counts)
    assert counts[0] == (12, 36)
    assert counts[-1] == (100, 300)


def test_what_needs_a_gpu_is_expected_to_say_so_at_once() -> None:
    effort = Effort()
    for runtime, precision in (("tensorrt", "fp16"), ("ort-cuda", "fp32"), ("torch-eager", "fp16")):
        cell = Cell("a", runtime, precision, 1)  # type: ignore[arg-type]
        assert expected_s(cell, 45.0, effort, on_gpu=False) < 10
        assert expected_s(cell, 45.0, effort, on_gpu=True) > effort.seconds
    on_cpu = Cell("a", "ort-cpu", "fp32", 1)
    assert expected_s(on_cpu, 45.0, effort, on_gpu=False) > effort.seconds


def test_rows_of_another_commit_or_machine_are_another_measurement() -> None:
    row = asdict(measured())
    assert key_of(row) == key_of(asdict(measured(20.0)))
    others = [
        measured(git_commit="def5678"),
        measured(machine=replace(MACHINE, cpu="Another CPU")),
        measured(run=1),
        measured(batch=8),
        measured(precision="int8"),
    ]
    assert len({key_of(row), *(key_of(asdict(other)) for other in others)}) == 6
    assert key_of(asdict(gap(runtime="ort-cpu", precision="fp32"))) == key_of(row)
