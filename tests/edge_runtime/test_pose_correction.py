"""Slow errors of heading and height are learned from matches, and forgotten with the track."""

import json

import pytest

from edge_runtime.pose_correction import PoseCorrection


def taught(yaw_deg: float = 6.0, scale: float = 0.95, matches: int = 10) -> PoseCorrection:
    correction = PoseCorrection(5.0, 0.04)
    for _ in range(matches):
        correction.predict(0.5)
        # What a match shows is what the correction so far has left.
        correction.learn(yaw_deg - correction.yaw_deg, scale / correction.scale)
    return correction


def test_nothing_is_corrected_before_a_match() -> None:
    correction = PoseCorrection(5.0, 0.04)
    assert (correction.yaw_deg, correction.scale, correction.known) == (0.0, 1.0, False)


def test_a_constant_error_is_learned() -> None:
    correction = taught()
    assert correction.yaw_deg == pytest.approx(6.0, abs=0.3)
    assert correction.scale == pytest.approx(0.95, abs=0.005)
    assert correction.known


def test_what_was_learned_grows_old_but_never_worse_than_the_sensor() -> None:
    correction = taught()
    correction.predict(10.0)
    assert not correction.known
    correction.predict(1e6)
    assert correction.yaw_sigma_deg == pytest.approx(5.0)
    assert correction.scale_sigma == pytest.approx(0.04)


def test_one_wrong_match_moves_a_well_known_correction_little() -> None:
    correction = taught(matches=40)
    correction.learn(8.0, 1.0)
    assert correction.yaw_deg == pytest.approx(6.0, abs=4.0)


def test_what_is_forgotten_is_as_at_the_start() -> None:
    correction = taught()
    correction.forget()
    assert (correction.yaw_deg, correction.scale, correction.yaw_sigma_deg) == (0.0, 1.0, 5.0)


def test_a_snapshot_goes_through_json_unchanged() -> None:
    correction, other = taught(), PoseCorrection(5.0, 0.04)
    other.restore(json.loads(json.dumps(correction.snapshot())))
    assert other.snapshot() == correction.snapshot()
