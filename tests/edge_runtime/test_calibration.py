import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from edge_runtime import calibration
from edge_runtime.artefact import sha256_of_json
from edge_runtime.calibration import CALIBRATION, BeliefStep, Calibration, Coverage
from edge_runtime.errors import IndexFolderError, InputError

COVERAGE = Coverage(flights=3, answers=3000, independent=400.0, within_68=0.68, within_95=0.95)
MADE = Calibration(
    index_id="0123456789ab",
    bundle_id="ba9876543210",
    factor=0.7,
    floor_m=0.5,
    truth="flights",
    fitted=COVERAGE,
    unseen=replace(COVERAGE, within_68=0.66),
    belief=(
        BeliefStep(ok_probability=0.9, trials=300, false=9, at_most=0.052),
        BeliefStep(ok_probability=0.99, trials=290, false=1, at_most=0.0163),
        BeliefStep(ok_probability=0.999, trials=250, false=0, at_most=0.0119),
    ),
)


def opened(folder: Path, **other: str) -> Calibration | None:
    ids = {"index_id": MADE.index_id, "bundle_id": MADE.bundle_id, **other}
    return Calibration.open(folder, **ids)


def test_what_is_saved_is_what_is_opened(tmp_path: Path) -> None:
    MADE.save(tmp_path)
    assert opened(tmp_path) == MADE
    assert [p.name for p in tmp_path.iterdir()] == [CALIBRATION], "no temporary file is left"


def test_a_new_calibration_replaces_the_old_one(tmp_path: Path) -> None:
    MADE.save(tmp_path)
    replace(MADE, factor=1.2, unseen=None).save(tmp_path)
    assert opened(tmp_path) == replace(MADE, factor=1.2, unseen=None)


def test_an_index_without_one_has_none(tmp_path: Path) -> None:
    assert opened(tmp_path) is None


def test_a_larger_stated_error_never_becomes_a_smaller_one() -> None:
    ephs = [MADE.eph_m(0.1 * k) for k in range(500)]
    assert ephs == sorted(ephs)
    assert min(ephs) >= MADE.floor_m


def test_floor_and_factor_add_as_independent_errors() -> None:
    assert MADE.eph_m(0.0) == 0.5
    assert MADE.eph_m(2.0) == pytest.approx(math.sqrt(0.5**2 + 1.4**2))


@pytest.mark.parametrize("stated_m", [0.3, 1.8, 25.0])
def test_the_inverse_gives_back_what_was_stated(stated_m: float) -> None:
    assert MADE.stated_m(MADE.eph_m(stated_m)) == pytest.approx(stated_m)


def test_the_lowest_threshold_that_proves_the_rate_is_taken() -> None:
    found = MADE.ok_probability(0.02)
    assert (found.ok_probability, found.at_most, found.proven) == (0.99, 0.0163, True)


def test_a_rate_that_the_flights_cannot_prove_is_said_to_be_unproven() -> None:
    found = MADE.ok_probability(0.0001)
    assert (found.ok_probability, found.at_most, found.proven) == (0.999, 0.0119, False)


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, math.nan])
def test_a_rate_that_is_no_share_is_refused(rate: float) -> None:
    with pytest.raises(InputError, match="expected a share between 0 and 1"):
        MADE.ok_probability(rate)


def test_without_beliefs_there_is_no_threshold() -> None:
    with pytest.raises(InputError, match="python -m benchmarks calibrate"):
        replace(MADE, belief=()).ok_probability(0.01)


@pytest.mark.parametrize("other", [{"index_id": "ffffffffffff"}, {"bundle_id": "ffffffffffff"}])
def test_a_calibration_of_something_else_is_refused(tmp_path: Path, other: dict[str, str]) -> None:
    MADE.save(tmp_path)
    (name,) = other
    with pytest.raises(
        IndexFolderError, match=rf"has {name} '.*', expected 'ffffffffffff'.*remove"
    ):
        opened(tmp_path, **other)


def test_a_calibration_of_another_error_model_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    MADE.save(tmp_path)
    monkeypatch.setattr(calibration, "ERROR_MODEL", calibration.ERROR_MODEL + 1)
    with pytest.raises(IndexFolderError, match="has error_model 1, expected 2"):
        opened(tmp_path)


def test_an_altered_calibration_is_refused(tmp_path: Path) -> None:
    path = MADE.save(tmp_path)
    path.write_text(path.read_text().replace('"factor": 0.7', '"factor": 0.1'))
    with pytest.raises(IndexFolderError, match=r"has digest \w{12}, it says \w{12}.*calibrate"):
        opened(tmp_path)


@pytest.mark.parametrize("text", ["", "[1]", '{"factor": 1}', "\N{SNOWMAN}"])
def test_what_is_no_calibration_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / CALIBRATION).write_text(text, encoding="utf-8")
    with pytest.raises(IndexFolderError, match="calibration"):
        opened(tmp_path)


def test_a_well_sealed_file_of_other_fields_is_refused(tmp_path: Path) -> None:
    path = MADE.save(tmp_path)
    body = json.loads(path.read_text())
    del body["sha256"], body["fitted"]
    path.write_text(json.dumps({**body, "sha256": sha256_of_json(body)}))
    with pytest.raises(IndexFolderError, match="is not a calibration"):
        opened(tmp_path)


@pytest.mark.parametrize(
    "wrong", [{"factor": 0.0}, {"factor": math.nan}, {"floor_m": -1.0}, {"floor_m": math.inf}]
)
def test_numbers_that_make_no_map_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match="expected a factor"):
        replace(MADE, **wrong)  # type: ignore[arg-type]


def test_thresholds_out_of_order_are_refused() -> None:
    with pytest.raises(InputError, match="ascending"):
        replace(MADE, belief=MADE.belief[::-1])
