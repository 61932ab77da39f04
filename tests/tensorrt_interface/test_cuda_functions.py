from pathlib import Path

import pytest

from tests.tensorrt_interface.cuda_functions import driver_calls, unfitting

RUNTIME = Path(__file__).parents[2] / "edge_runtime"


def test_every_function_of_the_cuda_driver_that_the_runtime_calls_exists() -> None:
    calls = 0
    for path in sorted(RUNTIME.rglob("*.py")):
        source = path.read_text()
        assert unfitting(source) == [], path.name
        calls += len(driver_calls(source))
    assert calls >= 10


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        pytest.param("driver.cuGraphInstantiat(a, b, 0)", "has no cuGraphInstantiat", id="typo"),
        pytest.param(
            "driver.cuStreamBeginCapture(s, 1)", "has no cuStreamBeginCapture", id="renamed"
        ),
        pytest.param("driver.cuInit()", "cuInit takes ['unsigned int Flags'], 0", id="too few"),
        pytest.param('checked(driver, "cuDeviceGet", a, 0, 1)', "cuDeviceGet takes", id="too many"),
    ],
)
def test_a_planted_mistake_is_found(code: str, expected: str) -> None:
    (found,) = unfitting(code)
    assert expected in found


def test_calls_that_fit_are_left_alone() -> None:
    assert unfitting('driver.cuInit(0)\nchecked(driver, "cuDeviceGet", handle, 0)') == []
